"""Fits the clusters of an archive to its stored embeddings, in constant memory.

The seconds are read once into a temporary file (`cluster_spool`). Prototypes are fitted to a sample of them in memory
(`cluster_prototypes`); then the offsets that give all spooled seconds the wanted sizes are found, the hierarchy is
built, and every second is labelled. A fit depends on nothing but the stored points, the seed and the clusters before.
"""

import hashlib
import tempfile
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visxp_search.cluster_book import ROOT, ClusterBook, carry_rows, carry_tree
from visxp_search.cluster_exact import meet_sizes
from visxp_search.cluster_model import MODALITIES, ClusterModel, FloatArray, make_features, measure_reach
from visxp_search.cluster_prototypes import (
    N_NEAR,
    SHARPNESS,
    SIZE_TOLERANCE,
    SIZES,
    Curve,
    Progress,
    choose_n_clusters,
    fit_prototypes,
    stability_of,
)
from visxp_search.cluster_spool import ABSENCE, MOST_SAMPLE, Spool, fill_spool
from visxp_search.cluster_store import PAGE, Clustering, FitFacts, apply_clustering, read_clustering
from visxp_search.clusters import (
    NearScores,
    balance_labels,
    hard_assignment,
    near_scores,
    update_prototypes,
    whole_sizes,
)
from visxp_search.errors import CollectionError, UsageError
from visxp_search.hierarchy import cluster_hierarchy, widen_tree
from visxp_search.store import Store

MOST_CLUSTERS = 5000
SAMPLE_PER_CLUSTER, LEAST_SAMPLE = 100, 20_000
"""Seconds that prototypes are fitted to, for each prototype, and at least."""
BALANCE_ROUNDS = 16
"""How often, at most, the best clusters are looked for anew."""
MOST_EXACT_SCORES, MOST_EXACT_CLUSTERS = 30_000_000, 1000
"""Seconds times clusters, and clusters, up to which sizes are met to the second; 100,000 x 300, in 120 MB."""


@dataclass(frozen=True)
class FitOptions:
    """How clusters are wanted.

    Attributes:
        n_clusters: K; `auto` finds it by what two halves of the archive both tell, see `choose_n_clusters`; None fits
            those that there are on from where they are, and is `auto` where there are none.
        sizes: wanted sizes. `natural`: whatever nearest prototypes give, so that no cluster takes what is another's
            to fill up; `tempered`: their square roots, so that common kinds get more clusters; `uniform`: all equal
            [asano2020]; `gaussian`: [asano2020b].
        seed: of everything random.
        fresh: begin with new prototypes, wherever clusters are that exist, edited ones too.
        check_stability: fit the sample once more with another seed, and say how far both agree.
    """

    n_clusters: int | Literal["auto"] | None = None
    sizes: str = "natural"
    seed: int = 0
    fresh: bool = False
    check_stability: bool = False


@dataclass(frozen=True)
class FitReport:
    """What a fit did.

    Attributes:
        clustering: the clusters, applied.
        carried: clusters that are those of the fit before.
        resumed: a fit that had been cut short was completed instead of begun.
        unchanged: the same fit was made of the same seconds before, so its clusters stay.
    """

    clustering: Clustering
    carried: int = 0
    resumed: bool = False
    unchanged: bool = False


