"""Makes a tiny corpus for the tests of training: media, manifest.csv and teachers.npz, with known answers.

Three kinds of scenes, each with its own colour and pitch; every file is one group, every fourth held out. Teacher
features are one direction a kind plus a little noise, so they can be learned from the media.
"""

import csv
from itertools import count
from pathlib import Path

import numpy as np

from training.config import Recipe, WarmstartConfig
from training.corpus import is_held_out
from visxp_search.encoders import AudioConfig, VisualConfig
from visxp_search.render import write_audio, write_image, write_video

KINDS = {"red": ((200, 40, 40), 220.0), "green": ((40, 200, 40), 550.0), "blue": ((40, 40, 200), 1400.0)}
N_TARGETS, N_CLASSES = 8, 6
SAMPLE_RATE_HZ = 24_000


def tiny_recipe(*, epochs: int = 2) -> Recipe:
    """Networks and stages small enough to train in a second."""
    return Recipe(
        visual=VisualConfig(frame_size=32, base_channels=4, blocks=(1, 1, 1, 1), embedding=8),
        audio=AudioConfig(channels=(4, 4, 8, 8), hidden=8, embedding=16),
        warmstart_visual=WarmstartConfig(epochs, 8, 2e-3, 0.02, {"warmstart/features": 1.0, "warmstart/classes": 0.1}),
        warmstart_audio=WarmstartConfig(
            epochs, 8, 2e-3, 0.02, {"warmstart/features": 1.0, "warmstart/classes": 1.0}, 0.5
        ),
    )


def write_corpus(folder: Path, *, n_videos: int = 18, n_seconds: int = 2) -> Path:
    """Write a corpus of `n_videos` videos of `n_seconds` each, and as many sounds and photographs."""
    random = np.random.default_rng(0)
    manifest: list[tuple[str, str, str]] = []
    rows: dict[str, list[tuple[str, int, str]]] = {"visual": [], "audio": []}
    for part in ("videos", "audio", "images"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(n_videos):
        kind = list(KINDS)[number % len(KINDS)]
        frames = [draw_frame(kind, random) for _ in range(4 * n_seconds)]
        waveform = draw_waveform(kind, random, n_seconds)
        video, sound, image = f"videos/v{number:03}.mp4", f"audio/a{number:03}.wav", f"images/i{number:03}.png"
        write_video(
            folder / video, frames=frames, frames_per_second=4, waveform=waveform, sample_rate_hz=SAMPLE_RATE_HZ
        )
        write_audio(folder / sound, waveform=waveform[::-1].copy(), sample_rate_hz=SAMPLE_RATE_HZ)
        write_image(folder / image, frame=draw_frame(kind, random))
        manifest += [(video, "video", kind), (sound, "audio", kind), (image, "image", kind)]
        rows["visual"] += [(video, second, kind) for second in range(n_seconds)] + [(image, 0, kind)]
        rows["audio"] += [(file, second, kind) for file in (video, sound) for second in range(n_seconds)]
    with (folder / "manifest.csv").open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "kind", "source", "licence", "label", "group"])
        for row, (file, kind, label) in enumerate(manifest):
            writer.writerow([file, kind, "made", "own", label, name_group(file, held_out=row // 3 % 4 == 0)])
    arrays: dict[str, np.ndarray] = {}
    for modality, described in rows.items():
        kinds = np.array([list(KINDS).index(kind) for _, _, kind in described])
        arrays[f"{modality}_file"] = np.array([file for file, _, _ in described])
        arrays[f"{modality}_second"] = np.array([second for _, second, _ in described], dtype=np.int32)
        features = np.eye(N_TARGETS)[kinds] + 0.1 * random.standard_normal((len(kinds), N_TARGETS))
        arrays[modality] = features.astype(np.float16)
    of_picture = np.array([list(KINDS).index(kind) for _, _, kind in rows["visual"]])
    arrays["visual_top5"] = ((of_picture[:, None] * 5 + np.arange(5)) % 1000).astype(np.int16)
    of_sound = np.array([list(KINDS).index(kind) for _, _, kind in rows["audio"]])
    arrays["audio_scores"] = (np.eye(N_CLASSES)[of_sound] * 255).astype(np.uint8)
    np.savez(folder / "teachers.npz", allow_pickle=False, **arrays)
    return folder


def name_group(file: str, *, held_out: bool) -> str:
    """A group name for a file that falls on the wanted side of the split."""
    return next(name for name in (f"{file}#{n}" for n in count()) if is_held_out(name) == held_out)


def draw_frame(kind: str, random: np.random.Generator) -> np.ndarray:
    """(48, 64, 3) uint8: the kind's colour with a brighter box somewhere."""
    frame = np.empty((48, 64, 3), dtype=np.uint8)
    frame[:] = KINDS[kind][0]
    top, left = random.integers(0, 32), random.integers(0, 48)
    frame[top : top + 16, left : left + 16] += 40
    return frame


def draw_waveform(kind: str, random: np.random.Generator, n_seconds: int) -> np.ndarray:
    """(n,) float32: the kind's tone in noise."""
    time = np.arange(n_seconds * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * KINDS[kind][1] * time + random.uniform(0, 6))
    return (tone + 0.02 * random.standard_normal(len(time))).astype(np.float32)
