"""Fits the clusters of an archive to its stored embeddings, in constant memory.

The seconds are read once from the store into a temporary file of float16 (`Spool`), which is then read block by block
as often as needed. Prototypes are fitted to a sample in memory by self-labelling: labels of wanted sizes, prototypes as
the means of their members, and again. Then the offsets that give all spooled seconds the wanted sizes are found. Points
stream in the order of their ids, which are hashes, so the first n are a random sample and a fit depends on nothing but
the stored points, the seed and the clusters before it.
"""

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visxp_search.cluster_book import ROOT, ClusterBook, carry_rows, carry_tree
from visxp_search.cluster_model import MODALITIES, ClusterModel, FloatArray, make_features, stack_vectors
from visxp_search.cluster_store import PAGE, Clustering, FitFacts, apply_clustering, pages, read_clustering
from visxp_search.clusters import (
    NearScores,
    balance_labels,
    confirmed_bits,
    gaussian_sizes,
    hard_assignment,
    mutual_information,
    near_scores,
    spread_prototypes,
    uniform_sizes,
    update_prototypes,
    whole_sizes,
)
from visxp_search.errors import CollectionError, UsageError
from visxp_search.hierarchy import cluster_hierarchy, widen_tree
from visxp_search.store import Store

SIZES = ("natural", "tempered", "uniform", "gaussian")
MOST_CLUSTERS = 5000
MOST_SPOOLED = 2_000_000
"""Seconds that sizes are balanced on; at 2 x 256 numbers 2 GB of temporary disk. More are assigned, not balanced."""
SAMPLE_PER_CLUSTER, LEAST_SAMPLE, MOST_SAMPLE = 100, 20_000, 150_000
"""Seconds that prototypes are fitted to, for each prototype, and at least and at most."""
ABSENCE = 1.0
"""What a missing modality counts beside one that is there: different pictures without sound are as alike as different
pictures with the same sound."""
SHARPNESS = 12.0
"""Of the assignment by cosine; a second that is 0.1 nearer to one prototype is 3 times as much its."""
PLAIN_EPOCHS, BALANCED_EPOCHS = 6, 8
TOO_FEW = 0.1
"""A cluster of fewer than this share of the mean size gets another place while prototypes are looked for."""
SIZE_TOLERANCE = 0.02
N_NEAR = 32
"""Clusters that a second may go to while sizes are balanced: its best ones by then."""
BALANCE_ROUNDS = 16
"""How often, at most, the best clusters are looked for anew."""
AUTO_CLUSTERS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
AUTO_SECONDS_PER_CLUSTER = 10
"""`auto` tries no K with fewer seconds of one half a cluster."""
HALVINGS = 3
PATIENCE = 4
STRETCH_SECONDS, FEWEST_STRETCHES = 10, 8
"""Seconds of a video that stay together when `auto` halves an archive, unless it has fewer stretches than that."""

Progress = Callable[[str, int, int], None]
"""Told a step's name, what is done of it, and of how much."""


@dataclass(frozen=True)
class FitOptions:
    """How clusters are wanted.

    Attributes:
        n_clusters: K; None finds it by what two halves of the archive both tell, see `choose_n_clusters`.
        sizes: wanted sizes. `natural`: whatever nearest prototypes give, so that no cluster takes what is another's
            to fill up; `tempered`: their square roots, so that common kinds get more clusters; `uniform`: all equal
            [asano2020]; `gaussian`: [asano2020b].
        seed: of everything random.
        fresh: begin with new prototypes even if there are as many clusters already.
        check_stability: fit the sample once more with another seed, and say how far both agree.
    """

    n_clusters: int | None = None
    sizes: str = "natural"
    seed: int = 0
    fresh: bool = False
    check_stability: bool = False


@dataclass(frozen=True)
class FitReport:
    """What a fit did.

    Attributes:
        clustering: the clusters, applied.
        resumed: a fit that had been cut short was completed instead of begun.
        carried: clusters that are those of the fit before.
    """

    clustering: Clustering
    resumed: bool = False
    carried: int = 0


