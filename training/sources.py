"""Which media files to prepare, with their groups and labels: four layouts, read one file at a time.

| layout | what is given | group | label |
| --- | --- | --- | --- |
| `folder` | a folder with media anywhere below | the file | none |
| `classes` | a folder with a folder for each class | the file | the folder's name |
| `vggsound` | `vggsound.csv` (YouTube id, start second, label, split), folder of files | the YouTube id | as listed |
| `corpus` | a folder with `manifest.csv` (file, kind, source, licence, label, group) | as listed | as listed |

Files of VGGSound are named `<YouTube id>_<start second, 6 digits>.mp4`; its list's own split is kept. Labels only ever
serve evaluation.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visxp_search.errors import UsageError

MEDIA_SUFFIXES = {
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mxf",
    ".wmv",
    ".flv",
    ".ogv",
}
LAYOUTS = ("folder", "classes", "vggsound", "corpus")


@dataclass(frozen=True)
class Video:
    """One file to prepare.

    Attributes:
        path: where it lies.
        name: stable name of it within the data.
        group: files of one group are versions of the same footage.
        label: for evaluation only; empty where unknown.
        split: `train`, `held_out`, or empty where the group's name is to decide.
    """

    path: Path
    name: str
    group: str
    label: str
    split: str = ""


def find_layout(source: Path) -> str:
    """The layout that a source seems to have.

    Raises:
        UsageError: If there is no such file or folder.
    """
    if source.is_file() and source.suffix == ".csv":
        return "vggsound"
    if not source.is_dir():
        raise UsageError(f"{source} is neither a folder nor a CSV file as VGGSound has")
    if (source / "manifest.csv").is_file():
        return "corpus"
    entries = [entry for entry in source.iterdir() if not entry.name.startswith(".")]
    return "classes" if entries and all(entry.is_dir() for entry in entries) else "folder"


def list_videos(source: Path, *, layout: str, media: Path | None = None) -> Iterator[Video]:
    """The videos of a source in a stable order; existence is not checked here.

    Args:
        source: see the table above.
        layout: one of `LAYOUTS`.
        media: folder with the files of a VGGSound list.

    Raises:
        UsageError: If the layout is unknown or the source does not fit it.
    """
    if layout == "vggsound":
        if media is None:
            raise UsageError("a VGGSound list needs --media FOLDER with its <id>_<start>.mp4 files")
        yield from _read_vggsound(source, media)
    elif layout == "corpus":
        yield from _read_corpus(source)
    elif layout in ("folder", "classes"):
        for path in _walk(source):
            name = path.relative_to(source).as_posix()
            label = name.split("/", 1)[0] if layout == "classes" and "/" in name else ""
            yield Video(path, name, group=name, label=label)
    else:
        raise UsageError(f"layout {layout!r} unknown; choose one of {', '.join(LAYOUTS)}")


def _walk(folder: Path) -> Iterator[Path]:
    """Media files below a folder, sorted; hidden files and folders are left out."""
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in MEDIA_SUFFIXES:
                yield Path(here) / name


def _read_vggsound(listing: Path, media: Path) -> Iterator[Video]:
    with listing.open(newline="") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if len(row) != 4 or not row[1].strip().isdigit():
                raise UsageError(f"{listing} line {number}: expected YouTube id, start second, label, split; got {row}")
            youtube_id, start, label, split = (cell.strip() for cell in row)
            name = f"{youtube_id}_{int(start):06d}.mp4"
            yield Video(media / name, name, youtube_id, label, split="held_out" if split == "test" else "train")


def _read_corpus(folder: Path) -> Iterator[Video]:
    with (folder / "manifest.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            if {"file", "kind", "label", "group"} - set(row):
                raise UsageError(f"{folder}/manifest.csv needs the columns file, kind, label and group")
            if row["kind"] == "video":
                yield Video(folder / row["file"], row["file"], row["group"], row["label"])
