"""torch.distributed: process group, rank and world size, and collectives with and without gradients."""

import contextlib
import datetime
import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastaugself_kernels._ops import register

from .errors import RunError, UsageError
from .network import choose_gloo_interface

DeviceName = Literal["auto", "cuda", "cpu"]

TIMEOUT = datetime.timedelta(minutes=10)  # of the process group and of rendezvous
HEARTBEAT = 1.0  # seconds between signs of life of rank 0 in `on_main`
SILENCE = 60.0  # seconds without one, after which rank 0 is taken for dead

T = TypeVar("T")


def resolve_device(name: DeviceName) -> torch.device:
    """The device of a `--device` option; "auto" is CUDA if available. Raises UsageError for "cuda" without CUDA."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda: torch finds no CUDA device; pass --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@dataclass(frozen=True)
class World:
    """Rank, world size and device of this process."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def single(cls, device: torch.device | str = "cpu") -> "World":
        """A world of one process."""
        return cls(0, 1, torch.device(device))

    @property
    def is_main(self) -> bool:
        """True on rank 0, which writes files and prints."""
        return self.rank == 0


def start(device: DeviceName) -> World:
    """Joins the process group of torchrun (from RANK, WORLD_SIZE, LOCAL_RANK); a single process without torchrun.

    A process group that is already initialised is used as it is. Raises UsageError if CUDA is requested but missing,
    if a node has fewer CUDA devices than processes, or if gloo would need to be told its network interface.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda, local_rank = resolve_device(device).type == "cuda", int(os.environ.get("LOCAL_RANK", 0))
    if dist.is_initialized():
        rank, size = dist.get_rank(), dist.get_world_size()
        if cuda and "LOCAL_RANK" not in os.environ:
            local_rank = torch.cuda.current_device() or rank % torch.cuda.device_count()
    if cuda and local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"local rank {local_rank} has no CUDA device, this node has {torch.cuda.device_count()}; "
            f"pass --nproc-per-node={torch.cuda.device_count()} to torchrun"
        )
    chosen = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(chosen)
    choose_gloo_interface()  # also beside NCCL: the side channel is gloo
    if size > 1 and not dist.is_initialized():
        backend = "nccl" if cuda else "gloo"
        # NCCL would guess the device from the rank, which is wrong where a node has more devices than processes.
        named: dict[str, Any] = {"device_id": chosen} if cuda else {}
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            store = _fresh_store(rank, size)
            dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=rank, world_size=size, **named)
        else:
            dist.init_process_group(backend, timeout=TIMEOUT, **named)
    return World(rank, size, chosen)


def _fresh_store(rank: int, size: int) -> Any:
    """torchrun's store under a prefix that is unique to this (re)start of the workers.

    torchrun reuses one store across restarts, and torch 2.13 does not separate their keys: after a restart, processes
    would connect to the addresses of processes that died. The restart count does not help because each node has its
    own. So rank 0 draws a random name for this start and answers the request of every other rank with it, until all
    ranks have acknowledged it.
    """
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=TIMEOUT)
    own = uuid.uuid4().hex
    if rank:
        store.set(f"asks/{rank}", own)
        attempt = store.get(f"told/{own}").decode()
        store.set(f"answered/{attempt}/{rank}", "")
        return PrefixStore(f"attempt/{attempt}", store)
    attempt, missing = own, set(range(1, size))
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"answered/{attempt}/{other}"]):
                missing.discard(other)
            elif store.check([f"asks/{other}"]):  # a process that has died may have asked; it never acknowledges
                store.set(f"told/{store.get(f'asks/{other}').decode()}", attempt)
        if time.monotonic() > deadline:
            raise RunError(f"ranks {sorted(missing)} of {size} processes did not start within {TIMEOUT}")
        time.sleep(0.01)
    return PrefixStore(f"attempt/{attempt}", store)


def stop() -> None:
    """Destroys the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def joined(device: DeviceName) -> Iterator[World]:
    """Context manager with the world that `start` joins; a process group of the caller's is left as it is."""
    own = not dist.is_initialized()
    try:
        yield start(device)
    finally:
        if own:
            stop()


def barrier() -> None:
    """Waits for all processes."""
    if dist.is_initialized():
        dist.barrier()


_waits = itertools.count()  # the same on all ranks, which call `on_main` in the same order


def on_main(work: Callable[[], T], *, what: str, tell: Callable[[str], None] = lambda _: None) -> T | None:
    """Calls `work` on rank 0 and returns its result there, None on the other ranks; a collective call.

    The others wait as long as rank 0 lives and works, which a collective's timeout would not allow. what: the work in
    words, "writing the photos". tell: called on the other ranks with a line about what they wait for, if they wait
    long. UsageError and RunError of rank 0 are raised on all ranks; for another error, or if rank 0 dies, the others
    raise RunError.
    """
    if world_size() == 1:
        return work()
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.distributed_c10d import _get_default_store

    store = PrefixStore(f"on_main/{next(_waits)}", _get_default_store())
    if rank() == 0:
        return _work_with_heartbeat(work, store)
    _wait_for_main(store, what, tell)
    return None


