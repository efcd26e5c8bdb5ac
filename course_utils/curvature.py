"""How the loss bends around a trained network: weight q costs about ½ F_qq w_q² (OBD), or w_q² / (2 [F⁻¹]_qq) (OBS).

F, the empirical Fisher, is the mean over images of g gᵀ, where g is the gradient of *one* image's loss. OBD keeps all
other weights where they are; OBS lets those of the same block move and make up for the one that goes.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from course_utils.calibration import Batches
from course_utils.gradients import per_image
from course_utils.masks import Masks, fitting, prunable
from course_utils.scores import Scores

Blocks = dict[str, Tensor]  # for each weight (blocks, block, block): one square for every `block` neighbours in it
PIECE = 1 << 22  # so many numbers are worked on at once


def fisher(model: nn.Module, batches: Batches) -> Scores:
    """F_qq, the mean of g_q² over the images: square each image's gradient first, average after."""
    found = {name: torch.zeros_like(w.detach()).flatten(1) for name, w in prunable(model).items()}

    def add(name: str, d: Tensor, x: Tensor) -> None:
        for flowing, read in zip(d, x, strict=True):  # image by image: one gradient at a time
            g = (flowing @ read.mT).flatten(0, 1)
            found[name].addcmul_(g, g)

    count = per_image(model, batches, add)
    return {name: (found[name] / count).view_as(w) for name, w in prunable(model).items()}


def obd(model: nn.Module, batches: Batches) -> Scores:
    """½ F_qq w_q²: the loss when w_q becomes zero and nothing else moves (Optimal Brain Damage)."""
    curvature = fisher(model, batches)
    return {name: curvature[name] * w.detach().square() / 2 for name, w in prunable(model).items()}


def obs(model: nn.Module, batches: Batches, damping: float = 1e-4, block: int = 50) -> Scores:
    """w_q² / (2 [F⁻¹]_qq): the loss when w_q becomes zero and its block makes up for it (Optimal Brain Surgeon)."""
    return surgeon(model, inverse_fisher(model, batches, damping, block))


def surgeon(model: nn.Module, inverse: Blocks) -> Scores:
    """The scores of `obs`, from an inverse that you have already."""
    found = {}
    for name, w in prunable(model).items():
        diagonal = squares(inverse, name, w).diagonal(dim1=1, dim2=2).flatten()[: w.numel()]
        found[name] = w.detach().square() / (2 * diagonal.view_as(w))
    return found


def inverse_fisher(model: nn.Module, batches: Batches, damping: float, block: int) -> Blocks:
    """(F + damping · I)⁻¹ in blocks of neighbouring weights of one layer; the last block is filled up with zeros."""
    if not damping > 0 or block < 1:
        raise ValueError(f"damping {damping}, block {block}: F of few images has no inverse of its own; try 1e-4, 50")
    sums = {n: w.new_zeros(-(-w.numel() // block), block, block) for n, w in prunable(model).items()}

    def add(name: str, d: Tensor, x: Tensor) -> None:
        step = max(1, PIECE // sums[name].shape[0] // block)
        for flowing, read in zip(d.split(step), x.split(step), strict=True):
            g = in_blocks((flowing @ read.mT).flatten(1), block).movedim(1, 0)  # blocks × images × block
            sums[name].baddbmm_(g.mT, g)

    count = per_image(model, batches, add)
    return {name: inverted(total, count, damping) for name, total in sums.items()}


def inverted(total: Tensor, count: int, damping: float) -> Tensor:
    """(total / count + damping · I)⁻¹, square by square, in double precision."""
    eye = damping * torch.eye(total.shape[-1], dtype=torch.double, device=total.device)
    pieces = total.split(max(1, PIECE // total[0].numel()))
    return torch.cat([torch.linalg.inv(piece.double() / count + eye).to(total.dtype) for piece in pieces])


def squares(inverse: Blocks, name: str, weight: Tensor) -> Tensor:
    """The squares that belong to one weight; refuses those of another network."""
    found = inverse.get(name)
    if found is None or len(found) != -(-weight.numel() // found.shape[-1]):
        raise ValueError(f"this inverse belongs to another network: {name} with {weight.numel()} weights does not fit")
    return found


def in_blocks(rows: Tensor, block: int) -> Tensor:
    """(…, n) cut into (…, blocks, block), with zeros (or False) after the end."""
    return pad(rows, (0, -rows.shape[-1] % block)).unflatten(-1, (-1, block))


@torch.no_grad()
def compensate(model: nn.Module, masks: Masks, inverse: Blocks) -> None:
    """δ = −F⁻¹[:, Q] (F⁻¹[Q, Q])⁻¹ w_Q: remove all weights Q of a block at once, and move the others; in place."""
    for name, weight in fitting(model, masks).items():
        square = squares(inverse, name, weight)
        block = square.shape[-1]
        w, gone = in_blocks(weight.flatten(), block), in_blocks(~masks[name].to(weight.device).flatten(), block)
        eye = torch.eye(block, dtype=weight.dtype, device=weight.device)
        both = gone[:, :, None] & gone[:, None, :]
        push = torch.linalg.solve(torch.where(both, square, eye), w * gone)  # zero for weights that stay
        moved = w - (square @ push[..., None])[..., 0]
        weight.copy_(moved.masked_fill(gone, 0).flatten()[: weight.numel()].view_as(weight))
