"""The exercises of notebook 06: their solutions, and the mistakes that people make. Read this after you have tried."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_utils.exercises import Exercise


def draws(seed: int, *shape: int) -> Tensor:
    """Random numbers that do not average to zero, as after a ReLU, in float64."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_readers() -> list[tuple]:
    """(original inputs, pruned inputs, weights, keep): with 4, 1 and 2 numbers of each channel."""
    cases, shapes = [], [(80, 4, 4, 3, 2), (60, 6, 1, 4, 3), (90, 5, 2, 2, 4)]
    for seed, (rows, channels, size, outputs, kept) in enumerate(shapes):
        x = draws(seed, rows, channels, size)
        pruned = x + 0.5 * draws(seed + 10, rows, channels, size) * x.flip(1)
        keep = draws(seed + 20, channels).argsort() < kept
        cases.append((x, pruned, draws(seed + 30, outputs, channels, size) - 0.5, keep))
    return cases


def best(x: Tensor, y: Tensor) -> Tensor:
    """W of the least squares Y ≈ X W', one row for each output."""
    return torch.linalg.lstsq(x, y).solution.T


def heard(x: Tensor, w: Tensor) -> Tensor:
    """Y = X W', with channels and kernel positions in one row."""
    return x.flatten(1) @ w.flatten(1).T


def refit(x_original: Tensor, x_pruned: Tensor, w: Tensor, keep: Tensor) -> Tensor:
    """The weights of the kept channels that bring the pruned network's inputs nearest to the original outputs."""
    target = x_original.flatten(1) @ w.flatten(1).T
    columns = x_pruned[:, keep].flatten(1)
    fitted = torch.linalg.lstsq(columns, target).solution.T
    return fitted.unflatten(1, (-1, w.shape[2]))


def scaled(x: Tensor, pruned: Tensor, w: Tensor, keep: Tensor) -> Tensor:
    """The mistake β·W: one number for each channel, fitted to all outputs together."""
    parts = torch.einsum("nck,ock->noc", pruned, w)[:, :, keep].flatten(0, 1)
    beta = torch.linalg.lstsq(parts, heard(x, w).reshape(-1, 1)).solution
    return w[:, keep] * beta.view(1, -1, 1)


def shuffled(x: Tensor, pruned: Tensor, w: Tensor, keep: Tensor) -> Tensor:
    """The mistake of columns in the wrong order: the mask repeated as a whole instead of entry by entry."""
    columns = pruned.flatten(1)[:, keep.repeat(w.shape[2])]
    return best(columns, heard(x, w)).unflatten(1, (-1, w.shape[2]))


