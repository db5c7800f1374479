"""An index is copied between any two places, goes on after an interruption, and the copy is checked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from qdrant_client import QdrantClient

from tests.qdrant_loopback import LOCAL_MODE
from tests.test_parquet import DIMS, assert_same_contents, contents, fill, silent
from visxp_search.cli import main
from visxp_search.cluster_fit import FitOptions, fit_clusters
from visxp_search.cluster_store import require_clustering
from visxp_search.errors import ExchangeError
from visxp_search.exchange import transfer
from visxp_search.exchange.contents import contents_of
from visxp_search.exchange.transfer import Copied, copy_index
from visxp_search.store import SecondPoint, Store, video_point_id
from visxp_search.store_collection import CollectionStore
from visxp_search.store_edge import open_edge_store
from visxp_search.store_server import open_client_store

pytestmark = LOCAL_MODE


def embedded(path: Path, *, checkpoint: str = "c1") -> Store:
    """An embedded index in a directory."""
    path.parent.mkdir(exist_ok=True)
    return open_edge_store(path, checkpoint=checkpoint, create=DIMS)


def served(*, checkpoint: str = "c1") -> Store:
    """An index in the client's local mode."""
    return open_client_store(QdrantClient(":memory:"), location="memory", checkpoint=checkpoint, create=DIMS)


def means(store: Store) -> dict[str, Mapping[str, npt.NDArray[np.float32]]]:
    """The mean vectors of all videos, which no store gives out otherwise."""
    assert isinstance(store, CollectionStore)
    video_ids = [record.video_id for record in store.videos()]
    found = store._videos.retrieve([video_point_id(v) for v in video_ids], with_vectors=tuple(DIMS))
    return {str(point.payload["video_id"]): point.vectors for point in found}


@pytest.fixture
def source(index_folder: Path) -> Iterator[Store]:
    """An embedded index with something of everything."""
    with closing(embedded(index_folder)) as store:
        fill(store)
        yield store


def test_a_copy_is_the_same_in_every_direction(source: Store, index_folder: Path) -> None:
    """Embedded to served, served to served and served to embedded keep payloads, vectors, ledger and mean vectors."""
    wanted = contents(source)
    first, second, back = served(), served(), embedded(index_folder.with_name("back"))
    with closing(first), closing(second), closing(back):
        for here, there, what in ((source, first, "push"), (first, second, "push"), (second, back, "pull")):
            assert copy_index(here, there, what=what, progress=silent) == Copied(120, 3, 120)
            assert_same_contents(contents(there), wanted)
        for store in (second, back):
            for video_id, vectors in means(source).items():
                for name, mean in means(store)[video_id].items():
                    np.testing.assert_allclose(mean, vectors[name], atol=1e-6)


