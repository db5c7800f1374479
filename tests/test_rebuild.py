"""Another model for an index that is in use: rebuild beside it, compare, swap, take back."""

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch

from indexer.pipeline import add_files
from indexer.rebuild import compare
from tests.conftest import write_film
from tests.indexes import contents_of, open_index_of
from visxp_search.checkpoint import Architecture, Networks, save_checkpoint
from visxp_search.cli import main
from visxp_search.encoders import AudioConfig, VisualConfig
from visxp_search.errors import CollectionError
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import open_store
from visxp_search.store_edge_files import swap_edge_indexes


@pytest.fixture(scope="module")
def newer_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other networks than those of the tiny checkpoint, with longer embeddings."""
    torch.manual_seed(2)
    architecture = Architecture(
        visual=VisualConfig(frame_size=64, base_channels=8, blocks=(1, 1, 1, 1), embedding=48),
        audio=AudioConfig(channels=(4, 8, 8, 16), hidden=16, embedding=48),
        joint=16,
    )
    path = tmp_path_factory.mktemp("newer")
    save_checkpoint(path, Networks(architecture), provenance={"stages": []}, card="untrained, for tests")
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three films, one of them twice."""
    for seed, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_film(tmp_path / name, seed=seed, n_seconds=3)
    (tmp_path / "twin.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    return tmp_path


@pytest.fixture
def index(index_folder: Path, tiny_embedder: L3NetEmbedder, archive: Path) -> Path:
    """Their index by the tiny checkpoint."""
    with closing(open_index_of(index_folder, tiny_embedder)) as store:
        add_files(store, tiny_embedder, [archive])
    return index_folder


def _checkpoint_of(index: Path) -> str:
    with closing(open_store(index, checkpoint=None)) as store:
        return store.info.checkpoint


def test_rebuild_compare_swap_undo_drop(
    index: Path, newer_checkpoint: Path, tiny_embedder: L3NetEmbedder, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new index has every second and every path; swapping and undoing change places; --drop leaves one."""
    where = ["--index", str(index)]
    beside, old = index.with_name("index.rebuild"), index.with_name("index.old")
    before = _checkpoint_of(index)
    with closing(open_store(index, checkpoint=None)) as store:
        wanted, paths = contents_of(store), {record.video_id: set(record.paths) for record in store.videos()}
    assert main(["index", "rebuild", "--model", str(newer_checkpoint), *where]) == 0
    capsys.readouterr()
    assert main(["index", "diff", "--json", *where]) == 0
    difference = json.loads(capsys.readouterr().out)
    assert (difference["seconds"], difference["videos_missing"], difference["sampled"]) == ([9, 9], [], 9)
    assert all(0 <= share <= 1 for share in difference["overlap"].values())
    assert main(["index", "swap", *where]) == 0
    new = _checkpoint_of(index)
    assert (new != before, _checkpoint_of(old), beside.exists()) == (True, before, False)
    with closing(open_store(index, checkpoint=None)) as store:
        assert set(contents_of(store)) == set(wanted)
        assert {record.video_id: set(record.paths) for record in store.videos()} == paths
    assert main(["index", "swap", "--undo", *where]) == 0
    assert (_checkpoint_of(index), _checkpoint_of(beside), old.exists()) == (before, new, False)
    with closing(open_index_of(index, tiny_embedder)) as store:
        assert contents_of(store) == wanted
    assert main(["index", "swap", "--drop", *where]) == 0
    assert (_checkpoint_of(index), beside.exists(), old.exists()) == (new, False, False)


def test_a_rebuild_goes_on_and_is_not_used_half(
    index: Path, archive: Path, newer_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a new index is refused by swap; what it has is not embedded again; a lost file is named."""
    where, model = ["--index", str(index)], ["--model", str(newer_checkpoint)]
    (archive / "c.mp4").rename(archive / "c.away")
    assert main(["index", "rebuild", *model, *where, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["indexed"], [Path(f["path"]).name for f in report["failures"]]) == (2, ["c.mp4"])
    assert main(["index", "swap", *where]) == 2
    assert "1 videos are not in" in capsys.readouterr().err
    (archive / "c.away").rename(archive / "c.mp4")
    assert main(["index", "rebuild", *model, *where, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["indexed"], report["skipped"]) == (1, 2)
    assert main(["index", "swap", *where]) == 0


def test_an_index_in_use_is_not_swapped(index: Path, newer_checkpoint: Path, archive: Path) -> None:
    """While somebody has one of both open nothing is renamed; one that is already of the model is not rebuilt."""
    beside, old = index.with_name("index.rebuild"), index.with_name("index.old")
    where, model = ["--index", str(index)], ["--model", str(newer_checkpoint)]
    assert main(["index", "rebuild", *model, *where]) == 0
    for used in (index, beside):
        with closing(open_store(used, checkpoint=None)), pytest.raises(CollectionError, match="in use by"):
            swap_edge_indexes(index, beside, old)
    swap_edge_indexes(index, beside, old)
    assert main(["index", "rebuild", *model, *where]) == 2
    with pytest.raises(CollectionError, match="no index at"):
        swap_edge_indexes(index, beside, old)


def test_a_swap_that_was_cut_short_is_completed(index: Path, newer_checkpoint: Path) -> None:
    """Killed between its two renames, the next swap does the second."""
    where = ["--index", str(index)]
    assert main(["index", "rebuild", "--model", str(newer_checkpoint), *where]) == 0
    before = _checkpoint_of(index)
    index.rename(index.with_name("index.old"))
    assert main(["index", "swap", *where]) == 0
    assert _checkpoint_of(index) != before
    assert _checkpoint_of(index.with_name("index.old")) == before


def test_an_index_agrees_with_itself(index: Path, tiny_embedder: L3NetEmbedder) -> None:
    """Compared with a copy all neighbours are the same."""
    other = index.with_name("other")
    with closing(open_index_of(index, tiny_embedder)) as store, closing(open_index_of(other, tiny_embedder)) as copy:
        copy.upsert_seconds(list(store.seconds(with_vectors=tuple(store.info.dims))))
        copy.upsert_videos(list(store.videos()))
        found = compare(store, copy)
    assert found.overlap == found.overlap_videos == dict.fromkeys(("visual", "audio", "joint"), 1.0)


@pytest.mark.parametrize(
    ("command", "code"), [("rebuild --model x", 3), ("diff", 3), ("swap", 3), ("swap --undo --drop", 2)]
)
def test_a_server_that_is_not_there_and_wrong_use_are_named(
    capsys: pytest.CaptureFixture[str], command: str, code: int
) -> None:
    """Both end in one line, each with its exit code."""
    assert main(["index", *command.split(), "--index", "http://127.0.0.1:1"]) == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
