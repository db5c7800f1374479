"""Indexing on a Ray cluster: the same points as on one machine, whatever is killed; clear errors without one.

Ray gives its processes half a minute to start, so the test that starts two nodes is run where nothing else runs, and
not by CI: `make test-cluster`, about two minutes.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from indexer.pipeline import add_files
from indexer.plan import FoundFile
from indexer.ray_cluster import _Desk
from indexer.seats import Indexed, Message, Stored
from indexer.worker import Opened
from tests.conftest import write_film
from tests.indexes import assert_nearly_same, contents_of, open_index_of
from tests.qdrant_loopback import LOCAL_MODE, LoopbackQdrant
from visxp_search.cli import _with_values, main
from visxp_search.decode import probe
from visxp_search.l3net import L3NetEmbedder
from visxp_search.store import DONE, VideoRecord, hash_file, open_store

pytestmark = LOCAL_MODE

QUIET_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "10",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For drivers: Ray takes 127.0.0.1 for the address of this machine, as it does on Windows and OSX."""
START_ON_LOOPBACK = """
import ray._private.services
ray._private.services.node_ip_address_from_perspective = lambda *_: "127.0.0.1"  # what ON_LOOPBACK forbids to nodes
from ray.scripts.scripts import main
main()
"""
CORES = 1


