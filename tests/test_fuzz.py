"""Hundreds of broken files: none harms the run, each says why, and the good ones among them are what they were.

`VISXP_FUZZ=500 python -m pytest -m slow tests/test_fuzz.py -s` is the long run, with a table of what became of them.
"""

import os
import re
import resource
import shutil
from collections import Counter
from pathlib import Path

import pytest

from indexer.pipeline import add_files
from indexer.worker import WorkerLimits
from tests.fuzz_media import write_bombs, write_mutants, write_parents
from tests.indexes import contents_of, open_index_of
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import DONE

N_MUTANTS = int(os.environ.get("VISXP_FUZZ", "60"))
LIMITS = WorkerLimits(memory_bytes=2**30, stall_seconds=60, file_seconds=120, seconds_per_second=10)


def _kind(reason: str) -> str:
    """A reason without what is of one file only: its path and numbers."""
    return re.sub(r"\d+", "N", re.sub(r"/\S+", "FILE", reason))[:90]


@pytest.mark.slow
def test_broken_files_cost_themselves_only(
    index_folder: Path, tiny_embedder: L3NetEmbedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each mutant is indexed as far as it goes or fails with a reason in one line; the parents stay as they are."""
    archive = tmp_path / "archive"
    parents = write_parents(archive / "good")
    with_parents = open_index_of(index_folder.with_name("parents"), tiny_embedder)
    assert add_files(with_parents, tiny_embedder, [archive]).failures == []
    good = contents_of(with_parents)
    with_parents.close()
    broken = write_mutants(parents, archive / "broken", n=N_MUTANTS) + write_bombs(archive / "broken")

    store = open_index_of(index_folder, tiny_embedder)
    report = add_files(store, tiny_embedder, [archive], limits=LIMITS)

    reasons = dict(report.failures)
    assert all(reason.strip() and "\n" not in reason for reason in reasons.values())
    records = {path: record for record in store.videos() for path in record.paths}
    assert all(str(path) in records for path in (*parents, *broken))
    done = {path for path, record in records.items() if record.status == DONE and not record.error}
    assert done >= {str(path) for path in parents}
    ids = {path: record.video_id for path, record in records.items()}  # mutants may be equal: one entry, one reason
    assert {ids[str(path)] for path in broken if str(path) not in done} == {ids[str(path)] for path in reasons}
    found = contents_of(store)
    assert {key: found[key] for key in good} == good
    store.close()

    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < LIMITS.memory_bytes + 2**29
    with capsys.disabled():
        died = [reason for reason in reasons.values() if "decoder" in reason]
        print(f"\n{len(broken)} broken files: {len(reasons)} failed, {len(died)} of them took their decoder along")
        for reason, number in Counter(_kind(reason) for reason in reasons.values()).most_common():
            print(f"{number:4} {reason}")
    shutil.rmtree(archive)
