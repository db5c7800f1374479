"""Clusters of embeddings: assignment to clusters of wanted sizes, prototypes, and the matching of two clusterings.

Pure functions of tensors; dtype and device follow the input. Training uses them for its pseudo-labels, `cluster_fit`
for the clusters of an archive.

The assignment solves, for scores S (log-probabilities, or cosines times a sharpness; a constant a row changes nothing)

    max_Q  sum_bk Q_bk S_bk + H(Q) / sharpness    with rows of Q summing to 1 and column k to n_rows * size_k,

whose solution is Q_bk = softmax_k(sharpness * (S_bk + u_k)): the rows' scaling is the softmax, so the *offsets* u (K,)
are all there is to find. One pass over blocks of rows gives the column sums, and from them the next offsets: millions
of rows need no memory but one block. This is Sinkhorn-Knopp of [asano2020] with [asano2020b]'s freedom of sizes; the
latter's published code scales by one over the wanted sizes, so that big clusters come out small.

References:
    [asano2020] Self-labelling via simultaneous clustering and representation learning, 2020, arXiv:1911.05371.
    [asano2020b] Labelling unlabelled videos from scratch with multi-modal self-supervision, 2020, arXiv:2006.13662.
    [cuturi2013] Sinkhorn Distances: Lightspeed Computation of Optimal Transport, 2013, arXiv:1306.0895.
    [kitagawa2019] Convergence of a Newton algorithm for semi-discrete optimal transport, 2019, arXiv:1603.05579.
    [schmitzer2019] Stabilized Sparse Scaling Algorithms for Entropy Regularized Transport Problems, 2019,
        arXiv:1610.06519: the scaling of the sharpness, and that far clusters need not be looked at.
    [vinh2010] Information Theoretic Measures for Clusterings Comparison. JMLR 11, 2010: adjustment for chance.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

Blocks = Callable[[], Iterable[Tensor]]
"""Gives the rows of a score matrix anew at each call, as blocks (n, K); the same rows in the same order."""


@dataclass(frozen=True)
class NearScores:
    """Of each of n rows the scores of a few clusters alone, those it may belong to; all others count as impossible.

    Attributes:
        values: (n, M) float32 scores.
        clusters: (n, M) integers, whose they are.
    """

    values: Tensor
    clusters: Tensor


MAX_DOUBLINGS = 6
"""How often `balance_labels` doubles the sharpness: by then it is 64-fold."""
LONGEST_STEP = 3.0
"""Of an offset, in units of 1 / sharpness."""
MOST_MOVES = 10_000
"""Rows that the steps of the offsets are computed from; sizes are counted on all."""
MOVES_NEAR = 8
"""Clusters of each of these rows that it may move between; those behind them have no share worth counting."""
CHANCE_DRAWS = 4
"""Random labellings that chance is measured with."""


def uniform_sizes(n_clusters: int) -> Tensor:
    """(K,) float64 equal shares."""
    return torch.full((n_clusters,), 1 / n_clusters, dtype=torch.float64)


def gaussian_sizes(n_clusters: int, *, spread: float = 0.1, seed: int = 0) -> Tensor:
    """Shares drawn from a normal distribution around 1 / K, as in [asano2020b] section 3.2, the largest first.

    Args:
        n_clusters: K.
        spread: standard deviation relative to the mean; draws below a tenth of the mean are raised to it.
        seed: of the draw.

    Returns:
        (K,) float64, positive, sums to 1.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = 1 + spread * torch.randn(n_clusters, generator=generator, dtype=torch.float64)
    sizes = draws.clamp(min=0.1).sort(descending=True).values
    return sizes / sizes.sum()


def whole_sizes(shares: Tensor, *, n_rows: int) -> Tensor:
    """Shares as numbers of rows: rounded so that they add up, each at least one (largest remainders).

    Args:
        shares: (K,) positive, sum to 1.
        n_rows: >= K.

    Returns:
        (K,) int64, sums to `n_rows`.
    """
    exact = shares.double() * n_rows
    sizes = exact.floor().clamp(min=1).long()
    missing = n_rows - int(sizes.sum())
    for _ in range(abs(missing)):
        gap = exact - sizes if missing > 0 else torch.where(sizes > 1, sizes - exact, -torch.inf)
        sizes[int(gap.argmax())] += 1 if missing > 0 else -1
    return sizes


