"""Fixtures that many tests share: a tiny checkpoint, small videos of known content, and guards around every test."""

import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from visxp_search.checkpoint import Architecture, Networks, save_checkpoint
from visxp_search.encoders import AudioConfig, VisualConfig
from visxp_search.heads import HeadsConfig
from visxp_search.l3net import L3NetEmbedder
from visxp_search.render import write_audio, write_video

SHARED = Path(__file__).resolve().parents[2] / "shared"
RATE = 24_000


@pytest.fixture(autouse=True)
def guard_randomness() -> Iterator[None]:
    """Every test starts from the same random state and leaves the global one as it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture(autouse=True)
def guard_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test talks to another machine."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder with media beside the checkout; tests that need it are skipped where it is not there."""
    if not (SHARED / "media").is_dir():
        pytest.skip(f"{SHARED}/media is not there")
    return SHARED


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of small untrained networks; even those tell a second from another."""
    return _save_untrained(tmp_path_factory.mktemp("checkpoint"), heads=None)


@pytest.fixture(scope="session")
def labelling_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the heads of self-labelling: two clusterings of five clusters."""
    heads = HeadsConfig(fusion_hidden=8, n_heads=2, n_clusters=5, cluster_hidden=8)
    return _save_untrained(tmp_path_factory.mktemp("labelling"), heads=heads)


def _save_untrained(path: Path, *, heads: HeadsConfig | None) -> Path:
    torch.manual_seed(1)
    architecture = Architecture(
        visual=VisualConfig(frame_size=64, base_channels=8, blocks=(1, 1, 1, 1), embedding=32),
        audio=AudioConfig(channels=(4, 8, 8, 16), hidden=16, embedding=32),
        joint=16,
        heads=heads,
    )
    save_checkpoint(path, Networks(architecture), provenance={"stages": []}, card="untrained, for tests")
    return path


@pytest.fixture(scope="session")
def tiny_embedder(tiny_checkpoint: Path) -> L3NetEmbedder:
    """The embedder of the tiny checkpoint."""
    return L3NetEmbedder(tiny_checkpoint, device="cpu")


def make_film(seed: int, n_seconds: int) -> tuple[list[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Pictures (10 a second, 96 x 64) and sound of a film whose every second looks and sounds different."""
    generator = np.random.default_rng(seed)
    frames, sounds = [], []
    time = np.arange(RATE) / RATE
    for _ in range(n_seconds):
        cells = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        picture = np.kron(cells, np.ones((16, 16, 1), dtype=np.uint8))
        frames += [picture] * 10
        tones = generator.uniform(100, 6000, 4)
        sounds.append(sum(0.1 * np.sin(2 * np.pi * tone * time) for tone in tones))
    return frames, np.concatenate(sounds).astype(np.float32)


def write_film(path: Path, *, seed: int, n_seconds: int, sound: bool = True) -> Path:
    """A video file of `make_film`."""
    frames, waveform = make_film(seed, n_seconds)
    write_video(path, frames=frames, frames_per_second=10, waveform=waveform if sound else None, sample_rate_hz=RATE)
    return path


@pytest.fixture
def index_folder(tmp_path: Path) -> Iterator[Path]:
    """A place for indexes, in memory where there is room: making an Edge index syncs to the disk a hundred times."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 2**30:
        yield tmp_path / "indexes" / "index"
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="visxp-test-") as name:
        yield Path(name) / "index"


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five small files: long.mp4 (40 s), short.mp4 (5 s), mute.mp4, sub/sound.wav, and notes.txt."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "sub").mkdir()
    write_film(folder / "long.mp4", seed=1, n_seconds=40)
    write_film(folder / "short.mp4", seed=2, n_seconds=5)
    write_film(folder / "mute.mp4", seed=3, n_seconds=4, sound=False)
    write_audio(folder / "sub" / "sound.wav", waveform=make_film(4, 6)[1], sample_rate_hz=RATE)
    (folder / "notes.txt").write_text("not a film")
    return folder
