"""What is really gone: a weight also counts as gone if nothing can reach it, or if nobody listens to what it writes.

For layers without biases that follow each other, as a list of matrices (row: output, column: input).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


def connected(weights: list[Tensor]) -> list[Tensor]:
    """w ≠ 0 ∧ fed ∧ heard: the weights on some path of kept weights from the network's input to its output."""
    kept = [weight != 0 for weight in chained(weights)]
    fed = [torch.ones_like(kept[0][0])]  # is there a path from the input to this unit?
    for mask in kept:
        fed.append((mask & fed[-1]).any(1))
    heard = [torch.ones_like(kept[-1][:, 0])]  # is there a path from this unit to the output?
    for mask in reversed(kept):
        heard.append((mask & heard[-1][:, None]).any(0))
    after = reversed(heard[:-1])
    return [mask & f & h[:, None] for mask, f, h in zip(kept, fed[:-1], after, strict=True)]


def really_gone(weights: list[Tensor]) -> float:
    """1 - connected / all: the fraction of the weights that no input can use to change any output."""
    return 1 - sum(int(mask.sum()) for mask in connected(weights)) / sum(weight.numel() for weight in weights)


def linear_weights(model: nn.Module) -> list[Tensor]:
    """The matrices of a network of linear layers without biases, in the order in which they were defined."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    others = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm)]
    if others or any(layer.bias is not None for layer in layers):
        what = type(others[0]).__name__ if others else "a bias"
        raise ValueError(f"only for linear layers without biases, and {type(model).__name__} has {what}")
    return [layer.weight.detach() for layer in layers]


def chained(weights: list[Tensor]) -> list[Tensor]:
    """The matrices, if each reads as many units as the one before it writes."""
    shapes = [tuple(weight.shape) for weight in weights]
    if not shapes or any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"these are no matrices that follow each other: {shapes}")
    if any(one[0] != other[1] for one, other in pairwise(shapes)):
        raise ValueError(f"a layer has to read what the one before it writes: {shapes} do not follow each other")
    return weights
