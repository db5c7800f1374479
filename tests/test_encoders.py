"""The networks: shapes, norms, independence of rows, and what they cost."""

from dataclasses import replace

import pytest
import torch

from visxp_search.encoders import AudioConfig, AudioEncoder, VisualConfig, VisualEncoder, fold_norms
from visxp_search.heads import JointHead

VISUAL = VisualConfig(frame_size=64, base_channels=8, blocks=(1, 1, 1, 1), embedding=32)
AUDIO = AudioConfig(channels=(4, 8, 8, 16), hidden=16, embedding=32)


def _inputs(modality: str, batch: int) -> torch.Tensor:
    if modality == "visual":
        return torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8)
    return torch.randn(batch, 64, 100)


def _encoder(modality: str) -> VisualEncoder | AudioEncoder:
    return (VisualEncoder(VISUAL) if modality == "visual" else AudioEncoder(AUDIO, n_mels=64)).eval()


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_embeddings_have_norm_one(modality: str) -> None:
    """Embeddings are (B, D) float32 of norm 1."""
    embeddings = _encoder(modality).embed(_inputs(modality, 5))
    assert embeddings.shape == (5, 32)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_a_row_depends_on_itself_alone(modality: str) -> None:
    """A row of a batch equals the row alone, up to the rounding of other summation orders."""
    encoder, inputs = _encoder(modality), _inputs(modality, 4)
    together = encoder.embed(inputs)
    alone = torch.cat([encoder.embed(row[None]) for row in inputs])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_the_centre_is_taken_away(modality: str) -> None:
    """With the centre at the mean of the features, embeddings of a batch scatter around the origin."""
    encoder, inputs = _encoder(modality), _inputs(modality, 64)
    with torch.no_grad():
        before = encoder.embed(inputs).mean(dim=0).norm()
        encoder.centre.copy_(encoder.features(inputs).mean(dim=0))
        after = encoder.embed(inputs).mean(dim=0).norm()
    assert after < 0.3 < before


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_gradients_reach_every_weight(modality: str) -> None:
    """Every parameter gets a finite gradient that is not all zero."""
    encoder = _encoder(modality).train()
    encoder(_inputs(modality, 8)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_folding_changes_nothing_but_rounding(modality: str) -> None:
    """An encoder whose batch norms are folded embeds as before, and has no norm left."""
    encoder, inputs = _encoder(modality), _inputs(modality, 6)
    encoder.train()(inputs)
    before = encoder.eval().embed(inputs)
    fold_norms(encoder)
    torch.testing.assert_close(encoder.embed(inputs), before, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())


def test_float_pictures_are_taken_as_well() -> None:
    """The same picture as float in [0, 255] (as augmentation makes it) gives the same features."""
    frames = _inputs("visual", 2)
    encoder = _encoder("visual")
    torch.testing.assert_close(encoder(frames), encoder(frames.float()))


def test_a_picture_and_its_mirror_image_have_one_embedding() -> None:
    """A mirrored encoder gives both bit for bit the same; one that is not tells them apart."""
    frames = _inputs("visual", 3)
    encoder = _encoder("visual")
    assert torch.equal(encoder.embed(frames), encoder.embed(frames.flip(3)))
    one_way = VisualEncoder(replace(VISUAL, mirrored=False)).eval()
    one_way.load_state_dict(encoder.state_dict())
    assert not torch.allclose(one_way.embed(frames), one_way.embed(frames.flip(3)), atol=1e-3)
    assert torch.equal(one_way.features(frames), encoder(frames))


def test_joint_head_projects_to_the_sphere() -> None:
    """A joint head gives (B, J) of norm 1."""
    out = JointHead(32, 16).eval()(torch.randn(3, 32))
    assert out.shape == (3, 16)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))


def test_mel_bands_must_halve_four_times() -> None:
    """A number of bands that cannot be halved four times is refused."""
    with pytest.raises(ValueError, match="multiple of 16"):
        AudioEncoder(AUDIO, n_mels=60)


def test_default_shapes_are_small() -> None:
    """The default encoders together have at most 8 M weights, 16 MB as shipped."""
    networks = VisualEncoder(VisualConfig()), AudioEncoder(AudioConfig(), n_mels=64)
    assert sum(parameter.numel() for network in networks for parameter in network.parameters()) < 8e6
