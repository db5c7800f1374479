"""Features of the VisXP workers are imported by safe readers, searched, and written in their layout again."""

import json
import os
import pickle
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from visxp_search.cli import main
from visxp_search.errors import ExchangeError
from visxp_search.exchange.dane import check_spectrogram, read_features, read_literal
from visxp_search.exchange.dane_import import choose_rows, find_unit
from visxp_search.store import DONE, SecondPoint, VideoRecord, make_payload, open_store

Rows = npt.NDArray[np.float32]


def make_rows(times: Iterable[int], *, width: int = 1027, shot: tuple[int, int] = (0, 9000), seed: int = 3) -> Rows:
    """A feature array as `apply_model` of the extraction worker concatenates it; values are not normalised."""
    times = list(times)
    rows = np.random.default_rng(seed).normal(0, 3, (len(times), width)).astype(np.float32)
    rows[:, 0] = times
    if width != 1025:
        rows[:, 1:3] = shot
    return rows


def write_source(folder: Path, rows: Rows, *, suffix: str = ".pt", named: Iterable[int] | None = None) -> Path:
    """One source's folder, by hand, as both workers leave it."""
    times = [int(time) for time in (rows[:, 0] if named is None else named)]
    for name in ("keyframes", "spectrograms", "metadata"):
        (folder / name).mkdir(parents=True)
    for time in times:
        (folder / "keyframes" / f"{time}.jpg").write_bytes(b"a picture")
        spectrogram = {"audio": np.zeros((1, 257, 99), dtype=np.float32)}
        np.savez(folder / "spectrograms" / f"{time}_24000.npz", np.array(spectrogram, dtype=object))
    (folder / "metadata" / "shot_boundaries_timestamps_ms.txt").write_text("[(0, 4000), (4001, 9000)]")
    features = folder / f"visxp_features__{folder.name}{suffix}"
    if suffix == ".pt":
        torch.save(torch.from_numpy(rows.copy()), features)
    elif suffix == ".npy":
        np.save(features, rows)
    else:
        np.savez(features, features=rows)
    return features


def run_import(root: Path, index: Path, *more: str) -> int:
    """Run the command."""
    return main(["index", "import", str(root), "--index", str(index), *more])


def read_points(index: Path) -> list[SecondPoint]:
    """All seconds of an index, in order."""
    with closing(open_store(index, checkpoint=None)) as store:
        found = list(store.seconds(with_vectors=tuple(store.info.dims)))
    return sorted(found, key=lambda point: (point.video_id, point.second))


def cosine(vector: Rows, raw: Rows) -> float:
    """Cosine of the angle between two vectors."""
    return float(vector @ raw / np.linalg.norm(vector) / np.linalg.norm(raw))


@pytest.mark.parametrize(
    ("width", "unit", "suffix"),
    [
        *((width, unit, ".pt") for width in (1027, 515, 1025) for unit in ("ms", "s")),
        (1027, "ms", ".npy"),
        (1027, "s", ".npz"),
    ],
)
def test_features_are_imported(
    tmp_path: Path, index_folder: Path, capsys: pytest.CaptureFixture[str], width: int, unit: str, suffix: str
) -> None:
    """All widths, both conventions of time and every file format become the right vectors at the right second."""
    times = [500, 1500, 2480, 6040] if unit == "ms" else [0, 1, 2, 6]
    rows = make_rows(times, width=width)
    write_source(tmp_path / "dane" / "tape7", rows, suffix=suffix)
    assert run_import(tmp_path / "dane", index_folder, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["seconds"], summary["videos"], summary["spectrograms_not_read"]) == (4, 1, 4)
    assert summary["checkpoint"].startswith("dane-")
    points = read_points(index_folder)
    assert [point.second for point in points] == [0, 1, 2, 6]
    first = {1027: {"audio": 3, "visual": 515}, 515: {"visual": 3}, 1025: {"audio": 1, "visual": 513}}[width]
    for row, point in zip(rows, points, strict=True):
        assert point.vectors.keys() == first.keys()
        assert point.payload["has_audio"] == ("audio" in first)
        for name, start in first.items():
            assert cosine(point.vectors[name], row[start : start + 512]) == pytest.approx(1, abs=1e-5)
            assert np.linalg.norm(point.vectors[name]) == pytest.approx(1, abs=1e-5)
    wanted_shots = [[0, 4000]] * 3 + [[4001, 9000]] if width == 1025 else [[0, 9000]] * 4
    assert [list(point.payload["shot_ms"]) for point in points] == wanted_shots


