"""The command line. One of the two places that know all wings; imports nothing heavy before it is needed."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gdo import __version__
from gdo.errors import Faults, GdoError

RUNNERS = ("duckdb",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 the run failed or a budget stopped it, 2 the file or usage is wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    given, runner_options = _split(given)
    options = _parser().parse_args(given)
    if options.command is None:
        _parser().print_help()
        return 0
    try:
        if runner_options:
            raise Faults.one("--", f"the duckdb runner takes no options: {' '.join(runner_options)}")
        from gdo import commands

        work = commands.list_ if options.command == "list" else getattr(commands, options.command)
        return int(work(options))
    except GdoError as error:
        for line in str(error).splitlines():
            print(line, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in given:
        return given, []
    place = given.index("--")
    return given[:place], given[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gdo", description="User-defined prompts over tables.")
    parser.add_argument("--version", action="version", version=f"gdo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    run = _with_file(commands.add_parser("run", help="run a pipeline"))
    run.add_argument("--runner", choices=RUNNERS, default="duckdb", help="where it runs")
    run.add_argument("--limit", type=_natural, metavar="N", help="read only the first N rows of each source")
    run.add_argument("--out", type=Path, metavar="PATH", help="write here instead of the file's sink")
    run.add_argument("--no-cache", action="store_true", help="neither read nor keep replies")
    run.add_argument("--max-calls", type=_natural, metavar="N", help="stop after N calls to a model")
    run.add_argument("--max-tokens", type=_natural, metavar="N", help="stop after N tokens")
    run.add_argument("--quiet", action="store_true", help="say nothing but errors")

    _with_file(commands.add_parser("check", help="find every fault of a pipeline file"))
    plan = _with_file(commands.add_parser("plan", help="show the plan, before and after the rewrites"))
    plan.add_argument("--estimate", action="store_true", help="count the calls and estimate the tokens of a run")

    listing = commands.add_parser("list", help="list what there is")
    listing.add_argument("what", choices=("operators", "udps", "models", "backends"))

    test = commands.add_parser("test", help="run a UDP's own tests against a model")
    test.add_argument("udps", nargs="+", metavar="UDP", help="a UDP's file, or the name of a shipped one")
    test.add_argument("--model", default="local", help="a backend, or a path to a GGUF file (default: local)")
    test.add_argument("--pipeline", type=Path, metavar="FILE", help="take the model from this file's models:")

    init = commands.add_parser("init", help="make a small working project")
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER")

    pull = commands.add_parser("pull", help="fetch a bundled model's weights now")
    pull.add_argument("model", metavar="MODEL", nargs="?", default="smollm2-135m")

    commands.add_parser("schema", help="print the JSON Schema of a pipeline file")
    return parser


def _with_file(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value for ${var:KEY}")
    return parser


def _natural(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
