"""Sparse layers against dense ones: milliseconds forward and backward, and from which sparsity on they pay."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_utils.measure import latency
from course_utils.scopes import keep_top
from course_utils.sparse import to_sparse


class Backward(nn.Module):
    """A layer whose forward pass is the backward pass of another layer, so that it can be timed alone."""

    def __init__(self, layer: nn.Module, x: Tensor):
        super().__init__()
        self.needed = (x.clone().requires_grad_(), *layer.parameters())
        self.y = layer(self.needed[0])

    def forward(self, grad: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.y, self.needed, grad, retain_graph=True)


def square_layer(width: int, sparsity: float, block: int = 1, seed: int = 0) -> nn.Linear:
    """A linear layer with random weights, of which whole blocks are zero."""
    if width % block:
        raise ValueError(f"blocks of {block} do not divide a layer of width {width}")
    random = torch.Generator().manual_seed(seed)
    mask = keep_top(torch.rand(width // block, width // block, generator=random), sparsity)
    mask = mask.repeat_interleave(block, 0).repeat_interleave(block, 1)
    layer = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(width, width, generator=random) * mask)
    return layer


def race(width: int, sparsity: float, blocks: dict[str, int], repeats: int, seed: int = 0) -> dict[str, float]:
    """Milliseconds of a dense layer and of each sparse kind, forward and backward, and how many times as fast it is."""
    random = torch.Generator().manual_seed(seed)
    x, grad = (torch.randn(64, width, generator=random) for _ in range(2))
    layers: dict[str, nn.Module] = {"dense": square_layer(width, sparsity, seed=seed)}
    layers |= {kind: to_sparse(square_layer(width, sparsity, block, seed), block) for kind, block in blocks.items()}
    forward = latency(layers, x, repeats)
    backward = latency({kind: Backward(layer, x) for kind, layer in layers.items()}, grad, repeats)
    found = {}
    for direction, times in {"forward": forward, "backward": backward}.items():
        found |= {f"{kind}, {direction}, ms": times[kind].median for kind in layers}
        found |= {f"{kind}, {direction}": times["dense"].median / times[kind].median for kind in blocks}
    return found


def break_even(sparsities: Sequence[float], ratios: Sequence[float]) -> str:
    """From which sparsity on all ratios are at least 1; between two measured ones by a straight line."""
    slow = [i for i, ratio in enumerate(ratios) if ratio < 1]
    if not slow:
        return f"{sparsities[0]:.0%} or less"
    last = slow[-1]
    if last == len(ratios) - 1:
        return f"none up to {sparsities[last]:.0%}"
    part = (1 - ratios[last]) / (ratios[last + 1] - ratios[last])
    return f"{sparsities[last] + part * (sparsities[last + 1] - sparsities[last]):.0%}"
