"""Is everything here that indexing and searching need, and is the index well? Each answer says what to do about it."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from visxp_search import __version__
from visxp_search.clips import format_bytes
from visxp_search.decode import find_missing_decoders
from visxp_search.embed import Embedder, load_embedder, load_now
from visxp_search.errors import CheckpointError, CollectionError, MissingIndexError
from visxp_search.facts import IndexFacts, collect_facts
from visxp_search.store import DONE, FAILED, PENDING, is_url, open_store

GOOD, WARNING, BAD = "good", "warning", "bad"
LIBRARIES = ("torch", "av", "qdrant-edge-py", "qdrant-client", "numpy", "watchfiles")
OPTIONAL_LIBRARIES = ("gradio", "ray")
LEAST_DISK_BYTES = 2 * 10**9
LEAST_MEMORY_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: `good`, `warning` (something does not work, or soon will not) or `bad` (nothing works without).
        found: what was found, one line.
        advice: what to do; empty where all is well.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def examine(index: str, *, model: str | None = None, device: str | None = None) -> tuple[list[Check], Embedder | None]:
    """Look at everything; nothing is changed.

    Returns:
        The checks, and the embedder if it could be loaded.
    """
    embedder = None
    try:
        embedder = load_embedder(model, device=device)
        load_now(embedder)
        lengths = ", ".join(f"{name} {spec.length}" for name, spec in embedder.specs.items())
        checked = Check("model", GOOD, f"{embedder.checkpoint_id} ({lengths})")
    except CheckpointError as exc:
        checked = Check("model", BAD, str(exc), "pass a checkpoint folder with --model")
    checks = [
        *_check_versions(),
        _check_codecs(),
        checked,
        _check_gpu(),
        _check_memory(),
        *_check_disks(index),
        *_check_index(index, embedder),
    ]
    return checks, embedder


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def disk_of(index: str) -> Path:
    """The nearest folder that exists on the way to where an index lies; that of temporary files for a server."""
    if is_url(index):
        return Path(gettempdir())
    path = Path(index).absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _check_versions() -> Iterator[Check]:
    yield Check("visxp", GOOD, f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    found, missing = [], []
    for name in (*LIBRARIES, *OPTIONAL_LIBRARIES):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    needed = [name for name in missing if name in LIBRARIES]
    advice = f"install {', '.join(needed)}: pip install -c requirements.lock -e ." if needed else ""
    without = f"; without {', '.join(missing)}" if missing else ""
    yield Check("libraries", BAD if needed else GOOD, ", ".join(found) + without, advice)


def _check_codecs() -> Check:
    missing = find_missing_decoders()
    if not missing:
        return Check("codecs", GOOD, "every codec that archives are made of can be decoded")
    return Check("codecs", WARNING, f"cannot decode {', '.join(missing)}", "install PyAV's own wheel: pip install av")


def _check_gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("gpu", GOOD, ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())))
    return Check("gpu", GOOD, f"none that torch can use; the encoders run on {os.cpu_count()} processor cores")


def _check_memory() -> Check:
    total = memory_bytes()
    found = f"{format_bytes(total)} of memory, {os.cpu_count()} cores"
    if total < LEAST_MEMORY_BYTES:
        return Check("memory", WARNING, found, "give --workers 1, or use a machine with more memory")
    return Check("memory", GOOD, found)


def _check_disks(index: str) -> Iterator[Check]:
    for name, folder in (("disk", disk_of(index)), ("temporary", Path(gettempdir()))):
        free = shutil.disk_usage(folder).free
        found = f"{format_bytes(free)} free at {folder}"
        if not os.access(folder, os.W_OK):
            yield Check(name, BAD, f"{folder} is not writable", "change its permissions, or choose another place")
        elif free < LEAST_DISK_BYTES:
            yield Check(name, WARNING, found, "free some space before it is full, or choose another place")
        else:
            yield Check(name, GOOD, found)


def _check_index(index: str, embedder: Embedder | None) -> Iterator[Check]:
    try:
        with closing(open_store(index, checkpoint=None)) as store:
            facts = collect_facts(store)
    except MissingIndexError:
        yield Check("index", GOOD, f"none at {index} yet", "make one with: visxp index add PATH")
        return
    except CollectionError as exc:
        yield Check("index", BAD, str(exc))
        return
    yield Check("index", GOOD, f"{facts.location}: {facts.seconds} seconds of {sum(facts.videos.values())} videos")
    if embedder is not None and facts.checkpoint != embedder.checkpoint_id:
        yield Check(
            "checkpoint",
            WARNING,
            f"the index is of {facts.checkpoint}, the model is {embedder.checkpoint_id}",
            "pass the model that made it with --model, or embed again: visxp index rebuild",
        )
    yield from _check_ledger(facts)


def _check_ledger(facts: IndexFacts) -> Iterator[Check]:
    counts = {status: facts.videos.get(status, 0) for status in (DONE, PENDING, FAILED)}
    if counts[FAILED]:
        yield Check("failures", WARNING, f"{counts[FAILED]} videos failed", "see why: visxp index ls --status failed")
    if counts[PENDING]:
        yield Check("unfinished", WARNING, f"{counts[PENDING]} videos were begun", "go on: visxp index add PATH")
