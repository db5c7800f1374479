"""Embedded indexes of the tiny checkpoint, and what is in them to the last bit."""

from pathlib import Path

import numpy as np

from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import Store, open_store

Contents = dict[tuple[str, int], tuple[dict[str, object], dict[str, list[float]]]]


def open_index_of(folder: Path, embedder: L3NetEmbedder) -> Store:
    """Open the index in a folder, or make it."""
    dims = {name: spec.length for name, spec in embedder.specs.items()}
    return open_store(folder, checkpoint=embedder.checkpoint_id, create=dims)


def assert_nearly_same(found: Contents, wanted: Contents) -> None:
    """Same ids and payloads; vectors as far as a server leaves them alone, which normalises what it is sent."""
    assert set(found) == set(wanted)
    for key, (payload, vectors) in wanted.items():
        assert found[key][0] == payload
        assert set(found[key][1]) == set(vectors)
        for name, vector in vectors.items():
            np.testing.assert_allclose(found[key][1][name], vector, atol=1e-6)


def contents_of(store: Store) -> Contents:
    """All points: (video id, second) -> (payload, vectors as exact lists)."""
    names = tuple(store.info.dims)
    return {
        (point.video_id, point.second): (
            dict(point.payload),
            {name: vector.tolist() for name, vector in sorted(point.vectors.items())},
        )
        for point in store.seconds(with_vectors=names)
    }
