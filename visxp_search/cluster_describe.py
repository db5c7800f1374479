"""Descriptions of clusters and branches that a person can use, gathered in one pass over the stored seconds.

Memory stays bounded: of each cluster a few candidates, sums, and of each of its videos one second are kept.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visxp_search.clips import BLACK, NO_AUDIO, NO_VIDEO, SILENT
from visxp_search.cluster_book import ROOT
from visxp_search.cluster_model import FloatArray
from visxp_search.cluster_store import Clustering, pages
from visxp_search.store import Filter, Store

SHOWN = 6
"""Representatives of each sort, and boundary cases."""
CANDIDATES = 32
NEIGHBOURS = 3
MAIN_VIDEOS = 3
GAP_SECONDS = 2
MAINLY = 0.5
"""Share of a node's seconds from which on one video is most of it."""
FEW = 0.1
"""Share of a node's seconds below which a modality is as good as missing."""
UNLIKE, ALIKE = 0.2, 0.6
"""Difference of the purities in picture and sound, and both purities, that are worth a word."""


@dataclass(frozen=True)
class Example:
    """A second that stands for a cluster: its video, its place, and the cosine to the cluster's prototype."""

    video_id: str
    second: int
    score: float


@dataclass(frozen=True)
class Description:
    """What is known of one node.

    Attributes:
        node: `c7` or `b3`.
        name: given by a person; empty if none.
        hidden: whether it is left out of lists.
        path: from the root to it.
        clusters: how many are below it (1 for a cluster).
        seconds: that belong to it.
        share: of all seconds that have a cluster.
        videos: that have one of its seconds.
        main_videos: ids of those that have most of them, and their shares.
        purity_visual: length of the mean of its seconds' centred pictures, in [0, 1]: 1 if all look the same.
        purity_audio: the same of their sound. Both are NaN if it has none.
        has_visual: share of its seconds that have a picture.
        has_audio: share of its seconds that have a sound.
        confidence: mean over its seconds.
        nearest: seconds nearest the prototype, each of another video as long as there are others.
        diverse: seconds that differ from each other as much as possible, likewise.
        boundary: seconds that nearly belong to another cluster, likewise.
        neighbours: clusters of the nearest prototypes; for a branch, the other children of its parent.
    """

    node: str
    name: str
    hidden: bool
    path: tuple[str, ...]
    clusters: int
    seconds: int
    share: float
    videos: int
    main_videos: tuple[tuple[str, float], ...]
    purity_visual: float
    purity_audio: float
    has_visual: float
    has_audio: float
    confidence: float
    nearest: tuple[Example, ...]
    diverse: tuple[Example, ...]
    boundary: tuple[Example, ...]
    neighbours: tuple[str, ...]


SORTS: dict[str, Callable[[Description], float]] = {
    "size": lambda d: -d.seconds,
    "picture": lambda d: -np.nan_to_num(d.purity_visual, nan=-1),
    "sound": lambda d: -np.nan_to_num(d.purity_audio, nan=-1),
    "same-sound": lambda d: np.nan_to_num(d.purity_visual) - np.nan_to_num(d.purity_audio),
    "same-picture": lambda d: np.nan_to_num(d.purity_audio) - np.nan_to_num(d.purity_visual),
    "videos": lambda d: -d.videos,
    "confidence": lambda d: -d.confidence,
}
"""Orders of a list; `same-sound` puts first what sounds the same and looks different, `same-picture` the reverse."""


@dataclass
class _Gathered:
    """What one pass gathers of one cluster."""

    n_seconds: int = 0
    confidence: float = 0.0
    videos: Counter[str] = field(default_factory=Counter)
    sums: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    near: list[tuple[float, str, int]] = field(default_factory=list)
    best: dict[str, tuple[float, str, int]] = field(default_factory=dict)
    edge: list[tuple[float, str, int, float]] = field(default_factory=list)
    any: list[tuple[FloatArray, Example]] = field(default_factory=list)


def describe_nodes(store: Store, clustering: Clustering, nodes: Sequence[str]) -> list[Description]:
    """Describe nodes, in that order.

    Args:
        store: the index.
        clustering: its clusters.
        nodes: ids of clusters and branches.
    """
    book = clustering.book
    wanted = {cluster for node in nodes for cluster in book.below(node)}
    everything = wanted == set(book.clusters())
    gathered = _gather(store, clustering, None if everything else tuple(sorted(wanted)))
    total = sum(store.facet("cluster").values())
    close = _neighbours(clustering)
    parents = book.parents()
    found = []
    for node in nodes:
        below = [gathered[cluster] for cluster in book.below(node) if cluster in gathered]
        if node.startswith("c"):
            neighbours = close[int(node[1:])]
        else:
            neighbours = tuple(other for other in book.tree.get(parents.get(node, ""), ()) if other != node)
        found.append(_describe(node, below, clustering, total=total, neighbours=neighbours))
    return found


