"""What `make bench` found, for people: the short table of the README and all numbers in docs/BENCHMARKS.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "BENCHMARKS.md"
BEGIN, END = "<!-- written by make bench -->", "<!-- end of what make bench writes -->"


@dataclass(frozen=True)
class Headline:
    """A number for the README.

    Attributes:
        what: was measured, in words.
        key: section and name of its row.
        bar: what is wanted.
        is_ratio: whether the ratio is told rather than the value.
    """

    what: str
    key: str
    bar: str
    is_ratio: bool = False


HEADLINES = (
    Headline(
        "`visxp index add` of 10 minutes of 720p H.264, key frames every 2 s, beside `ffmpeg -f null` of the same file",
        "index/index add, 720p h264 GOP 50",
        "0.6 times",
        True,
    ),
    Headline("the same, key frames every 10 s", "index/index add, 720p h264 GOP 250", "0.95 times", True),
    Headline(
        "the same beside the loop a practitioner would write, 3 minutes (moviepy, numpy, the same encoders)",
        "index/index add against it, 720p h264 GOP 50",
        "0.33 times",
        True,
    ),
    Headline("2 workers beside 1, 24 files of 720p", "index/24 files, 2 workers", "0.75 times", True),
    Headline("both encoders and the spectrogram, one core", "encode/both", "8 ms a second of video"),
    Headline("times faster than the layout of L3-Net", "encode/times faster than the L3-Net layout", "15"),
    Headline("most memory, indexing 1 minute with 2 workers", "memory/index add, one video of 1 min", "900 MB"),
    Headline("3 hours beside that", "memory/index add, one video of 180 min", "flat", True),
    Headline("100,000 seconds: hits for 1 s of picture and sound, p95", "search/100000: hits, 1 s, p95", "15 ms"),
    Headline(
        "1,000,000 seconds: the same, without one video", "search/1000000: hits, 1 s, not this video, p95", "60 ms"
    ),
    Headline("the same for 10 s", "search/1000000: hits, 10 s, not this video, p95", "250 ms"),
    Headline(
        "what is asked the first time after opening, its vectors still on the disk, 1 s, median",
        "search/1000000: hits, 1 s, first asked",
        "",
    ),
    Headline("the same for 10 s", "search/1000000: hits, 10 s, first asked", ""),
    Headline("share of the exact 50 best that is found, 1,000,000 seconds", "search/1000000: recall@50", "0.98"),
    Headline(
        "a whole search for 1 s (hits, comparison, chance), 1,000,000 seconds, p95",
        "search/1000000: search, 1 s, p95",
        "",
    ),
    Headline("the same for 10 s", "search/1000000: search, 10 s, p95", ""),
    Headline(
        "`visxp search moment` from the command line, 100,000 seconds", "search/100000: command line, cold", "2.5 s"
    ),
    Headline("`visxp search clip`, 5 s of a file, the same", "search/100000: search clip, 5 s, cold", "2.5 s"),
    Headline("`visxp --help`", "start/visxp --help", "0.3 s"),
    Headline("`visxp ui` until the page can be used, 50,000 seconds", "page/usable page", "5 s"),
    Headline("training beside a plain loop of the same network: pictures", "training/warm start, pictures", "", True),
    Headline("the same, correspondence", "training/correspondence", "", True),
)


def write_pages(document: Mapping[str, Any]) -> None:
    """Write both pages from what is recorded."""
    README.write_text(with_block(README.read_text(), short_table(document)))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(whole_page(document))


def with_block(text: str, block: str) -> str:
    """A text with another block between its markers.

    Raises:
        ValueError: If it has no such markers.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has lost its markers; put {BEGIN} and {END} around the table of measured times")
    return f"{head}{BEGIN}\n{block}\n{END}{tail}"


def short_table(document: Mapping[str, Any]) -> str:
    """The headlines that were measured, as Markdown."""
    rows = {f"{row['section']}/{row['name']}": row for row in document["rows"]}
    lines = [f"On {describe(document)}:", "", "| what | measured | wanted |", "| --- | --- | --- |"]
    for headline in HEADLINES:
        if headline.key in rows:
            lines.append(f"| {headline.what} | {measured(rows[headline.key], headline.is_ratio)} | {headline.bar} |")
    return "\n".join(lines)


def whole_page(document: Mapping[str, Any]) -> str:
    """Every number, as Markdown."""
    lines = [
        "# Measured speed and memory",
        "",
        "Written by `make bench`; `tests/benchmarks/` says how each number was taken. Times are medians, with the",
        "quartiles in brackets. A ratio is to something measured in turns with it, in the same run.",
        "",
        f"Taken on {describe(document)}.",
    ]
    for section, about in document["sections"].items():
        lines += ["", f"## {section}", ""]
        lines += [
            f"{about['date']}, {about['took_seconds']} s; load of the machine before: {about['load_before']}.",
            "",
        ]
        lines += ["| what | measured | quartiles | times | ratio | to |", "| --- | --- | --- | --- | --- | --- |"]
        lines += [full_line(row) for row in document["rows"] if row["section"] == section]
    return "\n".join(lines) + "\n"


def describe(document: Mapping[str, Any]) -> str:
    """The machine and the program, in words."""
    machine, sections = document["machine"], document["sections"]
    dates = sorted({about["date"] for about in sections.values()})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"{machine['cores']} cores of an {machine['cpu']}, {when}, torch {machine['torch']}, "
        f"checkpoint {machine['checkpoint']}"
    )


def measured(row: Mapping[str, Any], is_ratio: bool) -> str:
    """A value with its unit, or a ratio."""
    return f"{row['ratio']:.2g} times" if is_ratio else f"{row['value']:.3g} {row['unit']}".replace(" x", "")


def full_line(row: Mapping[str, Any]) -> str:
    """A row of the whole table."""
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
    cells: Sequence[str] = (
        row["name"],
        f"{row['value']:.4g} {row['unit']}",
        f"{row['low']:.3g} to {row['high']:.3g}",
        str(row["rounds"]),
        ratio,
        row["against"],
    )
    return "| " + " | ".join(cells) + " |"
