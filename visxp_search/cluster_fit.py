"""Fits the clusters of an archive to its stored embeddings, in constant memory.

The seconds are read once from the store into a temporary file of float16 (`Spool`), which is then read block by block
as often as needed. Prototypes are fitted to a sample in memory by self-labelling: labels of wanted sizes, prototypes as
the means of their members, and again. Then the offsets that give all spooled seconds the wanted sizes are found. Points
stream in the order of their ids, which are hashes, so the first n are a random sample and a fit depends on nothing but
the stored points, the seed and the clusters before it.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

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
    gaussian_sizes,
    hard_assignment,
    mutual_information,
    near_scores,
    simplified_silhouette,
    spread_prototypes,
    uniform_sizes,
    update_prototypes,
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
SHARPNESS = 12.0
"""Of the assignment by cosine; a second that is 0.1 nearer to one prototype is 3 times as much its."""
PLAIN_EPOCHS, BALANCED_EPOCHS = 6, 8
TOO_FEW = 0.1
"""A cluster of fewer than this share of the mean size gets another place while prototypes are looked for."""
SIZE_TOLERANCE = 0.02
N_NEAR = 16
"""Clusters that a second may go to while sizes are balanced: its best ones by then."""
BALANCE_ROUNDS = 6
"""How often, at most, the best clusters are looked for anew."""
AUTO_CLUSTERS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
AUTO_SECONDS_PER_CLUSTER = 12
"""`auto` tries no K with fewer seconds a cluster."""

Progress = Callable[[str, int, int], None]
"""Told a step's name, what is done of it, and of how much."""


@dataclass(frozen=True)
class FitOptions:
    """How clusters are wanted.

    Attributes:
        n_clusters: K; None finds it by the simplified silhouette, see `choose_n_clusters`.
        sizes: wanted sizes. `natural`: those that nearest prototypes give, so that no cluster takes what is another's
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
            raise UsageError("fewer than two seconds have an embedding; index more videos first")
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
        start = torch.from_numpy(old.model.prototypes)
        n_clusters = len(start)
    elif options.n_clusters is None:
        n_clusters, curve = choose_n_clusters(sample, seed=options.seed, progress=progress)
    else:
        n_clusters = options.n_clusters
    if n_clusters > len(sample):
        raise UsageError(f"{n_clusters} clusters wanted of {len(sample)} seconds; ask for fewer with --k")

    progress("fit prototypes", 0, 1)
    prototypes, sizes, offsets = fit_prototypes(sample, n_clusters, sizes=options.sizes, seed=options.seed, start=start)
    progress("fit prototypes", 1, 1)
    near = near_scores(sample @ prototypes.T, offsets=offsets, n_near=2 * N_NEAR)
    offsets = balance_labels(
        lambda: [near],
        cluster_sizes=sizes,
        sharpness=4 * SHARPNESS,
        start=offsets,
        tolerance=SIZE_TOLERANCE,
        passes=15,
        doublings=1,
    )
    stability = _stability(sample, prototypes, offsets, options) if options.check_stability else None
    offsets, size_error = _balance(spool, prototypes, sizes, offsets, progress)
    model = ClusterModel(means=spool.means, prototypes=prototypes.numpy(), offsets=offsets.numpy(), sharpness=SHARPNESS)
    book, carried = _write_book(model, vectors, old, options.seed, progress)
    fit = FitFacts(
        fit_id=_fit_id(model, options),
        n_clusters=n_clusters,
        sizes=options.sizes,
        seed=options.seed,
        n_seconds=n_seconds,
        size_error=round(size_error, 4),
        curve=curve,
        stability=stability,
    )
    return Clustering(model, book, fit), carried


def fit_prototypes(
    sample: Tensor, n_clusters: int, *, sizes: str, seed: int, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Self-labelling of a sample: plain spherical k-means to begin with, then labels of wanted sizes.

    Args:
        sample: (B, F) features of norm 1.
        n_clusters: K <= B.
        sizes: see `FitOptions`.
        seed: of the first prototypes and of Gaussian sizes.
        start: (K, F) prototypes to begin with; None for rows that lie far apart.

    Returns:
        Prototypes (K, F), wanted sizes (K,), and the offsets (K,) under which the sample's labels nearly have them.
    """
    if start is None:
        tries = [_plain_prototypes(sample, n_clusters, seed=seed + turn) for turn in range(_n_tries(n_clusters))]
        prototypes = max(tries, key=lambda found: float((sample @ found.T).max(dim=1).values.mean()))
    else:
        prototypes = start
    counts = torch.bincount((sample @ prototypes.T).argmax(dim=1), minlength=n_clusters)
    wanted = _wanted_sizes(counts, kind=sizes, seed=seed)
    offsets = torch.zeros(n_clusters, dtype=torch.float64)
    for _ in range(BALANCED_EPOCHS):
        scores = sample @ prototypes.T
        near = near_scores(scores, offsets=offsets, n_near=2 * N_NEAR)
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


