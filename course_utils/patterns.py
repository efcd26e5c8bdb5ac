"""N:M patterns: of every M neighbouring inputs of a row, N weights stay. Some hardware can use 2:4."""

import torch

from course_utils.masks import Masks
from course_utils.scores import Scores


def n_of_m(scores: Scores, keep: int, of: int) -> Masks:
    """Of every `of` consecutive input weights, the `keep` with the largest scores stay."""
    if not 0 <= keep <= of:
        raise ValueError(f"of {of} weights at least 0 and at most {of} can stay, not {keep}")
    masks = {}
    for name, s in scores.items():
        if s.ndim < 2 or s.shape[1] % of:
            raise ValueError(f"{name} has the shape {tuple(s.shape)}: its inputs, axis 1, are no multiple of {of}")
        blocks = s.movedim(1, -1).unflatten(-1, (-1, of))
        kept = torch.zeros_like(blocks, dtype=torch.bool).scatter_(-1, blocks.topk(keep).indices, True)
        masks[name] = kept.flatten(-2).movedim(-1, 1)
    return masks


def packed_bytes(numbers: int, keep: int, of: int, bytes_each: int = 2) -> tuple[int, int]:
    """(bytes of the values that stay, bytes of their places): a place among `of` takes log₂(of) bits, rounded up."""
    stay = numbers // of * keep
    return stay * bytes_each, stay * (of - 1).bit_length() // 8
