"""Beam's local runner in Python, in this process or in several of gdo's own making."""

import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.worker import sdk_worker
from apache_beam.transforms import environments

_NEVER_MS = 10**9


def direct_runner(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """The runner; the switch that Beam has in front of it would fetch another one from the network."""
    direct = options.view_as(DirectOptions)
    environment = None
    if direct.direct_running_mode == "multi_processing":
        command = f"exec {sys.executable} -m gdo.runners.beam_harness"
        environment = environments.SubprocessSDKEnvironment.from_command_string(command)
    elif direct.direct_running_mode == "multi_threading":
        # Beam would flush what is written every second, also in the middle of an element.
        environment = environments.EmbeddedPythonGrpcEnvironment(data_buffer_time_limit_ms=_NEVER_MS)
    if environment is not None:
        direct.direct_running_mode = "in_memory"  # else Beam would take an environment of its own
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return fn_runner.FnApiRunner(environment, provision_info=info)


@contextmanager
def quiet() -> Iterator[None]:
    """Beam's own chatter is for its log, not for the user's terminal."""
    logger = logging.getLogger("apache_beam")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    sdk_worker.print = lambda *_, **__: None  # it prints the traceback of what is raised here as well
    try:
        yield
    finally:
        del sdk_worker.print
        logger.setLevel(before)


_BEAMS_OWN = ("run_worker", "beam_control_read", "read_grpc_client_inputs")
"""The threads by which Beam's local runner talks to its processes; they end badly when a process does."""


class Losses:
    """The worker processes that ended before their work."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __str__(self) -> str:
        return "; ".join(self.told)


@contextmanager
def watched(lost: Callable[[], None]) -> Iterator[Losses]:
    """See worker processes end too early; `lost` is called for the first one, so that the others stop soon."""
    losses = Losses()
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread is not None else ""
        if not name.startswith(_BEAMS_OWN):
            before(args)
            return
        code = re.search(r"return code (-?\d+)", str(args.exc_value))
        if code:
            how = f"was killed by signal {-int(code[1])}" if int(code[1]) < 0 else f"ended with status {code[1]}"
            losses.told.append(f"a worker process {how}")
            if len(losses.told) == 1:
                threading.Thread(target=lost, name="gdo-lost", daemon=True).start()

    threading.excepthook = hook
    try:
        yield losses
    finally:
        threading.excepthook = before
