"""Groups as a picture: every tensor is a small table, and what goes with a channel is coloured."""

import torch
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
