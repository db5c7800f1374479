"""The whole program on ordinary files of other people, which lie beside the checkout and never enter the project."""

import json
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest

from tests.conftest import RATE
from visxp_search.api import Index, open_index
from visxp_search.cli import main
from visxp_search.decode import decode_waveform, probe
from visxp_search.render import write_audio
from visxp_search.store import DONE

pytestmark = [pytest.mark.shared, pytest.mark.slow]

EXCERPTS = [
    ("big_buck_bunny.mp4", 100),
    ("big_buck_bunny.mp4", 431),
    ("googlework_short.mp4", 12),
    ("chaplin.mp4", 2),
    ("sintel_5s.mp4", 0),
    ("small.mp4", 0),
    ("augly_small.mp4", 0),
    ("shot_change.mp4", 0),
    ("nasa_13013.mp4", 4),
    ("speech.mp4", 1),
    ("toy_frog.mp4", 1),
    ("toy_monster.mp4", 1),
    ("toy_pig.mp4", 0),
]
"""(file, first second) of six-second excerpts."""


@pytest.fixture(scope="module")
def index_path(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of all of ../shared/media, by the shipped checkpoint, made by the command line."""
    path = tmp_path_factory.mktemp("shared") / "index"
    assert main(["index", "add", str(shared_folder / "media"), "--index", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="module")
def index(index_path: Path) -> Index:
    """That index, open."""
    return open_index(index_path)


def _excerpt(path: Path, start: int, out: Path) -> Path:
    """Six seconds, re-encoded small and noisy.

    160 pixels wide, 100 kbit/s, grain; sound at 32 kbit/s with white noise 10 dB below it.
    """
    # White noise of amplitude a has a root mean square of a / sqrt(3).
    amplitude = _level(_sound(path, start)) * 10 ** (-10 / 20) * 3**0.5
    noise = f"anoisesrc=color=white:amplitude={amplitude}:sample_rate=44100[noise]"
    filters = f"[0:v]scale=160:-2,noise=alls=14:allf=t[v];{noise};[0:a][noise]amix=duration=first:normalize=0[a]"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", "-ss", str(start), "-t", "6", "-i", str(path)]
    command += ["-filter_complex", filters, "-map", "[v]", "-map", "[a]", "-b:v", "100k", "-b:a", "32k", str(out)]
    subprocess.run(command, check=True)
    return out


def _sound(path: Path, start: int) -> npt.NDArray[np.float32]:
    """The sound of six seconds, or of what there is of them."""
    stop = min(start + 6, probe(path).n_seconds)
    return decode_waveform(path, sample_rate_hz=RATE, start_seconds=start, stop_seconds=stop)


def _level(waveform: npt.NDArray[np.float32]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))


def test_every_file_is_indexed_to_its_end(index: Index, shared_folder: Path) -> None:
    """Every file of the folder is done, with all its seconds."""
    n_files = sum(path.is_file() for path in (shared_folder / "media").rglob("*"))
    records = list(index.videos())
    assert len(records) == n_files
    assert all(record.status == DONE and record.seconds_done == record.seconds_expected for record in records)


def test_another_encoding_of_part_of_a_film_finds_the_film(
    index: Index, shared_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first half minute in another encoding finds 0 to 30 s of the film, within a second."""
    index.close()
    query = shared_folder / "media" / "big_buck_bunny_0_30.webm"
    assert main(["search", "clip", str(query), "--index", index.store.location, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["moments"][0]
    assert Path(first["path"]).name == "big_buck_bunny.mp4"
    assert abs(first["start"] - 0) <= 1
    assert abs(first["end"] - 30) <= 1


@pytest.mark.parametrize("by", ["visual", "audio"])
@pytest.mark.parametrize(("name", "start"), EXCERPTS)
def test_an_excerpt_small_and_noisy_finds_its_source(
    index_path: Path, shared_folder: Path, tmp_path: Path, name: str, start: int, by: str
) -> None:
    """By picture alone and by sound alone, a degraded excerpt returns its source first."""
    excerpt = _excerpt(shared_folder / "media" / name, start, tmp_path / "excerpt.mp4")
    with open_index(index_path) as index:
        first = index.search_clip(excerpt, by=by)[0]
    # The webm is the film's first half minute; none of the excerpts lies in it.
    assert Path(first.path).name == name


@pytest.mark.parametrize(("name", "start"), EXCERPTS)
def test_sound_with_noise_finds_its_source(
    index_path: Path, shared_folder: Path, tmp_path: Path, name: str, start: int
) -> None:
    """The sound track of an excerpt plus white noise 10 dB below it finds its source first."""
    waveform = _sound(shared_folder / "media" / name, start)
    noise = np.random.default_rng(0).normal(size=len(waveform)) * _level(waveform) * 10 ** (-10 / 20)
    noisy = np.clip(waveform + noise, -1, 1).astype(np.float32)
    write_audio(tmp_path / "noisy.wav", waveform=noisy, sample_rate_hz=RATE)
    with open_index(index_path) as index:
        first = index.search_sound(tmp_path / "noisy.wav")[0]
    assert Path(first.path).name == name
