"""Measures of embeddings: arrays in, floats out.

Embeddings are (N, D) float32 rows of norm 1; similarity is the dot product. Rows are never compared with rows of their
own group (the same footage), so a number cannot be earned by finding the next second of the same video.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def overlap_scores(
    embeddings: FloatArray, reference: FloatArray, groups: npt.NDArray[np.str_], *, k: int
) -> FloatArray:
    """(N,) share of each row's k nearest rows by `reference`, among other groups, that are also its k nearest here."""
    found = _nearest(_across_groups(embeddings, groups), k)
    wanted = _nearest(_across_groups(reference, groups), k)
    shares = [len(set(a) & set(b)) / k for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    return np.array(shares, dtype=np.float32)


def paired_ranks(queries: FloatArray, targets: FloatArray, groups: npt.NDArray[np.str_]) -> IntArray:
    """(N,) rank, from 1, of target i for query i among one target of each group; ties count against it.

    For every query, each other group is represented by the target nearest in position to a fixed cycle, so the number
    of candidates is the number of groups whatever the lengths of videos.
    """
    similarity = queries @ targets.T
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups)}
    ranks = np.ones(len(queries), dtype=np.int64)
    for group, rows in members.items():
        for turn, row in enumerate(rows):
            rivals = [other[turn % len(other)] for name, other in members.items() if name != group]
            ranks[row] += (similarity[row, rivals] >= similarity[row, row]).sum()
    return ranks


def same_moment_found(queries: FloatArray, targets: FloatArray) -> FloatArray:
    """(N,) 1 where target i is the most similar of all targets to query i, else 0; a tie is no success."""
    similarity = queries @ targets.T
    own = similarity.diagonal()
    return np.asarray((similarity >= own[:, None]).sum(axis=1) == 1, dtype=np.float32)


def label_retrieval(
    embeddings: FloatArray, labels: npt.NDArray[np.str_], groups: npt.NDArray[np.str_]
) -> dict[str, FloatArray]:
    """How well rows of other groups with the same label are ranked first, for each row.

    Returns:
        `R@1`, `R@5`, `R@10` (1 if one of the first k has the label) and `mAP` (average precision), each (N,); NaN for
        rows whose label no other group carries.
    """
    n_rows = len(embeddings)
    scores = {name: np.full(n_rows, np.nan, dtype=np.float32) for name in ("R@1", "R@5", "R@10", "mAP")}
    similarity = _across_groups(embeddings, groups)
    for row in range(n_rows):
        others = np.flatnonzero(np.isfinite(similarity[row]))
        order = others[np.argsort(-similarity[row, others], kind="stable")]
        hits = np.flatnonzero(labels[order] == labels[row])
        if len(hits):
            scores["mAP"][row] = ((np.arange(len(hits)) + 1) / (hits + 1)).mean()
            for k in (1, 5, 10):
                scores[f"R@{k}"][row] = hits[0] < k
    return scores


def clustering_scores(clusters: npt.NDArray[np.int64], labels: npt.NDArray[np.str_]) -> dict[str, float]:
    """How well clusters agree with labels: NMI, AMI, ARI, purity, and accuracy under the best one-to-one naming."""
    codes = np.unique(labels, return_inverse=True)[1]
    table = contingency_matrix(codes, clusters)  # (labels, clusters)
    rows, columns = linear_sum_assignment(-table)  # the Hungarian method
    return {
        "NMI": float(normalized_mutual_info_score(codes, clusters)),
        "AMI": float(adjusted_mutual_info_score(codes, clusters)),
        "ARI": float(adjusted_rand_score(codes, clusters)),
        "purity": float(table.max(axis=0).sum() / len(labels)),
        "Hungarian": float(table[rows, columns].sum() / len(labels)),
    }


def bootstrap_mean(
    scores: FloatArray, groups: npt.NDArray[np.str_], *, seed: int = 0, n_draws: int = 1000
) -> dict[str, float] | None:
    """Mean of scores with its 95 % interval when *groups* are drawn anew, as rows of one group are not independent.

    Args:
        scores: (N,); NaN rows are left out.
        groups: (N,).
        seed: of the draws.
        n_draws: how many.

    Returns:
        `value`, `low`, `high` and `n` (rows), or None if there is no row.
    """
    kept = np.isfinite(scores)
    if not kept.any():
        return None
    _, member = np.unique(groups[kept], return_inverse=True)
    sums, counts = np.bincount(member, weights=scores[kept]), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(n_draws, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(scores[kept].mean()), "low": float(low), "high": float(high), "n": int(kept.sum())}


def bootstrap_clustering(
    clusters: npt.NDArray[np.int64],
    labels: npt.NDArray[np.str_],
    groups: npt.NDArray[np.str_],
    *,
    seed: int = 0,
    n_draws: int = 50,
) -> dict[str, dict[str, float]]:
    """`clustering_scores` with the 95 % interval of each when groups are drawn anew.

    An interval can lie to one side of the value: a draw repeats groups, which makes any clustering look purer.
    """
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    draws = []
    for _ in range(n_draws):
        rows = np.concatenate([members[index] for index in random.integers(len(members), size=len(members))])
        draws.append(clustering_scores(clusters[rows], labels[rows]))
    cells = {}
    for name, value in clustering_scores(clusters, labels).items():
        low, high = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
        cells[name] = {"value": value, "low": float(low), "high": float(high), "n": len(labels)}
    return cells


def _across_groups(embeddings: FloatArray, groups: npt.NDArray[np.str_]) -> FloatArray:
    similarity = embeddings @ embeddings.T
    similarity[groups[:, None] == groups[None]] = -np.inf
    return similarity


def _nearest(similarity: FloatArray, k: int) -> npt.NDArray[np.int64]:
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]
