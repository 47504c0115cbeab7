"""What there is: operators, UDPs, models and backends, each with a line about it."""

from collections.abc import Iterator

from gdo import weights
from gdo.backend import Backend
from gdo.errors import Faults
from gdo.op import Operator
from gdo.udp import built_in, load_udp

Line = tuple[str, str]


def operators() -> Iterator[Line]:
    """Every operator by its word."""
    for word, kind in sorted(Operator.kinds.items()):
        yield word, (kind.__doc__ or "").strip().splitlines()[0]


def udps() -> Iterator[Line]:
    """Every shipped UDP: what it reads, what it gives."""
    for name, path in built_in().items():
        try:
            udp = load_udp(path)
        except Faults as error:
            yield name, f"broken: {error.findings[0]}"
            continue
        yield name, f"{udp.description} ({', '.join(udp.arguments)} -> {', '.join(udp.output.names)})"


def models() -> Iterator[Line]:
    """Every bundled model, and whether its weights are here."""
    for name, known in weights.BUNDLED.items():
        here = weights.find(name)
        state = f"here: {here}" if here else f"not fetched yet ({known.megabytes} MB): gdo pull {name}"
        yield name, f"{known.about}; {known.licence}; {state}"


def backends() -> Iterator[Line]:
    """Every backend: ready here, or why not."""
    for word, kind in sorted(Backend.kinds.items()):
        missing = kind.ready()
        about = (kind.__doc__ or "").strip().splitlines()[0]
        yield word, f"{missing or 'ready'}: {about}"
