"""Tests of preparing shards: what is in them, the split, resuming, near-duplicates, and each layout."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset

from tests.corpus import KINDS, SAMPLE_RATE_HZ, draw_waveform, name_group
from training import prepare
from training.data import load_material
from training.prepare import prepare_shards
from training.sources import Video, find_layout, list_videos
from visxp_search.cli import main
from visxp_search.decode import decode_clips
from visxp_search.errors import UsageError
from visxp_search.render import write_video


def write_scene(path: Path, seed: int, *, n_seconds: int = 3, black: bool = False, silent: bool = False) -> Path:
    """A video of moving noise blocks and a tone, told from others by its seed."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = random.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    frames = [np.zeros_like(blocks) if black else np.roll(blocks, 8 * (n // 4), axis=1) for n in range(4 * n_seconds)]
    waveform = draw_waveform(list(KINDS)[seed % 3], random, n_seconds) * (0 if silent else 1)
    write_video(path, frames=frames, frames_per_second=4, waveform=waveform, sample_rate_hz=SAMPLE_RATE_HZ)
    return path


def prepare_all(videos: list[Video], out: Path, *, per_shard: int = 2) -> dict[str, object]:
    """Shards in this folder, by one process."""
    return prepare_shards(
        videos,
        out,
        sample_rate_hz=SAMPLE_RATE_HZ,
        workers=1,
        videos_per_shard=per_shard,
        progress=lambda *_: None,
    )


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def videos(tmp_path: Path) -> list[Video]:
    """Five videos: two training groups, one held out, one silent and black, and one that is no video."""
    folder = tmp_path / "media"
    held = name_group("held", held_out=True)
    groups = [name_group("a", held_out=False), name_group("b", held_out=False), held, name_group("c", held_out=False)]
    made = [write_scene(folder / f"{n}.mp4", n) for n in range(3)]
    made.append(write_scene(folder / "3.mp4", 3, black=True, silent=True))
    listed = [Video(path, path.name, group, "label") for path, group in zip(made, groups, strict=True)]
    (folder / "4.mp4").write_text("no video at all")
    return [*listed, Video(folder / "4.mp4", "4.mp4", name_group("d", held_out=False), "")]


def test_report_counts_what_is_there(videos: list[Video], tmp_path: Path) -> None:
    """Videos, seconds, silent and black seconds, pairs and refused files are those that were made."""
    report = prepare_all(videos, tmp_path / "shards")
    assert report["videos"] == 4
    assert report["seconds"] == 12
    assert report["pairs"] == 9
    assert report["splits"] == {"train": {"videos": 3, "seconds": 9}, "held_out": {"videos": 1, "seconds": 3}}
    flags = report["flags"]
    assert isinstance(flags, dict)
    assert flags["silent"] == flags["black"] == 3
    assert [entry["video"] for entry in report["refused"]] == ["4.mp4"]  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "shards" / "report.json").read_text()) == report


def test_clips_are_those_of_the_decoder(videos: list[Video], tmp_path: Path) -> None:
    """A pair read from shards is the decoder's clip: the same sound to 16 bits, the same picture to JPEG."""
    prepare_all(videos, tmp_path / "shards")
    material = load_material(tmp_path / "shards", cache=None, sample_rate_hz=SAMPLE_RATE_HZ, progress=lambda *_: None)
    pairs = material.pairs
    assert material.rehearsal is None
    assert not material.examples
    row = int(np.flatnonzero((pairs.files == "1.mp4") & (pairs.seconds == 2))[0])
    clip = list(decode_clips(videos[1].path, frame_size=144, sample_rate_hz=SAMPLE_RATE_HZ))[2]
    assert clip.frame is not None
    assert clip.waveform is not None
    rows = np.array([row])
    assert np.abs(pairs.read_waveforms(rows)[0] / 32767 - clip.waveform).max() < 1e-4
    assert np.abs(pairs.read_frames(rows)[0].astype(float) - clip.frame).mean() < 6
    assert pairs.held_out[pairs.files == "2.mp4"].all()
    assert not pairs.held_out[pairs.files == "1.mp4"].any()
    with pytest.raises(UsageError, match="24000"):
        load_material(tmp_path / "shards", cache=None, sample_rate_hz=16_000, progress=lambda *_: None)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves closing its files to the collector
