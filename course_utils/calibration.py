"""Calibration: the batches that a criterion looks at before it decides, and a way to watch layers while they pass.

A network is only looked at here: it stays in evaluation mode, and none of its weights and statistics change.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from course_utils.measure import in_mode

Batches = Iterable  # of pairs (images, labels); a list, so that it can be read more than once


def samples(model: nn.Module, batches: Batches, labelled: bool = False) -> Iterator:
    """The batches, one by one; refuses what no criterion can learn from."""
    shape, seen = first_shape(model), 0
    for number, batch in enumerate(batches):
        x, y = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, None)
        if not isinstance(x, Tensor) or (labelled and (not isinstance(y, Tensor) or len(y) != len(x))):
            raise ValueError(f"a calibration batch is a pair (images, one label for each), not {kind(batch)}")
        if shape and (x.ndim != 4 or x.shape[1] != shape[0]):
            raise ValueError(f"calibration images are {tuple(x.shape)}, but the first layer reads {shape[0]} channels")
        if not x.isfinite().all():
            raise ValueError(f"calibration batch {number} holds NaN or infinite values: look at the images")
        if len(x):
            seen += 1
            yield x, y
    if not seen:
        raise ValueError("no calibration batches with images; a generator gives them once: pass list(batches(…))")


def first_shape(model: nn.Module) -> tuple[int, ...]:
    """(channels,) that the first convolution reads; () for networks that begin with something else."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    return (first.in_channels,) if isinstance(first, nn.Conv2d) else ()


def kind(batch: object) -> str:
    """What somebody has passed instead of a pair, in words."""
    parts = batch if isinstance(batch, tuple | list) else [batch]
    words = [f"{type(p).__name__} {tuple(p.shape)}" if isinstance(p, Tensor) else type(p).__name__ for p in parts]
    return " and ".join(words) or "nothing"


@contextmanager
def watching(model: nn.Module, layers: Iterable[str], see: Callable) -> Generator[None]:
    """Inside the block, call see(name, input, output) for each of these layers whenever the model runs."""

    def hook(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        see(name, inputs[0], output)

    handles = [model.get_submodule(name).register_forward_hook(partial(hook, name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def looking(model: nn.Module) -> Generator[None]:
    """Evaluation mode with gradients, inside the block; afterwards mode, gradients and flags are as they were."""
    flags = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        with in_mode(model, training=False), torch.enable_grad():
            yield
    finally:
        for parameter, flag, grad in flags:
            parameter.requires_grad_(flag)
            parameter.grad = grad