@dataclass
class TwoNodes:
    """A Ray cluster of two nodes on 127.0.0.1; each is a group of processes."""

    folder: Path
    address: str = ""
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start both, and wait until the second has joined the first."""
        port = _free_port()
        self.address = f"127.0.0.1:{port}"
        self._start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder}")
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        self._start(f"--address={self.address}")
        for _ in range(600):
            if "Ray runtime started" in (self.folder / "node1.log").read_text():
                return
            assert self.nodes[1].poll() is None, (self.folder / "node1.log").read_text()
            time.sleep(0.1)
        raise AssertionError("the second node did not join in a minute")

    def _start(self, *options: str) -> None:
        command = [sys.executable, "-c", START_ON_LOOPBACK, "start", "--block", f"--num-cpus={CORES}"]
        command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", *options]
        log = (self.folder / f"node{len(self.nodes)}.log").open("wb")
        with log:
            self.nodes.append(
                subprocess.Popen(command, env=os.environ | QUIET_RAY, stdout=log, stderr=log, start_new_session=True)
            )

    def kill(self, node: int) -> None:
        """SIGKILL to all processes of a node."""
        os.killpg(self.nodes[node].pid, signal.SIGKILL)
        self.nodes[node].wait()

    def stop(self) -> None:
        """SIGKILL to all that is left."""
        for number, node in enumerate(self.nodes):
            if node.poll() is None:
                self.kill(number)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
    """A cluster that is started by `start`; its sockets want a short path."""
    with tempfile.TemporaryDirectory(prefix="vxr", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = TwoNodes(Path(folder))
        yield cluster
        cluster.stop()


def _add(url: str, media: Path, model: Path, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "visxp_search.cli", "index", "add", str(media), "--index", url]
    command += ["--model", str(model), "--ray", address]
    return subprocess.Popen(command, env=os.environ | QUIET_RAY | ON_LOOPBACK, stderr=subprocess.PIPE, text=True)


def _wait_for_growth(url: str, before: dict[str, int], n_videos: int, *, process: subprocess.Popen[str]) -> None:
    """Wait until a run has stored more seconds than before of so many videos."""
    for _ in range(2400):
        try:
            with closing(open_store(url, checkpoint=None)) as store:
                now = store.facet("video_id")
            if sum(n > before.get(video_id, 0) for video_id, n in now.items()) >= n_videos:
                return
        except Exception:  # the index is not there yet
            pass
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("too little was stored in two minutes")


@pytest.mark.slow
@pytest.mark.skipif(
    "VISXP_RAY_CLUSTER" not in os.environ,
    reason="starts a Ray cluster, for which a machine must be idle: make test-cluster",
)
def test_a_node_that_is_killed_changes_nothing(
    two_nodes: TwoNodes, index_folder: Path, tiny_embedder: L3NetEmbedder, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Ctrl-C, then a node killed in the middle of the next run: the points and the ledger are those of a local run."""
    for seed in range(3):
        write_film(tmp_path / f"film{seed}.mp4", seed=20 + seed, n_seconds=70)
    (tmp_path / "twin.mp4").write_bytes((tmp_path / "film0.mp4").read_bytes())
    (tmp_path / "broken.mp4").write_text("no film")
    with closing(open_index_of(index_folder, tiny_embedder)) as store:
        add_files(store, tiny_embedder, [tmp_path])
        wanted = contents_of(store)
    two_nodes.start()
    with LoopbackQdrant() as server:
        process = _add(server.url, tmp_path, tiny_checkpoint, two_nodes.address)
        _wait_for_growth(server.url, {}, 1, process=process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        with closing(open_store(server.url, checkpoint=None)) as store:
            stored = store.facet("video_id")
        process = _add(server.url, tmp_path, tiny_checkpoint, two_nodes.address)
        _wait_for_growth(server.url, stored, 2, process=process)
        two_nodes.kill(1)
        assert process.poll() is None
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 1, errors
        assert "1 failed" in errors
        with closing(open_store(server.url, checkpoint=None)) as store:
            assert_nearly_same(contents_of(store), wanted)
            records = {Path(path).name: record for record in store.videos() for path in record.paths}
            assert sorted(records) == ["broken.mp4", *(f"film{n}.mp4" for n in range(3)), "twin.mp4"]
            assert records["twin.mp4"] == records["film0.mp4"]
            assert store.count_videos(DONE) == 3


class OneSeat:
    """A pool of one seat, and that seat, which says what it is told to."""

    def __init__(self, messages: list[Message]) -> None:
        self.file: FoundFile | None = None
        self.record: VideoRecord | None = None
        self.answers: list[int | None] = []
        self._messages = messages

    def has_room(self) -> bool:
        """Whether nothing is read."""
        return self.file is None

    def begin(self, file: FoundFile) -> None:
        """Take a file."""
        self.file = file

    def is_busy(self) -> bool:
        """Whether a file is read."""
        return self.file is not None

    def wait(self) -> list["OneSeat"]:
        """It always has something to say."""
        return [self]

    def receive(self) -> Message:
        """The next message."""
        return self._messages.pop(0)

    def send(self, message: int | None) -> None:
        """Note the answer."""
        self.answers.append(message)

    def end(self) -> None:
        """The file is done."""
        self.file = self.record = None

    def stop(self) -> None:
        """Nothing to stop."""


def test_a_task_that_is_run_again_is_no_duplicate(
    index_folder: Path, tiny_embedder: L3NetEmbedder, tmp_path: Path
) -> None:
    """A file that is opened a second time, its machine being lost, is wanted from its first missing block on."""
    film = write_film(tmp_path / "film.mp4", seed=1, n_seconds=2)
    opened = Opened(hash_file(film), probe(film))
    pool = OneSeat([opened, Stored(2, 0.0, 0.0), opened, Stored(2, 0.0, 0.0), Indexed("", 2, {})])
    with closing(open_index_of(index_folder, tiny_embedder)) as store:
        report = add_files(store, tiny_embedder, [film], pool=pool)
        (record,) = store.videos()
    assert (pool.answers, report.indexed, report.duplicates) == ([0, 0], 1, 0)
    assert (record.status, record.tries, record.seconds_done) == (DONE, 2, 2)


def test_the_desk_hands_over_everything_that_was_left() -> None:
    """Messages are collected once, in order and at once, whether the driver waits or not; questions get answers."""

    async def talk() -> None:
        desk = _Desk()
        assert await desk.collect(0.02) == []
        stored = Stored(1, 0.0, 0.0)
        await desk.tell(1, stored)
        question = asyncio.create_task(desk.ask(2, stored))
        await asyncio.sleep(0)
        assert await desk.collect(0) == [(1, stored), (2, stored)]
        assert await desk.collect(0) == []
        await desk.answer(2, 32)
        await desk.answer(2, None)  # a second answer changes nothing
        assert await question == 32

    asyncio.run(talk())


def test_bare_options_get_their_value() -> None:
    """`--ray` may stand alone: at the end, and before another option."""
    assert _with_values(["add", "x", "--ray"]) == ["add", "x", "--ray", "auto"]
    assert _with_values(["add", "--ray", "-q", "x"]) == ["add", "--ray", "auto", "-q", "x"]
    assert _with_values(["add", "x", "--ray", "head:6379", "-q"]) == ["add", "x", "--ray", "head:6379", "-q"]
    assert _with_values(["ls", "--json"]) == ["ls", "--json"]


def test_an_embedded_index_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One process has an embedded index open: many machines need a served one, and the message says how to get it."""
    assert main(["index", "add", str(tmp_path), "--index", str(tmp_path / "index"), "--ray"]) == 2
    said = capsys.readouterr().err
    assert "is embedded, which one process has open at a time" in said and "visxp index push http://" in said
    assert main(["index", "add", str(tmp_path), "--watch", "--ray"]) == 2
    assert "--ray goes neither with --watch nor" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Ray is not installed one line says which extra brings it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "indexer.ray_cluster", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_NoRay(), *sys.meta_path])
    assert main(["index", "add", str(tmp_path), "--index", "http://127.0.0.1:1", "--ray"]) == 3
    assert "this command needs ray, which the extra 'ray' brings" in capsys.readouterr().err


class _NoRay:
    """An importer that finds no Ray."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.split(".")[0] == "ray":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "somewhere", "host:port"])
def test_a_cluster_that_is_not_there_is_said_at_once(
    address: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address at which nothing listens, or that is none, is one line with what to start."""
    with LoopbackQdrant() as server:
        words = ["index", "add", str(tmp_path), "--index", server.url, "--model", str(tiny_checkpoint)]
        assert main([*words, "--ray", address]) == 2
    said = capsys.readouterr().err
    assert f"no Ray cluster answers at --ray {address}" in said and "ray start --head" in said
