"""Prototypes of a sample of seconds: self-labelling, where it begins, and how many prototypes an archive deserves.

Pure functions of tensors. A second is a row of features of norm 1 (`cluster_model.make_features`); its label is that of
the nearest prototype, or under offsets that give clusters the wanted sizes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from visxp_search.clusters import (
    balance_labels,
    confirmed_bits,
    gaussian_sizes,
    hard_assignment,
    mutual_information,
    near_scores,
    spread_prototypes,
    uniform_sizes,
    update_prototypes,
)

SIZES = ("natural", "tempered", "uniform", "gaussian")
SHARPNESS = 12.0
"""Of the assignment by cosine; a second that is 0.1 nearer to one prototype is 3 times as much its."""
PLAIN_EPOCHS, BALANCED_EPOCHS = 6, 8
TOO_FEW = 0.1
"""A cluster of fewer than this share of the mean size gets another place while prototypes are looked for."""
MUCH_NEARER = 0.95
"""Prototypes that exist are given up for new ones if the seconds' mean distance from those is less than this share."""
SIZE_TOLERANCE = 0.02
N_NEAR = 32
"""Clusters that a second may go to while sizes are balanced: its best ones by then."""
AUTO_CLUSTERS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
AUTO_SECONDS_PER_CLUSTER = 10
"""`auto` tries no K with fewer seconds of one half a cluster."""
AUTO_PRICE = 0.25
"""Confirmed bits that twice as many clusters must bring. With a half, 221 videos of all kinds got 4 clusters."""
HALVINGS, PATIENCE = 5, 4
FEWEST_STRETCHES = 8
"""Where there are fewer stretches of video, `auto` halves single seconds."""

Progress = Callable[[str, int, int], None]
"""Told a step's name, what is done of it, and of how much."""
Curve = tuple[tuple[int, float, float], ...]
"""K, its criterion, and the standard error of that."""


