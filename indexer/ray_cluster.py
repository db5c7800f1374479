"""Indexing on many machines: Ray runs one task a video, and all write to one Qdrant server.

    driver      this process: plans, keeps the ledger, shows progress
    desk        an actor beside it: takes messages of tasks to the driver, and its answers back
    encoders    actors: one for each GPU of the cluster or, where there is none, one for each machine
    tasks       decode in a process of their own, have the clips embedded, store the seconds (`pipeline.index_file`)

A task that is lost with its machine is run again by Ray, and goes on after the last block that was stored. Memory is
bounded: so many tasks are begun as the cluster works on at a time, and each has one block of clips under way. All
machines need this program, the checkpoint and the files under the same paths.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from indexer.pipeline import index_file
from indexer.plan import FoundFile
from indexer.seats import Indexed, Message, Stored
from indexer.worker import Failed, Opened, WorkerLimits
from visxp_search.clips import Clip
from visxp_search.embed import Embedder, Embeddings, PseudoLabels, SelfLabelled, VectorSpec, load_embedder
from visxp_search.errors import CheckpointError, UsageError, VisxpError
from visxp_search.store import ServerSettings, VideoRecord, open_store

LOST = (RayActorError, ActorUnschedulableError)
"""Raised when an actor is asked whose machine is gone."""
TASK_RETRIES = 5
"""How often Ray runs the task of a video again when a process or machine is lost."""
ENCODER_RESTARTS = 5
"""How often an encoder that died is started again on its machine."""
TASKS_PER_CORE = 2
"""Tasks begun for each core of the cluster: while one waits for an encoder another can decode."""
FEWEST_TASKS = 4
PATIENCE_SECONDS = 5.0
"""How long the head of a cluster may take to answer at all."""
WAIT_SECONDS, LOOK_SECONDS = 0.2, 0.01
"""How long the desk waits for a message, and how often it looks."""


@dataclass(frozen=True)
class RayJob:
    """What a task must know besides its file.

    Attributes:
        location: URL of the index.
        server: how it is spoken to.
        model: as for `load_embedder`.
        device: as for `load_embedder`.
        limits: what one file may cost.
    """

    location: str
    server: ServerSettings
    model: str | None = None
    device: str | None = None
    limits: WorkerLimits = field(default_factory=WorkerLimits)


@contextmanager
def connect_ray(address: str) -> Iterator[None]:
    """Be the driver of a job on a Ray cluster.

    Args:
        address: `auto` for the cluster that this machine belongs to, or `host:port` of its head.

    Raises:
        UsageError: If there is no cluster.
    """
    how = "start one with `ray start --head` here and `ray start --address HOST:6379` on the others"
    _require_listener(address, how)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as exc:
        raise UsageError(f"no Ray cluster can be joined at {address} ({_first_line(exc)}); {how}") from exc
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str, how: str) -> None:
    """Ray itself tries an address at which nothing listens for many minutes."""
    if address == "auto":
        return
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
        if host is None or port is None:
            raise ValueError("expected HOST:PORT of the head, on a machine of the cluster")
        socket.create_connection((host, port), timeout=PATIENCE_SECONDS).close()
    except (OSError, ValueError) as exc:
        raise UsageError(f"no Ray cluster answers at --ray {address} ({exc}); {how}, then give HOST:6379") from exc


class RayPool:
    """Tasks on a Ray cluster, as a `seats.Pool`; made inside of `connect_ray`.

    Args:
        job: what tasks must know.
        embedder: the driver's own; encoders of another checkpoint are refused.
    """

    def __init__(self, job: RayJob, embedder: Embedder) -> None:
        self._job = job
        self._model = _Model(embedder.checkpoint_id, embedder.specs, embedder.frame_size, embedder.sample_rate_hz)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._desk: Any = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here).remote()
        self._task: Any = ray.remote(_run_task)
        self._encoders: dict[str, list[Any]] = {}
        self._seats: dict[Any, _RaySeat] = {}
        self._n_begun = 0

    def has_room(self) -> bool:
        """Whether the cluster has less to do than it can work on at a time."""
        n_cores = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        return len(self._seats) < max(FEWEST_TASKS, TASKS_PER_CORE * n_cores)

    def begin(self, file: FoundFile) -> None:
        """Hand a file to Ray."""
        self._start_encoders()
        self._n_begun += 1
        ticket = self._n_begun
        task = self._task.options(num_cpus=1, max_retries=TASK_RETRIES, retry_exceptions=list(LOST))
        reference = task.remote(self._job, self._model, file, ticket, self._desk, self._encoders)
        self._seats[reference] = _RaySeat(file, ticket, self._desk)

    def is_busy(self) -> bool:
        """Whether there are tasks."""
        return bool(self._seats)

    def wait(self) -> Iterator["_RaySeat"]:
        """The seats that have something to say, each as often as it has.

        Raises:
            VisxpError: If a task met what all others would meet too: the store fails.
        """
        done, _ = ray.wait(list(self._seats), num_returns=len(self._seats), timeout=0)  # first: all they said is there
        messages = ray.get(self._desk.collect.remote(0 if done else WAIT_SECONDS))
        return self._talking(messages, done)

    def _talking(self, messages: Sequence[tuple[int, Message]], done: Sequence[Any]) -> Iterator["_RaySeat"]:
        by_ticket = {seat.ticket: seat for seat in self._seats.values()}
        for ticket, message in messages:
            seat = by_ticket.get(ticket)
            if seat is not None and seat.file is not None:
                seat.next_message = message
                yield seat
            elif isinstance(message, Opened):  # it had ended when its machine was lost, and was run again
                self._desk.answer.remote(ticket, None)
        for reference in done:
            seat = self._seats.pop(reference)
            fault = _fault_of(reference)
            if seat.file is None:
                continue
            if fault is None:
                raise AssertionError(f"the task of {seat.file.path} ended without saying how")
            seat.next_message = Failed(None, fault)
            yield seat

    def stop(self) -> None:
        """Cancel all tasks."""
        for reference in self._seats:
            ray.cancel(reference, force=True)
        self._seats.clear()

    def _start_encoders(self) -> None:
        """One encoder for each GPU or, in a cluster without, each machine; machines may have joined or gone since.

        Raises:
            CheckpointError: If a machine cannot load the checkpoint, or has another.
        """
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        n_gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in nodes}
        any_gpu = any(n_gpus.values())
        self._encoders = {name: encoders for name, encoders in self._encoders.items() if name in n_gpus}
        for node in nodes:
            name = node["NodeID"]
            wanted = n_gpus[name] if any_gpu else 1
            if name in self._encoders or not wanted:
                continue
            options = ray.remote(_Encoder).options(
                num_cpus=0,
                num_gpus=int(any_gpu),
                max_restarts=ENCODER_RESTARTS,
                max_task_retries=ENCODER_RESTARTS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
            )
            n_threads = max(1, int(node["Resources"].get("CPU", 1)))
            encoders = [options.remote(self._job.model, self._job.device, n_threads) for _ in range(wanted)]
            try:
                _require_checkpoint(encoders[0], self._model.checkpoint_id, machine=node["NodeManagerHostname"])
            except LOST:
                continue
            self._encoders[name] = encoders


class _RaySeat:
    """The driver's end of one task, as a `seats.Seat`."""

    def __init__(self, file: FoundFile, ticket: int, desk: Any) -> None:
        self.file: FoundFile | None = file
        self.record: VideoRecord | None = None
        self.ticket = ticket
        self.next_message: Message | None = None
        self._desk = desk

    def receive(self) -> Message:
        if self.next_message is None:
            raise AssertionError("a task was asked that has said nothing")
        message, self.next_message = self.next_message, None
        return message

    def send(self, message: int | None) -> None:
        self._desk.answer.remote(self.ticket, message)

    def end(self) -> None:
        self.file = self.record = None


