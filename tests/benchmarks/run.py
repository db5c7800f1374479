"""All benchmarks: `make bench`, or `python -m tests.benchmarks.run [--only SECTION]... [--check]`.

Prints a table and writes JSON. Times are compared as ratios to something measured in turns with them in the same run,
since absolute ones say more of the machine and its other work than of the program.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.race import Row

SECTIONS = ("start", "encode", "index", "memory", "search")
RECORDED = Path(__file__).parent / "recorded.json"
MOST_REGRESSION = 1.25
"""A ratio that is this much higher than the recorded one fails `--check`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; exit code 1 if `--check` finds a regression."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this section alone; repeatable")
    parser.add_argument("--minutes", type=float, default=8.0, help="at most so many a section, roughly (default 8)")
    parser.add_argument("--quick", action="store_true", help="the smallest cases, to see that everything runs")
    parser.add_argument("--work", type=Path, help="keep rendered media and indexes here, and use them again")
    parser.add_argument("--out", type=Path, help="write JSON here (default: print the table alone)")
    parser.add_argument("--record", action="store_true", help=f"make these the numbers of {RECORDED.name}")
    parser.add_argument("--check", action="store_true", help="fail where a ratio is 25 %% above the recorded one")
    options = parser.parse_args(arguments)
    if options.check and not read_recorded()["rows"]:
        print(f"nothing to compare with: {RECORDED} has no numbers yet; run `make bench` first", file=sys.stderr)
        return 1
    rows: list[Row] = []
    machine = describe_machine()
    with TemporaryDirectory(prefix="visxp-bench-") as temporary:
        work = (options.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        for section in options.only or SECTIONS:
            begun = time.perf_counter()
            measure = importlib.import_module(f"tests.benchmarks.{section}").measure
            measured = measure(work, budget_seconds=60 * options.minutes, quick=options.quick)
            print_table(section, measured, took=time.perf_counter() - begun)
            rows += measured
    document = {"machine": machine, "rows": [row.as_json() for row in rows]}
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    if options.record:
        RECORDED.write_text(json.dumps(merge(read_recorded(), document), indent=1) + "\n")
    if options.check:
        slower = regressions(rows, read_recorded()["rows"])
        for line in slower:
            print(line, file=sys.stderr)
        return 1 if slower else 0
    return 0


def print_table(section: str, rows: Sequence[Row], *, took: float) -> None:
    """One section as a table."""
    table = Table(title=f"{section}, {took:.0f} s", title_justify="left", box=None, header_style="bold")
    for name in ("", "median", "quartiles", "", "n", "ratio", "to"):
        table.add_column(name, justify="left" if name in ("", "to") else "right", overflow="fold")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        spread = f"{row.low:.3g} to {row.high:.3g}"
        table.add_row(row.name, f"{row.value:.4g}", spread, row.unit, str(row.rounds), ratio, row.against)
    Console(width=180).print(table)


def regressions(rows: Sequence[Row], recorded: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each ratio that is more than `MOST_REGRESSION` times the recorded one."""
    before = {f"{row['section']}/{row['name']}": row["ratio"] for row in recorded if row["ratio"] is not None}
    lines = []
    for row in rows:
        old = before.get(row.key)
        if row.ratio is not None and old is not None and row.ratio > MOST_REGRESSION * old:
            lines.append(f"{row.key}: {row.ratio:.3g} times {row.against}, recorded {old:.3g}")
    return lines


def read_recorded() -> dict[str, Any]:
    """The recorded numbers; none yet if the file is missing."""
    if not RECORDED.exists():
        return {"machine": {}, "rows": []}
    document: dict[str, Any] = json.loads(RECORDED.read_text())
    return document


def merge(recorded: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The recorded numbers with those of the sections that were measured now in place of their old ones."""
    sections = {row["section"] for row in document["rows"]}
    kept = [row for row in recorded["rows"] if row["section"] not in sections]
    return {"machine": document["machine"], "rows": kept + document["rows"]}


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    sys.exit(main())
