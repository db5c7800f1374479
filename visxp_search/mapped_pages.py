"""Gives back the memory of mapped files whose pages were read or written, and will not be wanted soon.

An engine that maps its files has every page that it touches counted as memory of its process, until the system is short
of memory. Whoever goes through a large index once, or fills it, so grows by the size of the index, and is taken for a
process that leaks. Giving pages back costs little: they stay in the system's cache of files, changed ones included, and
are mapped again when they are touched.
"""

import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MADV_DONTNEED = 4
"""Of Linux, for pages of a shared mapping of a file: forget that they are mapped, and nothing else."""

MADV_PAGEOUT = 21
"""Of Linux since 5.4: reclaim pages. Whatever is mapped there stays as it is, so it may be another file's by now."""
MOST_MAPPED_BYTES = 2**30
"""Pages of files that may be mapped while an engine works on many of them by itself."""
PERIOD_SECONDS = 0.5

_MAPPING = re.compile(r"(?P<start>[0-9a-f]+)-(?P<stop>[0-9a-f]+) ...(?P<kind>[sp]) \S+ \S+ \S+\s+(?P<path>/.*)")
"""A line of /proc/self/maps that is of a file, see proc(5)."""


def release_mapped_pages(folder: Path) -> int:
    """Let go of the pages of files below a folder that this process has mapped; the mappings and the data stay.

    Only shared mappings are touched: what was written to a private one is nowhere else, and would be lost. The caller
    makes sure that nobody takes away or makes mappings of these files meanwhile, as an address may then be another's.

    Args:
        folder: of the files.

    Returns:
        Bytes of the mappings that were gone through; 0 where the system is not Linux.

    Raises:
        OSError: If the system refuses, as it does for pages that are locked in memory.
    """
    if sys.platform != "linux":
        return 0
    n_bytes = 0
    for start, stop, name in _shared_mappings(folder):
        code = _advise(start, stop, MADV_DONTNEED)
        if code != 0:
            raise OSError(code, f"pages of {name} cannot be given back: {os.strerror(code)}")
        n_bytes += stop - start
    return n_bytes


@contextmanager
def limiting_mapped_pages(folder: Path) -> Iterator[None]:
    """Meanwhile, whenever more than `MOST_MAPPED_BYTES` of files are mapped, let the system take back a folder's pages.

    Others may make and take away mappings meanwhile. Where the system cannot do it, nothing is done.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PERIOD_SECONDS):
            if _mapped_bytes() > MOST_MAPPED_BYTES:
                for start, stop, _ in _shared_mappings(folder):
                    _advise(start, stop, MADV_PAGEOUT)

    if sys.platform != "linux":
        yield
        return
    watcher = threading.Thread(target=watch, name="limit-mapped-pages", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _mapped_bytes() -> int:
    """Resident pages of files of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[2]) * os.sysconf("SC_PAGE_SIZE")


def _shared_mappings(folder: Path) -> Iterator[tuple[int, int, str]]:
    """(first address, address behind, path) of each shared mapping of a file below a folder."""
    below = f"{os.path.realpath(folder)}{os.sep}"
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        found = _MAPPING.fullmatch(line)
        if found is not None and found["kind"] == "s" and found["path"].startswith(below):
            yield int(found["start"], 16), int(found["stop"], 16), found["path"]


def _advise(start: int, stop: int, advice: int) -> int:
    """Tell the system about the pages between two addresses; 0, or the number of its error."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return 0 if libc.madvise(start, stop - start, advice) == 0 else ctypes.get_errno()
