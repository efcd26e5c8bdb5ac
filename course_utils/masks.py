"""A mask says, for each weight of a network, whether it stays: {"conv1.weight": tensor([True, False, …]), …}.

Parameter names are the keys, True keeps, and `sparsity` is always the fraction removed.
"""

import torch
from torch import Tensor, nn

Masks = dict[str, Tensor]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of every convolution and linear layer; biases and normalisation layers stay as they are."""
    layers = (nn.modules.conv._ConvNd, nn.Linear)
    found = {f"{name}.weight".lstrip("."): m.weight for name, m in model.named_modules() if isinstance(m, layers)}
    if not found:
        raise ValueError(f"{type(model).__name__} has no convolution and no linear layer: there is nothing to prune")
    return found


def keep_all(model: nn.Module) -> Masks:
    """Masks that remove nothing."""
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """w ← w · mask: set the removed weights of `model` to zero, in place."""
    for name, weight in fitting(model, masks).items():
        weight.masked_fill_(~masks[name].to(weight.device), 0)


def fitting(model: nn.Module, masks: Masks) -> dict[str, nn.Parameter]:
    """The weights that `masks` speaks of; refuses masks that were made for another network."""
    weights = prunable(model)
    for name, mask in masks.items():
        shape = tuple(weights[name].shape) if name in weights else "absent"
        if shape != tuple(mask.shape):
            raise ValueError(f"these masks belong to another network: {name} is {shape}, its mask {tuple(mask.shape)}")
    return {name: weights[name] for name in masks}


def sparsity_of(masks: Masks) -> float:
    """The fraction of the weights that `masks` removes."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / total