@dataclass(frozen=True)
class _Model:
    """What the ledger and the decoders must know of the encoders."""

    checkpoint_id: str
    specs: Mapping[str, VectorSpec]
    frame_size: int
    sample_rate_hz: int


class _Desk:
    """Messages of tasks for the driver, and its answers; an actor."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, Message]] = []
        self._answers: dict[int, asyncio.Future[int | None]] = {}

    async def tell(self, ticket: int, message: Message) -> None:
        """Leave a message."""
        self._messages.append((ticket, message))

    async def ask(self, ticket: int, message: Message) -> int | None:
        """Leave a message and wait for the answer."""
        self._answers[ticket] = asyncio.get_running_loop().create_future()
        self._messages.append((ticket, message))
        return await self._answers[ticket]

    async def answer(self, ticket: int, value: int | None) -> None:
        """Answer the last question of a task."""
        if not self._answers[ticket].done():
            self._answers[ticket].set_result(value)

    async def collect(self, patience_seconds: float) -> list[tuple[int, Message]]:
        """All messages; if there is none, wait a while for one."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + patience_seconds
        while not self._messages and clock.time() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        found, self._messages = self._messages, []
        return found


class _Encoder:
    """An embedder as an actor; it is loaded when it is first asked, as an actor cannot say why it did not begin."""

    def __init__(self, model: str | None, device: str | None, n_threads: int) -> None:
        self._model, self._device, self._n_threads = model, device, n_threads

    @cached_property
    def _embedder(self) -> Embedder:
        import torch

        torch.set_num_threads(self._n_threads)
        return load_embedder(self._model, device=self._device)

    def checkpoint_id(self) -> str:
        """See `Embedder`."""
        return self._embedder.checkpoint_id

    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        """See `Embedder.embed`."""
        return self._embedder.embed(clips)

    def pseudo_labels(self, embeddings: Embeddings) -> PseudoLabels | None:
        """See `SelfLabelled.pseudo_labels`."""
        return self._embedder.pseudo_labels(embeddings) if isinstance(self._embedder, SelfLabelled) else None


