"""What features are read off: the ridge regression, and the stages it reads."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from training.readout import RidgeRegression, with_grid
from visxp_search.encoders import LEAST_VARIANCE, VisualConfig, VisualEncoder

LAST_STAGE = VisualConfig(frame_size=96, base_channels=4, blocks=(1, 2, 1, 1), embedding=8, grid=0)


def make_encoder() -> VisualEncoder:
    """An untrained encoder that reads its last stage alone, with norms that have seen pictures."""
    torch.manual_seed(0)
    encoder = VisualEncoder(LAST_STAGE).train()
    encoder(make_frames(8))
    return encoder.eval()


def make_frames(n: int) -> torch.Tensor:
    """Pictures of noise."""
    return torch.randint(0, 256, (n, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("penalty", [0.003, 1.0])
def test_regression_in_parts_equals_that_of_a_library(penalty: float) -> None:
    """Weights and biases are scikit-learn's on standardised inputs, also where an input never changes."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(3, [0.5, 2, 40, 1, 7], size=(400, 5))
    inputs[:, 3] = 1.5
    targets = inputs @ rng.normal(size=(5, 3)) + rng.normal(size=(400, 3)) + 10
    regression = RidgeRegression(5, 3)
    for part in np.array_split(np.arange(400), 7):
        regression.add(torch.from_numpy(inputs[part]), torch.from_numpy(targets[part]))
    weights, biases = regression.solve(penalty)
    scale = inputs.std(axis=0) + 1e-3
    wanted = Ridge(alpha=penalty * 400).fit(inputs / scale, targets)
    found = inputs @ weights.numpy().T + biases.numpy()
    np.testing.assert_allclose(found, wanted.predict(inputs / scale), rtol=1e-6, atol=1e-6)


def test_what_is_read_equals_plain_loops() -> None:
    """Deviations and cell means of three stages, then the mean of the last, of both ways round."""
    encoder = make_encoder()
    wider = with_grid(encoder, dataclasses.replace(LAST_STAGE, grid=3))
    frames = make_frames(3)
    wanted = []
    with torch.inference_mode():
        for way in (frames, frames.flip(3)):
            x = encoder.stem((way.float() - 127.5) / 64)
            ends, parts = {1, 3, 4}, []  # blocks after which the first three stages are done
            for number, block in enumerate(encoder.stages, start=1):
                x = block(x)
                if number in ends:
                    maps = x.numpy().astype(np.float64)
                    parts.append(np.sqrt(maps.var(axis=(2, 3)) + LEAST_VARIANCE))
                    rows = [np.split(row, 3, axis=3) for row in np.split(maps, 3, axis=2)]
                    cells = np.array([[cell.mean(axis=(2, 3)) for cell in row] for row in rows])  # (3, 3, B, C)
                    parts.append(cells.transpose(2, 3, 0, 1).reshape(len(maps), -1))
            wanted.append(np.concatenate([*parts, x.numpy().mean(axis=(2, 3))], axis=1))
        found = wider.pool(frames)
    assert found.shape == (3, wider.project.in_features)
    np.testing.assert_allclose(found.numpy(), (wanted[0] + wanted[1]) / 2, rtol=1e-4, atol=1e-5)


def test_layers_stay_and_a_picture_without_change_is_read() -> None:
    """The last stage gives what it gave; deviations of zero have a finite gradient."""
    encoder = make_encoder()
    wider = with_grid(encoder, dataclasses.replace(LAST_STAGE, grid=2))
    frames = make_frames(2)
    with torch.inference_mode():
        torch.testing.assert_close(wider.pool(frames)[:, -32:], encoder.pool(frames))
    wider.requires_grad_(True)
    wider(torch.zeros(2, 3, 96, 96)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in wider.parameters() if p.grad is not None)