def test_any_webdataset_reader_takes_the_shards(videos: list[Video], tmp_path: Path) -> None:
    """The library's own reader gives a JPEG, a waveform and the facts of each clip."""
    prepare_all(videos, tmp_path / "shards")
    urls = [str(path) for path in sorted((tmp_path / "shards").glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 9
    assert samples[0]["jpg"].shape == (144, 144, 3)
    assert samples[0]["npy"].shape == (SAMPLE_RATE_HZ,)
    assert samples[0]["json"]["second"] == 0


def test_an_interrupted_call_goes_on_and_ends_the_same(videos: list[Video], tmp_path: Path) -> None:
    """Runs that are done are not done again, and the folder ends with the same bytes."""
    prepare_all(videos, tmp_path / "whole")
    prepare_all(videos, tmp_path / "halves")
    for path in (tmp_path / "halves").glob("*000001*"):
        path.unlink()
    first = (tmp_path / "halves" / "train-000000.tar").stat()
    prepare_all(videos, tmp_path / "halves")
    assert (tmp_path / "halves" / "train-000000.tar").stat() == first
    whole, halves = read_folder(tmp_path / "whole"), read_folder(tmp_path / "halves")
    assert whole.keys() == halves.keys()
    assert all(whole[name] == halves[name] for name in whole if not name.endswith(".npz"))
    with pytest.raises(UsageError, match="other videos"):
        prepare_all(videos[1:], tmp_path / "whole")


def test_a_held_out_copy_of_a_training_video_is_found_and_left_out(videos: list[Video], tmp_path: Path) -> None:
    """The same footage under another group is reported, and its held-out copy is no pair."""
    copy = shutil.copy(videos[0].path, tmp_path / "media" / "copy.mp4")
    held_out = Video(Path(copy), "copy.mp4", name_group("copy", held_out=True), "")
    report = prepare_all([*videos, held_out], tmp_path / "shards")
    assert [entry["video"] for entry in report["near_duplicates"]] == ["copy.mp4"]  # type: ignore[attr-defined]
    assert report["excluded_from_held_out"] == ["copy.mp4"]
    assert report["pairs"] == 9


def test_layouts_name_groups_and_labels(tmp_path: Path) -> None:
    """Plain folders, class folders, VGGSound's list and a manifest each give videos with group, label and split."""
    write_scene(tmp_path / "classes" / "dog" / "x.mp4", 0, n_seconds=1)
    (tmp_path / "classes" / "cat").mkdir()
    assert find_layout(tmp_path / "classes") == "classes"
    (video,) = list_videos(tmp_path / "classes", layout="classes")
    assert (video.name, video.group, video.label) == ("dog/x.mp4", "dog/x.mp4", "dog")
    (plain,) = list_videos(tmp_path / "classes", layout="folder")
    assert plain.label == ""
    listing = tmp_path / "vggsound.csv"
    listing.write_text('--0PQM4-hqg,30,"waterfall burbling, loud",train\nzzz,8,dog,test\n')
    assert find_layout(listing) == "vggsound"
    first, second = list_videos(listing, layout="vggsound", media=tmp_path)
    assert first.path == tmp_path / "--0PQM4-hqg_000030.mp4"
    assert (first.group, first.label, first.split) == ("--0PQM4-hqg", "waterfall burbling, loud", "train")
    assert second.split == "held_out"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "manifest.csv").write_text("file,kind,label,group\nv.mp4,video,l,g\ni.jpg,image,l,h\n")
    (listed,) = list_videos(tmp_path / "c", layout=find_layout(tmp_path / "c"))
    assert (listed.path, listed.group, listed.label) == (tmp_path / "c" / "v.mp4", "g", "l")
    listing.write_text("only,three,columns\n")
    with pytest.raises(UsageError, match="line 1"):
        list(list_videos(listing, layout="vggsound", media=tmp_path))


def test_command_prepares_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`visxp train prepare` exits 0 when all is well, 1 with refused files, 2 without videos."""
    write_scene(tmp_path / "media" / "a.mp4", 0, n_seconds=1)
    arguments = ["train", "prepare", str(tmp_path / "media"), "--workers", "1", "--out"]
    assert main([*arguments, str(tmp_path / "one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 1
    (tmp_path / "media" / "b.mp4").write_text("nothing")
    assert main([*arguments, str(tmp_path / "two")]) == 1
    assert "1 refused" in capsys.readouterr().err
    os.mkdir(tmp_path / "empty")
    assert main(["train", "prepare", str(tmp_path / "empty"), "--out", str(tmp_path / "three")]) == 2
    assert "no videos" in capsys.readouterr().err


def test_a_damaged_run_leaves_no_half_shard(
    videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If writing stops in the middle, no shard and no temporary file is left."""

    def stop(clip: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_print_frame", stop)
    (tmp_path / "shards").mkdir()
    with pytest.raises(KeyboardInterrupt):
        prepare.write_shard(videos[:1], tmp_path / "shards", 0, SAMPLE_RATE_HZ)
    assert list((tmp_path / "shards").iterdir()) == []
