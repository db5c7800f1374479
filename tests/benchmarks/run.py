"""All benchmarks: `make bench`, or `python -m tests.benchmarks.run [--only SECTION]... [--record | --check]`.

Prints a table a section. Times are compared as ratios to something measured in turns with them in the same run, since
absolute ones say more of the machine and its other work than of the program. With `--record` each section, as soon as
it is measured, replaces its numbers in `recorded.json` and in the pages made of them (`tests.benchmarks.report`), so
that a run that is cut short can be gone on with: `--record --resume`.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.race import Row
from tests.benchmarks.report import write_pages

BUDGET_MINUTES = {
    "start": 1.0,
    "page": 2.0,
    "encode": 2.0,
    "training": 2.0,
    "search": 5.0,
    "index": 8.0,
    "memory": 4.0,
    "engine": 1.0,
}
"""Section -> minutes after which no further round begins. With what has to be made first (an index of a million seconds
takes 4 minutes), a whole run takes about 28 minutes: search 8, index 9, memory 4, encode 3, others 1 or 2."""
RECORDED = Path(__file__).parent / "recorded.json"
MOST_REGRESSION = 1.25
"""A ratio that is this much higher than the recorded one fails `--check`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; exit code 1 if a section fails or `--check` finds a regression."""
    options = parse(arguments)
    if options.check and not read_recorded()["rows"]:
        print(f"nothing to compare with: {RECORDED} has no numbers yet; run `make bench` first", file=sys.stderr)
        return 1
    sections = options.only or list(BUDGET_MINUTES)
    if options.resume:
        sections = [name for name in sections if read_recorded()["sections"].get(name, {}).get("date") != today()]
    failed: list[str] = []
    slower: list[str] = []
    with TemporaryDirectory(prefix="visxp-bench-") as temporary:
        work = (options.work or Path(temporary)).absolute()
        for section in sections:
            (work / section).mkdir(parents=True, exist_ok=True)
            begun, load = time.perf_counter(), os.getloadavg()[0]
            measure = importlib.import_module(f"tests.benchmarks.{section}").measure
            try:
                rows: list[Row] = measure(
                    work / section, budget_seconds=60 * BUDGET_MINUTES[section], quick=options.quick
                )
            except Exception:  # whatever it is: the other sections are still worth measuring
                traceback.print_exc()
                failed.append(section)
                continue
            took = time.perf_counter() - begun
            print_table(section, rows, took=took)
            if options.record:
                about = {"date": today(), "took_seconds": round(took), "load_before": round(load, 1)}
                record(section, rows, about)
            if options.check:
                slower += regressions(rows, read_recorded()["rows"])
    for line in slower:
        print(line, file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}; after mending: --only {' --only '.join(failed)}", file=sys.stderr)
    return 1 if slower or failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(BUDGET_MINUTES), help="this section; repeatable")
    parser.add_argument("--quick", action="store_true", help="the smallest cases, to see that everything runs")
    parser.add_argument("--work", type=Path, help="keep rendered media and indexes here, and use them again")
    parser.add_argument("--record", action="store_true", help=f"make these the numbers of {RECORDED.name}")
    parser.add_argument("--resume", action="store_true", help="leave out the sections that were recorded today")
    parser.add_argument("--check", action="store_true", help="fail where a ratio is 25 %% above the recorded one")
    options = parser.parse_args(arguments)
    if options.quick and (options.record or options.check):
        parser.error("--quick measures other cases than those that are recorded and checked")
    return options


def print_table(section: str, rows: Sequence[Row], *, took: float) -> None:
    """One section as a table."""
    table = Table(title=f"{section}, {took:.0f} s", title_justify="left", box=None, header_style="bold")
    for name in ("", "median", "quartiles", "", "n", "ratio", "to"):
        table.add_column(name, justify="left" if name in ("", "to") else "right", overflow="fold")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        spread = f"{row.low:.3g} to {row.high:.3g}"
        table.add_row(row.name, f"{row.value:.4g}", spread, row.unit, str(row.rounds), ratio, row.against)
    console = Console(width=180)
    console.print(table)
    console.file.flush()


def record(section: str, rows: Sequence[Row], about: dict[str, Any]) -> None:
    """Replace the recorded numbers of one section, and write the pages anew."""
    document = merge(read_recorded(), section, [row.as_json() for row in rows], about)
    partial = RECORDED.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(RECORDED)
    write_pages(document)


def merge(recorded: dict[str, Any], section: str, rows: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """The recorded numbers with those of one section in place of its old ones."""
    kept = [row for row in recorded["rows"] if row["section"] != section]
    return {
        "machine": describe_machine(),
        "sections": {**recorded["sections"], section: about},
        "rows": kept + rows,
    }


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
        return {"machine": {}, "sections": {}, "rows": []}
    document: dict[str, Any] = json.loads(RECORDED.read_text())
    return document


def today() -> str:
    """The date."""
    return time.strftime("%Y-%m-%d")


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    from visxp_search.checkpoint_config import DEFAULT_CHECKPOINT, read_facts

    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "checkpoint": read_facts(DEFAULT_CHECKPOINT).checkpoint_id,
    }


if __name__ == "__main__":
    sys.exit(main())
