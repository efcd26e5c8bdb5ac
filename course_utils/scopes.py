"""A scope decides which weights compete with which: scope(scores, sparsity) -> Masks.

It counts and does not threshold: of n competitors exactly round(sparsity · n) go, the smallest ones, also under ties.
"""

from numbers import Real

import numpy as np
import torch
from torch import Tensor

from course_utils.masks import Masks
from course_utils.scores import Scores


def keep_top(scores: Tensor, sparsity: float) -> Tensor:
    """A mask that removes exactly round(sparsity · n) of the n scores, the smallest ones; among equals the first."""
    flat = scores.detach().flatten()
    gone = round(fraction(sparsity) * len(flat))
    cut = smallest(flat, gone)
    if cut == torch.inf:
        raise ValueError(f"sparsity {sparsity} would take what at_least() protects: lower the sparsity or the floor")
    mask = flat > cut
    below = int((flat < cut).sum())
    equal = (flat == cut).nonzero().flatten()
    mask[equal[gone - below :]] = True  # of the ties at the cut, the first ones go
    return mask.view_as(scores)


def smallest(flat: Tensor, k: int) -> float:
    """The k-th smallest score: one selection, no sorting."""
    if len(flat) == 0:
        raise ValueError("there are no scores to choose from")
    if flat.max().isnan():
        raise ValueError("some scores are NaN: a criterion has to give every weight a number")
    if k == 0:
        return -torch.inf
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        return np.partition(flat.numpy(), k - 1)[k - 1].item()
    return flat.sort().values[k - 1].item()


def fraction(sparsity: float) -> float:
    """`sparsity`, if it is a fraction from 0 to 1."""
    if not isinstance(sparsity, Real) or not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity is the fraction to remove, a number from 0 to 1, not {sparsity!r}")
    return sparsity


def layerwise(scores: Scores, sparsity: float) -> Masks:
    """Each layer loses the same fraction of its weights."""
    return {name: keep_top(s, sparsity) for name, s in scores.items()}


def globally(scores: Scores, sparsity: float) -> Masks:
    """All weights of the network compete with each other."""
    if not scores:
        raise ValueError("there are no scores to choose from")
    mask = keep_top(torch.cat([s.flatten() for s in scores.values()]), sparsity)
    pieces = mask.split([s.numel() for s in scores.values()])
    return {name: piece.view_as(s) for (name, s), piece in zip(scores.items(), pieces, strict=True)}


def rowwise(scores: Scores, sparsity: float) -> Masks:
    """Each row of each layer, that is each output, loses the same fraction of its weights: Wanda's scope."""
    for name, s in scores.items():
        if s.ndim < 2:
            raise ValueError(f"the scores of {name} have no rows, their shape is {tuple(s.shape)}: take layerwise")
    return {name: torch.stack([keep_top(row, sparsity) for row in s]) for name, s in scores.items()}


def restrict(scores: Scores, masks: Masks) -> Scores:
    """Scores in which the weights already removed come first in line, so that they stay removed."""
    strange = [n for n, m in masks.items() if n not in scores or scores[n].shape != m.shape]
    if strange:
        raise ValueError(f"these masks belong to another network: {strange[0]} does not fit the scores")
    gone = {name: ~mask.to(scores[name].device) for name, mask in masks.items()}
    return {name: s.masked_fill(gone[name], -torch.inf) if name in gone else s for name, s in scores.items()}


def spare(scores: Scores, *names: str) -> Scores:
    """Scores without the tensors `names`: these do not compete, and nothing is removed from them."""
    absent = [name for name in names if name not in scores]
    if absent:
        raise ValueError(f"there is no weight called {absent[0]!r} to spare: choose from {', '.join(scores)}")
    return {name: s for name, s in scores.items() if name not in names}


def at_least(scores: Scores, count: int) -> Scores:
    """Scores in which the best `count` of each layer are out of reach, so that no layer loses them."""
    for name, s in scores.items():
        if not 0 <= count <= s.numel():
            raise ValueError(f"a floor of {count} does not fit {name}, which has {s.numel()}")
    best = {name: s.flatten().topk(count).indices for name, s in scores.items()}
    safe = {n: s.flatten().index_fill(0, best[n], torch.inf).view_as(s) for n, s in scores.items()}
    return {n: torch.where(s > -torch.inf, safe[n], s) for n, s in scores.items()}  # what is gone stays gone


def rounded(masks: Masks, scores: Scores, multiple: int) -> Masks:
    """Masks that keep the nearest multiple of units, at least one multiple and the best ones: processors like 8s."""
    if multiple < 1:
        raise ValueError(f"channels are rounded to a multiple of 1, 2, 4, 8, …, not of {multiple}")
    found = {}
    for name, mask in masks.items():
        wanted = max(1, round(int(mask.sum()) / multiple)) * multiple
        most = int((scores[name] > -torch.inf).sum())  # what is gone stays gone
        found[name] = keep_top(scores[name], 1 - min(wanted, most) / mask.numel())
    return found
