"""What the encoders are measured against, in the same run: features that nobody had to train.

Each gives (N, D) rows of norm 1, less the mean over the rows as embeddings are.
"""

import numpy as np
import numpy.typing as npt
import torch

from visxp_search.torchaudio_pure import torchaudio

FloatArray = npt.NDArray[np.float32]
N_MFCC = 20


def colour_histograms(frames: npt.NDArray[np.uint8], *, n_cells: int = 2, n_bins: int = 4) -> FloatArray:
    """Joint RGB histograms of n_cells x n_cells parts of each picture, square-rooted.

    Args:
        frames: (N, 3, S, S).
        n_cells: parts a side.
        n_bins: bins a colour.

    Returns:
        (N, n_cells^2 * n_bins^3) norm 1.
    """
    bins = frames.astype(np.int64) * n_bins // 256
    codes = bins[:, 0] * n_bins**2 + bins[:, 1] * n_bins + bins[:, 2]  # (N, 3, S, S) -> (N, S, S)
    parts = []
    for rows in np.array_split(codes, n_cells, axis=1):
        for cell in np.array_split(rows, n_cells, axis=2):
            parts.append(np.stack([np.bincount(picture.ravel(), minlength=n_bins**3) for picture in cell]))
    return centre_and_normalise(np.sqrt(np.concatenate(parts, axis=1)).astype(np.float32))


def mfcc_statistics(waveforms: npt.NDArray[np.int16], *, sample_rate_hz: int) -> FloatArray:
    """Means and deviations over time of 20 MFCCs and of their differences, each standardised over the rows.

    Args:
        waveforms: (N, sample_rate_hz) int16.
        sample_rate_hz: of the waveforms.

    Returns:
        (N, 80) norm 1.
    """
    transform = torchaudio.transforms.MFCC(
        sample_rate=sample_rate_hz,
        n_mfcc=N_MFCC,
        melkwargs={"n_fft": 1024, "hop_length": sample_rate_hz // 100, "n_mels": 64},
    )
    parts = []
    for start in range(0, len(waveforms), 256):
        mfcc = transform(torch.from_numpy(waveforms[start : start + 256].astype(np.float32) / 32768))  # (n, 20, T)
        change = mfcc.diff(dim=2)
        parts.append(torch.cat([mfcc.mean(2), mfcc.std(2), change.mean(2), change.std(2)], dim=1).numpy())
    rows = np.concatenate(parts)
    return centre_and_normalise(rows / np.maximum(rows.std(axis=0), 1e-6))


def centre_and_normalise(rows: FloatArray) -> FloatArray:
    """(N, D) less the mean row, each of norm 1."""
    centred = rows - rows.mean(axis=0)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9), dtype=np.float32)
