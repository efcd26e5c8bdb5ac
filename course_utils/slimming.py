"""Network Slimming (Liu et al. 2017): an L1 term on BatchNorm's scales turns channels down while the network trains.

`train` needs no change: hooks on the scales γ add the term's gradient, and only inside the `with` block.
"""

import copy
import math
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from course_utils.channels import Group, channels_in, indices, shrink, tensor_of
from course_utils.train import Recipe
from course_utils.units import Groups, readers, scales


def push(gamma: Tensor, strength: float, gradient: Tensor) -> Tensor:
    """∂loss/∂γ + strength · sign(γ): the gradient of loss + strength · Σ|γ|."""
    return gradient + strength * gamma.detach().sign()


@contextmanager
def thinning(model: nn.Module, groups: Groups, strength: float) -> Generator[None]:
    """Inside the block, every backward pass pushes the BatchNorm scales of these groups towards zero."""
    if not 0 <= strength < math.inf:
        raise ValueError(f"the strength of the L1 term is a number from 0 upwards, not {strength!r}")
    handles = []
    try:
        for gamma in gammas(model, groups).values():
            handles.append(gamma.register_hook(partial(push, gamma, strength)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def gammas(model: nn.Module, groups: Groups) -> dict[str, Tensor]:
    """The BatchNorm scales γ that write the units of these groups."""
    without = [name for name, group in groups.items() if not scales(model, group)]
    if without or not groups:
        raise ValueError(
            f"no BatchNorm writes the units of {without or 'no group'}: there is no γ to push; leave them out"
        )
    return {name: tensor_of(model, name) for group in groups.values() for name in scales(model, group)}


def how_far(recipe: Recipe, images: int) -> float:
    """Σ lr / (1 - momentum): how far a steady gradient of 1 can move a parameter, with so many images per epoch."""
    steps = recipe.epochs * math.ceil(images / recipe.batch_size)
    rates = [recipe.lr * recipe.schedule((step + 1) / (steps + 1)) for step in range(steps)]
    return sum(rates) / (1 - recipe.momentum)


@torch.no_grad()
def fold(model: nn.Module, group: Group, gone: Tensor) -> nn.Module:
    """A smaller copy without the channels `gone`; the constant relu(β) that each said goes to the layers reading it.

    Exact where γ = 0 and the reader is unpadded: zeros around an image are not relu(β).
    """
    norms, count = scales(model, group), channels_in(model, group)
    if len(norms) != 1:
        raise ValueError(
            f"fold() takes units that one BatchNorm writes, not {len(norms)}: without BatchNorm, remove() them"
        )
    beta = tensor_of(model, bias_of(norms[0]))
    gone = indices(gone, count).to(beta.device)
    small = copy.deepcopy(model)
    for reader in readers(group):
        columns = tensor_of(model, reader)[:, gone]
        absorb(small, reader, columns.reshape(*columns.shape[:2], -1).sum(2) @ relu(beta[gone]))
    stays = torch.ones(count, dtype=torch.bool, device=gone.device).index_fill(0, gone, False)
    return shrink(small, group, stays.nonzero().flatten())


def absorb(model: nn.Module, reader: str, constant: Tensor) -> None:
    """`reader` will lack this constant: take it from the mean of the BatchNorm that follows, or add it to the bias."""
    mean, bias = mean_after(model, reader), tensor_of(model, bias_of(reader))
    if mean is not None:
        mean.sub_(constant)
    elif bias is not None:
        bias.add_(constant)
    else:
        raise ValueError(f"{reader} has neither a BatchNorm after it nor a bias: the constant has nowhere to go")


def mean_after(model: nn.Module, layer: str) -> Tensor | None:
    """The running mean of the BatchNorm after `layer`: in a group, it stands behind the layer's weight."""
    for group in getattr(model, "groups", dict)().values():
        if group.get(layer) == 0:
            names = list(group)
            means = [n for n in names[names.index(layer) :] if n.endswith("running_mean")]
            return tensor_of(model, means[0]) if means else None
    return None


def bias_of(weight: str) -> str:
    """The name of the bias that belongs to a weight."""
    return weight.removesuffix("weight") + "bias"