def test_importing_twice_changes_nothing(tmp_path: Path, index_folder: Path) -> None:
    """The same sources have the same ids."""
    write_source(tmp_path / "a", make_rows([0, 1, 2]))
    write_source(tmp_path / "b", make_rows([1500, 2500, 3500], seed=4))
    assert run_import(tmp_path, index_folder) == 0
    before = [(point.video_id, point.second, point.payload) for point in read_points(index_folder)]
    assert run_import(tmp_path, index_folder) == 0
    assert [(point.video_id, point.second, point.payload) for point in read_points(index_folder)] == before
    assert len(before) == 6


def test_imported_moments_can_be_searched(
    tmp_path: Path, index_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An indexed moment finds its copy in another source without any encoder; other queries say what to do."""
    rows = make_rows(range(8))
    write_source(tmp_path / "dane" / "tape1", rows)
    write_source(tmp_path / "dane" / "tape2", np.concatenate([make_rows(range(8), seed=9), make_rows([]), rows[2:5]]))
    copied = np.concatenate([make_rows(range(8), seed=9), rows[2:5]])
    copied[:, 0] = range(11)
    torch.save(torch.from_numpy(copied), tmp_path / "dane" / "tape2" / "visxp_features__tape2.pt")
    for time in range(8, 11):
        for name in (f"keyframes/{time}.jpg", f"spectrograms/{time}_24000.npz"):
            source = tmp_path / "dane" / "tape2" / name.replace(str(time), "0")
            (tmp_path / "dane" / "tape2" / name).write_bytes(source.read_bytes())
    assert run_import(tmp_path / "dane", index_folder) == 0
    capsys.readouterr()
    assert main(["search", "moment", "tape1@2-5", "--index", str(index_folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["moments"]
    best = next(moment for moment in found if moment["path"].endswith("tape2"))
    assert (best["start"], best["end"]) == (8, 11) and best["score"] > 0.99
    from visxp_search.render import write_image

    write_image(tmp_path / "q.png", frame=np.full((8, 8, 3), 200, dtype=np.uint8))
    assert main(["search", "frame", str(tmp_path / "q.png"), "--index", str(index_folder)]) == 3
    assert "ask with one of its own moments" in capsys.readouterr().err


def test_what_was_computed_from_nothing_gets_no_vector(tmp_path: Path, index_folder: Path) -> None:
    """A row without its keyframe or spectrogram, which the workers fill with zeros, lacks that vector; so does NaN."""
    rows = make_rows([0, 1, 2, 3])
    rows[3, 3:515] = np.nan
    write_source(tmp_path / "tape", rows)
    (tmp_path / "tape" / "spectrograms" / "1_24000.npz").unlink()
    (tmp_path / "tape" / "keyframes" / "2.jpg").unlink()
    assert run_import(tmp_path, index_folder) == 0
    assert [sorted(point.vectors) for point in read_points(index_folder)] == [
        ["audio", "visual"],
        ["visual"],
        ["audio"],
        ["visual"],
    ]


def test_frame_numbers_are_told_by_the_metadata(tmp_path: Path, index_folder: Path) -> None:
    """Keyframes named by frame number get their times from the two lists that the segmentation worker writes."""
    write_source(tmp_path / "tape", make_rows([30, 130, 260]))
    (tmp_path / "tape" / "metadata" / "keyframes_indices.txt").write_text("[30, 130, 260]")
    (tmp_path / "tape" / "metadata" / "keyframes_timestamps_ms.txt").write_text("[1200, 5200, 10400]")
    assert run_import(tmp_path, index_folder) == 0
    assert [point.second for point in read_points(index_folder)] == [1, 5, 10]


def test_units_that_cannot_be_told_are_asked_for(
    tmp_path: Path, index_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps between 20 and 500 mean either; the option decides."""
    write_source(tmp_path / "tape", make_rows([40, 140, 300]))
    assert run_import(tmp_path, index_folder) == 3
    assert "say which: --timestamps ms or s" in capsys.readouterr().err
    assert run_import(tmp_path, index_folder, "--timestamps", "s") == 0
    assert [point.second for point in read_points(index_folder)] == [40, 140, 300]
    assert find_unit(np.array([7, 8]), path=tmp_path) == "s"
    assert find_unit(np.array([500, 4100]), path=tmp_path) == "ms"


def test_of_keyframes_in_one_second_the_middle_one_counts() -> None:
    """One row a second, the nearest to its middle."""
    assert choose_rows(np.array([1010, 1520, 1900, 300])) == [(3, 0), (1, 1)]


class Canary:
    """An object whose pickle, if it were loaded, would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def write_malicious(path: Path, canary: Path) -> None:
    """A file of the format of its suffix that runs a command in the hands of a careless reader."""
    path.unlink(missing_ok=True)
    if path.suffix == ".pt":
        torch.save({"features": Canary(canary)}, path)
    elif path.suffix == ".npy":
        np.save(path, np.array(Canary(canary), dtype=object), allow_pickle=True)
    else:
        np.savez(path, np.array({"audio": Canary(canary)}, dtype=object))


def test_the_canary_sings(tmp_path: Path) -> None:
    """The malicious files do run their command when they are unpickled: the tests below prove something."""
    write_malicious(tmp_path / "x.npz", tmp_path / "canary")
    with np.load(tmp_path / "x.npz", allow_pickle=True) as arrays:
        arrays["arr_0"]
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "name",
    [
        "spectrograms/1_24000.npz",
        "visxp_features__tape.npz",
        "visxp_features__tape.npy",
        "visxp_features__tape.pt",
    ],
)
def test_malicious_files_are_refused_and_run_nothing(
    tmp_path: Path, index_folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A pickle that would run a command is refused with one clear line, wherever it lies; the other sources go on."""
    features = write_source(tmp_path / "dane" / "tape", make_rows([0, 1, 2]))
    if name.startswith("visxp"):
        features.unlink()
    write_malicious(tmp_path / "dane" / "tape" / name, tmp_path / "canary")
    assert run_import(tmp_path / "dane", index_folder) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and name in err and "refused, and nothing of it was run" in err
    write_source(tmp_path / "dane" / "good", make_rows([0, 1, 2], seed=8))
    assert run_import(tmp_path / "dane", index_folder) == 1
    err = capsys.readouterr().err
    assert "failed" in err and "refused, and nothing of it was run" in err
    assert len(read_points(index_folder)) == 3
    assert not (tmp_path / "canary").exists()


def test_pickles_are_judged_by_what_they_name(tmp_path: Path) -> None:
    """The workers' own spectrograms pass, of numpy and of torch; every protocol of a command does not."""
    for number, value in enumerate([np.zeros(3), torch.zeros(3)]):
        np.savez(tmp_path / f"good{number}.npz", np.array({"audio": value}, dtype=object))
        check_spectrogram(tmp_path / f"good{number}.npz")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"bad{protocol}.npz"
        write_member(path, pickle.dumps(Canary(tmp_path / "canary"), protocol=protocol))
        with pytest.raises(ExchangeError, match=r"would call (posix|nt|os)\.system"):
            check_spectrogram(path)
    for rubbish in (b"", b"\x80\x04garbage", b"(" * 10_000, b"cos\nsystem\n(S'x'\ntR"):
        write_member(tmp_path / "rubbish.npz", rubbish)
        with pytest.raises(ExchangeError, match="refused"):
            check_spectrogram(tmp_path / "rubbish.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ExchangeError, match="is not an archive of arrays"):
        check_spectrogram(tmp_path / "text.npz")
    assert not (tmp_path / "canary").exists()


def write_member(path: Path, data: bytes) -> None:
    """An npz whose one array is an object with this pickle."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
        stream.write(data)


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('touch canary')", "[1, 2", "(" * 5000, "{'a': 1}", "[(1, 2, 3)]", "[(0, 'x')]", ""],
)
def test_texts_are_read_and_not_run(
    tmp_path: Path, index_folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Metadata that is no list of shots costs its source, and nothing of it is run."""
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path / "tape", make_rows([0, 1, 2]))
    (tmp_path / "tape" / "metadata" / "shot_boundaries_timestamps_ms.txt").write_text(text)
    assert run_import(tmp_path / "tape", index_folder) == 3
    assert not (tmp_path / "canary").exists()


def test_literals_are_read(tmp_path: Path) -> None:
    """What the workers write with `str` comes back; a missing file is None."""
    (tmp_path / "times.txt").write_text("[(0, 1100), (1140, -2.5)]\n")
    assert read_literal(tmp_path / "times.txt") == [(0, 1100), (1140, -2.5)]
    assert read_literal(tmp_path / "none.txt") is None


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    """Another width, another type, a torn file: one clear error each."""
    for value, message in [
        (np.zeros((3, 100), dtype=np.float32), r"expected numbers in rows of 1027, 515, 1025"),
        (np.zeros(1027, dtype=np.float32), r"of shape \(1027,\)"),
        (np.array([["a"] * 1027]), "<U1 of shape"),
    ]:
        np.save(tmp_path / "a.npy", value)
        with pytest.raises(ExchangeError, match=message):
            read_features(tmp_path / "a.npy")
    for suffix in (".npy", ".npz", ".pt"):
        features = write_source(tmp_path / f"torn{suffix}", make_rows([0, 1]), suffix=suffix)
        features.write_bytes(features.read_bytes()[:1500])
        with pytest.raises(ExchangeError, match="cannot be read as"):
            read_features(features)
    torch.save([torch.zeros(2), torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(ExchangeError, match="holds a list, not one tensor"):
        read_features(tmp_path / "list.pt")


def test_models_are_not_mixed(tmp_path: Path, index_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sources whose provenance names another model are left out and reported."""
    for name, model in (("a", "avnet.pt"), ("b", "avnet.pt"), ("c", "other.pt")):
        write_source(tmp_path / name, make_rows([0, 1]))
        provenance = {"activity_name": "VisXP feature extraction", "parameters": {"MODEL_CHECKPOINT_FILE": model}}
        (tmp_path / name / "provenance.json").write_text(json.dumps(provenance))
    assert run_import(tmp_path, index_folder, "--json") == 1
    summary = json.loads(capsys.readouterr().out)
    assert summary["videos"] == 2
    assert "made by another model" in summary["failures"][0]["reason"]


def test_folders_without_features_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keyframes alone, an empty folder, a file: exit code 3 and the next step."""
    write_source(tmp_path / "tape", make_rows([0])).unlink()
    assert run_import(tmp_path, tmp_path / "ix") == 3
    assert "index the videos with visxp index add" in capsys.readouterr().err
    assert run_import(tmp_path / "tape" / "keyframes" / "0.jpg", tmp_path / "ix") == 3
    assert not (tmp_path / "ix").exists()


def test_an_index_is_written_in_their_layout(tmp_path: Path, index_folder: Path) -> None:
    """What was imported comes out again: same columns, times, shots and directions; and can be imported once more."""
    rows = make_rows([500, 1480, 7000])
    rows[1, 1:3] = -1
    rows[2, 3:515] = np.nan
    write_source(tmp_path / "in" / "tape 7", rows)
    assert run_import(tmp_path / "in", index_folder) == 0
    out = tmp_path / "out"
    assert main(["index", "export", str(out), "--to", "dane", "--index", str(index_folder)]) == 0
    written = torch.load(out / "tape_7" / "visxp_features__tape_7.pt", weights_only=True).numpy()
    assert written.shape == rows.shape and written.dtype == np.float32
    np.testing.assert_array_equal(written[:, :3], rows[:, :3])
    assert np.isnan(written[2, 3:515]).all()
    assert cosine(written[1, 3:515], rows[1, 3:515]) == pytest.approx(1, abs=1e-5)
    assert cosine(written[2, 515:], rows[2, 515:]) == pytest.approx(1, abs=1e-5)
    metadata = out / "tape_7" / "metadata"
    assert (metadata / "keyframes_timestamps_ms.txt").read_text() == "[500, 1480, 7000]"
    assert (metadata / "shot_boundaries_timestamps_ms.txt").read_text() == "[(0, 9000)]"
    provenance = json.loads((out / "tape_7" / "provenance.json").read_text())
    keys = {"activity_name", "activity_description", "start_time_unix", "processing_time_ms", "parameters"}
    assert keys | {"software_version", "input_data", "output_data", "steps"} == set(provenance)
    assert run_import(out, index_folder.with_name("again")) == 0
    assert [point.second for point in read_points(index_folder.with_name("again"))] == [0, 1, 7]


OURS = {"visual": 256, "audio": 256}


def make_our_index(folder: Path) -> list[SecondPoint]:
    """An index as `visxp index add` makes it, of seconds that may lack a modality; its seconds."""
    rng = np.random.default_rng(5)
    video_id = "0123456789abcdef0123456789abcdef"
    points = []
    for second in range(6):
        rows = {name: rng.standard_normal(dim) for name, dim in OURS.items()}
        vectors = {name: (row / np.linalg.norm(row)).astype(np.float32) for name, row in rows.items()}
        missing = {2: "audio", 4: "visual"}.get(second)
        vectors = {name: vector for name, vector in vectors.items() if name != missing}
        flags = [{"audio": "no_audio", "visual": "no_video"}[missing]] if missing else []
        payload = make_payload(
            video_id=video_id, second=second, has_audio="audio" in vectors, flags=flags, checkpoint="0a1b2c3d4e5f"
        )
        points.append(SecondPoint(video_id, second, vectors, payload))
    with closing(open_store(folder, checkpoint="0a1b2c3d4e5f", create=OURS)) as store:
        store.upsert_seconds(points)
        record = VideoRecord(video_id, ("/tapes/tape.mp4",), status=DONE, duration_seconds=6.0, seconds_done=6)
        store.upsert_videos([record])
    return points


def test_our_own_export_comes_back_as_it_was(
    tmp_path: Path, index_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """515 columns of ours are sound and picture, of theirs a picture: each is read as what it is, ours bit for bit."""
    before = make_our_index(index_folder)
    out = tmp_path / "out"
    assert main(["index", "export", str(out), "--to", "dane", "--index", str(index_folder)]) == 0
    again = index_folder.with_name("again")
    capsys.readouterr()
    assert run_import(out, again, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["own_exports"], summary["checkpoint"]) == (1, "0a1b2c3d4e5f")
    with closing(open_store(again, checkpoint=None)) as store:
        assert dict(store.info.dims) == OURS
    after = read_points(again)
    assert [(p.video_id, p.second, p.payload["flags"]) for p in after] == [
        (p.video_id, p.second, p.payload["flags"]) for p in before
    ]
    for old, new in zip(before, after, strict=True):
        assert set(old.vectors) == set(new.vectors)
        for name, vector in old.vectors.items():
            np.testing.assert_array_equal(vector, new.vectors[name])
    (out / "tape" / "provenance.json").unlink()
    assert run_import(out, index_folder.with_name("theirs"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["own_exports"] == 0
    with closing(open_store(index_folder.with_name("theirs"), checkpoint=None)) as store:
        assert dict(store.info.dims) == {"visual": 512}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parts": [{"vector": "audio", "length": 256}]}, "expected numbers in rows of 259, as provenance.json"),
        ({"parts": [{"vector": "smell", "length": 512}]}, "are unknown; expected some of visual, audio, joint"),
        ({"parts": "two"}, "does not say what the columns are; export the index anew"),
    ],
)
def test_provenance_that_does_not_fit_is_refused(
    tmp_path: Path, index_folder: Path, change: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An export of ours whose provenance contradicts its features, or says nothing, is not guessed at."""
    make_our_index(index_folder)
    out = tmp_path / "out"
    assert main(["index", "export", str(out), "--to", "dane", "--index", str(index_folder)]) == 0
    path = out / "tape" / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["parameters"]["layout"] |= change
    path.write_text(json.dumps(provenance))
    capsys.readouterr()
    assert run_import(out, index_folder.with_name("again")) == 3
    assert words in capsys.readouterr().err
