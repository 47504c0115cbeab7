"""`gdo test`: a UDP's golden rows, asked of a real model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gdo.ask import ROW, Policy
from gdo.backend import Backend
from gdo.desk import Desk
from gdo.errors import Faults, Finding
from gdo.ledger import Failure, Ledger, Unrecorded
from gdo.prompt import Udp
from gdo.tables import placed
from gdo.udp import find_udp, load_udp


@dataclass(frozen=True, slots=True)
class Result:
    """One golden row: what was wanted, what was said."""

    udp: str
    number: int
    wanted: object
    said: object
    passed: bool


class _Latest(Unrecorded):
    """Keeps the last failures, writes nothing down."""

    def __init__(self) -> None:
        self.failures: dict[int, Failure] = {}

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Keep them."""
        self.failures |= dict(failures)


def run_tests(
    words: Sequence[str], model: str, models: Mapping[str, Backend], tell: Callable[[str], None]
) -> list[Result]:
    """Ask each UDP's tests of a model; nothing is cached.

    Raises:
        Faults: a UDP that is not there or is broken, all of them at once; or one without tests.
        ModelUnready: the model cannot answer.
    """
    udps: list[Udp] = []
    faults: list[Finding] = []
    for word in words:
        path = Path(word)
        try:
            udps.append(load_udp(path if path.suffix in {".yaml", ".yml"} else find_udp(word, Path())))
        except Faults as error:
            faults += error.findings
    if faults:
        raise Faults(faults)
    records = _Latest()
    with Desk(models, Path(), Ledger(records), None, tell) as desk:
        return [result for udp in udps for result in _test(udp, desk, model, records)]


def _test(udp: Udp, desk: Desk, model: str, records: _Latest) -> list[Result]:
    if not udp.tests:
        raise Faults.one(udp.name, "has no tests", "add rows under tests: [{in: {...}, out: {...}}]")
    records.failures.clear()
    try:
        answers = desk.asking(udp.name, model, Policy())(udp, _batch(udp))
    except Faults as error:
        raise Faults(placed(error, "--model")) from None
    results = []
    for number, (test, said) in enumerate(zip(udp.tests, answers.record.to_pylist(), strict=True)):
        failure = records.failures.get(number)
        shown = failure.detail if said is None and failure else said
        results.append(Result(udp.name, number + 1, test.out, shown, _same(said, test.out)))
    return results


def _batch(udp: Udp) -> pa.RecordBatch:
    """The tests as a table; cells of one column that are of several types are told as text."""
    columns: dict[str, object] = {ROW: list(range(len(udp.tests)))}
    for name in sorted(udp.columns):
        cells = [test.row.get(name) for test in udp.tests]
        try:
            columns[name] = pa.array(cells)
        except pa.ArrowInvalid:
            columns[name] = pa.array([None if cell is None else str(cell) for cell in cells])
    return pa.RecordBatch.from_pydict(columns)


def _same(said: object, wanted: object) -> bool:
    if isinstance(said, dict) and isinstance(wanted, Mapping):
        return all(_same(said.get(key), value) for key, value in wanted.items())
    if isinstance(said, str) and isinstance(wanted, str):
        return said.strip() == wanted.strip()
    if isinstance(said, float) and isinstance(wanted, (int, float)):
        return abs(said - wanted) <= 1e-6 * max(1.0, abs(wanted))
    return said == wanted


def report(results: Sequence[Result]) -> str:
    """A table: pass or fail, what was wanted, what was said."""
    lines = []
    for result in results:
        word = "pass" if result.passed else "FAIL"
        lines.append(f"{word}  {result.udp} {result.number}: {_short(result.said)}")
        if not result.passed:
            lines.append(f"      wanted {_short(result.wanted)}")
    passed = sum(result.passed for result in results)
    return "\n".join([*lines, f"{passed} of {len(results)} tests passed"])


def _short(value: object) -> str:
    if isinstance(value, Mapping) and len(value) == 1:
        value = next(iter(value.values()))
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."  # noqa: PLR2004
