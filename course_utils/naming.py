"""What to call a group: the layer that writes it, or the part of the network that all its writers are in."""

from collections import Counter
from itertools import takewhile
from typing import Any

from torch import nn

from course_utils.channels import Group, Groups, Slots, axis_of
from course_utils.walks import TABLES


def labelled(model: nn.Module, groups: list[Group]) -> Groups:
    """Each group with a name: the layer that writes it, or the part of the network that all its writers are in."""
    paths = [[n.removesuffix(".weight") for n, place in g.items() if is_writer(model, n, place)] for g in groups]
    firsts = [names[0] if names else next(iter(g)) for names, g in zip(paths, groups, strict=True)]
    parts = [common(names) or stem(g, first) for names, g, first in zip(paths, groups, firsts, strict=True)]
    count, found = Counter(parts), {}
    for part, first, group in zip(parts, firsts, groups, strict=True):
        name = part if count[part] == 1 else first
        found[name if name not in found else f"{name} ({len(found)})"] = group
    return found


def is_writer(model: nn.Module, name: str, place: int | Slots) -> bool:
    """Is this a table whose rows write the channels? A depthwise convolution only passes each of them on."""
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    return leaf == "weight" and isinstance(layer, TABLES) and axis_of(place) == 0 and not depthwise(layer)


def depthwise(layer: Any) -> bool:
    """Does every output of this layer read one input of its own?"""
    return getattr(layer, "groups", 1) > 1 and layer.weight.shape[1] == 1


def common(names: list[str]) -> str:
    """The longest path that all these names begin with: layer1 for layer1.0.conv3 and layer1.1.conv3."""
    alike = takewhile(lambda words: len(set(words)) == 1, zip(*(name.split(".") for name in names), strict=False))
    return ".".join(words[0] for words in alike)


def stem(group: Group, first: str) -> str:
    """What to call a stream through the whole network: the embedding of a transformer, else its first layer."""
    return "embedding" if any("embed" in name for name in group) else first