def fit_clusters(
    store: Store, options: FitOptions, *, progress: Progress = lambda step, done, total: None
) -> FitReport:
    """Fit clusters to all stored seconds, set their payloads, and keep names and edits of clusters before.

    A fit whose payloads were cut short (kill -9) is completed, so the end is the same as without. Clusters that a
    person named or otherwise edited are held where their seconds are, unless far fewer are wanted, or a fresh fit.

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
        if old is not None and _is_of(old, spool, options, n_seconds):
            report = FitReport(old, unchanged=True, carried=len(old.book.clusters()))
        else:
            report = FitReport(*_fit(spool, options, old, n_seconds, progress))
    return replace(report, clustering=_apply(store, report.clustering, n_seconds, progress))


def _is_of(old: Clustering, spool: Spool, options: FitOptions, n_seconds: int) -> bool:
    """Whether the clusters that exist are what a fit would begin with and end at, of these seconds and with this wish.

    The means of all embeddings, to the last bit, tell whether they are the same seconds.
    """
    means = old.model.means
    return (
        not (options.fresh or options.check_stability)
        and options.n_clusters in (None, len(old.book.rows))
        and (options.sizes, options.seed, n_seconds) == (old.fit.sizes, old.fit.seed, old.fit.n_seconds)
        and old.model.absence == ABSENCE  # those of earlier releases have none, and no reach
        and len(old.model.reach) == len(old.model.prototypes)
        and means.keys() == spool.means.keys()
        and all(np.array_equal(mean, spool.means[name]) for name, mean in means.items())
    )


def _fit(
    spool: Spool, options: FitOptions, old: Clustering | None, n_seconds: int, progress: Progress
) -> tuple[Clustering, int]:
    n_before = 0 if old is None or options.fresh else len(old.book.rows)
    n_clusters = options.n_clusters or n_before or "auto"
    n_sample = SAMPLE_PER_CLUSTER * (0 if n_clusters == "auto" else n_clusters)
    n_sample = min(max(n_sample, LEAST_SAMPLE), MOST_SAMPLE)
    vectors = spool.first(n_sample)
    spool.turn_into_features()
    sample = torch.from_numpy(spool.first(n_sample))

    curve: Curve = ()
    if n_clusters == "auto":
        n_clusters, curve = choose_n_clusters(
            sample,
            torch.from_numpy(spool.stretches[: len(sample)]),
            n_modalities=len(spool.means),
            seed=options.seed,
            progress=progress,
        )
    if n_clusters > len(sample):
        raise UsageError(f"{n_clusters} clusters wanted of {len(sample)} seconds; ask for fewer with --k")
    start, held = None, None
    if old is not None and not options.fresh:
        before, n_edited = _prototypes_before(old, vectors, sample)
        start = before if n_clusters == n_before else None
        # Of much fewer clusters, most would be held where a finer division had them.
        held = before[:n_edited] if n_clusters >= n_before or 2 * n_edited <= n_clusters else None

    progress("fit prototypes", 0, 1)
    prototypes, sizes, offsets = fit_prototypes(
        sample,
        n_clusters,
        n_modalities=len(spool.means),
        sizes=options.sizes,
        seed=options.seed,
        start=start,
        held=held,
    )
    progress("fit prototypes", 1, 1)
    stability = None
    if options.check_stability:
        stability = stability_of(
            sample, prototypes, offsets, n_modalities=len(spool.means), sizes=options.sizes, seed=options.seed
        )
    wanted_sizes = None if options.sizes == "natural" else sizes
    offsets, wanted, obtained = _balance(spool, prototypes, wanted_sizes, offsets, progress)
    model = ClusterModel(
        means=spool.means,
        prototypes=prototypes.numpy(),
        offsets=offsets.numpy(),
        sharpness=SHARPNESS,
        absence=ABSENCE,
    )
    rows, _ = model.assign(sample.numpy())
    model = replace(model, reach=measure_reach(sample.numpy(), model.prototypes, rows))
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


def _prototypes_before(old: Clustering, vectors: FloatArray, sample: Tensor) -> tuple[Tensor, int]:
    """The prototypes of the fit before, (R, F), where their seconds are now, and those of edited clusters first.

    Features are relative to the archive's mean, which moves as more is indexed.

    Args:
        old: the fit before.
        vectors: (B, F) of the sample.
        sample: (B, F) features of now.

    Returns:
        Prototypes, and how many are of clusters that a person named or otherwise edited.
    """
    # Those of earlier releases have no numbers for what is missing.
    wider = ((0, 0), (0, sample.shape[1] - old.model.prototypes.shape[1]))
    prototypes = torch.from_numpy(np.pad(old.model.prototypes, wider))
    rows = torch.from_numpy(_rows_of(old.model, vectors))
    members = torch.nn.functional.one_hot(rows[rows >= 0], len(prototypes)).to(sample)
    prototypes = update_prototypes(sample[rows >= 0], members, prototypes=prototypes)
    book = old.book
    nodes = {*book.names, *book.hidden, *book.moves, *book.merges}
    edited = [f"c{cluster}" in nodes for cluster in book.rows]
    order = sorted(range(len(edited)), key=lambda row: not edited[row])
    return prototypes[order], sum(edited)


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
    rows = _rows_of(model, vectors)
    return np.where(rows >= 0, np.array(book.rows)[rows], -1)


def _rows_of(model: ClusterModel, vectors: FloatArray) -> npt.NDArray[np.int64]:
    return model.assign_known(make_features(vectors, model.means, absence=model.absence))


def _balance(
    spool: Spool, prototypes: Tensor, sizes: Tensor | None, offsets: Tensor, progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets for all spooled seconds, beginning with those of the sample; sizes wanted and obtained, (K,) int64 each.

    A round reads the spool once: it counts sizes under the offsets so far, and keeps the best clusters of each second
    in memory, 6 x `N_NEAR` bytes each, on which the offsets are then found. What is then missing to whole sizes is
    found with all scores in memory, where they are not too many. Where no sizes (K,) are wanted, they are only counted.
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
    if best_error > 0 and len(wanted) <= MOST_EXACT_CLUSTERS and spool.n_rows * len(wanted) <= MOST_EXACT_SCORES:
        scores = torch.cat([torch.from_numpy(block) @ prototypes.T for block in spool.blocks()])
        exact = torch.from_numpy(meet_sizes(scores.numpy(), wanted=wanted.numpy(), offsets=best.numpy()))
        counts = torch.bincount(hard_assignment(scores, offsets=exact), minlength=len(wanted))
        if _size_error(wanted, counts) < best_error:
            best, obtained = exact, counts
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


def _apply(store: Store, clustering: Clustering, n_seconds: int, progress: Progress) -> Clustering:
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        progress("label seconds", done, n_seconds)

    return apply_clustering(store, clustering, on_seconds=count)


def _check(options: FitOptions, n_seconds: int, store: Store) -> None:
    wanted = options.n_clusters if isinstance(options.n_clusters, int) else 2
    if not 2 <= wanted <= MOST_CLUSTERS:
        raise UsageError(f"--k {wanted} is out of range; expected 2 to {MOST_CLUSTERS}, or auto")
    if options.sizes not in SIZES:
        raise UsageError(f"--sizes {options.sizes} unknown; expected one of {', '.join(SIZES)}")
    if not any(name in store.info.dims for name in MODALITIES):
        raise CollectionError(f"index {store.location} has no visual and no audio vectors; clusters need one of them")
    if n_seconds < wanted:
        smaller = ", or ask for a smaller --k" if isinstance(options.n_clusters, int) else ""
        raise UsageError(f"{n_seconds} seconds are indexed, too few for {wanted} clusters; index more{smaller}")


def _fit_id(model: ClusterModel, options: FitOptions) -> str:
    digest = hashlib.blake2b(digest_size=6)
    wishes = repr((options.n_clusters, options.sizes, options.seed, options.fresh)).encode()
    parts: tuple[Any, ...] = (model.prototypes.tobytes(), model.offsets.tobytes(), wishes)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
