"""Videos for the benchmarks, rendered by the ffmpeg that comes with imageio: codecs, sizes and lengths of GOP."""

import subprocess
from pathlib import Path

import imageio_ffmpeg

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SIZES = {"180p": "320x180", "360p": "640x360", "720p": "1280x720", "1080p": "1920x1080"}
CODECS = {
    "h264": ["-c:v", "libx264", "-preset", "veryfast", "-crf", "23"],
    "hevc": ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "28", "-x265-params", "log-level=error"],
    "vp9": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M"],
}
BASE_SECONDS = 20
"""Longer videos repeat so much of themselves, copied and not encoded again."""


def render(folder: Path, *, size: str = "720p", codec: str = "h264", gop: int = 50, seconds: int = 60) -> Path:
    """A video of a moving test picture with grain and a tone, 25 frames per second; kept, and used again if there."""
    suffix = ".webm" if codec == "vp9" else ".mp4"
    path = folder / f"{size}_{codec}_{gop}_{seconds}{suffix}"
    if path.exists():
        return path
    base = folder / f"{size}_{codec}_{gop}_base{suffix}"
    partial = folder / f"partial{suffix}"
    sound = ["-c:a", "libopus" if codec == "vp9" else "aac", "-b:a", "96k"]
    if not base.exists():
        _run(
            *("-f", "lavfi", "-i", f"testsrc2=size={SIZES[size]}:rate=25,noise=alls=4:allf=t"),
            *("-f", "lavfi", "-i", "anoisesrc=r=48000:a=0.1:c=pink,tremolo=f=3"),
            *("-t", str(BASE_SECONDS), "-pix_fmt", "yuv420p", "-g", str(gop), *CODECS[codec], *sound, str(partial)),
        )
        partial.rename(base)
    repeats = -(-seconds // BASE_SECONDS) - 1
    _run("-stream_loop", str(repeats), "-i", str(base), "-t", str(seconds), "-c", "copy", str(partial))
    partial.rename(path)
    return path


def render_many(folder: Path, *, n_files: int, seconds: int) -> list[Path]:
    """Short videos of 720p, whose content differs by a comment and so for the index."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:03d}.mp4" for number in range(n_files)]
    source = render(folder.parent, size="720p", seconds=seconds)
    for number, path in enumerate(paths):
        if not path.exists():
            _run("-i", str(source), "-c", "copy", "-metadata", f"comment={number}", str(path))
    return paths


def decode(path: Path) -> None:
    """Decode everything and throw it away: the limit of what reads every frame."""
    _run("-i", str(path), "-f", "null", "-")


def _run(*arguments: str) -> None:
    subprocess.run([FFMPEG, "-v", "error", "-y", *arguments], check=True)
