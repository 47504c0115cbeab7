"""Beam's own options, as they stand behind `--` on the command line."""

import contextlib
import io
import logging
from collections.abc import Sequence

from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.runners.runner import create_runner

from gdo.errors import Faults, nearest

LOCAL = (None, "DirectRunner", "FnApiRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner")


REACH_S = 10.0
"""How long a job server may take to answer the first time."""


def read_options(given: Sequence[str]) -> PipelineOptions:
    """Beam's options.

    Raises:
        Faults: Beam knows none of that name, or no such runner, or it is told wrong.
    """
    options, said = _parsed(given)
    if any("data_buffer_time_limit_ms" in word for word in options.view_as(DebugOptions).experiments or ()):
        raise Faults.one("--", "data_buffer_time_limit_ms may cut an element in two", "leave this experiment out")
    runner = options.view_as(StandardOptions).runner
    unknown = next((text for text in said if "unparseable" in text), "")
    if unknown and runner in LOCAL:
        raise Faults.one(
            "--", f"Beam has no such option: {unknown.partition(': ')[2].strip('[]')}", "see the runner's page of Beam"
        )
    if runner not in LOCAL:
        _check_runner(runner)
    elif options.view_as(DirectOptions).direct_num_workers < 0:
        raise Faults.one("--", "--direct_num_workers is a number of workers", "0 for one a core")
    return options


def _parsed(given: Sequence[str]) -> tuple[PipelineOptions, list[str]]:
    """Beam's options, and what Beam warned of while it read them."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("apache_beam.options.pipeline_options")
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):
            options = PipelineOptions(list(given))
            options.get_all_options(drop_default=True)
    except SystemExit:
        # Beam prints all that it knows, and what is wrong in the last line.
        _, _, wrong = usage.getvalue().rpartition("error: ")
        raise Faults.one("--", f"Beam does not understand: {wrong.strip() or ' '.join(given)}") from None
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
    return options, said


def _check_runner(name: str) -> None:
    try:
        create_runner(name)
    except ValueError:
        raise Faults.one(
            "--", f"Beam has no runner '{name}'", nearest(name, StandardOptions.KNOWN_RUNNER_NAMES)
        ) from None
    except (ImportError, AttributeError) as error:
        raise Faults.one("--", f"the runner '{name}' cannot be used here: {error}") from None


def check_endpoint(options: PipelineOptions) -> None:
    """Refuse a job server that is not there: Beam would wait for it for minutes.

    Raises:
        Faults: it does not answer.
    """
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint or endpoint == "embed":
        return
    import grpc

    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=REACH_S)
        except grpc.FutureTimeoutError:
            what = f"no job server answers at '{endpoint}'"
            raise Faults.one("--", what, f"is it running? it was waited for {REACH_S:.0f} s") from None


def check_threads(options: PipelineOptions) -> None:
    """Refuse the mode in which Beam's own local runner flushes what is written in the middle of an element.

    Raises:
        Faults: it is asked for.
    """
    if options.view_as(DirectOptions).direct_running_mode == "multi_threading":
        hint = "take in_memory or multi_processing; with `gdo run` it is safe"
        raise Faults.one("gdo.beam", "--direct_running_mode=multi_threading may cut an element in two", hint)
