"""Groups as a picture: every tensor is a small table, and what goes with a channel is coloured."""

from collections import Counter

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from torch import Tensor, nn

from course_utils.channels import Group, axis_of, entries_of, tensor_of
from course_utils.plots import COLOURS, draw, new_figure


def tinted(model: nn.Module, name: str, chosen: dict[str, tuple[Group, int]]) -> Tensor:
    """The colours of one tensor's table, rows × columns × RGB: grey, and the entries of the chosen channels."""
    tensor = tensor_of(model, name)
    table = torch.full((tensor.shape[0], tensor.shape[1] if tensor.ndim > 1 else 1, 3), 0.88)
    for (group, channel), colour in zip(chosen.values(), COLOURS, strict=False):
        if name in group:
            places = entries_of(tensor, group[name])[channel]
            paint = torch.tensor(to_rgb(colour))
            table.index_copy_(
                axis_of(group[name]), places, paint.expand_as(table.index_select(axis_of(group[name]), places))
            )
    return table


def draw_groups(model: nn.Module, names: list[str], chosen: dict[str, tuple[Group, int]], alt: str) -> None:
    """Draw the tensors `names` side by side, and in each what belongs to the chosen (group, channel) pairs."""
    tables = [tinted(model, name, chosen) for name in names]
    rows, gap = max(len(table) for table in tables), 4
    canvas, left = torch.ones(rows, sum(t.shape[1] + gap for t in tables) - gap, 3), 0
    figure, axes = new_figure(10, min(6, 1.6 + 9 * rows / canvas.shape[1]))
    for name, table in zip(names, tables, strict=True):
        canvas[: len(table), left : left + table.shape[1]] = table
        words = name.replace(".weight", "\nweight")
        axes.text(left + table.shape[1] / 2 - 0.5, -0.8, words, ha="center", va="bottom", fontsize=9)
        left += table.shape[1] + gap
    axes.imshow(canvas)
    axes.set_xticks([i + 0.5 for i in range(canvas.shape[1])], [])
    axes.set_yticks([i + 0.5 for i in range(rows)], [])
    axes.grid(color="white", alpha=1)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    patches = [Patch(color=colour, label=label) for label, colour in zip(chosen, COLOURS, strict=False)]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    draw(figure, alt)


def box(model: nn.Module, axes: Axes, tensor: str, axis: int, places: Counter) -> None:
    """One layer of a group as a box: writers on the left, vectors such as BatchNorm in the middle, readers right."""
    layer = tensor.removesuffix(".weight")
    sort = type(model.get_submodule(layer)).__name__
    x = 1 if tensor_of(model, tensor).ndim == 1 else 2 if axis == 1 else 0
    block, _, rest = layer.rpartition(".") if layer.count(".") < 2 else (layer[:8], "", layer[9:])
    frame = {"boxstyle": "round", "fc": "white", "ec": COLOURS[x]}
    axes.text(x, 1 - places[x], f"{sort}\n{block}\n{rest}", ha="center", va="center", fontsize=8, bbox=frame)
    places[x] += 1


def draw_graphs(model: nn.Module, names: list[str], groups: dict[str, Group], alt: str) -> None:
    """Draw some groups side by side: which layers write their channels, and which read them."""
    figure, panels = new_figure(10, 2.6, ncols=len(names))
    for axes, name in zip(panels, names, strict=True):
        axes.set(title=name, xlim=(-0.5, 2.5), ylim=(-0.5, 1.5))
        axes.axis("off")
        places: Counter = Counter()
        for tensor, place in groups[name].items():
            if tensor.endswith("weight"):
                box(model, axes, tensor, axis_of(place), places)
        for x in (0.5, 1.5):
            axes.annotate("", (x + 0.08, 1), (x - 0.08, 1), arrowprops={"arrowstyle": "->"})
    draw(figure, alt)
