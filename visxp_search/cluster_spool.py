"""The seconds of an archive in a temporary file, to be read block by block as often as a fit needs them.

They are read once from the store, as float16 if they are many. Points stream in the order of their ids, which are
hashes, so the first n are a random sample.
"""

from collections.abc import Iterator, Mapping
from typing import IO
from zlib import crc32

import numpy as np
import numpy.typing as npt

from visxp_search.cluster_model import MODALITIES, FloatArray, make_features, stack_vectors
from visxp_search.cluster_prototypes import Progress
from visxp_search.cluster_store import PAGE, pages
from visxp_search.store import Store

MOST_SPOOLED = 2_000_000
"""Seconds that sizes are balanced on; at 2 x 256 numbers 2 GB of temporary disk. More are assigned, not balanced."""
MOST_WHOLE = 100_000
"""Seconds that are kept as float32: of few the sizes are met to the second, which rounding would move."""
MOST_SAMPLE = 150_000
"""Seconds, at most, that prototypes are fitted to."""
ABSENCE = 1.0
"""What a missing modality counts beside one that is there: different pictures without sound are as alike as different
pictures with the same sound."""
STRETCH_SECONDS = 10
"""Seconds of a video that stay together when an archive is halved."""


class Spool:
    """The vectors of seconds in a temporary file, with room for their features, read block by block.

    Args:
        file: open for reading and writing.
        kind: of the numbers in it, float16 or float32.
        n_rows: number of rows.
        means: modality -> (D,) mean.
        stretches: (n,) int64 of the first rows: equal numbers for seconds of one stretch of a video.
    """

    def __init__(
        self,
        file: IO[bytes],
        *,
        kind: npt.DTypeLike,
        n_rows: int,
        means: dict[str, FloatArray],
        stretches: npt.NDArray[np.int64],
    ) -> None:
        self.file = file
        self.kind = np.dtype(kind)
        self.n_rows = n_rows
        self.means = means
        self.stretches = stretches
        self.width = _width({name: len(mean) for name, mean in means.items()})
        self._row_bytes = self.width * self.kind.itemsize

    def blocks(self, size: int = PAGE) -> Iterator[FloatArray]:
        """All rows as (n, F) float32, n <= size."""
        for start in range(0, self.n_rows, size):
            yield self._read(start, min(size, self.n_rows - start))

    def first(self, n_rows: int) -> FloatArray:
        """The first rows, or all there are."""
        return self._read(0, min(n_rows, self.n_rows))

    def turn_into_features(self) -> None:
        """Replace vectors by features, see `cluster_model.make_features`."""
        for at, block in enumerate(self.blocks()):
            self.file.seek(at * PAGE * self._row_bytes)
            self.file.write(make_features(block, self.means, absence=ABSENCE).astype(self.kind).tobytes())

    def _read(self, start: int, n_rows: int) -> FloatArray:
        self.file.seek(start * self._row_bytes)
        data = self.file.read(n_rows * self._row_bytes)
        return np.frombuffer(data, dtype=self.kind).reshape(n_rows, self.width).astype(np.float32)


def fill_spool(store: Store, file: IO[bytes], n_seconds: int, progress: Progress) -> Spool:
    """Read the seconds, at most `MOST_SPOOLED` of them, and their mean embeddings."""
    dims = {name: store.info.dims[name] for name in MODALITIES if name in store.info.dims}
    sums = np.zeros(sum(dims.values()))
    counts = dict.fromkeys(dims, 0)
    room = ((0, 0), (0, _width(dims) - len(sums)))
    kind = np.float32 if n_seconds <= MOST_WHOLE else np.float16
    n_rows = 0
    stretches: list[int] = []
    total = min(n_seconds, MOST_SPOOLED)
    for points in pages(store.seconds(with_vectors=tuple(dims), page=PAGE)):
        points = points[: MOST_SPOOLED - n_rows]
        vectors = stack_vectors(points, dims)
        file.write(np.pad(vectors, room).astype(kind).tobytes())
        sums += vectors.sum(axis=0, dtype=np.float64)
        for name in dims:
            counts[name] += sum(name in point.vectors for point in points)
        if n_rows < MOST_SAMPLE:
            stretches += [crc32(f"{p.video_id}/{p.second // STRETCH_SECONDS}".encode()) for p in points]
        n_rows += len(points)
        progress("read seconds", n_rows, total)
        if n_rows >= MOST_SPOOLED:
            break
    means, start = {}, 0
    for name, dim in dims.items():
        means[name] = (sums[start : start + dim] / max(counts[name], 1)).astype(np.float32)
        start += dim
    return Spool(file, kind=kind, n_rows=n_rows, means=means, stretches=np.array(stretches, dtype=np.int64))


def _width(dims: Mapping[str, int]) -> int:
    """Numbers of a second's features, see `cluster_model.make_features`."""
    return sum(dims.values()) + len(dims)
