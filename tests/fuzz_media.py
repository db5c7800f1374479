"""Media files that somebody broke, on purpose or not: mutants of files that the tests render themselves."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.media import Pictures, Sound, constant_rate, make_tones, write_media

Mutate = Callable[[bytes, random.Random], bytes]


def write_parents(folder: Path) -> list[Path]:
    """One small file of each of some containers and codecs, three seconds each."""
    folder.mkdir(parents=True)
    sound = Sound([(0.0, make_tones(3))])
    pictures = Pictures(constant_rate(30, 10), rate=10)
    opus = Sound([(0.0, make_tones(3, rate_hz=48_000))], codec="libopus", rate_hz=48_000, format="flt")
    write_media(folder / "h264.mp4", pictures, sound)
    write_media(folder / "fragmented.mp4", pictures, sound, options={"movflags": "frag_keyframe+empty_moov"})
    write_media(folder / "h264.mkv", pictures, sound)
    write_media(folder / "h264.ts", pictures, sound)
    write_media(folder / "mjpeg.avi", Pictures(constant_rate(30, 10), rate=10, codec="mjpeg"))
    write_media(folder / "mpeg4.mov", Pictures(constant_rate(30, 10), rate=10, codec="mpeg4"), sound)
    write_media(folder / "opus.ogg", None, opus)
    write_media(folder / "sound.flac", None, Sound([(0.0, make_tones(3))], codec="flac", format="s16"))
    write_media(folder / "sound.wav", None, Sound([(0.0, make_tones(3))], codec="pcm_s16le", format="s16"))
    return sorted(folder.iterdir())


def write_bombs(folder: Path) -> list[Path]:
    """Small files that become large: silence of minutes, a gap of days between two pictures, an endless pause."""
    folder.mkdir(parents=True, exist_ok=True)
    silence = [(0.0, np.zeros(192_000 * 120, dtype=np.float32))]
    write_media(folder / "bomb_silence.flac", None, Sound(silence, codec="flac", rate_hz=192_000, format="s16"))
    write_media(folder / "bomb_gap.mkv", Pictures([0, 1, 2, 500_000], rate=1))
    write_media(folder / "bomb_days.mp4", Pictures([0, 1, 2, 900_000], rate=1))
    write_media(folder / "bomb_pause.mkv", None, Sound([(0.0, make_tones(1)), (400_000.0, make_tones(1))]))
    return sorted(folder.glob("bomb_*"))


def write_mutants(parents: list[Path], folder: Path, *, n: int, seed: int = 0) -> list[Path]:
    """`n` broken files; every mutation meets every parent in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)
    mutations = list(MUTATIONS.items())
    paths = []
    for number in range(n):
        parent = parents[number % len(parents)]
        name, mutate = mutations[(number // len(parents) + number) % len(mutations)]
        path = folder / f"{number:04d}_{name}_{parent.name}"
        path.write_bytes(mutate(parent.read_bytes(), generator))
        paths.append(path)
    return paths


def flip_bits(data: bytes, generator: random.Random) -> bytes:
    """One bit in some hundred bytes is wrong."""
    broken = bytearray(data)
    for _ in range(max(1, len(data) // generator.choice((50, 500, 5000)))):
        broken[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(broken)


def flip_header(data: bytes, generator: random.Random) -> bytes:
    """Bits are wrong at both ends, where containers describe themselves."""
    broken = bytearray(data)
    for _ in range(12):
        broken[generator.randrange(min(len(data), 1200))] ^= 1 << generator.randrange(8)
        broken[-1 - generator.randrange(min(len(data), 1200))] ^= 1 << generator.randrange(8)
    return bytes(broken)


def cut_end(data: bytes, generator: random.Random) -> bytes:
    """The file ends early."""
    return data[: generator.randrange(1, len(data))]


def cut_middle(data: bytes, generator: random.Random) -> bytes:
    """Something in the middle is missing."""
    start = generator.randrange(len(data))
    return data[:start] + data[start + generator.randrange(1, len(data)) :] or b"\0"


def repeat_middle(data: bytes, generator: random.Random) -> bytes:
    """Something in the middle is there several times."""
    start = generator.randrange(len(data))
    piece = data[start : start + generator.randrange(1, 4000)]
    return data[:start] + piece * generator.randrange(2, 20) + data[start:]


def swap_pieces(data: bytes, generator: random.Random) -> bytes:
    """Boxes of an MP4 in another order; elsewhere pieces between two cuts."""
    pieces = _boxes(data)
    if len(pieces) < 2:
        cuts = sorted(generator.randrange(len(data)) for _ in range(3))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    generator.shuffle(pieces)
    return b"".join(pieces)


def make_huge(data: bytes, generator: random.Random) -> bytes:
    """Wherever a width of 128 and a height of 96 stand side by side, or the coder's word for them, they become huge."""
    width, height = generator.choice(((65535, 65535), (32768, 16384), (1, 65535), (0, 0)))
    for pack in (">HH", "<HH", "<II", ">II"):
        data = data.replace(struct.pack(pack, 128, 96), struct.pack(pack, width, height))
    return data.replace(b"\xb0\x81\x80", b"\xb0\x82" + struct.pack(">H", width)[:1])  # Matroska's PixelWidth


def set_bytes(data: bytes, generator: random.Random) -> bytes:
    """A stretch is all zeros or all ones: lengths and counts become absurd."""
    start, length = generator.randrange(len(data)), generator.randrange(4, 64)
    return data[:start] + generator.choice((b"\0", b"\xff", b"\x7f")) * length + data[start + length :]


MUTATIONS: dict[str, Mutate] = {
    "flip": flip_bits,
    "header": flip_header,
    "end": cut_end,
    "middle": cut_middle,
    "repeat": repeat_middle,
    "swap": swap_pieces,
    "huge": make_huge,
    "set": set_bytes,
}


def _boxes(data: bytes) -> list[bytes]:
    """The top-level boxes of an MP4; one piece if it is none."""
    pieces, start = [], 0
    while start + 8 <= len(data):
        size = struct.unpack(">I", data[start : start + 4])[0]
        if size < 8 or start + size > len(data):
            return [data]
        pieces.append(data[start : start + size])
        start += size
    return pieces