def _work_with_heartbeat(work: Callable[[], T], store: Any) -> T:
    ended, outcome = threading.Event(), "failed"

    def beat() -> None:
        for count in itertools.count():
            store.set("beat", str(count))
            if ended.wait(HEARTBEAT):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        result = work()
        outcome = "done"
        return result
    except (UsageError, RunError) as error:
        outcome = f"{'usage' if isinstance(error, UsageError) else 'run'} {error}"
        raise
    except BaseException as error:
        outcome = f"failed {type(error).__name__}: {error}"
        raise
    finally:
        ended.set()
        thread.join()
        store.set("outcome", outcome)
        deadline = time.monotonic() + 10 * HEARTBEAT
        while store.add("told", 0) < world_size() - 1 and time.monotonic() < deadline:
            time.sleep(0.02)  # the store may live in this process, which after an error soon ends


def _wait_for_main(store: Any, what: str, tell: Callable[[str], None]) -> None:
    began = heard = told = time.monotonic()
    beat = b""
    while True:
        try:
            if store.check(["outcome"]):
                kind, _, message = store.get("outcome").decode().partition(" ")
                store.add("told", 1)
                break
            latest = store.get("beat") if store.check(["beat"]) else b""
        except RuntimeError as error:  # the store lives in rank 0, or in torchrun
            raise RunError(f"the connection to rank 0 was lost while it was {what} ({error})") from None
        now = time.monotonic()
        if latest != beat:
            beat, heard = latest, now
        limit = SILENCE if beat else TIMEOUT.total_seconds()  # rank 0 may come later
        if now - heard > limit:
            raise RunError(f"rank 0 gave no sign of life for {limit:g} s while it was {what}; look at its log")
        if now - told > 30:
            told = now
            tell(f"waiting for rank 0, which is {what} ({(now - began) / 60:.1f} minutes)")
        time.sleep(0.1)
    if kind in ("usage", "run"):
        raise (UsageError if kind == "usage" else RunError)(message)
    if kind == "failed":
        raise RunError(f"rank 0 failed while it was {what}: {message}")


class SideChannel:
    """A vote over a separate gloo group; works while a collective on the default group hangs."""

    def __init__(self) -> None:
        """A collective call: all ranks must make it at the same point."""
        self._group = dist.new_group(backend="gloo", timeout=TIMEOUT / 2) if world_size() > 1 else None

    def vote(self, yes: bool) -> int:
        """The number of ranks that vote yes. Raises RuntimeError if some rank does not vote within half of TIMEOUT."""
        answer = torch.tensor([int(yes)])
        if self._group is not None:
            dist.all_reduce(answer, group=self._group)
        return int(answer.item())


def rank() -> int:
    """The rank of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


# Operators stay inside the graph that torch.compile captures. An autograd.Function would become a higher-order operator
# with a subgraph, which Dynamo's DDPOptimizer refused in many versions.


def _sum_impl(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _max_impl(x: Tensor) -> Tensor:
    highest = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return highest


def _gather_impl(x: Tensor) -> Tensor:
    gathered = x.new_empty((world_size() * len(x), *x.shape[1:]))
    # Into one tensor: the form with a list copies once more for each rank. torch 2.13 renamed it.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(gathered, x.contiguous())  # no backend sends channels-last tensors
    return gathered


def _same_shape(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _gathered_shape(x: Tensor) -> Tensor:
    return x.new_empty((world_size() * x.shape[0], *x.shape[1:]))


_sum: Any = register("sum_over_processes", _sum_impl, _same_shape, backward=lambda ctx, grad: _sum(grad))
_max = register("max_over_processes", _max_impl, _same_shape)
_gather = register(
    "gather", _gather_impl, _gathered_shape, backward=lambda ctx, grad: _sum(grad).chunk(world_size())[rank()]
)


def all_gather(x: Tensor) -> Tensor:
    """`x` of all ranks, concatenated along the first dimension in rank order; no gradient."""
    return _gather(x.detach()) if world_size() > 1 else x


def gather_rows(x: Tensor, counts: Sequence[int]) -> Tensor:
    """`x` of all ranks, concatenated in rank order, where each has a different number of rows; no gradient.

    counts: rows of each rank, the same list on all ranks. A rank without rows passes a tensor of the others' width.
    """
    if world_size() == 1:
        return x
    longest = max(counts)
    padded = x.new_zeros(longest, *x.shape[1:])
    padded[: len(x)] = x
    parts = all_gather(padded).split(longest)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum of `x` over all ranks; no gradient."""
    return _sum(x.detach()) if world_size() > 1 else x


def max_over_processes(x: Tensor) -> Tensor:
    """Element-wise maximum of `x` over all ranks; no gradient."""
    return _max(x.detach()) if world_size() > 1 else x


def sum_with_gradient(x: Tensor) -> Tensor:
    """Sum of `x` over all ranks; the backward pass sums the gradients of all ranks."""
    return _sum(x) if world_size() > 1 else x


def gather_with_gradient(x: Tensor) -> Tensor:
    """`x` of all ranks, concatenated in rank order; the backward pass sums the gradients of all ranks."""
    return _gather(x) if world_size() > 1 else x


def mean_over_processes(x: Tensor) -> Tensor:
    """Mean of `x` over all ranks; no gradient."""
    return sum_over_processes(x) / world_size()
