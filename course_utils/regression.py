"""Units chosen, and their readers fitted anew, so that the next layers hear what they heard before.

A unit's contribution Z_c is what it adds to the outputs of the layers that read it: y = Σ_c Z_c. All that the criteria
need is G = Z'Z / rows; the regression's right side, Z'y / rows, is the sum of G's columns.
"""

import math
import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path_gram
from torch import Tensor, nn

from course_utils.calibration import Batches
from course_utils.channels import Group, tensor_of
from course_utils.masks import Masks
from course_utils.readings import moments, tables
from course_utils.scores import Scores
from course_utils.units import Groups, mute, readers, remove


def listeners(group: Group) -> list[str]:
    """The layers that read the units of a group."""
    return [name.removesuffix(".weight") for name in readers(group)]


def products(weight: Tensor, moment: Tensor) -> Tensor:
    """G of one layer: G_cd = Σ (X'X / rows) · (W'W) over the k·k columns of unit c and those of unit d."""
    w = weight.detach().double().flatten(1)
    return (moment * (w.T @ w)).unflatten(1, (weight.shape[1], -1)).unflatten(0, (weight.shape[1], -1)).sum((1, 3))


def contributions(model: nn.Module, groups: Groups, batches: Batches) -> dict[str, Tensor]:
    """{group: G}, summed over the layers that read the group."""
    layers = [layer for group in groups.values() for layer in listeners(group)]
    each = {n: products(tensor_of(model, f"{n}.weight"), m) for n, m in moments(model, layers, batches).items()}
    return {name: torch.stack([each[layer] for layer in listeners(group)]).sum(0) for name, group in groups.items()}


def lasso_path(gram: Tensor) -> tuple[Tensor, Tensor]:
    """(λ, β): the bends of argmin ‖y − Zβ‖² / 2 rows + λ ‖β‖₁, from β = 0 to λ = 0; a column of β for each λ."""
    unit = gram.diagonal().max().clamp_min(1e-300).item()  # LARS stops at a fixed λ: first bring all to one scale
    g = gram.cpu().double().numpy() / unit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of two equal units one never enters: as it should be
        bends, _, betas = lars_path_gram(g.sum(1), g, n_samples=1, method="lasso", max_iter=20 * len(g))
    return torch.from_numpy(bends) * unit, torch.from_numpy(betas)


def entries(gram: Tensor) -> Tensor:
    """λ / λ_max at which each unit enters the LASSO's path for good; 0 for one that never does."""
    bends, betas = lasso_path(gram)
    steps = torch.arange(len(bends))
    last = torch.where(betas == 0, steps, 0).amax(1)  # the last bend at which a unit is still out
    return torch.where(last < steps[-1], bends[last] / bends[0], 0.0)


def lasso(model: nn.Module, groups: Groups, batches: Batches) -> Scores:
    """λ / λ_max: how early a unit enters the regression of its readers' outputs on the units' contributions."""
    return {name: entries(gram).to(gram.device) for name, gram in contributions(model, groups, batches).items()}


def removals(gram: Tensor) -> tuple[list[int], list[float]]:
    """ThiNet: the unit goes whose going keeps ‖Σ_gone Z‖² smallest, again and again; (order, error / ‖y‖²)."""
    cross = torch.zeros_like(gram[0])  # Z'(Σ_gone Z): one row of G more at each step
    gone = torch.zeros_like(cross, dtype=torch.bool)
    order, errors, error = [], [], 0.0
    for _ in range(len(gram)):
        rise = (2 * cross + gram.diagonal()).masked_fill(gone, torch.inf)
        unit = int(rise.argmin())
        error += float(rise[unit])
        cross, gone[unit] = cross + gram[unit], True
        order, errors = [*order, unit], [*errors, error / max(float(gram.sum()), 1e-300)]
    return order, errors


def rising(order: list[int], errors: list[float]) -> Tensor:
    """A score for each unit: its error, or just above the score before it, so that scores rise along the order."""
    found, level = torch.zeros(len(order), dtype=torch.float64), 0.0
    for unit, error in zip(order, errors, strict=True):
        level = max(error, math.nextafter(level, math.inf))
        found[unit] = level
    return found


def thinet(model: nn.Module, groups: Groups, batches: Batches) -> Scores:
    """‖Σ_gone Z‖² / ‖y‖² when the greedy removal arrives at a unit."""
    grams = contributions(model, groups, batches)
    return {name: rising(*removals(gram)).to(gram.device) for name, gram in grams.items()}


def least_squares(x: Tensor, y: Tensor, w: Tensor, ridge: float = 0.0) -> Tensor:
    """argmin ‖Y − X W'‖², and of several the one nearest to `w`; a ridge (of X'X's mean diagonal) pulls it there."""
    if not ridge >= 0:
        raise ValueError(f"a ridge is a number from 0 upwards, not {ridge!r}")
    if len(x) < x.shape[1] and not ridge > 0:
        raise ValueError(f"{len(x)} rows cannot fit {x.shape[1]} columns: take more images, more places or a ridge > 0")
    gram = x.T @ x
    gram = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    return w + (torch.linalg.pinv(gram, hermitian=True) @ (x.T @ (y - x @ w.T))).T


@torch.no_grad()
def reconstruct(model: nn.Module, groups: Groups, masks: Masks, batches: Batches, ridge: float = 0.0) -> nn.Module:
    """A smaller copy, its readers fitted anew, groups in network order: the pruned inputs, the original's outputs."""
    cut = {name: group for name, group in groups.items() if name in masks}
    targets = tables(model, [layer for group in cut.values() for layer in listeners(group)], batches)
    silent = mute(model, groups, masks)
    for name, group in cut.items():
        for layer, (x, _) in tables(silent, listeners(group), batches).items():
            weight = tensor_of(silent, f"{layer}.weight")
            w, keep = weight.double().flatten(1), masks[name].repeat_interleave(weight[0, 0].numel())
            w[:, keep] = least_squares(x[:, keep], targets[layer][1], w[:, keep], ridge)
            weight.copy_(w.view_as(weight))
    return remove(silent, groups, masks)