def _require_checkpoint(encoder: Any, wanted: str, *, machine: str) -> None:
    try:
        found = ray.get(encoder.checkpoint_id.remote())
    except RayTaskError as exc:
        raise CheckpointError(
            f"machine {machine} of the Ray cluster cannot load the checkpoint ({exc.cause}); install the same release, "
            f"or put the --model at the same path, on all machines"
        ) from exc
    if found != wanted:
        raise CheckpointError(
            f"machine {machine} of the Ray cluster has checkpoint {found}, not {wanted}; install the same release, or "
            f"put the --model at the same path, on all machines"
        )


class _DistantEmbedder:
    """Encoder actors as an `Embedder`, which is `SelfLabelled` too; the first that is alive does the work."""

    def __init__(self, model: _Model, encoders: Sequence[Any]) -> None:
        self.checkpoint_id = model.checkpoint_id
        self.specs = model.specs
        self.frame_size = model.frame_size
        self.sample_rate_hz = model.sample_rate_hz
        self._encoders = list(encoders)

    def embed(self, clips: Sequence[Clip]) -> Embeddings:
        embeddings: Embeddings = self._ask(lambda encoder: encoder.embed.remote(clips))
        return embeddings

    def pseudo_labels(self, embeddings: Embeddings) -> PseudoLabels | None:
        labels: PseudoLabels | None = self._ask(lambda encoder: encoder.pseudo_labels.remote(embeddings))
        return labels

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        while True:
            try:
                return ray.get(question(self._encoders[0]))
            except LOST:
                if len(self._encoders) == 1:
                    raise
                del self._encoders[0]


def _run_task(
    job: RayJob, model: _Model, file: FoundFile, ticket: int, desk: Any, encoders: Mapping[str, Sequence[Any]]
) -> None:
    """Index one file where Ray has put this task; how it ended is told at the desk."""
    here = ray.get_runtime_context().get_node_id()
    in_reach = [(name != here, random.random(), encoder) for name, some in encoders.items() for encoder in some]
    nearest_first = [encoder for *_, encoder in sorted(in_reach, key=lambda one: one[:2])]

    def ask(message: Opened) -> int | None:
        first: int | None = ray.get(desk.ask.remote(ticket, message))
        return first

    def tell(message: Stored | Indexed | Failed) -> None:
        ray.get(desk.tell.remote(ticket, message))

    store = open_store(job.location, checkpoint=model.checkpoint_id, server=job.server)
    try:
        end = index_file(store, _DistantEmbedder(model, nearest_first), file, limits=job.limits, ask=ask, tell=tell)
    finally:
        store.close()
    if end is not None:
        tell(end)


def _fault_of(reference: Any) -> str | None:
    """Why a task that is over came to no end of its own; None if it did.

    Raises:
        VisxpError: See `RayPool.wait`.
    """
    try:
        ray.get(reference)
    except RayTaskError as exc:
        if isinstance(exc.cause, VisxpError):
            raise exc.cause from exc
        if not isinstance(exc.cause, RayError):
            raise
        return _say_lost(exc.cause)
    except RayError as exc:
        return _say_lost(exc)
    return None


def _say_lost(error: RayError) -> str:
    return f"its Ray task was lost {TASK_RETRIES + 1} times ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