def _stability(sample: Tensor, prototypes: Tensor, offsets: Tensor, options: FitOptions) -> float:
    """NMI of a sample's labels with those of a fit of as many clusters that began with other seconds."""
    n_clusters = len(prototypes)
    other, _, other_offsets = fit_prototypes(
        sample, n_clusters, sizes=options.sizes, seed=options.seed + _n_tries(n_clusters)
    )
    labels = hard_assignment(sample @ prototypes.T, offsets=offsets)
    return round(mutual_information(labels, hard_assignment(sample @ other.T, offsets=other_offsets)), 4)


def _n_tries(n_clusters: int) -> int:
    """Beginnings tried: few clusters end up in a poor optimum more easily, and cost little."""
    return max(1, min(8, 256 // n_clusters))


def _plain_prototypes(sample: Tensor, n_clusters: int, *, seed: int) -> Tensor:
    """Spherical k-means from rows that lie far apart."""
    prototypes = spread_prototypes(sample, n_clusters, seed=seed)
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


def choose_n_clusters(sample: Tensor, *, seed: int, progress: Progress) -> tuple[int, tuple[tuple[int, float], ...]]:
    """The K whose prototypes, fitted to one half of a sample, have the best simplified silhouette on the other half.

    Args:
        sample: (B, F) features of norm 1.
        seed: of the fits.
        progress: told after each K.

    Returns:
        K, and the curve (K, mean silhouette in [0, 1]).
    """
    half, other = sample[: len(sample) // 2], sample[len(sample) // 2 :]
    grid = [k for k in AUTO_CLUSTERS if k * AUTO_SECONDS_PER_CLUSTER <= len(half)] or [2]
    curve = []
    for done, k in enumerate(grid):
        progress("choose K", done, len(grid))
        prototypes, _, _ = fit_prototypes(half, min(k, len(half)), sizes="natural", seed=seed)
        curve.append((k, round(float(simplified_silhouette(other @ prototypes.T).mean()), 4)))
    progress("choose K", len(grid), len(grid))
    return max(curve, key=lambda point: (point[1], -point[0]))[0], tuple(curve)


class Spool:
    """The vectors of seconds in a temporary file, read block by block.

    Args:
        file: open for reading and writing; of float16 rows.
        n_rows: number of rows.
        means: modality -> (D,) mean.
    """

    def __init__(self, file: IO[bytes], *, n_rows: int, means: dict[str, FloatArray]) -> None:
        self.file = file
        self.n_rows = n_rows
        self.means = means
        self.width = sum(len(mean) for mean in means.values())

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
            self.file.write(make_features(block, self.means).astype(np.float16).tobytes())

    def _read(self, start: int, n_rows: int) -> FloatArray:
        self.file.seek(start * self.width * 2)
        data = self.file.read(n_rows * self.width * 2)
        return np.frombuffer(data, dtype=np.float16).reshape(n_rows, self.width).astype(np.float32)


def fill_spool(store: Store, file: IO[bytes], n_seconds: int, progress: Progress) -> Spool:
    """Read the seconds that have a vector, at most `MOST_SPOOLED` of them, and their mean embeddings."""
    dims = {name: store.info.dims[name] for name in MODALITIES if name in store.info.dims}
    sums = np.zeros(sum(dims.values()))
    counts = dict.fromkeys(dims, 0)
    n_rows = n_read = 0
    total = min(n_seconds, MOST_SPOOLED)
    for points in pages(store.seconds(with_vectors=tuple(dims), page=PAGE)):
        points = points[: MOST_SPOOLED - n_read]
        n_read += len(points)
        vectors = stack_vectors([point for point in points if any(name in point.vectors for name in dims)], dims)
        file.write(vectors.astype(np.float16).tobytes())
        sums += vectors.sum(axis=0, dtype=np.float64)
        for name in dims:
            counts[name] += sum(name in point.vectors for point in points)
        n_rows += len(vectors)
        progress("read seconds", n_read, total)
        if n_read >= MOST_SPOOLED:
            break
    means, start = {}, 0
    for name, dim in dims.items():
        means[name] = (sums[start : start + dim] / max(counts[name], 1)).astype(np.float32)
        start += dim
    return Spool(file, n_rows=n_rows, means=means)


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
    new_rows, _ = model.assign(make_features(vectors, model.means))
    book = carry_rows(old.book, old_clusters, new_rows, n_rows)
    tree = build_tree(cluster_prototypes(model, book), book.clusters(), seed=seed)
    carried = len(set(book.rows) & set(old.book.rows))
    book = carry_tree(book, tree, old_clusters, np.array(book.rows)[new_rows])
    progress("build the hierarchy", 1, 1)
    return book, carried


def _clusters_of(model: ClusterModel, book: ClusterBook, vectors: FloatArray) -> npt.NDArray[np.int64]:
    rows, _ = model.assign(make_features(vectors, model.means))
    return np.where(rows >= 0, np.array(book.rows)[rows], -1)


def _balance(
    spool: Spool, prototypes: Tensor, sizes: Tensor, offsets: Tensor, progress: Progress
) -> tuple[Tensor, float]:
    """Offsets for all spooled seconds, beginning with those of the sample; and the largest deviation that is left.

    One second too many or too few is none: sizes are not whole numbers.

    A round reads the spool once: it counts sizes under the offsets so far, and keeps the best clusters of each second
    in memory, 6 x `N_NEAR` bytes each, on which the offsets are then found.
    """
    best, best_error = offsets, float("inf")
    for done in range(BALANCE_ROUNDS):
        counts, near = _read_near(spool, prototypes, offsets, progress, done=done)
        wanted = counts.sum() * sizes
        error = float((((counts - wanted).abs() - 1).clamp(min=0) / wanted).max())
        if error < best_error:
            best, best_error = offsets, error
        if error <= SIZE_TOLERANCE or done == BALANCE_ROUNDS - 1:
            break
        offsets = balance_labels(
            lambda near=near: (NearScores(part.values, part.clusters.long()) for part in near),
            cluster_sizes=sizes,
            sharpness=8 * SHARPNESS,
            start=offsets,
            tolerance=SIZE_TOLERANCE / 2,
            passes=25,
            doublings=3,
        )
    progress("balance sizes", 1, 1)
    return best, best_error


def _read_near(
    spool: "Spool", prototypes: Tensor, offsets: Tensor, progress: Progress, *, done: int
) -> tuple[Tensor, list[NearScores]]:
    """Sizes (K,) under offsets, and blocks of the best clusters of all spooled seconds."""
    counts, blocks, n_rows = torch.zeros(len(offsets), dtype=torch.float64), [], 0
    for block in spool.blocks():
        near = near_scores(torch.from_numpy(block) @ prototypes.T, offsets=offsets, n_near=N_NEAR)
        counts += torch.bincount(near.clusters[:, 0], minlength=len(counts)).to(counts)
        blocks.append(NearScores(near.values, near.clusters.to(torch.int16)))
        n_rows += len(block)
        progress("balance sizes", done * spool.n_rows + n_rows, BALANCE_ROUNDS * spool.n_rows)
    return counts, blocks


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