def fit_clusters(
    store: Store, options: FitOptions, *, progress: Progress = lambda step, done, total: None
) -> FitReport:
    """Fit clusters to all stored seconds, set their payloads, and keep names and edits of clusters before.

    A fit whose payloads were cut short (kill -9) is completed, so the end is the same as without. Without a wanted K,
    clusters that exist are fitted on from where they are.

    Raises:
        UsageError: If options are out of range, or there are too few seconds.
        CollectionError: If the store fails.
    """
    n_seconds = store.count()
    old = read_clustering(store)
    if old is not None and not old.applied:
        return FitReport(_apply(store, old, n_seconds, progress), resumed=True)
    _check(options, n_seconds, store)
    with tempfile.TemporaryFile(prefix="visxp-fit-") as file:
        spool = fill_spool(store, file, n_seconds, progress)
        if spool.n_rows < 2:
            raise UsageError("fewer than two seconds are indexed; index more videos first")
        clustering, carried = _fit(spool, options, old, n_seconds, progress)
    return FitReport(_apply(store, clustering, n_seconds, progress), carried=carried)


def _fit(
    spool: "Spool", options: FitOptions, old: Clustering | None, n_seconds: int, progress: Progress
) -> tuple[Clustering, int]:
    again = old is not None and options.n_clusters in (None, len(old.book.rows)) and not options.fresh
    n_sample = SAMPLE_PER_CLUSTER * (options.n_clusters or (len(old.book.rows) if old else 0))
    n_sample = min(max(n_sample, LEAST_SAMPLE), MOST_SAMPLE)
    vectors = spool.first(n_sample)
    spool.turn_into_features()
    sample = torch.from_numpy(spool.first(n_sample))

    curve: tuple[tuple[int, float], ...] = ()
    start = None
    if again and old is not None:
        # Those of earlier releases have no numbers for what is missing.
        wider = ((0, 0), (0, spool.width - old.model.prototypes.shape[1]))
        start = torch.from_numpy(np.pad(old.model.prototypes, wider))
        n_clusters = len(start)
    elif options.n_clusters is None:
        n_clusters, curve = choose_n_clusters(
            sample,
            torch.from_numpy(spool.stretches[: len(sample)]),
            n_modalities=len(spool.means),
            seed=options.seed,
            progress=progress,
        )
    else:
        n_clusters = options.n_clusters
    if n_clusters > len(sample):
        raise UsageError(f"{n_clusters} clusters wanted of {len(sample)} seconds; ask for fewer with --k")

    progress("fit prototypes", 0, 1)
    prototypes, sizes, offsets = fit_prototypes(
        sample, n_clusters, n_modalities=len(spool.means), sizes=options.sizes, seed=options.seed, start=start
    )
    progress("fit prototypes", 1, 1)
    stability = None
    if options.check_stability:
        stability = _stability(sample, prototypes, offsets, options, n_modalities=len(spool.means))
    wanted_sizes = None if options.sizes == "natural" else sizes
    offsets, wanted, obtained = _balance(spool, prototypes, wanted_sizes, offsets, progress)
    model = ClusterModel(
        means=spool.means,
        prototypes=prototypes.numpy(),
        offsets=offsets.numpy(),
        sharpness=SHARPNESS,
        absence=ABSENCE,
    )
    book, carried = _write_book(model, vectors, old, options.seed, progress)
    fit = FitFacts(
        fit_id=_fit_id(model, options),
        n_clusters=n_clusters,
        sizes=options.sizes,
        seed=options.seed,
        n_seconds=n_seconds,
        size_error=round(_size_error(wanted, obtained), 4),
        curve=curve,
        stability=stability,
        wanted=tuple(wanted.tolist()),
        obtained=tuple(obtained.tolist()),
    )
    return Clustering(model, book, fit), carried


