"""Beam's own options, as they stand behind `--` on the command line."""

import logging
from collections.abc import Sequence

from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, PipelineOptions, StandardOptions

from gdo.errors import Faults

LOCAL = (None, "DirectRunner", "FnApiRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner")


def read_options(given: Sequence[str]) -> PipelineOptions:
    """Beam's options.

    Raises:
        Faults: Beam knows none of that name, or it is told wrong.
    """
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("apache_beam.options.pipeline_options")
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    try:
        options = PipelineOptions(list(given))
        options.get_all_options(drop_default=True)
    except SystemExit:
        raise Faults.one("--", f"Beam does not understand: {' '.join(given)}") from None
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
    if any("data_buffer_time_limit_ms" in word for word in options.view_as(DebugOptions).experiments or ()):
        raise Faults.one("--", "data_buffer_time_limit_ms may cut an element in two", "leave this experiment out")
    unknown = next((text for text in said if "unparseable" in text), "")
    if unknown and options.view_as(StandardOptions).runner in LOCAL:
        raise Faults.one(
            "--", f"Beam has no such option: {unknown.partition(': ')[2].strip('[]')}", "see the runner's page of Beam"
        )
    return options


def check_threads(options: PipelineOptions) -> None:
    """Refuse the mode in which Beam's own local runner flushes what is written in the middle of an element.

    Raises:
        Faults: it is asked for.
    """
    if options.view_as(DirectOptions).direct_running_mode == "multi_threading":
        hint = "take in_memory or multi_processing; with `gdo run` it is safe"
        raise Faults.one("gdo.beam", "--direct_running_mode=multi_threading may cut an element in two", hint)
