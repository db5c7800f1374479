"""Several training processes: torch's DistributedDataParallel under `torchrun`, and nothing of our own.

`torchrun --nproc-per-node 4 -m -- visxp_search.cli train avc ...` starts the processes. A step has a fixed number of
batches (`batches_per_step`), each with negatives and randomness of its own, which the processes divide among
themselves; so the number of processes changes the time and not the result.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from visxp_search.errors import UsageError


@dataclass(frozen=True)
class Workers:
    """This process among those that train together.

    Attributes:
        rank: which one; 0 writes the files.
        world: how many.
        device: where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def check_share(self, batches_per_step: int) -> None:
        """Refuse a number of batches that cannot be divided among the processes.

        Raises:
            UsageError: If it cannot.
        """
        if batches_per_step % self.world:
            raise UsageError(
                f"batches_per_step {batches_per_step} cannot be divided among {self.world} processes; "
                f"choose a multiple of {self.world} in the recipe"
            )

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over processes; itself where there is one process."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)

    def local_gradients(self, module: nn.Module, *, local: bool) -> AbstractContextManager[None]:
        """A context in which gradients are not yet exchanged, for all but the last batch of a step."""
        if local and isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return nullcontext()

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Averages over processes."""
        total = torch.tensor(list(values.values()), dtype=torch.float64)
        if self.world > 1:
            total = total.to(self.device)
            torch.distributed.all_reduce(total)
        return dict(zip(values, (total / self.world).tolist(), strict=True))

    def average_buffers(self, module: nn.Module) -> None:
        """Give all processes the mean of their running statistics."""
        if self.world > 1:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    torch.distributed.all_reduce(buffer)
                    buffer /= self.world

    def share(self, tensor: Tensor) -> None:
        """Give all processes the values that the first one has."""
        if self.world > 1:
            on_device = tensor.to(self.device)
            torch.distributed.broadcast(on_device, src=0)
            tensor.copy_(on_device)

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            torch.distributed.barrier()


@contextmanager
def join_workers(device: torch.device) -> Iterator[Workers]:
    """Join the processes that `torchrun` started; without it, this process is the only one.

    Args:
        device: kind of device; each process takes the one of its local rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Workers(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(torch.distributed.get_rank(), world, device)
    finally:
        torch.distributed.destroy_process_group()