def shaped(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The least squares with one table of k·k weights for each channel."""
    return best(x.flatten(1), y).unflatten(1, (-1, w.shape[2]))


refitting = Exercise(
    task="Fit the weights of the kept channels: pruned inputs, original outputs. All channels hold k·k columns.",
    solution=refit,
    cases=some_readers,
    hints=(
        "What should the layer say? What it said in the original network: x_original and w make the target.",
        "What does it hear? The kept channels of the pruned network: x_pruned[:, keep].flatten(1), k·k columns each.",
        "torch.linalg.lstsq(columns, target).solution.T has a row for each output; cut each row into (kept, k·k).",
    ),
    mistakes={
        "You scale each old channel by one number, β·W. Every weight of a kept channel may move: fit them all.": scaled,
        "Your inputs are the original ones. The layer will hear the pruned network: take x_pruned.": (
            lambda x, pruned, w, keep: shaped(x[:, keep], heard(x, w), w)
        ),
        "You fit all channels, then drop some. The kept ones must know who is gone: drop before you fit.": (
            lambda x, pruned, w, keep: shaped(pruned, heard(x, w), w)[:, keep]
        ),
        "Your columns are mixed up: channel c owns k·k columns in a row, as x[:, keep].flatten(1) has them.": shuffled,
        "Your target is what the layer says in the pruned network. Aim at the original: x_original and w.": (
            lambda x, pruned, w, keep: shaped(pruned[:, keep], heard(pruned, w), w)
        ),
        "Your target is what the kept channels said. The target is what *all* channels said together.": (
            lambda x, pruned, w, keep: shaped(pruned[:, keep], heard(x[:, keep], w[:, keep]), w)
        ),
        "You return the old weights of the kept channels: nothing was fitted yet.": (
            lambda x, pruned, w, keep: w[:, keep]
        ),
        "The fit is right, its shape is not: a row for each output, then (kept channels, k·k).": (
            lambda x, pruned, w, keep: refit(x, pruned, w, keep).flatten(1)
        ),
    },
)


def some_contributions() -> list[tuple]:
    """(Z, count): contributions that differ in size and partly cancel each other."""
    cases = []
    for seed, (channels, count) in enumerate(((6, 4), (7, 5), (8, 5)), 900):
        random = torch.Generator().manual_seed(seed)
        noise = torch.randn(12, channels, generator=random, dtype=torch.float64)
        sizes = torch.rand(channels, generator=random, dtype=torch.float64) + 0.3
        means = 0.7 * torch.randn(channels, generator=random, dtype=torch.float64)
        cases.append((noise * sizes + means, count))
    return cases


def greedy(z: Tensor, count: int) -> list[int]:
    """ThiNet's removals: at each step the channel goes whose going keeps ‖Σ_gone z‖² smallest."""
    gone: list[int] = []
    s = torch.zeros_like(z[:, 0])
    for _ in range(count):
        cost = (s[:, None] + z).square().sum(0)
        cost[gone] = torch.inf
        gone.append(int(cost.argmin()))
        s = s + z[:, gone[-1]]
    return gone


def greedily(z: Tensor, count: int, cost: Callable, memory: Callable = lambda s, new: s + new) -> list[int]:
    """The same loop with another cost of (s, Z), or another memory of what went."""
    gone: list[int] = []
    s = torch.zeros_like(z[:, 0])
    for _ in range(count):
        gone.append(int(cost(s[:, None], z).index_fill(0, torch.tensor(gone, dtype=torch.long), torch.inf).argmin()))
        s = memory(s, z[:, gone[-1]])
    return gone


def squared(s: Tensor, z: Tensor) -> Tensor:
    """‖s + z‖² for each channel."""
    return (s + z).square().sum(0)


def forgetful(z: Tensor, count: int) -> list[int]:
    """The mistake of a loop that does not exclude what is gone."""
    s, order = torch.zeros_like(z[:, 0]), []
    for _ in range(count):
        order.append(int(squared(s[:, None], z).argmin()))
        s = s + z[:, order[-1]]
    return order


removing = Exercise(
    task="Return the `count` channels that ThiNet removes, in order, from the contributions Z (rows × channels).",
    solution=greedy,
    cases=some_contributions,
    hints=(
        "What is missing after some channels went is s, the sum of their columns. At first s = 0.",
        "For every channel c that is still there, the cost is ‖s + z_c‖². The cheapest goes.",
        "(s[:, None] + z).square().sum(0) are all costs at once; set those of the gone to torch.inf, then argmin.",
    ),
    mistakes={
        "You sort by ‖z_c‖ alone. Two that go together can cancel or add up: carry the sum s along.": (
            lambda z, count: greedily(z, count, squared, lambda s, new: s)
        ),
        "You choose whom to keep, the largest first. ThiNet removes: the smallest cost goes.": (
            lambda z, count: greedily(z, count, lambda s, t: -squared(s, t))
        ),
        "Your s holds only the channel that went last. Add: s = s + z_c.": (
            lambda z, count: greedily(z, count, squared, lambda s, new: new)
        ),
        "You sum with the sign, so a large negative sum looks cheap. Square each row before you sum.": (
            lambda z, count: greedily(z, count, lambda s, t: (s + t).sum(0))
        ),
        "You sum over the rows before you square: errors of different rows must not cancel. Square first.": (
            lambda z, count: greedily(z, count, lambda s, t: (s + t).sum(0).square())
        ),
        "You subtract what is gone, s - z_c. What is missing grows by z_c: s + z_c.": (
            lambda z, count: greedily(z, count, lambda s, t: (s - t).square().sum(0))
        ),
        "A channel that is gone can be chosen again: set the cost of the gone to infinity.": forgetful,
        "You return those that stay. Return those that go, in the order in which they went.": (
            lambda z, count: [c for c in range(z.shape[1]) if c not in greedy(z, count)]
        ),
    },
)
