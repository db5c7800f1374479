"""kill -9 at random moments of an indexing run: of a decoder, of the run, of both.

The default test renders its own small archive and kills a few times. The long run, over any media, in one piece or in
several of different moments:

    VISXP_KILLS=30 VISXP_KILL_MEDIA=../shared/media:/more python -m pytest -m slow tests/test_kills.py -s
    VISXP_KILLS=6 VISXP_KILL_SEED=1 ... and so on
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.conftest import write_film
from tests.indexes import Contents, contents_of, open_index_of
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import DONE

N_KILLS = int(os.environ.get("VISXP_KILLS", "3"))
SEED = int(os.environ.get("VISXP_KILL_SEED", "7"))
MEDIA = os.environ.get("VISXP_KILL_MEDIA", "")
VICTIMS = ("decoder", "run", "both")


def _command(media: list[Path], index: Path, model: Path) -> list[str]:
    words = ["index", "add", *map(str, media), "--index", str(index), "--model", str(model), "--workers", "2", "-q"]
    return [sys.executable, "-m", "visxp_search.cli", *words]


def _children(pid: int) -> list[int]:
    """Processes that a process has started and that still run."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_decoder(pid: int) -> bool:
    """Whether a child is a decoder, and not the helper of Python's multiprocessing."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _run_and_kill(command: list[str], victim: str, delay: float, generator: random.Random) -> bool:
    """Start a run and strike after a while; whether there was something left to kill."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=delay)
    struck = process.returncode is None
    if struck and victim == "decoder":
        decoders = [pid for pid in _children(process.pid) if _is_decoder(pid)]
        struck = bool(decoders)
        if decoders:
            os.kill(generator.choice(decoders), signal.SIGKILL)
    elif struck and victim == "run":
        process.kill()
    elif struck:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return struck


def _state(index: Path, embedder: L3NetEmbedder) -> tuple[dict[str, int], Contents]:
    """Seconds of each video that is done, and all points."""
    with closing(open_index_of(index, embedder)) as store:
        return {record.video_id: record.seconds_done for record in store.videos(DONE)}, contents_of(store)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds decoders through /proc")
def test_killed_at_random_moments(
    index_folder: Path, tiny_embedder: L3NetEmbedder, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """After every kill what was done is whole, and the last run ends with the points of an undisturbed one."""
    media = [Path(part) for part in MEDIA.split(":") if part]
    for seed in range(0 if media else 4):
        write_film(tmp_path / f"film{seed}.mp4", seed=80 + seed, n_seconds=40)
    media = media or [tmp_path]
    undisturbed = index_folder.with_name("undisturbed")
    started = time.monotonic()
    subprocess.run(_command(media, undisturbed, tiny_checkpoint), check=False)
    length = time.monotonic() - started
    wanted_done, wanted = _state(undisturbed, tiny_embedder)
    assert wanted

    generator = random.Random(SEED)
    command = _command(media, index_folder, tiny_checkpoint)
    struck: Counter[str] = Counter()
    done: dict[str, int] = {}
    while struck.total() < N_KILLS:
        victim = VICTIMS[struck.total() % len(VICTIMS)]
        began, anew = time.monotonic(), not index_folder.exists()
        if _run_and_kill(command, victim, generator.uniform(0.1, 1.0) * length, generator):
            struck[victim] += 1
        elif anew:
            length = min(length, time.monotonic() - began)  # the machine is faster now
        print(f"{struck.total()} of {N_KILLS} kills, the last of the {victim}", flush=True)
        if not (index_folder / "index.json").exists():
            continue
        now_done, contents = _state(index_folder, tiny_embedder)
        assert now_done.items() >= done.items(), "a video that was done is not any more"
        assert all(wanted[key] == value for key, value in contents.items())
        assert now_done == {video_id: wanted_done[video_id] for video_id in now_done}
        done = now_done
        if done == wanted_done:  # nothing left to disturb: begin again
            shutil.rmtree(index_folder)
            done = {}
    last = subprocess.run(command, check=False, capture_output=True, text=True)
    assert last.returncode in ((0, 1) if MEDIA else (0,)), last.stderr
    assert _state(index_folder, tiny_embedder) == (wanted_done, wanted)
    print(f"\nkilled {dict(struck)} in runs of {length:.1f} s; {len(wanted)} points are the same")
