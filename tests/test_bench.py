"""Tests of how benchmarks are recorded, checked and told; what they measure is not run here."""

from typing import Any

import pytest

from tests.benchmarks import report, run
from tests.benchmarks.race import Row, race, rows_of

ABOUT = {"date": "2026-01-02", "took_seconds": 3, "load_before": 0.1}


def rows_for(ratio: float) -> list[Row]:
    """Two rows of a section, one beside the other."""
    times = {"ffmpeg": [1.0, 1.0, 1.0], "index add, 720p h264 GOP 50": [ratio] * 3}
    return rows_of("index", times, unit="s", against="ffmpeg")


def document_of(rows: list[Row]) -> dict[str, Any]:
    """As it is recorded."""
    empty: dict[str, Any] = {"machine": {}, "sections": {}, "rows": []}
    return run.merge(empty, "index", [row.as_json() for row in rows], ABOUT)


def test_cases_take_turns() -> None:
    """Every case runs once a round, one after the other."""
    seen: list[str] = []
    race({name: lambda name=name: seen.append(name) for name in "ab"}, rounds=2, budget_seconds=60)  # type: ignore[misc]
    assert "".join(seen) == "ababab"  # a round to warm up, then two


def test_a_ratio_that_rose_by_a_quarter_is_a_regression() -> None:
    """Ratios up to 25 % above the recorded ones pass, larger ones are told."""
    recorded = [row.as_json() for row in rows_for(0.4)]
    assert run.regressions(rows_for(0.49), recorded) == []
    (line,) = run.regressions(rows_for(0.51), recorded)
    assert "index add, 720p h264 GOP 50: 0.51 times ffmpeg, recorded 0.4" in line


def test_a_section_replaces_its_own_numbers_only() -> None:
    """Recording one section again leaves the others as they are."""
    document = document_of(rows_for(0.4))
    other = [Row("start", "visxp --help", 0.2, "s", 0.2, 0.2, 1).as_json()]
    document = run.merge(run.merge(document, "start", other, ABOUT), "index", [rows_for(0.3)[1].as_json()], ABOUT)
    assert [(row["section"], row["ratio"]) for row in document["rows"]] == [("start", None), ("index", 0.3)]
    assert set(document["sections"]) == {"index", "start"}


def test_pages_tell_what_is_recorded() -> None:
    """The README's table has the headlines that were measured, the page every number."""
    document = document_of(rows_for(0.4))
    table = report.short_table(document)
    assert "0.4 times | 0.6 times |" in table
    assert "2026-01-02" in table
    assert "| index add, 720p h264 GOP 50 | 0.4 s | 0.4 to 0.4 | 3 | 0.4 | ffmpeg |" in report.whole_page(document)


def test_the_readme_has_a_place_for_the_table() -> None:
    """What lies between the markers is replaced, and nothing else."""
    text = report.README.read_text()
    replaced = report.with_block(text, "| new |")
    assert f"{report.BEGIN}\n| new |\n{report.END}" in replaced
    assert report.with_block(replaced, "| new |") == replaced
    with pytest.raises(ValueError, match="lost its markers"):
        report.with_block("no markers", "| new |")


def test_headlines_are_of_sections_that_exist() -> None:
    """No headline waits for a section that is not measured."""
    assert {headline.key.partition("/")[0] for headline in report.HEADLINES} <= set(run.BUDGET_MINUTES)


def test_quick_numbers_are_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    """Small cases have other numbers than those recorded and cannot be mixed with them."""
    with pytest.raises(SystemExit):
        run.main(["--quick", "--record"])
    assert "--quick measures other cases" in capsys.readouterr().err