def fit_prototypes(
    sample: Tensor,
    n_clusters: int,
    *,
    n_modalities: int = 0,
    sizes: str,
    seed: int,
    start: Tensor | None = None,
    held: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Self-labelling of a sample: plain spherical k-means to begin with, then labels of wanted sizes.

    Natural sizes are whatever they are, so for them it is k-means to the end, without offsets.

    Args:
        sample: (B, F) features of norm 1.
        n_clusters: K <= B.
        n_modalities: so many last columns say what a second misses, see `cluster_model.make_features`.
        sizes: one of `SIZES`, see `cluster_fit.FitOptions`.
        seed: of the first prototypes and of Gaussian sizes.
        start: (K, F) prototypes to begin with, unless others are much nearer to the seconds (`MUCH_NEARER`); None for
            rows that lie far apart, and one for the few silent seconds.
        held: (n, F) norm 1, n <= K: the first n prototypes, which stay where they are while others go to what is new.

    Returns:
        Prototypes (K, F), wanted sizes (K,), and the offsets (K,) under which the sample's labels nearly have them.
    """
    held = sample[:0] if held is None else held
    prototypes = _first_prototypes(sample, n_clusters, n_modalities=n_modalities, seed=seed, held=held)
    if start is not None:
        for _ in range(PLAIN_EPOCHS):
            start = _means(sample, (sample @ start.T).argmax(dim=1), start, held=held)
        if _distance(sample, prototypes) > MUCH_NEARER * _distance(sample, start):
            prototypes = start
    offsets = torch.zeros(n_clusters, dtype=torch.float64)
    if sizes == "natural":
        for _ in range(BALANCED_EPOCHS):
            prototypes = _means(sample, (sample @ prototypes.T).argmax(dim=1), prototypes, held=held)
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
        prototypes = _means(sample, hard_assignment(scores, offsets=offsets), prototypes, held=held)
    return prototypes, wanted, offsets


def _n_tries(n_clusters: int) -> int:
    """Beginnings tried: few clusters end up in a poor optimum more easily, and cost little."""
    return max(1, min(8, 256 // n_clusters))


def _first_prototypes(sample: Tensor, n_clusters: int, *, n_modalities: int, seed: int, held: Tensor) -> Tensor:
    """The prototypes (K, F) nearest to a sample (B, F) of several that began elsewhere; those held (n, F) are first."""
    absent = _prototypes_of_absence(sample, n_clusters, n_modalities=n_modalities)
    given = torch.cat([held, absent])[:n_clusters]
    tries = [
        _plain_prototypes(sample, n_clusters, given=given, seed=seed + turn) for turn in range(_n_tries(n_clusters))
    ]
    return min(tries, key=lambda found: _distance(sample, found))


def _distance(sample: Tensor, prototypes: Tensor) -> float:
    """Mean of 1 - cosine of a sample (B, F) to the nearest of prototypes (K, F)."""
    return 1 - float((sample @ prototypes.T).max(dim=1).values.mean())


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
    """Spherical k-means from rows that lie far from each other and from given prototypes (n, F), which stay.

    Were these free, they would be drawn away by what has no place of its own yet.
    """
    prototypes = spread_prototypes(sample, n_clusters, first=given, seed=seed)
    for epoch in range(PLAIN_EPOCHS):
        nearest = (sample @ prototypes.T).argmax(dim=1)
        if epoch < PLAIN_EPOCHS - 2:
            _refill(nearest, sample, n_clusters, n_given=len(given))
        prototypes = _means(sample, nearest, prototypes, held=given)
    return prototypes


def _means(sample: Tensor, labels: Tensor, prototypes: Tensor, *, held: Tensor) -> Tensor:
    """Prototypes (K, F) as the spherical means of the rows with their labels (B,), but for those held (n, F)."""
    members = torch.nn.functional.one_hot(labels, len(prototypes)).to(sample)
    means = update_prototypes(sample, members, prototypes=prototypes)
    means[: len(held)] = held
    return means


def _refill(labels: Tensor, sample: Tensor, n_clusters: int, *, n_given: int) -> None:
    """Give clusters that are all but empty half of the largest ones, by changing labels (B,) in place.

    A large cluster is halved along the way from its middle to the member that is farthest from it. The first `n_given`
    may be as small as they are.
    """
    counts = torch.bincount(labels, minlength=n_clusters)
    few = counts < TOO_FEW * len(labels) / n_clusters
    few[:n_given] = False
    for empty in torch.nonzero(few).flatten().tolist():
        largest = int(counts.argmax())
        rows = torch.nonzero(labels == largest).flatten()
        own = sample[rows] - sample[rows].mean(dim=0)
        along = own @ own[int(own.norm(dim=1).argmax())]
        half = rows[along > along.median()]
        labels[half] = empty
        counts[empty] += len(half)
        counts[largest] -= len(half)


def stability_of(
    sample: Tensor, prototypes: Tensor, offsets: Tensor, *, n_modalities: int, sizes: str, seed: int
) -> float:
    """NMI of the labels of a sample (B, F) under a fit with those of a fit that began with other seconds."""
    n_clusters = len(prototypes)
    other, _, other_offsets = fit_prototypes(
        sample, n_clusters, n_modalities=n_modalities, sizes=sizes, seed=seed + _n_tries(n_clusters)
    )
    labels = hard_assignment(sample @ prototypes.T, offsets=offsets)
    return round(mutual_information(labels, hard_assignment(sample @ other.T, offsets=other_offsets)), 4)


def choose_n_clusters(
    sample: Tensor, stretches: Tensor, *, n_modalities: int = 0, seed: int, progress: Progress
) -> tuple[int, Curve]:
    """The K whose clusters another half of the archive confirms, at the least price.

    The sample is halved, so that seconds of one stretch of a video, which resemble each other anyway, are in one half;
    K prototypes are fitted to each half, and both label all seconds. What both labellings tell in common beyond chance
    are the *confirmed bits* of K clusters; twice as many clusters must bring `AUTO_PRICE` of a bit. Of the K that come
    within a standard error of the best the largest is taken, as all are as good and it tells most. (A silhouette is as
    good for any K on real archives, whose seconds come in near copies.)

    Args:
        sample: (B, F) features of norm 1.
        stretches: (B,) int64, equal for seconds of one stretch of a video.
        n_modalities: see `fit_prototypes`.
        seed: of the fits and the halves.
        progress: told after each K.

    Returns:
        K, and the curve: confirmed bits - `AUTO_PRICE` * log2 K, the mean over `HALVINGS`, and its standard error. It
        ends where `PATIENCE` K in a row were no better than the best before.
    """
    names, numbers = torch.unique(stretches, return_inverse=True)
    if len(names) < FEWEST_STRETCHES:
        names = numbers = torch.arange(len(sample))
    generator = torch.Generator().manual_seed(seed)
    halves = [torch.randperm(len(names), generator=generator)[numbers] < len(names) // 2 for _ in range(HALVINGS)]
    smaller = min(min(int(half.sum()), int((~half).sum())) for half in halves)
    grid = [k for k in AUTO_CLUSTERS if k * AUTO_SECONDS_PER_CLUSTER <= smaller] or [2]
    curve: list[tuple[int, float, float]] = []
    for done, k in enumerate(grid):
        progress("choose K", done, len(grid))
        n_clusters = min(k, smaller)
        bits = torch.tensor(
            [_confirmed(sample, numbers, half, n_clusters, n_modalities=n_modalities, seed=seed) for half in halves]
        )
        value, error = float(bits.mean()) - AUTO_PRICE * math.log2(k), float(bits.std()) / HALVINGS**0.5
        curve.append((k, round(value, 4), round(error, 4)))
        if len(curve) - 1 - max(range(len(curve)), key=lambda at: curve[at][1]) >= PATIENCE:
            break
    progress("choose K", len(grid), len(grid))
    _, highest, error = max(curve, key=lambda point: point[1])
    return max(k for k, value, _ in curve if value >= highest - error), tuple(curve)


def _confirmed(
    sample: Tensor, stretches: Tensor, half: Tensor, n_clusters: int, *, n_modalities: int, seed: int
) -> float:
    """Confirmed bits of the labels of a sample (B, F) by fits to one half (B,) of it and to the other."""
    fits = [
        _first_prototypes(sample[part], n_clusters, n_modalities=n_modalities, seed=seed + 100 * turn, held=sample[:0])
        for turn, part in enumerate((half, ~half))
    ]
    first, second = ((sample @ prototypes.T).argmax(dim=1) for prototypes in fits)
    return confirmed_bits(first, second, stretches=stretches, seed=seed)


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
