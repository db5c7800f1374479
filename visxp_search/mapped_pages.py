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
from pathlib import Path

MADV_DONTNEED = 4
"""Of Linux, for pages of a shared mapping of a file: forget that they are mapped, and nothing else."""

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
    below = f"{os.path.realpath(folder)}{os.sep}"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    n_bytes = 0
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        found = _MAPPING.fullmatch(line)
        if found is None or found["kind"] != "s" or not found["path"].startswith(below):
            continue
        start, stop = int(found["start"], 16), int(found["stop"], 16)
        if libc.madvise(start, stop - start, MADV_DONTNEED) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"pages of {found['path']} cannot be given back: {os.strerror(code)}")
        n_bytes += stop - start
    return n_bytes
