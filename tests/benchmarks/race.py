"""Times of things side by side: the cases take turns, A B A B, so that what else the machine does hits them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        section: of the benchmark.
        name: what was measured.
        value: median, in `unit`.
        unit: of value.
        low: first quartile.
        high: third quartile.
        rounds: how often it was measured.
        against: what the ratio is to, measured in turns with this; empty if there is none.
        ratio: median over the rounds of this by that; lower is better.
    """

    section: str
    name: str
    value: float
    unit: str
    low: float
    high: float
    rounds: int
    against: str = ""
    ratio: float | None = None

    @property
    def key(self) -> str:
        """What a recorded row is found by."""
        return f"{self.section}/{self.name}"

    def as_json(self) -> dict[str, Any]:
        """JSON values, rounded to four digits."""
        return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(self).items()}


def race(
    cases: Mapping[str, Callable[[], object]], *, rounds: int, budget_seconds: float, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of wall time of each case, round by round.

    Args:
        cases: name -> what is timed; all take part in every round.
        rounds: at most so many.
        budget_seconds: no further round begins after this time; one is always run.
        warm_up: run every case once, untimed, before.
    """
    if warm_up:
        for case in cases.values():
            case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    begun = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - begun > budget_seconds:
            break
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            times[name].append(time.perf_counter() - started)
    return times


def rows_of(
    section: str, times: Mapping[str, Sequence[float]], *, unit: str, scale: float = 1.0, against: str = ""
) -> list[Row]:
    """A row for each case of a race, with its ratio to the case `against` in the same round.

    Args:
        section: of the benchmark.
        times: from `race`.
        unit: of the values.
        scale: from seconds to `unit`.
        against: a case; empty for no ratios.
    """
    rows = []
    for name, values in times.items():
        ratio = None
        if against and name != against:
            ratio = statistics.median(a / b for a, b in zip(values, times[against], strict=True))
        rows.append(row(section, name, [scale * value for value in values], unit=unit, against=against, ratio=ratio))
    return rows


def row(
    section: str, name: str, values: Sequence[float], *, unit: str, against: str = "", ratio: float | None = None
) -> Row:
    """The median of values with its quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return Row(section, name, middle, unit, low, high, len(values), against if ratio is not None else "", ratio)
