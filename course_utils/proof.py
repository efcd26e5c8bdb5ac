"""A proof by numbers that groups fit a network: erasing random channels of all of them equals removing these channels.

It is tried on a copy in float64 in which all parameters and statistics are random, since a γ of 0 would hide mistakes.
"""

import copy

import torch
from torch import Tensor, nn

from course_utils.channels import Groups, channels_in
from course_utils.masks import Masks
from course_utils.scopes import keep_top
from course_utils.units import mute, remove

ENOUGH = 1e-9  # of the largest output


def proven(model: nn.Module, groups: Groups, example: Tensor, seed: int = 0) -> Groups:
    """The groups, if erasing equals removing for all of them at once; else a sentence about one that differs."""
    if wrong := unfit(scrambled(model, seed), groups, noise(example, seed), seed):
        raise ValueError(
            f"{wrong[0]} does not name all tensors of its channels: erasing them differs from removing them"
        )
    return groups


def unfit(model: nn.Module, groups: Groups, x: Tensor, seed: int) -> list[str]:
    """The groups for which erasing differs from removing, found by halving."""
    if not groups or fit(model, groups, x, seed):
        return []
    names = list(groups)
    half = len(names) // 2
    halves = [{n: groups[n] for n in part} for part in (names[:half], names[half:]) if part]
    return (unfit(model, halves[0], x, seed) + unfit(model, halves[1], x, seed) if half else []) or names


@torch.no_grad()
def fit(model: nn.Module, groups: Groups, x: Tensor, seed: int) -> bool:
    """Does the network with silent channels say the same as the one without them?"""
    masks = chances(model, groups, seed)
    try:
        silent, small = mute(model, groups, masks)(x), remove(model, groups, masks)(x)
    except (RuntimeError, ValueError, IndexError):  # shapes that do not fit
        return False
    return bool((silent - small).abs().max() <= ENOUGH * silent.abs().max())  # False if one of them is NaN


def chances(model: nn.Module, groups: Groups, seed: int) -> Masks:
    """Random masks that take about a third of every group, and at least one channel where there are two."""
    random = torch.Generator().manual_seed(seed)
    counts = {name: channels_in(model, group) for name, group in groups.items()}
    return {
        n: keep_top(torch.rand(count, generator=random), (count + 2) // 3 / count if count > 1 else 0)
        for n, count in counts.items()
    }


def scrambled(model: nn.Module, seed: int) -> nn.Module:
    """A copy in float64 whose parameters and statistics are random, of a size that neither fades nor explodes."""
    random = torch.Generator().manual_seed(seed)
    new: dict[int, Tensor] = {id(p): nn.Parameter(filled(p, random)) for p in model.parameters()}
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            new[id(buffer)] = filled(buffer, random).abs() + 0.5 if name.endswith("var") else filled(buffer, random)
    return copy.deepcopy(model, new).cpu().double().eval()  # deepcopy takes the new tensors for its own copies


def filled(tensor: Tensor, random: torch.Generator) -> Tensor:
    """Random numbers of this shape, with the variance 1 / inputs."""
    wide = (3 / (tensor[0].numel() if tensor.ndim > 1 else 1)) ** 0.5
    return torch.empty(tensor.shape, dtype=torch.float64).uniform_(-wide, wide, generator=random)


def noise(example: Tensor, seed: int) -> Tensor:
    """Random numbers in the shape of the first example."""
    return torch.randn(example[:1].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
