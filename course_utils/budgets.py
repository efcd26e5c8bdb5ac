"""Scopes that give every layer a budget of its own, by its shape or by how its scores fall off; and a control for them.

They have the form of every scope, scope(scores, sparsity) -> Masks: of n weights exactly round(sparsity · n) go.
"""

import torch
from torch import Tensor

from course_utils.masks import Masks
from course_utils.scopes import fraction, globally, keep_top
from course_utils.scores import Scores


def lamp(scores: Scores, sparsity: float) -> Masks:
    """LAMP (Lee et al. 2021): a global competition with s² / Σ(all s² of the layer that are not smaller)."""
    return globally({name: lamp_scores(s) for name, s in scores.items()}, sparsity)


def lamp_scores(s: Tensor) -> Tensor:
    """s² as a part of all that would still be there when it goes; the layer's largest gets 1 and goes last."""
    gone = s == -torch.inf
    if not (gone | (s >= 0)).all() or (s == torch.inf).any():
        raise ValueError(
            "LAMP squares scores from 0 upwards, without at_least(): it leaves every layer one weight itself"
        )
    squares = s.masked_fill(gone, 0).double().flatten().square()
    order = squares.argsort(stable=True)
    rest = squares[order].flip(0).cumsum(0).flip(0)
    share = torch.empty_like(squares)
    share[order] = squares[order] / rest.clamp_min(torch.finfo(torch.float64).tiny)
    return share.view_as(s).masked_fill(gone, -torch.inf)  # what is gone already stays so


def erk(scores: Scores, sparsity: float) -> Masks:
    """Erdős–Rényi-kernel (Evci et al. 2020): wide layers lose more; inside a layer the smallest scores go."""
    counts = erk_counts({name: s.shape for name, s in scores.items()}, sparsity)
    return {name: keep_top(s, 1 - counts[name] / s.numel()) for name, s in scores.items()}


def erk_counts(shapes: dict[str, torch.Size], sparsity: float) -> dict[str, int]:
    """How many weights each layer keeps: in proportion to Σ(axis lengths), and never more than it has."""
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    kept = sum(sizes.values()) - round(fraction(sparsity) * sum(sizes.values()))
    wanted = {name: float(sum(shape)) for name, shape in shapes.items()}  # = size · Σ(axes) / Π(axes)
    full: set[str] = set()
    while True:
        left = kept - sum(sizes[name] for name in full)
        scale = left / max(sum(w for name, w in wanted.items() if name not in full), 1e-12)
        over = {name for name in sizes if name not in full and scale * wanted[name] > sizes[name]}
        if not over:
            break
        full |= over
    return whole({name: sizes[name] if name in full else scale * w for name, w in wanted.items()}, kept)


def whole(parts: dict[str, float], total: int) -> dict[str, int]:
    """Round the parts so that they add up to `total`: down, and the largest remainders up."""
    counts = {name: int(part) for name, part in parts.items()}
    by_remainder = sorted(parts, key=lambda name: counts[name] - parts[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def shuffled(masks: Masks, seed: int = 0) -> Masks:
    """The control that decides: every layer loses as many weights as in `masks`, but which ones is left to chance."""
    random = torch.Generator().manual_seed(seed)
    orders = {name: torch.randperm(mask.numel(), generator=random).to(mask.device) for name, mask in masks.items()}
    return {name: mask.flatten()[orders[name]].view_as(mask) for name, mask in masks.items()}
