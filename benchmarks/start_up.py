"""What gdo costs before it does anything: time of `gdo --help` and `import gdo`, and the size of the plain install.

    python benchmarks/start_up.py

Times are the median of 15 runs of a whole process, the interpreter's own start-up (`python -c pass`) beside them. The
size counts the distributions that `pip install gdo` brings, engine and weights apart.
"""

import re
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ENGINE = {"xllamacpp"}


def median_ms(command: list[str]) -> float:
    times = []
    for _ in range(16):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])


def installed(name: str, seen: set[str]) -> set[str]:
    """A distribution and all that it needs, extras apart."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return seen
    try:
        needs = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return seen
    seen.add(name)
    for need in needs:
        if "extra ==" not in need:
            installed(re.split(r"[ ;<>=!~\[(]", need, maxsplit=1)[0], seen)
    return seen


def megabytes(name: str) -> float:
    files = metadata.files(name) or []
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    script = str(Path(sys.executable).with_name("gdo"))
    print("what                       median ms")
    for title, command in (
        ("python -c pass", [sys.executable, "-c", "pass"]),
        ("import gdo", [sys.executable, "-c", "import gdo"]),
        ("gdo --help", [script, "--help"]),
    ):
        print(f"{title:<26} {median_ms(command):9.0f}")
    names = sorted(installed("gdo", set()) - ENGINE)
    sizes = {name: megabytes(name) for name in names}
    print(f"\n{len(names)} distributions, {sum(sizes.values()):.0f} MB without the engine")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:6]:
        print(f"  {name:<20} {size:6.1f} MB")


if __name__ == "__main__":
    main()