def test_the_second_copy_writes_nothing_and_a_cut_one_goes_on(source: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C only what is missing is sent; once all is there, nothing is."""
    sent: list[int] = []
    target = served()
    upsert = target.upsert_seconds

    def counted(points: Sequence[SecondPoint]) -> None:
        sent.append(len(points))
        upsert(points)

    def interrupted(what: str, done: int, total: int) -> None:
        if done >= 64:
            raise KeyboardInterrupt

    monkeypatch.setattr(target, "upsert_seconds", counted)
    monkeypatch.setattr(transfer, "contents_of", lambda store: contents_of(store, batch=32))
    with closing(target):
        with pytest.raises(KeyboardInterrupt):
            copy_index(source, target, what="push", progress=interrupted)
        assert (sum(sent), target.count_videos()) == (64, 0)
        copy_index(source, target, what="push", progress=silent)
        assert sum(sent) == 120
        copy_index(source, target, what="push", progress=silent)
        assert sum(sent) == 120
        assert_same_contents(contents(target), contents(source))


def test_what_changed_is_sent_and_what_else_is_there_stays(source: Store) -> None:
    """A changed payload, vector or ledger entry reaches the copy; videos that only the copy knows are not touched."""
    with closing(served()) as target:
        fill(target, n_videos=5)
        target.set_payload(f"{0:032x}", 3, {"confidence": 0.125})
        point = source.get([(f"{1:032x}", 1)], with_vectors=tuple(DIMS))[0]
        source.upsert_seconds([replace(point, vectors={name: -v for name, v in point.vectors.items()})])
        record = next(source.videos())
        source.upsert_videos([replace(record, tries=7)])
        copy_index(source, target, what="push", progress=silent)
        payloads, vectors, records = contents(target)
        wanted = contents(source)
        assert len(records) == 5 and records[:3] == wanted[2]
        assert_same_contents(
            ({k: payloads[k] for k in wanted[0]}, {k: vectors[k] for k in wanted[1]}, records[:3]), wanted
        )


def test_clusters_go_along(source: Store) -> None:
    """The document of clusters is copied; a target that has clusters keeps them, labels by them, and is found alike."""
    fitted = fit_clusters(source, FitOptions(n_clusters=4)).clustering
    with closing(served()) as target, closing(served()) as other:
        copy_index(source, target, what="push", progress=silent)
        assert require_clustering(target).book == fitted.book
        assert_same_contents(contents(target), contents(source))
        fill(other, n_videos=1)
        own = fit_clusters(other, FitOptions(n_clusters=2)).clustering
        copy_index(source, other, what="push", progress=silent)
        assert require_clustering(other).book == own.book and set(other.facet("cluster")) <= {0, 1}


def test_copies_that_differ_are_told(source: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another checkpoint, seconds too many, an entry lost and a vector that came to harm are one clear error each."""
    with closing(served(checkpoint="c2")) as foreign:
        with pytest.raises(ExchangeError, match="is of checkpoint c1, index memory of c2; push into a new index"):
            copy_index(source, foreign, what="push", progress=silent)
        assert foreign.count() == 0
    with closing(served()) as target:
        fill(target, n_seconds=41)
        with pytest.raises(ExchangeError, match=r"has 40 seconds in index .* and 41 in memory; remove it there"):
            copy_index(source, target, what="push", progress=silent)
    with closing(served()) as target, monkeypatch.context() as patch:
        patch.setattr(target, "upsert_videos", lambda records: None)
        with pytest.raises(ExchangeError, match=r"the entry of video 0{31}[012] in index memory is not that of"):
            copy_index(source, target, what="push", progress=silent)
    with closing(served()) as target, monkeypatch.context() as patch:
        upsert = target.upsert_seconds

        def harmful(points: Sequence[SecondPoint]) -> None:
            upsert([replace(p, vectors={n: v[::-1] for n, v in p.vectors.items()}) for p in points])

        patch.setattr(target, "upsert_seconds", harmful)
        with pytest.raises(ExchangeError, match="120 of 120 sampled seconds in index memory are not those of"):
            copy_index(source, target, what="push", progress=silent)


def test_the_sample_is_random_and_bounded(source: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger index is checked by as many seconds as are wanted, others for another seed."""
    monkeypatch.setattr(transfer, "SAMPLE", 10)
    samples = []
    for seed in (1, 2):
        sample = transfer._Sample(10, seed=seed)
        assert sum(len(points) for points in sample.watch([list(source.seconds())])) == 120
        assert len(set(sample.keys)) == 10
        samples.append(set(sample.keys))
    assert samples[0] != samples[1]
    with closing(served()) as target:
        assert copy_index(source, target, what="push", progress=silent).sampled == 10


def test_commands_push_and_pull(index_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`index push` makes the other index, `index pull` brings it back; itself and a missing source are refused."""
    with closing(embedded(index_folder)) as store:
        fill(store)
        wanted = contents(store)
    here, there, back = (str(index_folder.with_name(name)) for name in ("index", "there", "back"))
    assert main(["index", "push", there, "--index", here, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "from": here,
        "to": there,
        "seconds": 120,
        "videos": 3,
        "sampled": 120,
    }
    assert main(["index", "pull", there, "--index", back]) == 0
    assert "120 seconds of 3 videos are in" in capsys.readouterr().err
    with closing(embedded(index_folder.with_name("back"))) as store:
        assert_same_contents(contents(store), wanted)
    assert main(["index", "push", f"{here}/../index", "--index", here]) == 2
    assert "are the same index" in capsys.readouterr().err
    assert main(["index", "pull", f"{here}-none", "--index", back]) == 3
    with closing(embedded(index_folder.with_name("foreign"), checkpoint="c9")):
        pass
    capsys.readouterr()
    assert main(["index", "push", f"{index_folder.with_name('foreign')}", "--index", here]) == 3
    assert "push into a new index" in capsys.readouterr().err