def shown_nodes(clustering: Clustering, *, with_hidden: bool = False) -> list[str]:
    """All clusters in the order of the tree, without those that are hidden or in a hidden branch."""
    book = clustering.book
    hidden = () if with_hidden else book.hidden
    return [f"c{cluster}" for cluster in book.below(ROOT) if not set(book.path(f"c{cluster}")) & set(hidden)]


def summarise(description: Description, paths: Mapping[str, Sequence[str]]) -> str:
    """What a node is, in words, as far as numbers tell: how alike its pictures and sounds are, and whence it is.

    Args:
        description: of the node.
        paths: video id -> where the file lies.
    """
    d, words = description, []
    if d.has_audio < FEW:
        words.append("without sound")
    elif d.has_visual < FEW:
        words.append("sound without picture")
    elif min(d.has_audio, d.has_visual) < 0.5:  # of too few seconds to say more
        words.append("mostly without sound" if d.has_audio < d.has_visual else "mostly sound without picture")
    elif d.purity_audio - d.purity_visual > UNLIKE:
        words.append("same sound, different pictures")
    elif d.purity_visual - d.purity_audio > UNLIKE:
        words.append("same picture, different sounds")
    elif min(d.purity_visual, d.purity_audio) > ALIKE:
        words.append("alike in picture and sound")
    named = [(Path(paths[video][0]).name if paths.get(video) else video[:12], share) for video, share in d.main_videos]
    if d.videos == 1:
        words.append(f"all in {named[0][0]}")
    elif named and named[0][1] >= MAINLY:
        words.append(f"mostly in {named[0][0]} ({100 * named[0][1]:.0f} %)")
    elif named:
        words.append(f"in {', '.join(name for name, _ in named)}{' and others' if d.videos > len(named) else ''}")
    return "; ".join(words)


def main_stretches(store: Store, node: str, *, most: int = MAIN_VIDEOS) -> list[tuple[str, int, int]]:
    """The longest stretch `[start, stop)` of a cluster or branch in each of the videos that have most of its seconds.

    No vectors are read. Up to `GAP_SECONDS` of something else do not end a stretch.
    """
    found = []
    for video in store.facet("video_id", Filter(branch=node), limit=most):
        seconds = sorted(point.second for point in store.seconds(Filter(branch=node, video_ids=(str(video),))))
        found.append((str(video), *_longest_stretch(seconds)))
    return found


def say_what_is_missing(store: Store, node: str, *, n_seconds: int) -> str:
    """Whether the seconds of a cluster or branch, or most of them, have no picture or no sound; empty if neither."""
    flags = store.facet("flags", Filter(branch=node))
    words = []
    for word, reasons in (("no picture", (NO_VIDEO, BLACK)), ("no sound", (NO_AUDIO, SILENT))):
        share = sum(flags.get(reason, 0) for reason in reasons) / max(n_seconds, 1)
        if share > MAINLY:
            words.append(word if share > 1 - FEW else f"mostly {word}")
    return ", ".join(words)


def _longest_stretch(seconds: Sequence[int]) -> tuple[int, int]:
    """`[start, stop)` of the longest stretch of ascending seconds; the first of equal ones."""
    cuts = np.flatnonzero(np.diff(seconds) > GAP_SECONDS + 1) + 1
    runs = np.split(np.array(seconds), cuts)
    longest = max(runs, key=lambda run: int(run[-1] - run[0]))
    return int(longest[0]), int(longest[-1]) + 1


def _gather(store: Store, clustering: Clustering, clusters: tuple[int, ...] | None) -> dict[int, _Gathered]:
    model, rows = clustering.model, np.array(clustering.book.rows)
    where = None if clusters is None else Filter(clusters=clusters)
    gathered: dict[int, _Gathered] = {}
    for points in pages(store.seconds(where, with_vectors=model.modalities)):
        features = model.features(points)
        scores = features @ model.prototypes.T + model.offsets.astype(np.float32)  # (B, R)
        for at, point in enumerate(points):
            cluster = point.payload.get("cluster")
            if cluster is None:
                continue
            own = rows == cluster
            if not own.any():
                continue
            seen = gathered.setdefault(cluster, _Gathered())
            best = float(scores[at][own].max())
            margin = best - float(scores[at][~own].max()) if not own.all() else best
            cosine = float((features[at] @ model.prototypes[own].T).max())
            seen.n_seconds += 1
            seen.confidence += float(point.payload.get("confidence", 0))
            seen.videos[point.video_id] += 1
            for name, part in _parts(features[at], clustering):
                seen.sums[name] = seen.sums.get(name, 0) + part
                seen.counts[name] = seen.counts.get(name, 0) + 1
            found = (cosine, point.video_id, point.second)
            _keep(seen.near, found)
            seen.best[point.video_id] = max(found, seen.best.get(point.video_id, found))
            _keep(seen.edge, (-margin, point.video_id, point.second, cosine))
            if len(seen.any) < CANDIDATES:  # ids are hashes, so the first ones are a random sample
                seen.any.append((features[at], Example(point.video_id, point.second, round(cosine, 4))))
    return gathered


