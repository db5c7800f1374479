"""Giving back the memory of mapped files."""

import mmap
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from visxp_search.mapped_pages import release_mapped_pages

N_BYTES = 8 * 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name has what the list of mappings must not be confused by."""
    folder = tmp_path / "an index of Zoë"
    folder.mkdir()
    return folder


@contextmanager
def mapped(file: Path, access: int) -> Iterator[mmap.mmap]:
    """A file of ones, every page of it read through a mapping."""
    file.write_bytes(b"\1" * N_BYTES)
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0, access=access) as pages:
        assert pages[:] == b"\1" * N_BYTES
        yield pages


def resident(file: Path) -> int:
    """Bytes of a file's mappings that count as memory of this process."""
    smaps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    return sum(int(found) * 1024 for found in re.findall(rf"{re.escape(str(file))}.*?\nRss:\s+(\d+) kB", smaps, re.S))


@pytest.mark.parametrize("deleted", [False, True])
def test_pages_are_given_back_and_nothing_written_is_lost(folder: Path, deleted: bool) -> None:
    """Pages of a shared mapping leave the process's memory; what was written there is in mapping and file."""
    file = folder / "page_0.dat"
    with mapped(file, mmap.ACCESS_WRITE) as pages:
        pages[5000:5003] = b"new"
        if deleted:
            file.unlink()
        assert resident(file) == N_BYTES
        assert release_mapped_pages(folder) == N_BYTES
        assert resident(file) == 0
        assert pages[4999:5004] == b"\1new\1"
        if not deleted:
            assert file.read_bytes()[4999:5004] == b"\1new\1"


def test_private_and_foreign_mappings_are_left_alone(folder: Path) -> None:
    """What was written to a private mapping is not lost; a folder beside it, of a longer name, is not touched."""
    beside = folder.with_name(f"{folder.name} 2")
    beside.mkdir()
    own, other = mapped(folder / "private.dat", mmap.ACCESS_COPY), mapped(beside / "foreign.dat", mmap.ACCESS_WRITE)
    with own as private, other as foreign:
        private[:3] = b"new"
        foreign[:3] = b"new"
        assert release_mapped_pages(folder) == 0
        assert private[:4] == b"new\1"
        assert resident(beside / "foreign.dat") == N_BYTES


def test_a_folder_is_found_by_a_link_too(folder: Path) -> None:
    """A folder named through a symbolic link is the one that the system's list of mappings names."""
    link = folder.parent / "link"
    link.symlink_to(folder)
    with mapped(folder / "page_0.dat", mmap.ACCESS_READ):
        assert release_mapped_pages(link) == N_BYTES


def test_other_systems_are_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system is not Linux nothing is done."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with mapped(folder / "page_0.dat", mmap.ACCESS_READ):
        assert release_mapped_pages(folder) == 0
