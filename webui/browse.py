"""Clusters as far as the index has them: counts and examples, read from payloads."""

from dataclasses import dataclass
from itertools import islice

from visxp_search.store import Filter, SecondPoint, Store

MAX_SHOWN = 60
N_EXAMPLES = 4
SAMPLE = 48
"""Seconds looked at to choose examples from."""


@dataclass(frozen=True)
class ClusterView:
    """One cluster, or one branch of the hierarchy.

    Attributes:
        key: what to ask for it with: the cluster's number, or the branch's name.
        name: what people are shown.
        n_seconds: its size.
        examples: (video id, second), the surest first, of different videos where there are some.
        has_children: whether there is something below it.
    """

    key: str
    name: str
    n_seconds: int
    examples: tuple[tuple[str, int], ...]
    has_children: bool = False


@dataclass(frozen=True)
class Level:
    """What is shown of the clusters at once.

    Attributes:
        trail: branches from the root down to what is shown.
        clusters: largest first.
        n_more: how many smaller ones are not shown.
        is_tree: whether the index has a hierarchy.
    """

    trail: tuple[str, ...]
    clusters: tuple[ClusterView, ...]
    n_more: int = 0
    is_tree: bool = False


def open_level(store: Store, branch: str = "") -> Level:
    """The clusters below a branch of the hierarchy, or all clusters where there is no hierarchy.

    Args:
        store: the index.
        branch: an element of `path` payloads; empty for the top.
    """
    sizes = {str(name): size for name, size in store.facet("path", Filter(branch=branch) if branch else None).items()}
    return _open_branch(store, branch, sizes) if sizes else _list_clusters(store)


def _list_clusters(store: Store) -> Level:
    sizes = store.facet("cluster")
    clusters = tuple(
        ClusterView(str(number), f"cluster {number}", size, _examples(store, Filter(clusters=(int(number),))))
        for number, size in islice(sizes.items(), MAX_SHOWN)
    )
    return Level((), clusters, n_more=max(0, len(sizes) - MAX_SHOWN))


def _open_branch(store: Store, branch: str, sizes: dict[str, int]) -> Level:
    trail = _path_to(store, branch) if branch else ()
    children: list[tuple[str, int]] = []
    for name, size in sizes.items():
        path = _path_to(store, name)
        if len(path) == len(trail) + 1 and path[: len(trail)] == trail:
            children.append((name, size))
    clusters = tuple(
        ClusterView(name, name, size, _examples(store, Filter(branch=name)), has_children=_has_children(store, name))
        for name, size in children[:MAX_SHOWN]
    )
    return Level(trail, clusters, n_more=max(0, len(children) - MAX_SHOWN), is_tree=True)


def _path_to(store: Store, branch: str) -> tuple[str, ...]:
    """The branches from the root down to this one, itself last."""
    for point in store.seconds(Filter(branch=branch), page=1):
        path = [str(name) for name in point.payload.get("path", ())]
        return tuple(path[: path.index(branch) + 1])
    return ()


def _has_children(store: Store, branch: str) -> bool:
    return any(
        list(point.payload.get("path", ()))[-1:] != [branch]
        for point in islice(store.seconds(Filter(branch=branch), page=8), 8)
    )


def _examples(store: Store, where: Filter) -> tuple[tuple[str, int], ...]:
    points = list(islice(store.seconds(where, page=SAMPLE), SAMPLE))
    points.sort(key=lambda point: -float(point.payload.get("confidence", 0.0)))
    first_of_video: dict[str, SecondPoint] = {}
    for point in points:
        first_of_video.setdefault(point.video_id, point)
    others = [point for point in points if first_of_video[point.video_id] is not point]
    chosen = [*first_of_video.values(), *others][:N_EXAMPLES]
    return tuple((point.video_id, point.second) for point in chosen)
