"""What each command does."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from gdo import api
from gdo.errors import Faults, RunFailed
from gdo.runfolder import remove
from gdo.stored import whereabouts


def _pipeline(options: argparse.Namespace) -> api.Pipeline:
    return api.load(options.pipeline, _pairs("--set", options.set))


def _pairs(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """What an option says that is given as KEY=VALUE, any number of times."""
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Faults.one(option, f"'{pair}' is not KEY=VALUE")
        given[key] = value
    return given


def run(options: argparse.Namespace) -> int:
    """`gdo run`."""
    from gdo.progress import summary

    pipeline = _pipeline(options)
    started = time.monotonic()
    begun: list[api.Run] = []

    def tell(text: str) -> None:
        if not options.quiet:
            print(text, file=sys.stderr, flush=True)

    chosen = api.Options(
        runner=options.runner, limit=options.limit, cache=not options.no_cache, out=options.out,
        max_calls=options.max_calls, max_tokens=options.max_tokens, runner_options=tuple(options.runner_options),
    )  # fmt: skip
    try:
        with _watched(begun, tell, quiet=options.quiet) as watch:
            done = pipeline.run(chosen, watch)
    except RunFailed:
        for one in begun:  # how far it came
            tell(summary(one.plan, one.ledger, time.monotonic() - started, word="ended"))
        raise
    tell(summary(done.plan, done.ledger, time.monotonic() - started))
    return _told(done, pipeline, tell)


@contextlib.contextmanager
def _watched(begun: list[api.Run], tell: Callable[[str], None], *, quiet: bool) -> Iterator[api.Watch]:
    """Shows progress of what runs within, and lets Ctrl-C stop it; `begun` gets the run."""
    from gdo.progress import Progress

    with contextlib.ExitStack() as stack:

        def begin(run: api.Run, stop: Callable[[], None]) -> None:
            begun.append(run)
            steps = {node.id: len(node.op.prompts()) for node in run.plan.nodes}
            stack.enter_context(Progress(steps, run.ledger, quiet=quiet).shown())
            stack.enter_context(_interrupts(run, stop, tell))

        yield api.Watch(tell, begin)


def _told(done: api.Run, pipeline: api.Pipeline, tell: Callable[[str], None]) -> int:
    """Where the rows and the errors of a run lie; its exit status."""
    errors = sum(count.errors for count in done.ledger.steps.values())
    places = [whereabouts(sink.sink, done.plan.folder) for sink in done.plan.sinks]
    tell(f"output: {', '.join(places)}")
    place = f" in {done.folder / 'errors.parquet'}" if errors else ""
    asked = {node.id: len(node.op.prompts()) for node in done.plan.nodes}
    for name, total in done.ledger.steps.items():
        lost = total.errors
        if asked.get(name, 0) > 1:  # a voter that fails leaves the row to the others
            lost, _ = done.ledger.reasons.get((name, "no_votes"), (0, ""))
        if lost and lost >= total.rows_in:
            tell(f"warning: step '{name}' answered none of its {total.rows_in:,} rows")
    for step, lines in done.ledger.learned.items():
        tell("\n".join([f"learned in {step}:", *(f"  {line}" for line in lines)]))
    tell(f"errors: {errors:,}{place}")
    for (step, reason), (count, detail) in done.ledger.reasons.items():
        tell(f"  {step}: {count:,} x {reason}: {pipeline.spec.document.hide(detail)[:200]}")
    for place in places:
        print(place)
    return 0


@contextlib.contextmanager
def _interrupts(run: api.Run, stop: Callable[[], None], tell: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C, or a SIGTERM, lets what is in flight finish, the second leaves at once; both keep what is stored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {word: signal.getsignal(word) for word in (signal.SIGINT, signal.SIGTERM)}

    def leave(*_: object) -> None:
        tell("left at once; replies that were stored are kept, and the same command goes on from there")
        for part in run.leftovers():
            remove(part)
        os._exit(1)

    def interrupted(*_: object) -> None:
        for word in before:
            signal.signal(word, leave)
        tell("stopping: waiting for the calls in flight; press Ctrl-C again to leave at once")
        stop()

    for word in before:
        signal.signal(word, interrupted)
    try:
        yield
    finally:
        for word, handler in before.items():
            signal.signal(word, handler)


def check(options: argparse.Namespace) -> int:
    """`gdo check`."""
    pipeline = _pipeline(options)
    pipeline.check(options.runner)
    steps = len(pipeline.spec.steps)
    print(f"{options.pipeline}: no fault in {steps} {'step' if steps == 1 else 'steps'}", file=sys.stderr)
    return 0


def plan(options: argparse.Namespace) -> int:
    """`gdo plan`."""
    pipeline = _pipeline(options)
    before, after = (pipeline.spec.document.hide(pipeline.plan(rewritten=again).text()) for again in (False, True))
    print("# as written", before, sep="\n")
    print("\n# as run" if before != after else "\n# runs as written", *([after] if before != after else []), sep="\n")
    if options.estimate:
        from gdo.estimate import estimate

        lines = (str(line) for line in estimate(pipeline.plan(limit=options.limit)))
        print("\n# estimate, nothing cached", *lines, sep="\n")
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


def sql(options: argparse.Namespace) -> int:
    """`gdo sql`."""
    from gdo.sqlcommand import sql as work

    return work(options)


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


def cache(options: argparse.Namespace) -> int:
    """`gdo cache`."""
    from gdo import cachecare

    path = cachecare.find_cache(options.place)
    named = (options.older_than, options.model, options.step)
    if options.prune and not any(named):
        raise Faults.one("--prune", "needs --older-than, --model or --step", f"to remove all, delete {path}")
    if any(named) and not options.prune:
        raise Faults.one("--older-than, --model, --step", "say what --prune removes", "add --prune")
    if options.prune:
        age = cachecare.seconds(options.older_than) if options.older_than else None
        removed = cachecare.prune(path, older_than_s=age, model=options.model, step=options.step)
        print(f"{removed:,} replies removed", file=sys.stderr)
    faults: list[str] = []
    if options.verify:
        whole, faults = cachecare.verify(path)
        print(f"{whole:,} replies are whole, {len(faults):,} faults", *faults[:20], sep="\n", file=sys.stderr)
    if not faults:
        print(cachecare.table(cachecare.parts(path)))
    print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB", file=sys.stderr)
    return 1 if faults else 0


def evaluate(options: argparse.Namespace) -> int:
    """`gdo eval`."""
    from gdo.evaluation import evaluate as measure

    renamed = _pairs("--column", options.column)
    pipeline = _pipeline(options)

    def tell(text: str) -> None:
        if not options.quiet:
            print(text, file=sys.stderr, flush=True)

    chosen = api.Options(cache=not options.no_cache, max_calls=options.max_calls, max_tokens=options.max_tokens)
    with _watched([], tell, quiet=options.quiet) as watch:
        found = measure(pipeline, options.gold, options.key, renamed, chosen, watch)
    print(found.to_json() if options.format == "json" else found.table())
    for note in found.notes:
        tell(note)
    return 0


def show(options: argparse.Namespace) -> int:
    """`gdo show`."""
    from gdo.voting.show import shown
    from gdo.voting.state import State

    try:
        print(shown(State.from_json(options.file.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        raise Faults.one(str(options.file), f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except ValueError as error:
        raise Faults.one(str(options.file), str(error), "give a file that `save:` wrote") from None
    return 0


def schema(options: argparse.Namespace) -> int:
    """`gdo schema`."""
    import json

    from gdo.fileschema import pipeline_schema

    del options
    api.register_wings()
    print(json.dumps(pipeline_schema(), indent=2))
    return 0