def fit_prototypes(
    sample: Tensor, n_clusters: int, *, n_modalities: int = 0, sizes: str, seed: int, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Self-labelling of a sample: plain spherical k-means to begin with, then labels of wanted sizes.

    Natural sizes are whatever they are, so for them it is k-means to the end, without offsets.

    Args:
        sample: (B, F) features of norm 1.
        n_clusters: K <= B.
        n_modalities: so many last columns say what a second misses, see `cluster_model.make_features`.
        sizes: see `FitOptions`.
        seed: of the first prototypes and of Gaussian sizes.
        start: (K, F) prototypes to begin with; None for rows that lie far apart, and one for the few silent seconds.

    Returns:
        Prototypes (K, F), wanted sizes (K,), and the offsets (K,) under which the sample's labels nearly have them.
    """
    prototypes = start
    if prototypes is None:
        prototypes = _first_prototypes(sample, n_clusters, n_modalities=n_modalities, seed=seed)
    offsets = torch.zeros(n_clusters, dtype=torch.float64)
    if sizes == "natural":
        for _ in range(BALANCED_EPOCHS):
            prototypes = _means(sample, (sample @ prototypes.T).argmax(dim=1), prototypes)
    counts = torch.bincount((sample @ prototypes.T).argmax(dim=1), minlength=n_clusters)
    wanted = _wanted_sizes(counts, kind=sizes, seed=seed)
    if sizes == "natural":
        return prototypes, wanted, offsets
    for _ in range(BALANCED_EPOCHS):
        scores = sample @ prototypes.T
        near = near_scores(scores, offsets=offsets, n_near=N_NEAR)
        offsets = balance_labels(
            lambda near=near: [near],
            cluster_sizes=wanted,
            sharpness=4 * SHARPNESS,
            start=offsets,
            tolerance=SIZE_TOLERANCE,
            passes=8,
            doublings=1,
        )
        # Labels, not the soft plan: in its means two prototypes of one kind become the same, and then no offset parts
        # their seconds.
        prototypes = _means(sample, hard_assignment(scores, offsets=offsets), prototypes)
    return prototypes, wanted, offsets


def _stability(sample: Tensor, prototypes: Tensor, offsets: Tensor, options: FitOptions, *, n_modalities: int) -> float:
    """NMI of a sample's labels with those of a fit of as many clusters that began with other seconds."""
    n_clusters = len(prototypes)
    other, _, other_offsets = fit_prototypes(
        sample,
        n_clusters,
        n_modalities=n_modalities,
        sizes=options.sizes,
        seed=options.seed + _n_tries(n_clusters),
    )
    labels = hard_assignment(sample @ prototypes.T, offsets=offsets)
    return round(mutual_information(labels, hard_assignment(sample @ other.T, offsets=other_offsets)), 4)


def _n_tries(n_clusters: int) -> int:
    """Beginnings tried: few clusters end up in a poor optimum more easily, and cost little."""
    return max(1, min(8, 256 // n_clusters))


def _first_prototypes(sample: Tensor, n_clusters: int, *, n_modalities: int, seed: int) -> Tensor:
    """The prototypes (K, F) nearest to a sample (B, F) of several that began elsewhere."""
    given = _prototypes_of_absence(sample, n_clusters, n_modalities=n_modalities)
    tries = [
        _plain_prototypes(sample, n_clusters, given=given, seed=seed + turn) for turn in range(_n_tries(n_clusters))
    ]
    return max(tries, key=lambda found: float((sample @ found.T).max(dim=1).values.mean()))


def _prototypes_of_absence(sample: Tensor, n_clusters: int, *, n_modalities: int) -> Tensor:
    """(n, F) for each modality that is missing in enough seconds for a cluster, and not too many for one, their mean.

    Left to chance, the few silent seconds of an archive are divided among its pictures.
    """
    mean_size = len(sample) / n_clusters
    columns = (sample[:, -column] > 0 for column in range(n_modalities, 0, -1))
    few = [missing for missing in columns if TOO_FEW * mean_size < int(missing.sum()) <= mean_size]
    means = [sample[missing].mean(dim=0) for missing in few[: n_clusters - 1]]
    return torch.nn.functional.normalize(torch.stack(means), dim=1) if means else sample[:0]


def _plain_prototypes(sample: Tensor, n_clusters: int, *, given: Tensor, seed: int) -> Tensor:
    """Spherical k-means from given prototypes (n, F), and rows that lie far from these and from each other."""
    prototypes = spread_prototypes(sample, n_clusters, first=given, seed=seed)
    for epoch in range(PLAIN_EPOCHS):
        nearest = (sample @ prototypes.T).argmax(dim=1)
        if epoch < PLAIN_EPOCHS - 2:
            _refill(nearest, sample, n_clusters)
        prototypes = _means(sample, nearest, prototypes)
    return prototypes


def _means(sample: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """Prototypes (K, F) as the spherical means of the rows with their labels (B,)."""
    members = torch.nn.functional.one_hot(labels, len(prototypes)).to(sample)
    return update_prototypes(sample, members, prototypes=prototypes)


def _refill(labels: Tensor, sample: Tensor, n_clusters: int) -> None:
    """Give clusters that are all but empty half of the largest ones, by changing labels (B,) in place.

    A large cluster is halved along the way from its middle to the member that is farthest from it.
    """
    counts = torch.bincount(labels, minlength=n_clusters)
    for empty in torch.nonzero(counts < TOO_FEW * len(labels) / n_clusters).flatten().tolist():
        largest = int(counts.argmax())
        rows = torch.nonzero(labels == largest).flatten()
        own = sample[rows] - sample[rows].mean(dim=0)
        along = own @ own[int(own.norm(dim=1).argmax())]
        half = rows[along > along.median()]
        labels[half] = empty
        counts[empty] += len(half)
        counts[largest] -= len(half)


def choose_n_clusters(
    sample: Tensor, stretches: Tensor, *, n_modalities: int = 0, seed: int, progress: Progress
) -> tuple[int, tuple[tuple[int, float], ...]]:
    """The K whose clusters another half of the archive confirms, at the least price.

    The sample is halved, so that seconds of one stretch of a video, which resemble each other anyway, are in one half;
    K prototypes are fitted to each half, and both label all seconds. What both labellings tell in common beyond chance
    are the *confirmed bits* of K clusters. A label of K clusters has log2 K bits, and half of those are the price: so
    twice as many clusters must bring half a bit that is confirmed. (A silhouette is as good for any K on real
    archives, whose seconds come in near copies.)

    Args:
        sample: (B, F) features of norm 1.
        stretches: (B,) int64, equal for seconds of one stretch of a video.
        n_modalities: see `fit_prototypes`.
        seed: of the fits and the halves.
        progress: told after each K.

    Returns:
        K, and the curve (K, mean over halvings of confirmed bits - log2(K) / 2); it ends where `PATIENCE` K in a row
        were no better than the best before.
    """
    names, numbers = torch.unique(stretches, return_inverse=True)
    if len(names) < FEWEST_STRETCHES:
        names = numbers = torch.arange(len(sample))
    generator = torch.Generator().manual_seed(seed)
    halves = [torch.randperm(len(names), generator=generator)[numbers] < len(names) // 2 for _ in range(HALVINGS)]
    smaller = min(min(int(half.sum()), int((~half).sum())) for half in halves)
    grid = [k for k in AUTO_CLUSTERS if k * AUTO_SECONDS_PER_CLUSTER <= smaller] or [2]
    curve: list[tuple[int, float]] = []
    for done, k in enumerate(grid):
        progress("choose K", done, len(grid))
        bits = [
            _confirmed(sample, numbers, half, min(k, smaller), n_modalities=n_modalities, seed=seed) for half in halves
        ]
        curve.append((k, round(sum(bits) / len(bits) - math.log2(k) / 2, 4)))
        if len(curve) - 1 - _best(curve) >= PATIENCE:
            break
    progress("choose K", len(grid), len(grid))
    return curve[_best(curve)][0], tuple(curve)


def _confirmed(
    sample: Tensor, stretches: Tensor, half: Tensor, n_clusters: int, *, n_modalities: int, seed: int
) -> float:
    """Confirmed bits of the labels of a sample (B, F) by fits to one half (B,) of it and to the other."""
    fits = [
        _first_prototypes(sample[part], n_clusters, n_modalities=n_modalities, seed=seed + 100 * turn)
        for turn, part in enumerate((half, ~half))
    ]
    first, second = ((sample @ prototypes.T).argmax(dim=1) for prototypes in fits)
    return confirmed_bits(first, second, stretches=stretches, seed=seed)


def _best(curve: list[tuple[int, float]]) -> int:
    """Where the curve is highest; the first of equal ones."""
    return max(range(len(curve)), key=lambda at: (curve[at][1], -at))


class Spool:
    """The vectors of seconds in a temporary file, with room for their features, read block by block.

    Args:
        file: open for reading and writing; of float16 rows.
        n_rows: number of rows.
        means: modality -> (D,) mean.
        stretches: (n,) int64 of the first rows: equal numbers for seconds of one stretch of a video.
    """

    def __init__(
        self,
        file: IO[bytes],
        *,
        n_rows: int,
        means: dict[str, FloatArray],
        stretches: npt.NDArray[np.int64],
    ) -> None:
        self.file = file
        self.n_rows = n_rows
        self.means = means
        self.stretches = stretches
        self.width = _width({name: len(mean) for name, mean in means.items()})

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
            self.file.seek(at * PAGE * self.width * 2)
            self.file.write(make_features(block, self.means, absence=ABSENCE).astype(np.float16).tobytes())

    def _read(self, start: int, n_rows: int) -> FloatArray:
        self.file.seek(start * self.width * 2)
        data = self.file.read(n_rows * self.width * 2)
        return np.frombuffer(data, dtype=np.float16).reshape(n_rows, self.width).astype(np.float32)


def fill_spool(store: Store, file: IO[bytes], n_seconds: int, progress: Progress) -> Spool:
    """Read the seconds, at most `MOST_SPOOLED` of them, and their mean embeddings."""
    dims = {name: store.info.dims[name] for name in MODALITIES if name in store.info.dims}
    sums = np.zeros(sum(dims.values()))
    counts = dict.fromkeys(dims, 0)
    room = ((0, 0), (0, _width(dims) - len(sums)))
    n_rows = 0
    stretches: list[int] = []
    total = min(n_seconds, MOST_SPOOLED)
    for points in pages(store.seconds(with_vectors=tuple(dims), page=PAGE)):
        points = points[: MOST_SPOOLED - n_rows]
        vectors = stack_vectors(points, dims)
        file.write(np.pad(vectors, room).astype(np.float16).tobytes())
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
    return Spool(file, n_rows=n_rows, means=means, stretches=np.array(stretches, dtype=np.int64))


def _width(dims: Mapping[str, int]) -> int:
    """Numbers of a second's features, see `cluster_model.make_features`."""
    return sum(dims.values()) + len(dims)


def build_tree(prototypes: Tensor, clusters: list[int], *, seed: int) -> dict[str, tuple[str, ...]]:
    """The hyperbolic hierarchy over clusters, as node ids: branches `b0` (the root), `b1`, ... from the top down.

    Args:
        prototypes: (K, F) norm 1, one for each cluster.
        clusters: their ids.
        seed: of the hierarchy.
    """
    if len(clusters) < 2:
        return {ROOT: tuple(f"c{cluster}" for cluster in clusters)}
    wide = widen_tree(*cluster_hierarchy(prototypes, seed=seed))
    order = [2 * len(clusters) - 2]
    ids: dict[int, str] = {}
    for node in order:  # grows as it is walked: breadth first
        ids[node] = f"b{len(ids)}"
        order += [child for child in wide[node] if child in wide]
    names = {**{leaf: f"c{cluster}" for leaf, cluster in enumerate(clusters)}, **ids}
    return {names[node]: tuple(names[child] for child in wide[node]) for node in order}


def cluster_prototypes(model: ClusterModel, book: ClusterBook) -> Tensor:
    """(K, F) one prototype for each of `book.clusters()`: the mean of its rows, norm 1."""
    rows = np.array(book.rows)
    means = np.stack([model.prototypes[rows == cluster].mean(axis=0) for cluster in book.clusters()])
    return torch.nn.functional.normalize(torch.from_numpy(means), dim=1)


def _write_book(
    model: ClusterModel, vectors: FloatArray, old: Clustering | None, seed: int, progress: Progress
) -> tuple[ClusterBook, int]:
    """The book of a new model, with all that can be carried over from the old one; and how many clusters were."""
    progress("build the hierarchy", 0, 1)
    n_rows = len(model.prototypes)
    if old is None:
        book = ClusterBook(rows=tuple(range(n_rows)), tree={}, next_cluster=n_rows)
        tree = build_tree(cluster_prototypes(model, book), book.clusters(), seed=seed)
        progress("build the hierarchy", 1, 1)
        return ClusterBook(rows=book.rows, tree=tree, next_cluster=n_rows, next_branch=len(tree)), 0
    old_clusters = _clusters_of(old.model, old.book, vectors)
    new_rows, _ = model.assign(make_features(vectors, model.means, absence=model.absence))
    book = carry_rows(old.book, old_clusters, new_rows, n_rows)
    tree = build_tree(cluster_prototypes(model, book), book.clusters(), seed=seed)
    carried = len(set(book.rows) & set(old.book.rows))
    book = carry_tree(book, tree, old_clusters, np.array(book.rows)[new_rows])
    progress("build the hierarchy", 1, 1)
    return book, carried


def _clusters_of(model: ClusterModel, book: ClusterBook, vectors: FloatArray) -> npt.NDArray[np.int64]:
    rows, _ = model.assign(make_features(vectors, model.means, absence=model.absence))
    return np.where(rows >= 0, np.array(book.rows)[rows], -1)


def _balance(
    spool: Spool, prototypes: Tensor, sizes: Tensor | None, offsets: Tensor, progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets for all spooled seconds, beginning with those of the sample; sizes wanted and obtained, (K,) int64 each.

    A round reads the spool once: it counts sizes under the offsets so far, and keeps the best clusters of each second
    in memory, 6 x `N_NEAR` bytes each, on which the offsets are then found. Where no sizes (K,) are wanted, they are
    only counted.
    """
    if sizes is None:
        counts = _count_sizes(spool, prototypes, offsets)
        progress("balance sizes", 1, 1)
        return offsets, counts, counts
    wanted = whole_sizes(sizes, n_rows=spool.n_rows)
    best, obtained, best_error = offsets, wanted, float("inf")
    for done in range(BALANCE_ROUNDS):
        counts, near = _read_near(spool, prototypes, offsets, progress, done=done)
        error = _size_error(wanted, counts)
        if error < best_error:
            best, obtained, best_error = offsets, counts, error
        if error <= SIZE_TOLERANCE or done == BALANCE_ROUNDS - 1:
            break
        balanced = balance_labels(
            lambda near=near: (NearScores(part.values, part.clusters.long()) for part in near),
            cluster_sizes=wanted.double() / spool.n_rows,
            sharpness=8 * SHARPNESS,
            start=offsets,
            tolerance=SIZE_TOLERANCE / 2,
            slack=0.5,
            passes=25,
            doublings=3,
        )
        reach = _reach(near, offsets)
        offsets = offsets + (balanced - offsets).clamp(min=-reach, max=reach)
    progress("balance sizes", 1, 1)
    return best, wanted, obtained


def _reach(near: list[NearScores], offsets: Tensor) -> float:
    """How far offsets (K,) may move before most seconds would go to a cluster that is not among their best ones."""
    gaps = [part.values + offsets.to(part.values)[part.clusters.long()] for part in near]
    return float(torch.cat([values[:, 0] - values[:, -1] for values in gaps]).median()) / 2


def _size_error(wanted: Tensor, obtained: Tensor) -> float:
    """The largest relative deviation of sizes (K,) from those wanted."""
    return float(((obtained - wanted).abs() / wanted.clamp(min=1)).max())


def _count_sizes(spool: Spool, prototypes: Tensor, offsets: Tensor) -> Tensor:
    """Sizes (K,) int64 of all spooled seconds under offsets (K,)."""
    counts = torch.zeros(len(offsets), dtype=torch.int64)
    for block in spool.blocks():
        labels = hard_assignment(torch.from_numpy(block) @ prototypes.T, offsets=offsets)
        counts += torch.bincount(labels, minlength=len(counts))
    return counts


def _read_near(
    spool: Spool, prototypes: Tensor, offsets: Tensor, progress: Progress, *, done: int
) -> tuple[Tensor, list[NearScores]]:
    """Sizes (K,) under offsets, and blocks of the best clusters of all spooled seconds."""
    counts = torch.zeros(len(offsets), dtype=torch.int64)
    n_near = min(N_NEAR, len(offsets))
    # At once: small pieces kept between large ones that are let go would leave memory in holes.
    values = torch.empty((spool.n_rows, n_near))
    clusters = torch.empty((spool.n_rows, n_near), dtype=torch.int16)
    n_rows = 0
    for block in spool.blocks():
        near = near_scores(torch.from_numpy(block) @ prototypes.T, offsets=offsets, n_near=n_near)
        counts += torch.bincount(near.clusters[:, 0], minlength=len(counts))
        values[n_rows : n_rows + len(block)] = near.values
        clusters[n_rows : n_rows + len(block)] = near.clusters
        n_rows += len(block)
        progress("balance sizes", done * spool.n_rows + n_rows, BALANCE_ROUNDS * spool.n_rows)
    starts = range(0, n_rows, PAGE)
    return counts, [NearScores(values[start : start + PAGE], clusters[start : start + PAGE]) for start in starts]


def _wanted_sizes(counts: Tensor, *, kind: str, seed: int) -> Tensor:
    """(K,) shares; the largest of Gaussian sizes go to the clusters that are largest already."""
    if kind == "uniform":
        return uniform_sizes(len(counts))
    if kind == "gaussian":
        sizes = torch.empty(len(counts), dtype=torch.float64)
        sizes[counts.argsort(descending=True, stable=True)] = gaussian_sizes(len(counts), seed=seed)
        return sizes
    shares = (counts.double() + 1) ** (0.5 if kind == "tempered" else 1.0)
    return shares / shares.sum()


def _apply(store: Store, clustering: Clustering, n_seconds: int, progress: Progress) -> Clustering:
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        progress("label seconds", done, n_seconds)

    return apply_clustering(store, clustering, on_seconds=count)


def _check(options: FitOptions, n_seconds: int, store: Store) -> None:
    if options.n_clusters is not None and not 2 <= options.n_clusters <= MOST_CLUSTERS:
        raise UsageError(f"--k {options.n_clusters} is out of range; expected 2 to {MOST_CLUSTERS}, or auto")
    if options.sizes not in SIZES:
        raise UsageError(f"--sizes {options.sizes} unknown; expected one of {', '.join(SIZES)}")
    if not any(name in store.info.dims for name in MODALITIES):
        raise CollectionError(f"index {store.location} has no visual and no audio vectors; clusters need one of them")
    if n_seconds < (options.n_clusters or 2):
        raise UsageError(f"{n_seconds} seconds are indexed, too few for clusters; index more, or ask for a smaller --k")


def _fit_id(model: ClusterModel, options: FitOptions) -> str:
    digest = hashlib.blake2b(digest_size=6)
    wishes = repr((options.n_clusters, options.sizes, options.seed, options.fresh)).encode()
    parts: tuple[Any, ...] = (model.prototypes.tobytes(), model.offsets.tobytes(), wishes)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
