"""The command line. One of the two places that know all wings; imports nothing heavy before it is needed."""

import argparse
import atexit
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from gdo import __version__
from gdo.errors import Faults, GdoError, nearest

RUNNERS = ("duckdb", "beam")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 the run failed or a budget stopped it, 2 the file or usage is wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    given, runner_options = _split(given)
    options = _parser().parse_args(given)
    options.runner_options = runner_options
    if options.command is None:
        _parser().print_help()
        return 0
    try:
        if runner_options and getattr(options, "runner", "") != "beam":
            raise Faults.one("--", f"the duckdb runner takes no options: {' '.join(runner_options)}")
        from gdo.no_pandas import put_off_pandas

        put_off_pandas()
        from gdo import commands

        named = {"list": "list_", "eval": "evaluate"}
        work = getattr(commands, named.get(options.command, options.command))
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


def script() -> NoReturn:
    """`main` as a process, which is left when all is said: to take apart what is loaded would cost a tenth of a second.

    What others registered for the end of the process is done before.
    """
    status: object = 1

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(status if isinstance(status, int) else 1)

    atexit.register(leave)  # the first to be registered is the last to be called
    try:
        status = main()
    except SystemExit as left:
        status = left.code or 0
        raise
    sys.exit(status)


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in given:
        return given, []
    place = given.index("--")
    return given[:place], given[place + 1 :]


class _Parser(argparse.ArgumentParser):
    """Names the option that may be meant."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave with 2."""
        _, unknown, words = message.partition("unrecognized arguments: ")
        known = [option for action in self._known() for option in action.option_strings]
        word = words.split("=")[0].split(" ")[0]
        hint = f" ({nearest(word, known)})" if unknown and word.startswith("--") else ""
        super().error(message + hint)

    def _known(self) -> list[argparse.Action]:
        # The top parser complains of what a command's parser did not know.
        within = [action.choices or {} for action in self._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001 (argparse tells them by no other name)
        inner = [action for parsers in within for parser in parsers.values() for action in parser._actions]  # noqa: SLF001
        return [*self._actions, *inner]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gdo", description="User-defined prompts over tables.")
    parser.add_argument("--version", action="version", version=f"gdo {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    run = _with_file(commands.add_parser("run", help="run a pipeline"))
    run.add_argument("--runner", choices=RUNNERS, default="duckdb", help="where it runs; its own options follow --")
    run.add_argument("--limit", type=_natural, metavar="N", help="read only the first N rows of each source")
    run.add_argument("--out", metavar="PATH", help="write here instead of the file's sink")
    _budget(run)

    check = _with_file(commands.add_parser("check", help="find every fault of a pipeline file"))
    check.add_argument("--runner", choices=RUNNERS, default="duckdb", help="also what this runner cannot do")
    plan = _with_file(commands.add_parser("plan", help="show the plan, before and after the rewrites"))
    plan.add_argument("--estimate", action="store_true", help="count the calls and estimate the tokens of a run")
    plan.add_argument("--limit", type=_natural, metavar="N", help="estimate the first N rows of each source")

    measure = _with_file(
        commands.add_parser("eval", help="measure a pipeline, and each voter of its ensembles, on gold rows")
    )
    measure.add_argument("--gold", type=Path, required=True, metavar="FILE", help="rows whose right answer is known")
    measure.add_argument(
        "--key", metavar="COLUMN", help="the column that both tables have (default: the ensemble's own)"
    )
    measure.add_argument(
        "--column", action="append", default=[], metavar="NAME=COLUMN", help="right answers under another name"
    )
    measure.add_argument("--format", choices=("table", "json"), default="table", help="how the scores are printed")
    _budget(measure)

    _other_commands(commands)
    return parser


def _other_commands(commands: "argparse._SubParsersAction[_Parser]") -> None:
    """The commands that run no pipeline."""
    listing = commands.add_parser("list", help="list what there is")
    listing.add_argument("what", choices=("operators", "udps", "models", "backends"))

    _sql(commands.add_parser("sql", help="run a SQL query whose functions are prompts"))

    test = commands.add_parser("test", help="run a UDP's own tests against a model")
    test.add_argument("udps", nargs="+", metavar="UDP", help="a UDP's file, or the name of a shipped one")
    test.add_argument("--model", default="local", help="a backend, or a path to a GGUF file (default: local)")
    test.add_argument("--pipeline", type=Path, metavar="FILE", help="take the model from this file's models:")

    init = commands.add_parser("init", help="make a small working project")
    init.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER")

    pull = commands.add_parser("pull", help="fetch a bundled model's weights now")
    pull.add_argument("model", metavar="MODEL", nargs="?", default="smollm2-135m")

    cache = commands.add_parser("cache", help="what the cache of a pipeline holds; remove or verify replies")
    cache.add_argument(
        "place", nargs="?", type=Path, default=Path(), metavar="PLACE", help="a pipeline file or its folder"
    )
    cache.add_argument("--prune", action="store_true", help="remove the replies that the options below name")
    cache.add_argument("--older-than", metavar="AGE", help="an age such as 30d, 12h or 2w")
    cache.add_argument("--model", metavar="MODEL", help="a model as the list names it, or a piece of that name")
    cache.add_argument("--step", metavar="STEP", help="a step")
    cache.add_argument("--verify", action="store_true", help="read every reply, and say what is damaged")

    show = commands.add_parser("show", help="what an ensemble learned")
    show.add_argument("file", type=Path, metavar="FILE", help="what `save:` wrote, or <step>.json of a run folder")

    commands.add_parser("schema", help="print the JSON Schema of a pipeline file")


def _budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-cache", action="store_true", help="neither read nor keep replies")
    parser.add_argument("--max-calls", type=_count, metavar="N", help="stop after N calls to a model")
    parser.add_argument("--max-tokens", type=_count, metavar="N", help="stop after N tokens")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _sql(sql: argparse.ArgumentParser) -> None:
    sql.add_argument("query", nargs="?", metavar="QUERY", help="a SELECT; from standard input where it is left out")
    sql.add_argument("--db", type=Path, metavar="FILE", help="a DuckDB database, opened to read")
    sql.add_argument(
        "--udps",
        action="append",
        metavar="PLACE",
        help="a folder of UDPs, a file or a name (default: udps/, if it is there)",
    )
    sql.add_argument("--model", metavar="MODEL", help="a backend, a path to a GGUF file, or a model of --pipeline")
    sql.add_argument("--pipeline", type=Path, metavar="FILE", help="take the models from this file's models:")
    sql.add_argument("--format", choices=("table", "csv", "json", "parquet"), help="of the rows (default: table)")
    sql.add_argument("--out", type=Path, metavar="PATH", help="write the rows here")
    sql.add_argument("--explain", action="store_true", help="say what would be asked, in which order, and ask nothing")
    sql.add_argument(
        "--on-error", choices=("keep", "fail"), default="keep", help="null and a row of errors, or the end"
    )
    _budget(sql)


def _with_file(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value for ${var:KEY}")
    return parser


def _natural(text: str, least: int = 1) -> int:
    number = int(text) if text.isdigit() else -1
    if number < least:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of {least} or more")
    return number


def _count(text: str) -> int:
    return _natural(text, least=0)


if __name__ == "__main__":
    script()
