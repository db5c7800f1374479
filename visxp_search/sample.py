"""A random sample of the archive, which similarities are compared with (`visxp_search.background`).

It is read once for each open index, and anew where that has changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from visxp_search.background import MIN_SAMPLE, nearest_cosines, resemblance_threshold
from visxp_search.queries import stack_rows
from visxp_search.store import Store

FloatArray = npt.NDArray[np.float32]

SAMPLE_SECONDS = 2048
"""Seconds of the archive, drawn at random but always the same, that scores are compared with."""
SAMPLE_WINDOW = 16
"""Longest window of the sample."""
RESEMBLANCE_SECONDS = 600
"""Seconds of the sample that tell what is common."""
KEPT_SAMPLES = 8
"""Samples (lengths of window, kinds of vector) that are kept for an index; each takes a few MB."""


@dataclass(frozen=True)
class Sample:
    """Random windows of consecutive seconds of the archive.

    Attributes:
        vectors: name -> (B, D), NaN where a second has none.
        owners: (B,) number of the video of each second.
        seconds: (B,) the second of its video that each is.
        video_ids: the video of each number.
        windows: (n, L) rows of `vectors`; -1 behind the end of a video.
    """

    vectors: Mapping[str, FloatArray]
    owners: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.int64]
    video_ids: tuple[str, ...]
    windows: npt.NDArray[np.int64]

    @cached_property
    def spread(self) -> dict[str, npt.NDArray[np.int64]]:
        """Name -> at most `RESEMBLANCE_SECONDS` of the rows that have it, evenly spread."""
        return {name: _spread_rows(~np.isnan(rows[:, 0]), RESEMBLANCE_SECONDS) for name, rows in self.vectors.items()}

    @cached_property
    def spread_vectors(self) -> dict[str, FloatArray]:
        """Name -> its vectors of the rows of `spread`."""
        return {name: self.vectors[name][rows] for name, rows in self.spread.items()}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {video_id: number for number, video_id in enumerate(self.video_ids)}

    @cached_property
    def resemblance(self) -> dict[str, float]:
        """Name -> the cosine from which two seconds resemble each other."""
        return {
            name: resemblance_threshold(self.spread_vectors[name], self.owners[rows])
            for name, rows in self.spread.items()
        }

    @cached_property
    def nearest(self) -> dict[str, FloatArray]:
        """Name -> how like its nearest neighbour in another video a second of this archive is, sorted."""
        return {
            name: nearest_cosines(self.spread_vectors[name], self.owners[rows]) for name, rows in self.spread.items()
        }

    @cached_property
    def alike(self) -> dict[str, float]:
        """Name -> the cosine from which two seconds may show or sound the same thing.

        It is the median of `nearest`, for what is the same is not less alike than neighbours are; but at most half way
        between resembling and being equal, for an archive may hold much of itself twice. -1 where nothing is known.
        """
        return {
            name: min(float(np.median(values)), (1 + self.resemblance[name]) / 2) if len(values) >= MIN_SAMPLE else -1.0
            for name, values in self.nearest.items()
        }

    def number_of(self, video_id: str) -> int:
        """The number that stands for a video in `owners`; -1 if the sample has nothing of it."""
        return self._numbers.get(video_id, -1)


def sample_of(store: Store, names: Sequence[str], *, window: int) -> Sample:
    """What `draw_sample` gives, kept as long as the index is open and its seconds stay the same.

    Changes made through this store are seen at once, those of others by the number of seconds.
    """
    state = (store.revision, store.count())
    if store not in _KEPT or _KEPT[store][0] != state:
        _KEPT[store] = (state, {})
    kept = _KEPT[store][1]
    key = (tuple(names), window)
    if key not in kept:
        sample = draw_sample(store, names, window=window)
        if len(kept) >= KEPT_SAMPLES:
            kept.clear()
        kept[key] = sample
        return sample
    return kept[key]


def draw_sample(store: Store, names: Sequence[str], *, window: int) -> Sample:
    """Random windows of the archive: they begin at the first points in the order of ids, which are hashes.

    Args:
        store: an open index.
        names: vectors wanted.
        window: seconds of each window; `SAMPLE_SECONDS` are shared among them.
    """
    n_windows = SAMPLE_SECONDS // window
    anchors = list(islice(store.seconds(page=n_windows), n_windows))
    keys = sorted({(a.video_id, a.second + step) for a in anchors for step in range(window)})
    points = store.get(keys, with_vectors=tuple(names))
    row_of = {(point.video_id, point.second): row for row, point in enumerate(points)}
    video_ids = tuple(sorted({point.video_id for point in points}))
    number = {video_id: n for n, video_id in enumerate(video_ids)}
    return Sample(
        vectors={name: stack_rows(points, name, length=store.info.dims[name]) for name in names},
        owners=np.array([number[point.video_id] for point in points], dtype=np.int64),
        seconds=np.array([point.second for point in points], dtype=np.int64),
        video_ids=video_ids,
        windows=np.array(
            [[row_of.get((a.video_id, a.second + step), -1) for step in range(window)] for a in anchors], dtype=np.int64
        ).reshape(-1, window),
    )


def _spread_rows(there: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.int64]:
    """At most so many of the rows that are there, evenly spread."""
    rows = np.flatnonzero(there)
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


_KEPT: WeakKeyDictionary[Store, tuple[tuple[int, int], dict[tuple[tuple[str, ...], int], Sample]]] = WeakKeyDictionary()
