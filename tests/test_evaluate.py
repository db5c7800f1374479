"""Measures of ranked moments."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visxp_search.errors import UsageError
from visxp_search.evaluate import (
    Judgement,
    Span,
    average_precision,
    bootstrap,
    evaluate,
    match_answers,
    read_judgements,
    recall_at,
    report_to_json,
    temporal_iou,
)
from visxp_search.queries import Query
from visxp_search.results import Moment, Results

times = st.integers(0, 30)
spans = st.builds(
    lambda video, start, length: Span(video, float(start), float(start + length)),
    st.sampled_from("ab"),
    times,
    st.integers(1, 10),
)


@given(spans, spans)
@settings(deadline=None)
def test_overlap_equals_counting_seconds(first: Span, second: Span) -> None:
    """Temporal IoU equals that of the sets of whole seconds, and is symmetric."""
    a, b = ({(s.video_id, t) for t in range(int(s.start), int(s.end))} for s in (first, second))
    assert temporal_iou(first, second) == pytest.approx(len(a & b) / len(a | b))
    assert temporal_iou(first, second) == temporal_iou(second, first)


def test_precision_and_recall_by_hand() -> None:
    """Ranked answers right, wrong, right of three relevant ones: recall and average precision as counted by hand."""
    right = [True, False, True]
    assert recall_at(right, 3, 1) == pytest.approx(1 / 3)
    assert recall_at(right, 3, 10) == pytest.approx(2 / 3)
    assert average_precision(right, 3) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision([False], 2) == 0


def test_a_relevant_moment_is_found_once() -> None:
    """A second answer at the same place is not right again."""
    relevant = [Span("a", 0, 10)]
    assert match_answers([Span("a", 0, 9), Span("a", 1, 10), Span("b", 0, 10)], relevant) == [True, False, False]


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    """About 95 of 100 bootstrap intervals of 80 values hold the true mean."""
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(100):
        estimate = bootstrap(rng.normal(3, 1, 80).tolist(), seed=seed)
        inside += estimate.low <= 3 <= estimate.high
    assert 88 <= inside <= 100
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_lines_of_one_query_are_its_answers(tmp_path: Path) -> None:
    """Lines that ask with the same file and span are one query with several right answers."""
    path = tmp_path / "judged.csv"
    path.write_text("query,video,start,end,group\na.mp4,x,1:00,1:05,news\na.mp4,y,3,8,news\nb.mp4,x,0,2,\n")
    judgements = read_judgements(path, find_video=str.upper)
    assert [len(judgement.relevant) for judgement in judgements] == [2, 1]
    assert judgements[0].path == tmp_path / "a.mp4"
    assert judgements[0].relevant[0] == Span("X", 60, 65)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("query,video\n", "no judgements"),
        ("query,video,start,end\na,b,5,3\n", "line 2: end 3 is not after start 5"),
        ("query,video,start,end,kind\na,b,1,3,smell\n", "line 2: kind 'smell' is unknown"),
        ("query,video,start,end\na,b,noon,3\n", "line 2: time 'noon'"),
    ],
)
def test_wrong_judgements_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """A line that is not understood is named with what is wrong."""
    path = tmp_path / "judged.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_judgements(path, find_video=str)


def test_a_report_averages_over_all_and_by_group() -> None:
    """A right and a wrong answer average to a half over all, and to one and none in their groups."""
    moment = Moment("a", "a.mp4", 0.0, 5.0, 0.9, 99.0, 0.9, None, 1.0, 0.0, ())
    query = Query(kind="clip", vectors={}, weights={})
    results = Results(query, "same", (moment,), n_videos=1, n_seconds=9, complete=True, took_ms=2.0)
    judgements = [
        Judgement(Path("q1"), (Span("a", 0, 5),), group="crop"),
        Judgement(Path("q2"), (Span("b", 0, 5),), group="noise"),
    ]
    report = evaluate(judgements, lambda judgement: results)
    assert report.overall["recall@1"].mean == 0.5
    assert report.groups["crop"]["temporal IoU"].mean == 1
    assert report.groups["noise"]["right video first"].mean == 0
    document = report_to_json(report)
    assert document["queries"] == 2
    assert document["overall"]["mAP"]["low"] <= 0.5 <= document["overall"]["mAP"]["high"]
