"""What an index holds, and which video a person means; from the ledger alone, without media or networks."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from visxp_search.errors import UsageError
from visxp_search.store import Store, VideoRecord


@dataclass(frozen=True)
class IndexFacts:
    """What an index holds.

    Attributes:
        location: directory or URL.
        checkpoint: id of the checkpoint that made it.
        dims: named vector -> length.
        videos: status -> number of videos.
        seconds: stored seconds.
        seconds_expected: seconds that all known videos have.
        flags: flag -> number of seconds that carry it.
        clusters: different values of the payload `cluster`.
        clusters_of: whose they are: the `archive`'s own, or those that the `checkpoint` learned in training.
    """

    location: str
    checkpoint: str
    dims: dict[str, int]
    videos: dict[str, int]
    seconds: int
    seconds_expected: int
    flags: dict[str, int]
    clusters: int
    clusters_of: str


@contextmanager
def without_cycle_search() -> Iterator[None]:
    """Python's search for reference cycles rests: a hundred thousand ledger entries would wake it again and again.

    None of them is in a cycle.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def read_ledger(store: Store, status: str | None = None) -> list[VideoRecord]:
    """The ledger entries (of one status) by path."""
    with without_cycle_search():
        return sorted(store.videos(status), key=lambda record: record.paths)


def collect_facts(store: Store) -> IndexFacts:
    """What an index holds."""
    statuses: Counter[str] = Counter()
    expected = 0
    with without_cycle_search():
        for record in store.videos(brief=True):
            statuses[record.status] += 1
            expected += record.seconds_expected
    return IndexFacts(
        location=store.location,
        checkpoint=store.info.checkpoint,
        dims=dict(store.info.dims),
        videos=dict(statuses),
        seconds=store.count(),
        seconds_expected=expected,
        flags={str(flag): number for flag, number in store.facet("flags").items()},
        clusters=len(store.facet("cluster")),
        clusters_of="archive" if store.read_document("clusters") is not None else "checkpoint",
    )


def find_video(store: Store, text: str) -> VideoRecord:
    """The video with this id, this path, a unique start of its id, or a unique file name.

    Raises:
        UsageError: If there is none, or several.
    """
    exact = store.video(text)
    if exact is not None:
        return exact
    absolute = str(Path(text).absolute())
    records = read_ledger(store)
    for matches in (
        [record for record in records if absolute in record.paths],
        [record for record in records if len(text) >= 4 and record.video_id.startswith(text)],
        [record for record in records if any(Path(path).name == text for path in record.paths)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(record.video_id for record in matches[:5])
            raise UsageError(f"{text!r} means {len(matches)} videos ({names}); give more of the id, or the path")
    raise UsageError(f"no indexed video has the id, path or name {text!r}; see: visxp index ls")
