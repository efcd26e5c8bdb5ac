"""One process or many: what `torchrun` started works together, and anything else works alone, by the same code.

with together():                     # for one process: nothing
    share = list(range(rank(), 1000, world()))
    right = total(right)             # summed over all processes
    if first(): print(right)         # one of them speaks and writes
"""

import contextlib
import os
import socket
import time
import zlib
from collections.abc import Generator

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

QUIET = 1.0  # seconds that the process that says what is wrong gets before the others end


def launched() -> bool:
    """Did torchrun, or something like it, start this process?"""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def running() -> bool:
    """Are we inside `together()`, with others?"""
    return torch_dist.is_available() and torch_dist.is_initialized()


def rank() -> int:
    """The number of this process, from 0 on."""
    return torch_dist.get_rank() if running() else 0


def world() -> int:
    """How many processes work together."""
    return torch_dist.get_world_size() if running() else 1


def first() -> bool:
    """Is this the process that speaks and writes?"""
    return rank() == 0


def device() -> torch.device:
    """The GPU that belongs to this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    number, count = int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0, torch.cuda.device_count()
    if number >= count:
        raise ValueError(f"there is no GPU for process {number + 1} on this computer: it has {count}")
    return torch.device("cuda", number)


@contextlib.contextmanager
def together() -> Generator[None]:
    """Join the other processes inside the block; what goes wrong in several of them is raised in only one."""
    if not launched():
        yield
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface(os.environ["MASTER_ADDR"]))
    store, number, count = next(iter(torch_dist.rendezvous("env://")))
    here = device()
    if here.type == "cuda":
        torch.cuda.set_device(here)
    torch_dist.init_process_group("nccl" if here.type == "cuda" else "gloo", store=store, rank=number, world_size=count)
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise spoken(error, store) from error
    torch_dist.destroy_process_group()


def spoken(error: Exception, store: torch_dist.Store) -> BaseException:
    """The error, if it is to be told here; the end of this process, if another one tells it."""
    lost = isinstance(error, torch_dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    if isinstance(error, RuntimeError) and not lost:
        return error
    if lost:
        time.sleep(2 * QUIET)  # whoever started us knows more, and ends us now
    with contextlib.suppress(RuntimeError):  # the store is gone, too
        if store.add("failed", 1) > 1:
            time.sleep(QUIET)
            return SystemExit(2)
    told = "the connection to another process broke (it ended, or was killed); the same command goes on where it was"
    return ConnectionError(told) if lost else error


def interface(address: str) -> str:
    """The name of the network interface from which this computer reaches an address."""
    import psutil

    family, _, _, _, place = socket.getaddrinfo(address, 1, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent
        probe.connect(place)
        own = probe.getsockname()[0]
    names = [name for name, found in psutil.net_if_addrs().items() if own in {one.address for one in found}]
    return names[0] if names else ""


def total(tensor: Tensor) -> Tensor:
    """The sum of this tensor over all processes."""
    result = tensor.detach().clone()
    if running():
        torch_dist.all_reduce(result)
    return result


def average(tensor: Tensor) -> Tensor:
    """The mean of this tensor over all processes."""
    return total(tensor) / world()


def wait() -> None:
    """Go on when all processes have come here."""
    if running():
        torch_dist.barrier()


def agree(what: str, value: object) -> None:
    """Refuse to go on if the processes do not all have the same value."""
    own = torch.tensor([zlib.crc32(repr(value).encode())], device=device())
    if running():
        sums = [torch.zeros_like(own) for _ in range(world())]
        torch_dist.all_gather(sums, own)
        if any(other != own for other in sums):
            raise ValueError(
                f"the {what} that process {rank()} of {world()} sees are not another one's: all need the same files"
            )


def spread(model: nn.Module) -> nn.Module:
    """The model, training on all processes at once: its gradients are averaged over them."""
    if not running():
        return model
    places = [device()] if device().type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=places)


def equalise(model: nn.Module) -> None:
    """Give every process the first one's buffers: BatchNorm's statistics differ after a step on different images."""
    if running():
        for buffer in model.buffers():
            torch_dist.broadcast(buffer, 0)
