"""Checkpoints rebuild their networks alone, and say why when they cannot."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from visxp_search.checkpoint import load_checkpoint, save_checkpoint
from visxp_search.checkpoint_config import DEFAULT_CHECKPOINT
from visxp_search.clips import Clip, make_clip
from visxp_search.embed import load_embedder
from visxp_search.encoders import VisualEncoder, convolve_in_bfloat16
from visxp_search.errors import CheckpointError
from visxp_search.l3net import L3NetEmbedder


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def _clips(n: int) -> list[Clip]:
    generator = np.random.default_rng(0)
    return [
        make_clip(
            second,
            frame=None if second == 1 else generator.integers(0, 256, (3, 64, 64), dtype=np.uint8),
            waveform=None if second == 2 else generator.normal(0, 0.1, 24_000).astype(np.float32),
        )
        for second in range(n)
    ]


def test_round_trip(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Saved and loaded again, a checkpoint has the same id and gives the same embeddings."""
    first = load_checkpoint(tiny_checkpoint)
    again = save_checkpoint(tmp_path / "again", first.networks, provenance={"a": 1}, card="card")
    assert again == first.checkpoint_id
    one, two = L3NetEmbedder(tiny_checkpoint, device="cpu"), L3NetEmbedder(tmp_path / "again", device="cpu")
    np.testing.assert_array_equal(one.embed(_clips(4)).visual, two.embed(_clips(4)).visual)


def test_checkpoints_older_than_mirroring_look_one_way(copy: Path) -> None:
    """A config.json that does not say `mirrored` is of an encoder that embeds a picture without its mirror image."""
    config = json.loads((copy / "config.json").read_text())
    assert config["architecture"]["visual"].pop("mirrored") is True
    (copy / "config.json").write_text(json.dumps(config))
    older = load_checkpoint(copy)
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert not older.networks.architecture.visual.mirrored
    assert torch.equal(older.networks.visual.features(frames), older.networks.visual(frames))


def test_checkpoints_older_than_grids_read_their_last_stage(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A config.json that does not say `grid` is of an encoder whose features are read off one mean."""
    networks = load_checkpoint(tiny_checkpoint).networks
    architecture = networks.architecture
    visual = VisualEncoder(replace(architecture.visual, grid=0)).eval()
    older = replace(architecture, visual=visual.config)
    networks.visual, networks.architecture = visual, older
    save_checkpoint(tmp_path / "older", networks, provenance={}, card="card")
    config = json.loads((tmp_path / "older" / "config.json").read_text())
    assert config["architecture"]["visual"].pop("grid") == 0
    (tmp_path / "older" / "config.json").write_text(json.dumps(config))
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    again = load_checkpoint(tmp_path / "older").networks.visual
    torch.testing.assert_close(again.features(frames), visual.features(frames), atol=1e-2, rtol=1e-2)  # 16 bits


def test_rows_of_missing_modalities_are_nan(tiny_embedder: L3NetEmbedder) -> None:
    """A missing modality is NaN in its own space; the joint vector is made of what is there."""
    embeddings = tiny_embedder.embed(_clips(4))
    assert np.isnan(embeddings.visual[1]).all()
    assert np.isnan(embeddings.joint_audio[2]).all()
    assert set(embeddings.vectors(1)) == {"audio", "joint"}
    np.testing.assert_allclose(embeddings.joint[1], embeddings.joint_audio[1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings.joint, axis=1), 1, atol=1e-5)


def test_long_queries_are_embedded_in_batches(tiny_embedder: L3NetEmbedder) -> None:
    """More clips than fit a batch give the same rows as one by one."""
    clips = _clips(70)
    together, alone = tiny_embedder.embed(clips), tiny_embedder.embed(clips[65:66])
    np.testing.assert_allclose(together.audio[65], alone.audio[0], atol=1e-5)


def test_other_weights_have_another_id(copy: Path, tiny_checkpoint: Path) -> None:
    """The id follows the weights, not the provenance or the card."""
    checkpoint = load_checkpoint(copy)
    checkpoint.networks.visual.centre += 1
    assert save_checkpoint(copy, checkpoint.networks, provenance={}, card="") != checkpoint.checkpoint_id


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "cannot read config.json"),
        (lambda path: (path / "model.safetensors").unlink(), "cannot read model.safetensors"),
        (lambda path: (path / "model.safetensors").write_bytes(b"garbage!" * 9), "cannot read model.safetensors"),
        (lambda path: _edit(path, lambda config: config.update(format_version=99)), "format version 99"),
        (lambda path: _edit(path, lambda config: config["architecture"].update(joint=17)), "do not fit"),
        (lambda path: _edit(path, lambda config: config["architecture"].pop("joint")), "does not fit"),
        (lambda path: _edit(path, lambda config: config["architecture"]["visual"].update(size=3)), "does not fit"),
    ],
)
def test_damage_is_named(copy: Path, damage: object, message: str) -> None:
    """Each kind of damage gives a CheckpointError that names it."""
    damage(copy)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(copy)


def _edit(path: Path, change: object) -> None:
    config = json.loads((path / "config.json").read_text())
    change(config)  # type: ignore[operator]
    (path / "config.json").write_text(json.dumps(config))


def test_nothing_is_unpickled(copy: Path, tmp_path: Path) -> None:
    """A pickle in the place of the weights is refused and runs nothing."""
    canary = tmp_path / "canary"
    payload = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    (copy / "model.safetensors").write_bytes(payload)
    with pytest.raises(CheckpointError):
        load_checkpoint(copy)
    assert not canary.exists()


def test_missing_checkpoints_and_plugins_are_named(tmp_path: Path) -> None:
    """A model that is neither a folder nor a plugin is refused with the plugins that there are."""
    with pytest.raises(CheckpointError, match=r"installed plugins: .*l3net"):
        load_embedder("nosuch")
    with pytest.raises(CheckpointError, match="not a folder"):
        load_embedder(f"{tmp_path}/nosuch")
    with pytest.raises(CheckpointError, match="--device cpu"):
        load_embedder(None, device="nonsense")


def test_the_shipped_checkpoint_is_the_default_plugin() -> None:
    """Without a model the shipped checkpoint is loaded, through the entry point; it is at most 20 MB."""
    embedder = load_embedder(device="cpu")
    assert embedder.checkpoint_id == load_checkpoint(DEFAULT_CHECKPOINT).checkpoint_id
    assert set(embedder.specs) == {"visual", "audio", "joint"}
    assert sum(path.stat().st_size for path in DEFAULT_CHECKPOINT.iterdir()) < 20e6


def test_convolutions_in_bfloat16_give_nearly_what_float32_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pictures and sounds lie within a cosine of 0.999 of each other, whatever the processor computes in."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    sounds = random.normal(0, 0.1, (8, 24_000)).astype(np.float32) * np.linspace(0.1, 1, 8, dtype=np.float32)[:, None]
    clips = [
        Clip(second, frame.repeat(8, axis=1).repeat(8, axis=2), sound)
        for second, (frame, sound) in enumerate(zip(coarse, sounds, strict=True))
    ]
    found = []
    for convert in (convolve_in_bfloat16, lambda encoder: None):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
        monkeypatch.setattr("visxp_search.l3net.convolve_in_bfloat16", convert)
        found.append(L3NetEmbedder(device="cpu").embed(clips))
    for fast, exact in ((found[0].visual, found[1].visual), (found[0].audio, found[1].audio)):
        assert (fast != exact).any()
        assert ((fast * exact).sum(axis=1) > 0.999).all()
