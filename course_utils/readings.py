"""What layers read and say, as tables: one row for each looked-at position, one column for each weight of an output.

A convolution is a matrix product once its input is unfolded: Y = X W', with C·k·k columns, channel by channel.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from course_utils.calibration import Batches, samples, watching
from course_utils.measure import evaluating

Table = tuple[Tensor, Tensor]


class Enough(Exception):
    """Ends a forward pass of which the rest is not needed."""


def sampled(layer: nn.Module, x: Tensor, y: Tensor, places: int, random: torch.Generator) -> Table:
    """(X, Y): what `layer` reads and says, without its bias, at `places` random positions of each image, in float64."""
    if isinstance(layer, nn.Conv2d):
        if layer.groups > 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise ValueError(f"this convolution is not one matrix on zero-padded inputs: leave it out ({layer})")
        x, y = unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride), y.flatten(2)
        where = torch.rand(len(x), x.shape[2], generator=random).argsort(1)[:, None, :places].to(x.device)
        x, y = (t.gather(2, where.expand(-1, t.shape[1], -1)).movedim(1, 2) for t in (x, y))
    bias = layer.bias.detach() if isinstance(layer.bias, Tensor) else 0
    return x.flatten(0, -2).double(), (y - bias).flatten(0, -2).double()


def listen(model: nn.Module, layers: Iterable[str], batches: Batches, hear: Callable, places: int, seed: int) -> None:
    """hear(layer, X, Y) for every batch; the same seed looks at the same positions in any network."""
    randoms = {name: torch.Generator().manual_seed(seed) for name in layers}
    left = set(randoms)

    def see(name: str, x: Tensor, y: Tensor) -> None:
        hear(name, *sampled(model.get_submodule(name), x, y, places, randoms[name]))
        left.discard(name)
        if not left:
            raise Enough  # all were heard: the rest of the network need not run

    with evaluating(model), watching(model, randoms, see):
        for x, _ in samples(model, batches):
            left = set(randoms)
            with suppress(Enough):
                model(x)
            if left:
                raise ValueError(f"{min(left)} reads nothing when the network runs: leave it out")


def tables(model: nn.Module, layers: Iterable[str], batches: Batches, places: int = 20, seed: int = 0) -> dict:
    """{layer: (X, Y)} over all batches."""
    found: dict[str, list[Table]] = {name: [] for name in layers}
    listen(model, found, batches, lambda name, x, y: found[name].append((x, y)), places, seed)
    return {name: (torch.cat([x for x, _ in t]), torch.cat([y for _, y in t])) for name, t in found.items()}


def moments(model: nn.Module, layers: Iterable[str], batches: Batches, places: int = 20, seed: int = 0) -> dict:
    """{layer: X'X / rows} over all batches: small, however many images there are."""
    sums: dict[str, Tensor | int] = dict.fromkeys(layers, 0)
    rows = dict.fromkeys(sums, 0)

    def add(name: str, x: Tensor, y: Tensor) -> None:
        sums[name] += x.T @ x
        rows[name] += len(x)

    listen(model, sums, batches, add, places, seed)
    return {name: total / rows[name] for name, total in sums.items()}
