"""Weights removed, and the others of their row moved so that the layer's outputs change least: OBC and SparseGPT.

A layer is a matrix W, a row for each output, and all rows share H = 2 X'X / rows of what the layer reads. To remove
w_q and to move the rest of its row in the best way costs w_q² / (2 [H⁻¹]_qq): optimal brain surgery, layer by layer.
"""

import torch
from torch import Tensor, nn

from course_utils.calibration import Batches
from course_utils.masks import Masks, fitting, prunable
from course_utils.readings import moments
from course_utils.scopes import fraction, keep_top
from course_utils.scores import Scores


def hessians(model: nn.Module, batches: Batches, places: int = 50) -> dict[str, Tensor]:
    """{weight: H}: 2 X'X / rows of what each prunable layer reads."""
    layers = [name.removesuffix(".weight") for name in prunable(model)]
    return {f"{layer}.weight": 2 * m for layer, m in moments(model, layers, batches, places).items()}


def inverse(h: Tensor, damping: float = 0.01) -> Tensor:
    """(H + damping · mean diagonal)⁻¹; an input that was always zero gets a 1 on the diagonal."""
    diagonal = h.diagonal()
    damped = h + torch.diag((diagonal == 0).to(h) + damping * diagonal.mean())
    factor, failed = torch.linalg.cholesky_ex(damped)
    pivots = factor.diagonal()
    if failed or damping < 0 or not pivots.min() > 1e-7 * pivots.max():
        raise ValueError(f"H has no inverse at damping {damping}: take a damping such as 0.01, or more images")
    return torch.cholesky_inverse(factor)


def alive(w: Tensor, h: Tensor) -> Tensor:
    """W as a matrix in float64, with zeros where the input was always zero."""
    return w.detach().double().flatten(1).masked_fill(h.diagonal() == 0, 0)


def layer_obs(model: nn.Module, batches: Batches, damping: float = 0.01) -> Scores:
    """w² / (2 [H⁻¹]_qq): what the layer's outputs lose if w goes and its row is moved in the best way."""
    found, weights = hessians(model, batches), prunable(model)
    costs = {n: alive(weights[n], h).square() / (2 * inverse(h, damping).diagonal()) for n, h in found.items()}
    return {name: cost.view_as(weights[name]) for name, cost in costs.items()}


def obc_row(w: Tensor, inverse: Tensor, count: int) -> tuple[Tensor, list[int], list[float]]:
    """The `count` cheapest removals of one row, each followed by the best move of the rest: (row, order, costs)."""
    w, inverse = w.clone(), inverse.clone()
    gone = torch.zeros_like(w, dtype=torch.bool)
    order, costs = [], []
    for _ in range(count):
        cost = (w.square() / (2 * inverse.diagonal())).masked_fill(gone, torch.inf)
        p = int(cost.argmin())
        column, pivot = inverse[:, p].clone(), inverse[p, p].clone()
        w, gone[p] = w - w[p] / pivot * column, True
        inverse -= column[:, None] * column / pivot  # now the inverse of H without row and column p
        w[gone] = 0
        order, costs = [*order, p], [*costs, float(cost[p])]
    return w, order, costs


def obc(w: Tensor, h: Tensor, sparsity: float, damping: float = 0.01) -> Tensor:
    """W after round(sparsity · n) removals, the cheapest next one of all rows each time; every row costs d³."""
    if len(h) > 600:
        raise ValueError(f"OBC costs rows · {len(h)}³ here: too slow over 600 columns, take sparsegpt")
    rows, inverted = alive(w, h), inverse(h, damping)
    costs = torch.tensor([obc_row(row, inverted, len(h))[2] for row in rows], dtype=torch.float64)
    heads = costs.cummax(1).values  # a removal has to wait for those before it in its row
    counts = (~keep_top(heads, sparsity)).sum(1).tolist()
    return torch.stack([obc_row(row, inverted, k)[0] for row, k in zip(rows, counts, strict=True)]).view_as(w)


def sparsegpt(
    w: Tensor, h: Tensor, sparsity: float = 0.0, mask: Tensor | None = None, damping: float = 0.01, block: int = 128
) -> tuple[Tensor, Tensor]:
    """(W, mask): columns go from left to right, and only those to the right of a removed weight make up for it."""
    rows = alive(w, h) if mask is None else w.detach().double().flatten(1).clone()
    factor = torch.linalg.cholesky(inverse(h, damping), upper=True)
    keep = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask.flatten(1).to(rows.device)
    for j in range(rows.shape[1]):
        if mask is None and j % block == 0:
            part = slice(j, min(j + block, rows.shape[1]))
            cost = (rows[:, part] / factor.diagonal()[part]).square()
            gone = round(fraction(sparsity) * len(rows) * part.stop) - round(sparsity * len(rows) * j)
            keep[:, part] = keep_top(cost, gone / cost.numel())
        miss = rows[:, j].masked_fill(keep[:, j], 0) / factor[j, j]
        rows[:, j:] -= miss[:, None] * factor[j, j:]
        rows[:, j].masked_fill_(~keep[:, j], 0)
    return rows.view_as(w), keep.view_as(w)


def sparsegpt_masks(model: nn.Module, sparsity: float, batches: Batches, damping: float = 0.01) -> Masks:
    """The masks that SparseGPT chooses, block of columns by block of columns, in every layer the same fraction."""
    weights = prunable(model)
    return {n: sparsegpt(weights[n], h, sparsity, None, damping)[1] for n, h in hessians(model, batches).items()}


@torch.no_grad()
def mend(model: nn.Module, masks: Masks, batches: Batches, damping: float = 0.01) -> None:
    """Remove the weights that `masks` removes, and let the sweep move the others, in place; H is of dense inputs."""
    weights, found = fitting(model, masks), hessians(model, batches)
    for name, weight in weights.items():
        weight.copy_(sparsegpt(weight, found[name], mask=masks[name], damping=damping)[0])
