"""Measures of embeddings: arrays in, floats out.

Embeddings are (N, D) float32 rows of norm 1; similarity is the dot product. Rows are never compared with rows of their
own group (the same footage), so a number cannot be earned by finding the next second of the same video. A measure of no
rows at all is NaN.
"""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def nearest_neighbour_accuracy(
    embeddings: FloatArray, labels: npt.NDArray[np.str_], groups: npt.NDArray[np.str_]
) -> float:
    """Share of rows whose nearest row of another group has the same label (leave-one-out 1-NN)."""
    if not len(embeddings):
        return math.nan
    nearest = _across_groups(embeddings, groups).argmax(axis=1)
    return float((labels[nearest] == labels).mean())


def mean_average_precision(embeddings: FloatArray, labels: npt.NDArray[np.str_], groups: npt.NDArray[np.str_]) -> float:
    """Mean over rows of the average precision of ranking all rows of other groups, same label being relevant.

    Rows without any relevant row are left out.
    """
    similarity = _across_groups(embeddings, groups)
    precisions = []
    for row in range(len(embeddings)):
        others = np.flatnonzero(np.isfinite(similarity[row]))
        order = others[np.argsort(-similarity[row, others], kind="stable")]
        relevant = labels[order] == labels[row]
        if relevant.any():
            hits = np.flatnonzero(relevant)
            precisions.append(float(((np.arange(len(hits)) + 1) / (hits + 1)).mean()))
    return _mean(precisions)


def neighbour_overlap(
    embeddings: FloatArray, reference: FloatArray, groups: npt.NDArray[np.str_], *, k: int = 10
) -> float:
    """Mean share of each row's k nearest rows by `reference`, among other groups, that are also its k nearest here."""
    found = _nearest(_across_groups(embeddings, groups), k)
    wanted = _nearest(_across_groups(reference, groups), k)
    return _mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), wanted.tolist(), strict=True)])


def paired_recall(queries: FloatArray, targets: FloatArray, groups: npt.NDArray[np.str_], *, k: int) -> float:
    """Recall@k of finding row i of targets with row i of queries among one target of each group.

    For every query, each other group is represented by the target nearest in position to a fixed cycle, so the number
    of candidates is the number of groups whatever the lengths of videos; averaged over queries, then over groups.
    """
    similarity = queries @ targets.T
    members = {group: np.flatnonzero(groups == group) for group in np.unique(groups)}
    recalls = []
    for group, rows in members.items():
        found = []
        for turn, row in enumerate(rows):
            rivals = [other[turn % len(other)] for name, other in members.items() if name != group]
            better = (similarity[row, rivals] >= similarity[row, row]).sum()
            found.append(better < k)
        recalls.append(float(np.mean(found)))
    return _mean(recalls)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _across_groups(embeddings: FloatArray, groups: npt.NDArray[np.str_]) -> FloatArray:
    similarity = embeddings @ embeddings.T
    similarity[groups[:, None] == groups[None]] = -np.inf
    return similarity


def _nearest(similarity: FloatArray, k: int) -> npt.NDArray[np.int64]:
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]
