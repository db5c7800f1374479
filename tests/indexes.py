"""Indexes of the tiny checkpoint, single seconds for a store, and what is in an index to the last bit."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import SecondPoint, Store, make_payload, open_store

FloatArray = npt.NDArray[np.float32]
Contents = dict[tuple[str, int], tuple[dict[str, object], dict[str, list[float]]]]


def open_index_of(folder: Path, embedder: L3NetEmbedder) -> Store:
    """Open the index in a folder, or make it."""
    dims = {name: spec.length for name, spec in embedder.specs.items()}
    return open_store(folder, checkpoint=embedder.checkpoint_id, create=dims)


def silent_second(video_id: str, second: int, vector: FloatArray, *, checkpoint: str = "c1") -> SecondPoint:
    """A second with a picture and no sound."""
    payload = make_payload(video_id=video_id, second=second, has_audio=False, flags=[], checkpoint=checkpoint)
    return SecondPoint(video_id, second, {"visual": vector}, payload)


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
