"""Which files there are, and which of them still need work.

A file is known by its content (the video id is a hash of all its bytes). The ledger remembers size and modification
time under each path, so a file that has not changed is recognised without being read.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from visxp_search.store import DONE, FAILED, VideoRecord

MEDIA_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        "3g2 3gp asf avi divx dv f4v flv gxf m2t m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe mpeg mpg mpv mts mxf nut",
        "ogm ogv rm rmvb ts vob webm wmv y4m",
        "aac ac3 aif aiff amr caf flac m4a m4b mka mp2 mp3 mpa oga ogg opus w64 wav weba wma wv",
    )
    for name in names.split()
)
"""What is taken from folders; a file named on the command line is tried whatever its name."""


@dataclass(frozen=True)
class FoundFile:
    """A file that may be indexed: absolute path, size in bytes, modification time in ns."""

    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Refusal:
    """A path that cannot be indexed, with the reason for a person."""

    path: Path
    reason: str


def find_files(paths: Iterable[Path]) -> Iterator[FoundFile | Refusal]:
    """Walk paths recursively, in sorted order, each file once.

    Folders give the files with a media suffix. Links are followed where they stay inside the folder that was named;
    others are refused, so nothing outside it is read.
    """
    seen: set[Path] = set()
    for given in paths:
        root = Path(os.path.abspath(given))
        found: Iterable[FoundFile | Refusal]
        if os.path.isdir(root):  # unlike Path's, these answer where nothing may be read
            found = _walk(root)
        elif os.path.isfile(root):
            found = [_stat(root)]
        elif not os.path.lexists(root):
            found = [Refusal(root, "there is no such file or folder")]
        else:
            found = [Refusal(root, "not a regular file or folder")]
        for item in found:
            if item.path not in seen:
                seen.add(item.path)
                yield item


@dataclass(frozen=True)
class Plan:
    """What a run over some paths has to do.

    Attributes:
        files: those that need work.
        n_done: files that are indexed already and have not changed.
        refusals: what cannot be indexed.
    """

    files: tuple[FoundFile, ...]
    n_done: int
    refusals: tuple[Refusal, ...]

    @property
    def n_bytes(self) -> int:
        """Size of the files that need work."""
        return sum(file.size for file in self.files)


def make_plan(paths: Iterable[Path], records: Iterable[VideoRecord]) -> Plan:
    """Compare what is on the disk with what the ledger says; no file is read."""
    by_path = records_by_path(records)
    files, refusals, n_done = [], [], 0
    for item in find_files(paths):
        if isinstance(item, Refusal):
            refusals.append(item)
        elif is_done(item, by_path):
            n_done += 1
        else:
            files.append(item)
    return Plan(tuple(files), n_done, tuple(refusals))


def records_by_path(records: Iterable[VideoRecord]) -> dict[str, VideoRecord]:
    """The ledger by path."""
    return {path: record for record in records for path in record.paths}


def failed_paths(records: Iterable[VideoRecord]) -> list[Path]:
    """One path of each video that failed, sorted."""
    return sorted(Path(record.paths[0]) for record in records if record.status == FAILED and record.paths)


def with_path(record: VideoRecord, file: FoundFile) -> VideoRecord:
    """The ledger entry with one more path, or with new facts of a path it has."""
    path = str(file.path)
    paths = record.paths if path in record.paths else (*record.paths, path)
    return replace(record, paths=paths, stats={**record.stats, path: [file.size, file.mtime_ns]})


def without_path(record: VideoRecord, path: str) -> VideoRecord:
    """The ledger entry without one of its paths."""
    return replace(
        record,
        paths=tuple(other for other in record.paths if other != path),
        stats={other: stat for other, stat in record.stats.items() if other != path},
    )


def is_done(file: FoundFile, records_by_path: Mapping[str, VideoRecord]) -> bool:
    """Whether the ledger says that exactly this file, unchanged, is indexed to its end."""
    record = records_by_path.get(str(file.path))
    return record is not None and record.status == DONE and record.has_seen(file.path, file.size, file.mtime_ns)


def id_of_unreadable(path: Path) -> str:
    """The ledger id of a file whose content cannot be read: a hash of its path."""
    return "path-" + hashlib.blake2b(os.fsencode(path), digest_size=14).hexdigest()


def _walk(root: Path) -> Iterator[FoundFile | Refusal]:
    refusals: list[Refusal] = []

    def refuse(error: OSError) -> None:
        refusals.append(Refusal(Path(error.filename), f"folder cannot be read: {error.strerror}"))

    real_root = root.resolve()
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders.sort()
        yield from refusals
        refusals.clear()
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() not in MEDIA_SUFFIXES:
                continue
            if os.path.islink(path) and not path.resolve().is_relative_to(real_root):
                yield Refusal(path, f"link out of {root}; name its target itself to index it")
            elif os.path.isfile(path):
                yield _stat(path)
            else:
                yield Refusal(path, "not a regular file")
    yield from refusals


def _stat(path: Path) -> FoundFile | Refusal:
    try:
        status = path.stat()
    except OSError as exc:
        return Refusal(path, f"cannot be read: {exc.strerror}")
    return FoundFile(path, status.st_size, status.st_mtime_ns)