def sinkhorn_plan(
    log_probs: Tensor,
    *,
    cluster_sizes: Tensor,
    sharpness: float,
    tolerance: float = 1e-3,
    max_iterations: int = 1000,
) -> Tensor:
    """The soft assignment of rows to clusters of wanted sizes.

    Args:
        log_probs: (B, K) finite scores; not modified.
        cluster_sizes: (K,) wanted shares; positive, sum to 1.
        sharpness: > 0; higher brings the plan closer to a hard assignment and needs more iterations.
        tolerance: largest relative deviation of a column's sum from the wanted one.
        max_iterations: stop here even if the tolerance is not met.

    Returns:
        (B, K) of the dtype of `log_probs`; rows sum to 1, column k to B * cluster_sizes[k].

    Raises:
        ValueError: If shapes disagree, sizes are not positive shares, or sharpness is not positive.
    """
    offsets = find_offsets(
        lambda: [log_probs],
        cluster_sizes=cluster_sizes,
        sharpness=sharpness,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return soft_assignment(log_probs, offsets=offsets, sharpness=sharpness)


def assign_pseudo_labels(
    log_probs: Tensor,
    *,
    cluster_sizes: Tensor,
    sharpness: float,
    tolerance: float = 0.02,
) -> Tensor:
    """One pseudo-label for each row, so that clusters have the wanted sizes.

    Equal rows get equal labels, so where many rows are the same the sizes can not be met exactly.

    Args:
        log_probs: (B, K) finite scores; not modified.
        cluster_sizes: (K,) wanted shares; positive, sum to 1.
        sharpness: > 0; where the search begins.
        tolerance: largest relative deviation of a size (or one row, if that is more).

    Returns:
        (B,) int64 cluster indices in [0, K).

    Raises:
        ValueError: See `sinkhorn_plan`.
    """
    offsets = balance_labels(lambda: [log_probs], cluster_sizes=cluster_sizes, sharpness=sharpness, tolerance=tolerance)
    return hard_assignment(log_probs, offsets=offsets)


def soft_assignment(scores: Tensor, *, offsets: Tensor, sharpness: float) -> Tensor:
    """(B, K) plan of scores (B, K) under offsets (K,) that were found: rows sum to 1."""
    return torch.softmax(sharpness * (scores + offsets.to(scores)), dim=1)


def hard_assignment(scores: Tensor, *, offsets: Tensor) -> Tensor:
    """(B,) int64 index of the best cluster of each row of scores (B, K) under offsets (K,)."""
    return (scores + offsets.to(scores)).argmax(dim=1)  # (B, K) -> (B,)


def find_offsets(
    blocks: Blocks,
    *,
    cluster_sizes: Tensor,
    sharpness: float,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 1000,
) -> Tensor:
    """The offsets under which the soft plan has the wanted sizes, with one block of rows in memory at a time.

    Args:
        blocks: the scores.
        cluster_sizes: (K,) wanted shares; positive, sum to 1.
        sharpness: > 0.
        start: (K,) offsets to begin with; None for zeros.
        tolerance: see `sinkhorn_plan`.
        max_iterations: passes over the blocks.

    Returns:
        (K,) float64 of mean 0.

    Raises:
        ValueError: See `sinkhorn_plan`; also if there are no rows, or scores that are not finite.
    """
    sizes = _checked_sizes(cluster_sizes, sharpness=sharpness)
    offsets = torch.zeros_like(sizes) if start is None else start.to(sizes).clone()
    for _ in range(max_iterations):
        n_rows, sums = 0, torch.zeros_like(sizes)
        for scores in blocks():
            _check_scores(scores, n_clusters=len(sizes))
            plan = soft_assignment(scores, offsets=offsets, sharpness=sharpness)
            # A column that no row is near underflows; this keeps its logarithm finite, and its offset then rises.
            sums += plan.sum(dim=0, dtype=torch.float64).to(sums)
            n_rows += len(scores)
        if n_rows == 0:
            raise ValueError("there are no rows to assign; expected at least one")
        gap = (n_rows * sizes).log() - sums.clamp(min=torch.finfo(torch.float32).tiny).log()
        offsets = offsets + gap / sharpness
        offsets = offsets - offsets.mean()
        if float((sums / (n_rows * sizes) - 1).abs().max()) <= tolerance:
            break
    return offsets


def near_scores(scores: Tensor, *, offsets: Tensor, n_near: int) -> NearScores:
    """The scores (n, K) of the `n_near` best clusters of each row under offsets (K,), themselves without offsets."""
    clusters = (scores + offsets.to(scores)).topk(min(n_near, scores.shape[1]), dim=1).indices
    return NearScores(scores.gather(1, clusters), clusters)


def balance_labels(
    blocks: Blocks | Callable[[], Iterable[NearScores]],
    *,
    cluster_sizes: Tensor,
    sharpness: float,
    start: Tensor | None = None,
    tolerance: float = 0.02,
    slack: float = 1.0,
    passes: int = 30,
    doublings: int = MAX_DOUBLINGS,
) -> Tensor:
    """The offsets under which the *hard* labels have the wanted sizes, with one block of rows in memory at a time.

    Begins at the soft plan's offsets. The offsets wanted are where the convex function sum_b max_k(S_bk + u_k) -
    n_rows * sum_k size_k u_k is lowest: its slope is the sizes obtained less those wanted. Damped Newton steps lead
    there [kitagawa2019], whose second derivative is that of the soft plan: it counts the rows near each border. Where
    that does not settle the sharpness is doubled, so that nearer rows alone count ([schmitzer2019]'s scaling). Of all
    offsets tried the best are returned.

    Args:
        blocks: the scores; with `NearScores` a pass costs so much less as there are fewer of them, and is right as
            long as no row's best cluster under the offsets found is missing.
        cluster_sizes: (K,) wanted shares; positive, sum to 1.
        sharpness: > 0, where to begin.
        start: (K,) offsets to begin with; None for those of the soft plan, which takes whole scores.
        tolerance: largest relative deviation of a size (or `slack`, if that is more).
        slack: rows that a size may be off in any case; below 1 whole sizes are met exactly where that can be.
        passes: over the blocks, at most, at each sharpness.
        doublings: of the sharpness, at most.

    Returns:
        (K,) float64 of mean 0.

    Raises:
        ValueError: See `find_offsets`.
    """
    sizes = _checked_sizes(cluster_sizes, sharpness=sharpness)
    if start is None:
        whole = cast(Blocks, blocks)
        start = find_offsets(whole, cluster_sizes=sizes, sharpness=sharpness, tolerance=0.05, max_iterations=30)
    offsets = start.to(sizes).clone()
    best, best_error = offsets, float("inf")
    for doubling in range(doublings + 1):
        beta = sharpness * 2**doubling
        offsets, step, lowest = best, torch.zeros_like(sizes), float("inf")
        for _ in range(passes):
            counted = _count(blocks, offsets=offsets + step, sharpness=beta)
            wanted = counted.counts.sum() * sizes
            missing = wanted - counted.counts
            error = float((missing.abs() / (tolerance * wanted).clamp(min=slack)).max())
            if error < best_error:
                best, best_error = offsets + step, error
            if best_error <= 1:
                return best
            cost = counted.sum_of_best - float(wanted @ (offsets + step))
            if cost > lowest:
                step = step / 4
                continue
            offsets, lowest = offsets + step, cost
            step = _newton_step(counted.moves, missing) / beta
            step = step * min(1.0, LONGEST_STEP / (sharpness * float(step.abs().max())))
    return best - best.mean()


def update_prototypes(embeddings: Tensor, plan: Tensor, *, prototypes: Tensor) -> Tensor:
    """Spherical means of rows weighted by a plan.

    Args:
        embeddings: (B, D) norm 1.
        plan: (B, K) >= 0.
        prototypes: (K, D), kept where a cluster has no weight, or members that cancel out.

    Returns:
        (K, D) norm 1.
    """
    means = plan.T.to(embeddings) @ embeddings  # (K, B) @ (B, D) -> (K, D)
    norms = means.norm(dim=1, keepdim=True)
    return torch.where(norms > 1e-6, means / norms.clamp(min=1e-6), prototypes)


def spread_prototypes(embeddings: Tensor, n_clusters: int, *, seed: int, first: Tensor | None = None) -> Tensor:
    """Rows that lie far apart, to begin with: k-means++ for cosine distance, the best of some candidates each time.

    Args:
        embeddings: (B, D) norm 1.
        n_clusters: K.
        seed: of the choice.
        first: (n, D) norm 1, n <= K: prototypes that are given; only the others are chosen.

    Returns:
        (K, D), the given ones first.

    Raises:
        ValueError: If there are fewer rows than clusters.
    """
    if n_clusters > len(embeddings):
        raise ValueError(f"{n_clusters} clusters wanted of {len(embeddings)} embeddings; ask for fewer")
    generator = torch.Generator().manual_seed(seed)
    prototypes = embeddings[:0] if first is None else first
    if not len(prototypes):
        prototypes = embeddings[torch.randint(len(embeddings), (1,), generator=generator)]
    n_candidates = 2 + int(math.log(n_clusters))
    distance = (1 - embeddings @ prototypes.T).clamp(min=0).amin(dim=1)
    chosen = []
    for _ in range(n_clusters - len(prototypes)):
        weights = (distance.double() + 1e-9).cumsum(0)  # where all rows are equal, any will do
        at = torch.rand(n_candidates, generator=generator, dtype=torch.float64) * weights[-1]
        candidates = torch.searchsorted(weights, at).clamp(max=len(embeddings) - 1)
        left = torch.minimum(distance[:, None], (1 - embeddings @ embeddings[candidates].T).clamp(min=0))  # (B, C)
        best = int(left.sum(dim=0).argmin())
        chosen.append(int(candidates[best]))
        distance = left[:, best]
    return torch.cat([prototypes, embeddings[chosen]])


def mutual_information(first: Tensor, second: Tensor) -> float:
    """How far two labellings of the same rows tell the same, whatever their labels are called: NMI.

    Args:
        first: (B,) int64 labels >= 0.
        second: (B,) int64 labels >= 0.

    Returns:
        In [0, 1], mutual information over the mean of both entropies; 1 if both have one label only.
    """
    both, a, b = _entropies(first, second)
    mean = (a + b) / 2
    return (a + b - both) / mean if mean > 0 else 1.0


def confirmed_bits(first: Tensor, second: Tensor, *, stretches: Tensor, seed: int = 0) -> float:
    """What two labellings of the same rows tell in common, in bits, less what they would by chance [vinh2010].

    Chance is the mean over labels dealt out at random, whole stretches at a time: rows of one stretch have like labels
    in any labelling, and a permutation of single rows would take that for agreement.

    Args:
        first: (B,) int64 labels >= 0.
        second: (B,) int64 labels >= 0.
        stretches: (B,) int64 in [0, n), equal for rows that are no independent witnesses.
        seed: of the dealing.
    """
    generator = torch.Generator().manual_seed(seed)

    def shared(one: Tensor, other: Tensor) -> float:
        both, a, b = _entropies(one, other)
        return a + b - both

    in_order = first[stretches.argsort(stable=True)]
    chance = 0.0
    for _ in range(CHANCE_DRAWS):
        places = torch.randperm(int(stretches.max()) + 1, generator=generator)
        chance += shared(in_order, second[places[stretches].argsort(stable=True)]) / CHANCE_DRAWS
    return (shared(first, second) - chance) / math.log(2)


def _entropies(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    """Of pairs of labels, and of each labelling, in nats."""
    width = int(second.max()) + 1
    table = torch.bincount(first * width + second, minlength=(int(first.max()) + 1) * width).double().reshape(-1, width)
    parts = (part / len(first) for part in (table, table.sum(dim=1), table.sum(dim=0)))
    both, a, b = (float(torch.special.entr(part).sum()) for part in parts)
    return both, a, b


def _checked_sizes(cluster_sizes: Tensor, *, sharpness: float) -> Tensor:
    sizes = cluster_sizes.detach().double()
    if sizes.ndim != 1 or len(sizes) == 0 or not bool((sizes > 0).all()) or abs(float(sizes.sum()) - 1) > 1e-6:
        raise ValueError(
            f"cluster_sizes of shape {tuple(cluster_sizes.shape)} sum to {float(sizes.sum())}; expected positive "
            f"shares (K,) that sum to 1"
        )
    if not sharpness > 0:
        raise ValueError(f"sharpness {sharpness} must be positive")
    return sizes


@dataclass(frozen=True)
class _Counted:
    """What one pass over the rows tells of offsets.

    Attributes:
        counts: (K,) float64 sizes of the hard labels.
        sum_of_best: over rows, of their best score with its offset.
        moves: (K, K) float64 sums over rows of the products of two clusters' shares in the soft plan: times the
            sharpness what one cluster wins from the other where its offset rises. Measured on the first rows.
    """

    counts: Tensor
    sum_of_best: float
    moves: Tensor


def _count(blocks: Blocks | Callable[[], Iterable[NearScores]], *, offsets: Tensor, sharpness: float) -> _Counted:
    n_clusters, counts = len(offsets), torch.zeros_like(offsets)
    moves = torch.zeros(n_clusters**2).to(offsets)
    n_rows, n_measured, sum_of_best = 0, 0, 0.0
    for scores in blocks():
        if isinstance(scores, NearScores):
            values, clusters = scores.values + offsets.to(scores.values)[scores.clusters], scores.clusters
            best = values.max(dim=1, keepdim=True)
            labels = clusters.gather(1, best.indices).squeeze(1)
        else:
            _check_scores(scores, n_clusters=n_clusters)
            values, clusters = scores + offsets.to(scores), None
            best = values.max(dim=1)
            labels = best.indices
        counts += torch.bincount(labels, minlength=n_clusters).to(counts)
        sum_of_best += float(best.values.sum(dtype=torch.float64))
        n_rows += len(labels)
        if n_measured < MOST_MOVES:
            if clusters is not None and values.shape[1] > MOVES_NEAR:
                values, nearest = values.topk(MOVES_NEAR, dim=1)
                clusters = clusters.gather(1, nearest)
            plan = torch.softmax(sharpness * values, dim=1)
            n_measured += len(plan)
            if clusters is None:
                moves += (plan.T @ plan).flatten().to(moves)  # (K, B) @ (B, K) -> (K * K,)
            else:
                pairs = clusters[:, :, None] * n_clusters + clusters[:, None]  # (n, M) -> (n, M, M)
                moves.index_add_(0, pairs.flatten(), (plan[:, :, None] * plan[:, None]).flatten().to(moves))
    if n_rows == 0:
        raise ValueError("there are no rows to assign; expected at least one")
    return _Counted(counts, sum_of_best, moves.reshape(n_clusters, -1) * (n_rows / n_measured))


def _newton_step(moves: Tensor, missing: Tensor) -> Tensor:
    """By how much offsets (K,), in units of 1 / sharpness, should move to win the rows that clusters miss (K,).

    Args:
        moves: (K, K) of `_Counted`, of which the diagonal is not looked at.
        missing: (K,) rows.
    """
    between = moves - moves.diag().diag()
    laplacian = between.sum(dim=1).diag() - between
    # One more row for each cluster: all offsets may rise together, and some clusters have no rows near a border.
    solved: Tensor = torch.linalg.solve(laplacian + torch.eye(len(missing)).to(laplacian), missing)
    return solved


def _check_scores(scores: Tensor, *, n_clusters: int) -> None:
    if scores.ndim != 2 or scores.shape[1] != n_clusters:
        raise ValueError(f"scores have shape {tuple(scores.shape)}; expected (B, {n_clusters})")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("scores hold values that are not finite; expected log-probabilities or similarities")
