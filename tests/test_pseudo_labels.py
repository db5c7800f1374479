"""The clusters that a checkpoint learned, as payloads of an index, until the archive has clusters of its own."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.pipeline import add_files
from tests.conftest import write_film
from visxp_search.cli import main
from visxp_search.cluster_fit import FitOptions, fit_clusters
from visxp_search.cluster_store import require_clustering
from visxp_search.errors import CollectionError
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import Filter, Store, open_store

KEYS = ("cluster", "cluster_visual", "cluster_audio", "confidence")


@pytest.fixture(scope="module")
def embedder(labelling_checkpoint: Path) -> L3NetEmbedder:
    """Of a checkpoint with heads."""
    return L3NetEmbedder(labelling_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def indexed(embedder: L3NetEmbedder, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the films, made by a checkpoint with heads; closed, to be copied."""
    path = tmp_path_factory.mktemp("indexed") / "index"
    dims = {name: spec.length for name, spec in embedder.specs.items()}
    opened = open_store(path, checkpoint=embedder.checkpoint_id, create=dims)
    add_files(opened, embedder, [films])
    opened.close()
    return path


@pytest.fixture
def store(indexed: Path, index_folder: Path, embedder: L3NetEmbedder) -> Iterator[Store]:
    """A copy of that index, open."""
    shutil.copytree(indexed, index_folder)
    opened = open_store(index_folder, checkpoint=embedder.checkpoint_id)
    yield opened
    opened.close()


def test_every_second_has_the_labels_that_its_modalities_allow(store: Store) -> None:
    """All seconds have a cluster and a confidence, and one by picture or sound alone where that is there."""
    for point in store.seconds(with_vectors=("visual", "audio")):
        assert 0 <= point.payload["cluster"] < 5
        assert 0 < point.payload["confidence"] <= 1
        for name in ("visual", "audio"):
            assert (f"cluster_{name}" in point.payload) == (name in point.vectors)
        if len(point.vectors) == 1:
            [name] = point.vectors
            assert point.payload["cluster"] == point.payload[f"cluster_{name}"]


def test_labels_are_counted_and_filtered(store: Store) -> None:
    """Facets add up to all seconds, and filters by each kind of label find what the facets say."""
    sizes = store.facet("cluster")
    assert sum(sizes.values()) == store.count() == 55
    for cluster, size in sizes.items():
        assert store.count(Filter(clusters=(int(cluster),))) == size
        assert store.count(Filter(not_clusters=(int(cluster),))) == 55 - size
    for cluster, size in store.facet("cluster_visual").items():
        assert store.count(Filter(clusters_visual=(int(cluster),))) == size
    for cluster, size in store.facet("cluster_audio").items():
        assert store.count(Filter(clusters_audio=(int(cluster),))) == size


def test_clusters_of_the_archive_take_their_place(store: Store, embedder: L3NetEmbedder, tmp_path: Path) -> None:
    """A fit replaces all labels, and seconds indexed after it get the archive's, not the checkpoint's."""
    with pytest.raises(CollectionError, match="only those that its checkpoint learned"):
        require_clustering(store)
    book = fit_clusters(store, FitOptions(n_clusters=3)).clustering.book
    add_files(store, embedder, [write_film(tmp_path / "new.mp4", seed=9, n_seconds=3)])
    for key in ("cluster", "cluster_visual", "cluster_audio"):
        assert set(store.facet(key)) <= set(book.clusters())
    assert all(point.payload["path"] for point in store.seconds())


def test_lists_say_whose_clusters_they_are(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """`clusters ls` and `index info` tell the checkpoint's clusters from the archive's."""
    location = ["--index", store.location]
    store.close()
    assert main(["clusters", "ls", *location]) == 0
    assert "learned by the checkpoint" in capsys.readouterr().out
    assert main(["index", "info", "--json", *location]) == 0
    assert json.loads(capsys.readouterr().out)["clusters_of"] == "checkpoint"
    assert main(["clusters", "fit", "--k", "3", "--quiet", *location]) == 0
    assert main(["clusters", "ls", "--json", *location]) == 0
    assert {row["of"] for row in json.loads(capsys.readouterr().out)} == {"archive"}
    assert main(["index", "info", *location]) == 0
    assert "3 of this archive" in capsys.readouterr().out


def test_without_heads_there_are_no_labels(index_folder: Path, tiny_embedder: L3NetEmbedder, films: Path) -> None:
    """A checkpoint that learned no clusters leaves the keys out."""
    dims = {name: spec.length for name, spec in tiny_embedder.specs.items()}
    opened = open_store(index_folder, checkpoint=tiny_embedder.checkpoint_id, create=dims)
    try:
        add_files(opened, tiny_embedder, [films / "short.mp4"])
        assert not any(key in point.payload for point in opened.seconds() for key in KEYS)
    finally:
        opened.close()
