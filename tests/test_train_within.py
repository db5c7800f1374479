"""The normalisation within copies: what it makes of known covariances, and of an encoder's projection."""

import numpy as np
import torch

from training.within import fold_map, normalising_map, within_covariance
from visxp_search.encoders import VisualConfig, VisualEncoder


def make_copies(n_seconds: int = 3000) -> torch.Tensor:
    """Three copies of random seconds that differ by noise of deviations 3, 1 and 0.5 in three directions."""
    generator = torch.Generator().manual_seed(0)
    seconds = 10 * torch.randn(n_seconds, 3, generator=generator)
    return seconds + torch.randn(3, n_seconds, 3, generator=generator) * torch.tensor([3.0, 1.0, 0.5])


def test_covariance_is_that_of_the_noise_alone() -> None:
    """How far the seconds themselves lie apart does not enter."""
    covariance = within_covariance(make_copies())
    torch.testing.assert_close(covariance, torch.diag(torch.tensor([9.0, 1.0, 0.25])).double(), atol=0.3, rtol=0.05)


def test_covariance_equals_a_plain_loop() -> None:
    """The same as the unbiased covariance of each second's copies, averaged."""
    copies = make_copies(50)
    wanted = np.mean([np.cov(copies[:, n].numpy(), rowvar=False, ddof=1) for n in range(50)], axis=0)
    np.testing.assert_allclose(within_covariance(copies).numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_after_the_map_copies_differ_equally_everywhere() -> None:
    """With next to no shrinkage the covariance within becomes the identity."""
    copies = make_copies()
    matrix = normalising_map(within_covariance(copies), shrinkage=1e-9)
    torch.testing.assert_close(within_covariance(copies.double() @ matrix), torch.eye(3).double(), atol=1e-5, rtol=1e-5)


def test_shrinkage_bounds_the_gain_of_quiet_directions() -> None:
    """A direction in which copies never differ is not blown up without limit."""
    matrix = normalising_map(torch.diag(torch.tensor([1.0, 0.0])).double(), shrinkage=0.1)
    assert matrix[1, 1] <= (0.1 * 0.5) ** -0.5 + 1e-9


def test_folding_equals_mapping_the_features() -> None:
    """The encoder then gives what the map makes of its features."""
    torch.manual_seed(0)
    encoder = VisualEncoder(VisualConfig(frame_size=32, base_channels=4, blocks=(1, 1, 1, 1), embedding=8)).eval()
    frames = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    matrix = torch.randn(8, 8).double()
    with torch.inference_mode():
        before = encoder(frames)
        fold_map(encoder, matrix)
        torch.testing.assert_close(encoder(frames), before @ matrix.float().T, atol=1e-4, rtol=1e-4)