def _parts(features: FloatArray, clustering: Clustering) -> Iterator[tuple[str, FloatArray]]:
    """Modality and its part of a second's features, norm 1, where it is there."""
    start = 0
    for name, mean in clustering.model.means.items():
        part = features[start : start + len(mean)]
        start += len(mean)
        norm = float(np.linalg.norm(part))
        if norm > 0:
            yield name, part / norm


def _describe(
    node: str, below: Sequence[_Gathered], clustering: Clustering, *, total: int, neighbours: tuple[str, ...]
) -> Description:
    book = clustering.book
    n_seconds = sum(seen.n_seconds for seen in below)
    n_visual, n_audio = (sum(seen.counts.get(name, 0) for seen in below) for name in ("visual", "audio"))
    videos = sum((seen.videos for seen in below), Counter[str]())
    near = sorted({item for seen in below for item in (*seen.near, *seen.best.values())}, reverse=True)
    edge = sorted((item for seen in below for item in seen.edge), reverse=True)
    return Description(
        node=node,
        name=book.names.get(node, ""),
        hidden=node in book.hidden,
        path=tuple(book.path(node)),
        clusters=len(book.below(node)),
        seconds=n_seconds,
        share=round(n_seconds / total, 4) if total else 0.0,
        videos=len(videos),
        main_videos=tuple((video, round(n / n_seconds, 3)) for video, n in _most_common(videos)),
        purity_visual=_purity("visual", below),
        purity_audio=_purity("audio", below),
        has_visual=round(n_visual / n_seconds, 3) if n_seconds else 0.0,
        has_audio=round(n_audio / n_seconds, 3) if n_seconds else 0.0,
        confidence=round(sum(seen.confidence for seen in below) / n_seconds, 3) if n_seconds else 0.0,
        nearest=_one_a_video([Example(video, second, round(score, 4)) for score, video, second in near]),
        diverse=_diverse([item for seen in below for item in seen.any]),
        boundary=_one_a_video([Example(video, second, round(score, 4)) for _, video, second, score in edge]),
        neighbours=neighbours,
    )


def _purity(name: str, below: Sequence[_Gathered]) -> float:
    count = sum(seen.counts.get(name, 0) for seen in below)
    if not count:
        return float("nan")
    total = sum(seen.sums[name] for seen in below if name in seen.sums)
    return round(float(np.linalg.norm(total)) / count, 3)


def _most_common(videos: Counter[str]) -> list[tuple[str, int]]:
    """The videos with most seconds, in an order that does not depend on that of the points."""
    return sorted(videos.items(), key=lambda item: (-item[1], item[0]))[:MAIN_VIDEOS]


def _one_a_video(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The first ones, each of another video; where there are too few, filled up with the rest in order."""
    first = {example.video_id: example for example in reversed(examples)}
    chosen = [example for example in examples if first[example.video_id] is example]
    rest = [example for example in examples if first[example.video_id] is not example]
    return tuple((chosen + rest)[:SHOWN])


def _diverse(candidates: Sequence[tuple[FloatArray, Example]]) -> tuple[Example, ...]:
    """Farthest-point choice: each next one is the least similar to those chosen, and of another video if there is one.

    The first is the most typical.
    """
    if not candidates:
        return ()
    features = np.stack([feature for feature, _ in candidates])
    videos = np.array([example.video_id for _, example in candidates])
    chosen = [int((features @ features.mean(axis=0)).argmax())]
    nearest = features @ features[chosen[0]]
    while len(chosen) < min(SHOWN, len(candidates)):
        taken = np.isin(np.arange(len(candidates)), chosen)
        fresh = ~taken & ~np.isin(videos, videos[chosen])
        following = int(np.where(fresh if fresh.any() else ~taken, nearest, np.inf).argmin())
        chosen.append(following)
        nearest = np.maximum(nearest, features @ features[following])
    return tuple(candidates[at][1] for at in chosen)


def _neighbours(clustering: Clustering) -> dict[int, tuple[str, ...]]:
    """Cluster -> the clusters whose prototypes are nearest, nearest first."""
    clusters = clustering.book.clusters()
    rows = np.array(clustering.book.rows)
    means = np.stack([clustering.model.prototypes[rows == cluster].mean(axis=0) for cluster in clusters])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    similarity = means @ means.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(clusters) - 1)]
    return {cluster: tuple(f"c{clusters[at]}" for at in order[row]) for row, cluster in enumerate(clusters)}


def _keep(heap: list[Any], item: tuple[Any, ...], most: int = CANDIDATES) -> None:
    """Keep the `most` largest items."""
    if len(heap) < most:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)
