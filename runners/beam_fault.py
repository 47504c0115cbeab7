"""Errors on their way from a worker: whatever a runner makes of an exception, gdo's own words arrive whole."""

import base64
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

from gdo.errors import Faults, GdoError, RunFailed

_MARK = re.compile(r"gdo-fault:([A-Za-z0-9+/=]+):")


class WorkerFault(RuntimeError):
    """An error of gdo's on a worker, written so that it outlives the text that a runner makes of it."""


@contextmanager
def told(*, launched: bool = True) -> Iterator[None]:
    """Turn gdo's own errors into a `WorkerFault`, which only gdo's launcher reads; without one they stay what they are."""
    try:
        yield
    except GdoError as error:
        if not launched:
            # Beam makes an error again from its text, which a list of findings does not stand.
            raise (RunFailed(str(error)) if isinstance(error, Faults) else error) from None
        packed = base64.b64encode(pickle.dumps(error)).decode()
        raise WorkerFault(f"{error} [gdo-fault:{packed}:]") from None


def fault_of(error: BaseException, runner: str) -> GdoError:
    """The error that a failed pipeline means: gdo's own where one is found in it."""
    seen: list[str] = []
    link: BaseException | None = error
    while link is not None:
        found = _MARK.search(str(link))
        if found:
            fault = pickle.loads(base64.b64decode(found[1]))  # noqa: S301 (written by `told` in a worker of this run)
            if isinstance(fault, GdoError):
                return fault
        seen.append(str(link))
        link = link.__cause__ or link.__context__
    lines = [line for line in seen[0].strip().splitlines() if line.strip()] or [type(error).__name__]
    # A traceback ends with what was raised; anything else begins with it.
    said = lines[-1] if "Traceback" in seen[0] else lines[0]
    kind = type(error).__name__
    details = getattr(error, "details", None)  # of gRPC, which says more in there than in its text
    if callable(details) and details():
        said = str(details())
    words = kind if said.strip() == kind else f"{kind}: {said.strip()[:500]}"
    return RunFailed(f"{runner}: {words}")
