"""What the page's benchmark writes, without measuring."""

from pathlib import Path

import pytest

from tests.benchmarks.page import MARKS, write_figures

MEASURED = {
    "seconds": 50_000,
    "load_at_the_start": 0.1,
    "usable_page_s": {"first": 4.9, "median": 4.2},
    "server_cpu_until_usable_s": 3.9,
    "click_to_first_frame_ms": {"first": 400, "median": 210},
    "server_cpu_a_click_ms": 55,
    "query_ms": {"median": 30, "slowest": 44},
    "query_through_the_api_ms": 60,
    "server_cpu_a_query_ms": 33,
}


def test_figures_replace_those_before(tmp_path: Path) -> None:
    """The table stands between the marks, once, and the rest of the file stays; without marks it is refused."""
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    write_figures(readme, MEASURED)
    once = readme.read_text()
    write_figures(readme, MEASURED)
    assert readme.read_text() == once and "old" not in once
    assert once.startswith("before\n") and once.endswith("\nafter\n") and "| 4.2 s (the first time 4.9 s) |" in once
    readme.write_text("nothing")
    with pytest.raises(ValueError, match="to write between"):
        write_figures(readme, MEASURED)


def test_the_readme_has_a_place_for_the_figures() -> None:
    """The README of the project can be written into."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert readme.index(MARKS[0]) < readme.index(MARKS[1])
