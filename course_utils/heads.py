"""Attention packs its heads: rows of `qkv` are (q, k, v) × heads × dimensions, columns of `proj` heads × dimensions.

So a head, and a dimension of all heads, are groups whose channels lie at several places of one axis.
"""

from typing import Any

import torch
from torch import Tensor, nn


def places(attention: Any) -> Tensor:
    """What stands where in the rows of `qkv`: place[part, head, dimension], part 0, 1, 2 being q, k, v."""
    rows = attention.qkv.out_features
    return torch.arange(rows).view(3, attention.num_heads, -1)


def left_over(attention: Any, kept: Tensor) -> tuple[int, int]:
    """(heads, dimensions of each) when only the rows `kept` of qkv stay; every head must keep equally many."""
    alive = kept.cpu().view(3, attention.num_heads, -1)
    counts = alive.sum(2)[:, alive.any(0).any(1)]
    if counts.numel() == 0 or (counts != counts[0, 0]).any():
        raise ValueError(
            f"the heads of an attention keep equally many dimensions each, and at least one, not {counts.tolist()}"
        )
    return counts.shape[1], int(counts[0, 0])


@torch.no_grad()
def refit(attention: Any, heads: int, dimensions: int) -> None:
    """Tell an attention, whose tensors are cut already, its new sizes; its logits q·k/√d stay what they were.

    A shorter head is divided by a smaller √d. So that this changes nothing, q is multiplied by √(new d / old d).
    """
    before = attention.scale**-2
    if dimensions != round(before) and not isinstance(getattr(attention, "q_norm", nn.Identity()), nn.Identity):
        raise ValueError("an attention that normalises q cannot lose dimensions of its heads: take whole heads")
    for tensor in (attention.qkv.weight, attention.qkv.bias):
        if tensor is not None:
            tensor[: heads * dimensions] *= (dimensions / before) ** 0.5
    attention.num_heads, attention.scale = heads, dimensions**-0.5
    for name, value in {"head_dim": dimensions, "dim_head": dimensions, "attn_dim": heads * dimensions}.items():
        if hasattr(attention, name):
            setattr(attention, name, value)
