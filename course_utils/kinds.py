"""A kind: groups that are built alike. Only these compete with each other in the isomorphic scope.

Two groups are of one kind if as many layers of the same types write and read their channels in the same way. The inner
channels of all bottlenecks of a ResNet are "1 BatchNorm2d, 1 Conv2d reads, 1 Conv2d writes".
"""

from collections import Counter

from torch import nn

from course_utils.channels import Group, Groups, Slots, axis_of
from course_utils.masks import Masks
from course_utils.scopes import globally
from course_utils.scores import Scores


def kinds_of(model: nn.Module, groups: Groups) -> dict[str, str]:
    """The kind of each group, in words."""
    return {name: kind_of(model, group) for name, group in groups.items()}


def kind_of(model: nn.Module, group: Group) -> str:
    """Which layers the group goes through and what they do with it, counted; biases and statistics say nothing new."""
    members = {n: place for n, place in group.items() if not n.endswith(("bias", "running_mean", "running_var"))}
    least = min(runs(place)[0] for place in members.values())
    parts = Counter(part(model, name, place, least) for name, place in members.items())
    return ", ".join(f"{count} {words}" for words, count in sorted(parts.items()))


def part(model: nn.Module, name: str, place: int | Slots, least: int) -> str:
    """What one tensor has to do with the group: "Conv2d reads", "Linear writes 3 times"."""
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    if leaf != "weight":
        return leaf
    table = isinstance(layer, nn.Linear | nn.Conv2d)
    count, length = runs(place)
    verb = (" reads" if axis_of(place) == 1 else " writes") if table else ""
    more = (f" {count // least} times" if count > least else "") + (" in runs" if length > 1 else "")
    return type(layer).__name__ + verb + more


def runs(place: int | Slots) -> tuple[int, int]:
    """In how many runs of neighbouring entries a channel lies, and how long they are: a head lies in three of 64."""
    if not isinstance(place, Slots):
        return 1, 1
    first = place.entries[0].sort().values
    count = 1 + int((first.diff() != 1).sum())
    return count, len(first) // count


def isomorphically(scores: Scores, sparsity: float | dict[str, float], kinds: dict[str, str]) -> Masks:
    """Channels compete with those of all groups of their kind; `sparsity` may be another one for each kind."""
    classes: dict[str, Scores] = {}
    for name, s in scores.items():
        if name not in kinds:
            raise ValueError(f"{name} has no kind: make kinds with kinds_of(model, groups) from the same groups")
        classes.setdefault(kinds[name], {})[name] = s
    amounts = sparsity if isinstance(sparsity, dict) else dict.fromkeys(classes, sparsity)
    strange = [kind for kind in classes if kind not in amounts]
    if strange:
        raise ValueError(f"there is no sparsity for the kind {strange[0]!r}: give one for each of {list(classes)}")
    masks = {name: mask for kind, rivals in classes.items() for name, mask in globally(rivals, amounts[kind]).items()}
    return {name: masks[name] for name in scores}
