"""What a practitioner would write in an afternoon, as a baseline: `python -m tests.benchmarks.practitioner IN OUT`.

moviepy for a frame a second, a mel spectrogram in plain numpy, the same encoders called second by second, and the
embeddings in one numpy file.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from moviepy import VideoFileClip
from PIL import Image

from visxp_search.checkpoint import load_checkpoint
from visxp_search.checkpoint_config import DEFAULT_CHECKPOINT

RATE, N_FFT, HOP, N_MELS, N_STEPS = 24_000, 1024, 240, 64, 100


def main(path: Path, out: Path) -> None:
    """Embed every second of a video."""
    networks = load_checkpoint(DEFAULT_CHECKPOINT).networks.eval()
    filters = mel_filters()
    rows = []
    with VideoFileClip(str(path)) as clip, torch.no_grad():
        side = networks.architecture.visual.frame_size
        for second in range(int(clip.duration)):
            picture = Image.fromarray(clip.get_frame(second + 0.5)).resize((side, side))
            frame = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
            sound = clip.audio.subclipped(second, min(second + 1, clip.duration)).to_soundarray(fps=RATE).mean(axis=1)
            waveform = np.zeros(RATE, dtype=np.float32)
            waveform[: min(RATE, len(sound))] = sound[:RATE]
            spectrogram = torch.from_numpy(log_mel(waveform, filters))[None]
            rows.append(np.concatenate([networks.visual.embed(frame)[0], networks.audio.embed(spectrogram)[0]]))
    np.save(out, np.stack(rows))


def mel_filters() -> npt.NDArray[np.float32]:
    """(N_MELS, N_FFT // 2 + 1) triangles."""

    def to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(2595 * np.log10(1 + hz / 700))

    low, high = to_mel(np.array([60.0, 12_000.0])).tolist()
    edges = 700 * (10 ** (np.linspace(low, high, N_MELS + 2) / 2595) - 1)
    hz = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    up = (hz[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - hz[None]) / (edges[2:] - edges[1:-1])[:, None]
    return np.asarray(np.maximum(0, np.minimum(up, down)), dtype=np.float32)


def log_mel(waveform: npt.NDArray[np.float32], filters: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(RATE,) -> (N_MELS, N_STEPS), window by window."""
    padded = np.pad(waveform, N_FFT // 2, mode="reflect")
    window = np.hanning(N_FFT)
    columns = []
    for step in range(N_STEPS):
        power = np.abs(np.fft.rfft(padded[step * HOP : step * HOP + N_FFT] * window)) ** 2
        columns.append(np.log(filters @ power + 1e-4))
    return np.stack(columns, axis=1).astype(np.float32)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
