"""How the program ends: at once, and with the files of an index that it only read still in the system's cache."""

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.indexes import contents_of, silent_second
from visxp_search import leaving
from visxp_search import store_edge_shard as shards
from visxp_search.store import Store, open_store

N_SECONDS = 500


def make(folder: Path) -> Store:
    """An index of some seconds of noise, open."""
    store = open_store(folder, checkpoint="c1", create={"visual": 64})
    rows = np.random.default_rng(0).normal(size=(N_SECONDS, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store.upsert_seconds([silent_second("ab" * 16, second, row) for second, row in enumerate(rows)])
    store.flush()
    return store


def share_in_cache(folder: Path) -> float:
    """Of the pages of the larger files of an index, how many the system has in its cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    there = total = 0
    for file in folder.glob("seconds/segments/**/*"):
        if not file.is_file() or file.stat().st_size < 2**20:
            continue
        with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as pages:
            n_pages = -(-len(pages) // mmap.PAGESIZE)
            flags = (ctypes.c_ubyte * n_pages)()
            start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
            assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(pages)), flags) == 0
            there += sum(flag & 1 for flag in flags)
            total += n_pages
    return there / total


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what it has in its cache")
def test_a_command_that_reads_leaves_the_index_in_the_cache(tmp_path: Path) -> None:
    """The next search need not read it from the disk again."""
    index = tmp_path / "index"
    make(index).close()
    for file in index.rglob("*"):
        if file.is_file():
            file.read_bytes()
    command = [sys.executable, "-m", "visxp_search.cli", "index", "info", "--json", "--index", str(index)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f'"seconds": {N_SECONDS}' in done.stdout
    assert share_in_cache(index) > 0.5  # of those that are closed, 0


def test_a_shard_that_was_left_can_be_opened_again_and_a_changed_one_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One program may open an index twice; what it wrote is closed before it leaves."""
    monkeypatch.setattr(leaving, "_is_program", True)
    monkeypatch.setattr(leaving, "_only_reads", True)
    monkeypatch.setattr(shards, "_LEFT", {})
    index = tmp_path / "index"
    store = make(index)
    wanted = contents_of(store)
    store.close()
    assert index / "seconds" not in shards._LEFT
    for _ in range(2):
        with_it = open_store(index, checkpoint="c1")
        assert contents_of(with_it) == wanted
        with_it.close()
        assert index / "seconds" in shards._LEFT
    writing = open_store(index, checkpoint="c1")
    row = np.eye(64, dtype=np.float32)[0]
    writing.upsert_seconds([silent_second("cd" * 16, 0, row)])
    writing.close()
    assert index / "seconds" not in shards._LEFT
    again = open_store(index, checkpoint="c1")
    assert again.count() == N_SECONDS + 1
    again.close()


ENDS = """
import atexit, sys, threading, time
from visxp_search.leaving import leave
atexit.register(print, "registered")
print("said", end=" ")
if "thread" in sys.argv:
    threading.Thread(target=lambda: (time.sleep(0.3), print("waited for", end=" "))).start()
leave(7)
"""


@pytest.mark.parametrize(("argument", "wanted"), [("alone", ""), ("thread", "waited for ")])
def test_leaving_loses_nothing(argument: str, wanted: str) -> None:
    """What was printed arrives, what is registered is done, other threads are waited for; the exit code is kept."""
    done = subprocess.run([sys.executable, "-c", ENDS, argument], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, f"said {wanted}registered\n", "")


@pytest.mark.parametrize(("is_program", "only_reads"), [(False, True), (True, False)])
def test_whoever_lives_on_closes_what_it_opens(
    is_program: bool, only_reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library, and commands that watch or move an index: another process can open it while they live."""
    monkeypatch.setattr(leaving, "_is_program", is_program)
    monkeypatch.setattr(leaving, "_only_reads", only_reads)
    index = tmp_path / "index"
    make(index).close()
    open_store(index, checkpoint="c1").close()
    command = [sys.executable, "-m", "visxp_search.cli", "index", "info", "--json", "--index", str(index)]
    assert f'"seconds": {N_SECONDS}' in subprocess.run(command, capture_output=True, text=True, check=True).stdout
