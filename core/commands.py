"""What each command does."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from gdo import api
from gdo.errors import Faults


def _pipeline(options: argparse.Namespace) -> api.Pipeline:
    given = {}
    for pair in options.set:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Faults.one("--set", f"'{pair}' is not KEY=VALUE")
        given[key] = value
    return api.load(options.pipeline, given)


def run(options: argparse.Namespace) -> int:
    """`gdo run`."""
    from gdo.progress import Progress, summary

    pipeline = _pipeline(options)
    started = time.monotonic()
    shown: list[Progress] = []

    def tell(text: str) -> None:
        if not options.quiet:
            print(text, file=sys.stderr, flush=True)

    with contextlib.ExitStack() as stack:

        def begin(run: api.Run, stop: Callable[[], None]) -> None:
            shown.append(Progress(run.plan, run.ledger, quiet=options.quiet))
            stack.enter_context(shown[0].shown())
            stack.enter_context(_interrupts(run, stop, tell))

        done = pipeline.run(
            api.Options(
                runner=options.runner, limit=options.limit, cache=not options.no_cache, out=options.out,
                max_calls=options.max_calls, max_tokens=options.max_tokens,
            ),
            api.Watch(tell, begin),
        )  # fmt: skip
    tell(summary(done.plan, done.ledger, time.monotonic() - started))
    errors = sum(count.errors for count in done.ledger.steps.values())
    places = [str(done.plan.folder / sink.sink.text()) for sink in done.plan.sinks]
    tell(f"output: {', '.join(places)}")
    place = f" in {done.folder / 'errors.parquet'}" if errors else ""
    tell(f"errors: {errors:,}{place}")
    for (step, reason), (count, detail) in done.ledger.reasons.items():
        tell(f"  {step}: {count:,} x {reason}: {pipeline.spec.document.hide(detail)[:200]}")
    for place in places:
        print(place)
    return 0


@contextlib.contextmanager
def _interrupts(run: api.Run, stop: Callable[[], None], tell: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C lets what is in flight finish, the second leaves at once; both keep what is stored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def leave(*_: object) -> None:
        tell("left at once; replies that were stored are kept, and the same command goes on from there")
        for part in run.leftovers():
            part.unlink(missing_ok=True)
        os._exit(1)

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, leave)
        tell("stopping: waiting for the calls in flight; press Ctrl-C again to leave at once")
        stop()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check(options: argparse.Namespace) -> int:
    """`gdo check`."""
    pipeline = _pipeline(options)
    pipeline.check()
    print(f"{options.pipeline}: no fault in {len(pipeline.spec.steps)} steps", file=sys.stderr)
    return 0


def plan(options: argparse.Namespace) -> int:
    """`gdo plan`."""
    pipeline = _pipeline(options)
    before, after = (pipeline.spec.document.hide(pipeline.plan(rewritten=again).text()) for again in (False, True))
    print("# as written", before, sep="\n")
    print("\n# as run" if before != after else "\n# runs as written", *([after] if before != after else []), sep="\n")
    if options.estimate:
        from gdo.estimate import estimate

        print("\n# estimate", *(str(line) for line in estimate(pipeline.plan())), sep="\n")
    return 0


def list_(options: argparse.Namespace) -> int:
    """`gdo list`."""
    from gdo import listing

    api.register_wings()
    for name, about in getattr(listing, options.what)():
        print(f"{name:<22} {about}")
    return 0


def test(options: argparse.Namespace) -> int:
    """`gdo test`."""
    from gdo.udptest import report, run_tests

    api.register_wings()
    models = dict(api.load(options.pipeline).spec.models) if options.pipeline else {}
    results = run_tests(options.udps, options.model, models, lambda text: print(text, file=sys.stderr))
    print(report(results))
    return 0 if all(result.passed for result in results) else 1


def init(options: argparse.Namespace) -> int:
    """`gdo init`."""
    from gdo.project import make_project

    for path in make_project(options.folder):
        print(path)
    print(f"next: gdo run {options.folder / 'pipeline.yaml'}", file=sys.stderr)
    return 0


def pull(options: argparse.Namespace) -> int:
    """`gdo pull`."""
    from gdo import weights

    print(weights.pull(options.model, lambda text: print(text, file=sys.stderr, flush=True)))
    return 0


def schema(options: argparse.Namespace) -> int:
    """`gdo schema`."""
    import json

    from gdo.fileschema import pipeline_schema

    del options
    api.register_wings()
    print(json.dumps(pipeline_schema(), indent=2))
    return 0
