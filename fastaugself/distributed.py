"""Processes: started by torchrun, or one alone."""

import datetime
import os
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import RunError, UsageError

DeviceName = Literal["auto", "cuda", "cpu"]

PATIENCE = datetime.timedelta(minutes=10)  # until a process that does not answer is given up


def resolve_device(name: DeviceName) -> torch.device:
    """The device of a `--device` option; "auto" is CUDA where there is one. Raises UsageError for CUDA without one."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda: this torch finds no CUDA device; pass --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def single(cls, device: torch.device | str = "cpu") -> "World":
        """One process by itself."""
        return cls(0, 1, torch.device(device))

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the process that writes files and prints."""
        return self.rank == 0


def start(device: DeviceName) -> World:
    """Joins the process group that torchrun describes in the environment; alone without one.

    Raises UsageError where CUDA is asked for and missing, or has fewer devices than processes.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    cuda = resolve_device(device).type == "cuda"
    if cuda and local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"{torch.cuda.device_count()} CUDA devices for process {local_rank + 1} of this node; "
            f"pass --nproc-per-node={torch.cuda.device_count()} to torchrun"
        )
    chosen = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        backend = "nccl" if cuda else "gloo"
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            store = _fresh_store(rank, size)
            dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=size)
        else:
            dist.init_process_group(backend, timeout=PATIENCE)
    return World(rank, size, chosen)


def _fresh_store(rank: int, size: int) -> Any:
    """torchrun's store, under a prefix that all processes of this attempt and no others use.

    torchrun keeps one store over the restarts of its workers, and torch 2.13 does not tell their keys apart: after a
    restart, processes would look for each other at the addresses of those that died. The count of restarts does not
    help, for it is each node's own. So the leading process draws a name for the attempt, and tells it to every process
    that asks under a name of its own, until all have answered.
    """
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=PATIENCE)
    own = uuid.uuid4().hex
    if rank:
        store.set(f"asks/{rank}", own)
        attempt = store.get(f"told/{own}").decode()
        store.set(f"answered/{attempt}/{rank}", "")
        return PrefixStore(f"attempt/{attempt}", store)
    attempt, missing = own, set(range(1, size))
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"answered/{attempt}/{other}"]):
                missing.discard(other)
            elif store.check([f"asks/{other}"]):  # perhaps by one that has died; then it does not answer
                store.set(f"told/{store.get(f'asks/{other}').decode()}", attempt)
        if time.monotonic() > deadline:
            raise RunError(f"processes {sorted(missing)} of {size} did not start within {PATIENCE}")
        time.sleep(0.01)
    return PrefixStore(f"attempt/{attempt}", store)


def stop() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Waits for all processes."""
    if dist.is_initialized():
        dist.barrier()


class SideChannel:
    """A vote over a separate gloo group; works while a collective on the default group hangs."""

    def __init__(self) -> None:
        """A collective call: every rank makes one at the same point."""
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE / 2) if world_size() > 1 else None

    def vote(self, yes: bool) -> int:
        """The number of ranks that vote yes. Raises RuntimeError where not all vote within half of PATIENCE."""
        answer = torch.tensor([int(yes)])
        if self._group is not None:
            dist.all_reduce(answer, group=self._group)
        return int(answer.item())


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


# Operations of torch.library, which torch.compile takes as they are, in one graph with what is around them. An
# autograd.Function would be a graph in the graph, which DDP's optimizer of Dynamo refused in many versions.


@torch.library.custom_op("fastaugself::sum_over_processes", mutates_args=())
def _sum(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


@torch.library.custom_op("fastaugself::max_over_processes", mutates_args=())
def _max(x: Tensor) -> Tensor:
    highest = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return highest


@torch.library.custom_op("fastaugself::gather", mutates_args=())
def _gather(x: Tensor) -> Tensor:
    gathered = x.new_empty((world_size() * len(x), *x.shape[1:]))
    dist.all_gather(list(gathered.chunk(world_size())), x.contiguous())  # no back-end sends channels-last images
    return gathered


@_sum.register_fake
@_max.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@_gather.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((world_size() * x.shape[0], *x.shape[1:]))


_sum.register_autograd(lambda ctx, grad: _sum(grad))
_gather.register_autograd(lambda ctx, grad: _sum(grad).chunk(world_size())[rank()])


def all_gather(x: Tensor) -> Tensor:
    """`x` of all processes, concatenated along the first dimension in rank order; no gradient."""
    return _gather(x.detach()) if world_size() > 1 else x


def sum_over_processes(x: Tensor) -> Tensor:
    """`x` summed over all processes; no gradient."""
    return _sum(x.detach()) if world_size() > 1 else x


def max_over_processes(x: Tensor) -> Tensor:
    """The largest `x` of all processes; no gradient."""
    return _max(x.detach()) if world_size() > 1 else x


def sum_with_gradient(x: Tensor) -> Tensor:
    """`x` summed over all processes; the gradients of all processes flow back to each."""
    return _sum(x) if world_size() > 1 else x


def gather_with_gradient(x: Tensor) -> Tensor:
    """`x` of all processes, concatenated in rank order; the gradients of all processes flow back to each part."""
    return _gather(x) if world_size() > 1 else x


def mean_over_processes(x: Tensor) -> Tensor:
    """`x` averaged over all processes; no gradient."""
    return sum_over_processes(x) / world_size()
