"""Between a weight and a unit: pieces of a row that go together, and what they hold of a layer's Σw²."""

import torch
from torch import Tensor

from course_utils.budgets import shuffled
from course_utils.scopes import keep_top


def piece_mask(weight: Tensor, size: int, sparsity: float) -> Tensor:
    """Cut each row into about equal pieces of about `size` weights, and keep those with the largest mean of w²."""
    if size < 1:
        raise ValueError(f"a piece has at least one weight, not {size}")
    rows, length = weight.shape
    pieces = max(1, round(length / size))
    piece = torch.arange(length, device=weight.device) * pieces // length  # which piece each column belongs to
    sums = weight.new_zeros(rows, pieces).index_add_(1, piece, weight.square())
    return keep_top(sums / piece.bincount(), sparsity)[:, piece]


def shuffled_layer(weight: Tensor, seed: int) -> Tensor:
    """The same weights in other places: the control that knows how large weights are, and not where."""
    return shuffled({"layer": weight}, seed)["layer"]


def strongest_rows(weight: Tensor, energy: float) -> Tensor:
    """A mask of the fewest rows that hold at least the fraction `energy` of Σw²."""
    squares, order = weight.double().square().sum(1).sort(descending=True)
    count = int((squares.cumsum(0) < energy * squares.sum()).sum()) + 1
    mask = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
    mask[order[:count]] = True
    return mask[:, None].expand_as(weight)
