"""What a network is worth and what it costs: accuracy, parameters, MACs, bytes, milliseconds on this computer."""

import statistics
import time
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from course_utils.data import Split, batches, pixels_last


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Generator[None]:
    """Training or evaluation mode inside the block; afterwards every part of the model is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, before in modes:
            module.training = before


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Evaluation mode and no gradients inside the block."""
    with in_mode(model, training=False), torch.no_grad():
        yield


def outputs(model: nn.Module, split: Split) -> Tensor:
    """What the model says about every image: one row of class scores for each."""
    at_once = 1000 if split.images.is_cuda else 50  # few images stay in the processor's cache
    with evaluating(model):
        return torch.cat([model(x) for x, _ in batches(split, at_once)])


def accuracy(model: nn.Module, split: Split) -> float:
    """The fraction of the images that the model names correctly."""
    return (outputs(model, split).argmax(1) == split.labels).float().mean().item()


def loss(model: nn.Module, split: Split) -> float:
    """The mean cross-entropy on a split."""
    return cross_entropy(outputs(model, split), split.labels).item()


def parameters(model: nn.Module) -> int:
    """How many numbers were learnt, zeros included."""
    return sum(p.numel() for p in model.parameters())


def nonzero(model: nn.Module) -> int:
    """How many of them are not zero."""
    return sum(int(p.count_nonzero()) for p in model.parameters())


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products for `example`, zeros included (no bias, no norm)."""
    counter = FlopCounterMode(display=False)
    with evaluating(model), counter:
        model(example)
    return counter.get_total_flops() // 2


def size_on_disk(model: nn.Module, zipped: bool = False) -> int:
    """Bytes of the model as a safetensors file; `zipped` shows what a compressor makes of its zeros."""
    data = save({name: t.detach().cpu().contiguous() + 0 for name, t in model.state_dict().items()})  # -0 + 0 is 0
    return len(zlib.compress(data, 1)) if zipped else len(data)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward pass: the median, and the quartiles around it."""

    median: float
    low: float
    high: float


def latency(models: dict[str, nn.Module], example: Tensor, repeats: int = 15) -> dict[str, Latency]:
    """Time each model on `example` with one thread: warm up, then take turns, so that a busy moment hits all alike."""
    example = pixels_last(example) if example.ndim == 4 else example
    times: dict[str, list[float]] = {name: [] for name in models}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(repeats + 2):
            for name, model in models.items():
                seconds = one_pass(model, example)
                if turn >= 2:
                    times[name].append(1000 * seconds)
    finally:
        torch.set_num_threads(threads)
    quartiles = {name: statistics.quantiles(t, n=4) if len(t) > 1 else t * 3 for name, t in times.items()}
    return {name: Latency(median=q[1], low=q[0], high=q[2]) for name, q in quartiles.items()}


def one_pass(model: nn.Module, example: Tensor) -> float:
    """Seconds of one forward pass; waits for a GPU to finish."""
    wait = torch.accelerator.synchronize if example.device.type != "cpu" else lambda: None
    with evaluating(model):
        wait()
        began = time.perf_counter()
        model(example)
        wait()
    return time.perf_counter() - began
