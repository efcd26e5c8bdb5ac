"""What a whole group says about its channels: a channel is as important as all the numbers that would go with it.

In every tensor of the group the entries of a channel are summed, and the mean over the tensors is its score. The
signature is that of `units`: criterion(model, groups, batches) -> one score for each channel.
"""

from collections.abc import Iterable

import torch
from torch import nn

from course_utils.calibration import Batches
from course_utils.channels import Groups, axis_of, entries_of
from course_utils.scores import Scores, slopes


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """All that multiplies: the weights of layers, γ of norms among them; no biases."""
    return {name: w for name, w in model.named_parameters() if name.endswith("weight")}


def gathered(parts: Scores, groups: Groups) -> Scores:
    """Σ over a channel's entries in each tensor of its group, then the mean over the tensors that have a part."""
    found = {}
    for name, group in groups.items():
        sums = []
        for tensor, place in group.items():
            if tensor in parts:
                first = parts[tensor].movedim(axis_of(place), 0)
                along = first.reshape(len(first), -1).sum(1)
                sums.append(along[entries_of(parts[tensor], place).to(along.device)].sum(1))
        if not sums:
            raise ValueError(f"no weight of {name} has a score: {', '.join(group)}")
        found[name] = torch.stack(sums).mean(0)
    return found


def group_l1(model: nn.Module, groups: Groups, batches: Iterable = ()) -> Scores:
    """|w|, gathered over the group."""
    return gathered({name: w.detach().abs() for name, w in weights_of(model).items()}, groups)


def group_l2(model: nn.Module, groups: Groups, batches: Iterable = ()) -> Scores:
    """w², gathered over the group."""
    return gathered({name: w.detach().square() for name, w in weights_of(model).items()}, groups)


def group_taylor(model: nn.Module, groups: Groups, batches: Batches) -> Scores:
    """|w g|, gathered over the group; g is the mean gradient, accumulated over all batches."""
    weights = weights_of(model)
    return gathered({n: (weights[n].detach() * g).abs() for n, g in slopes(model, batches, weights).items()}, groups)


def normalised(scores: Scores) -> Scores:
    """Each group's scores divided by their mean, so that large layers and small ones speak equally loudly."""
    for name, s in scores.items():
        if not s.mean() > 0:
            raise ValueError(f"the scores of {name} have the mean {s.mean().item():.3g}: they cannot be divided by it")
    return {name: s / s.mean() for name, s in scores.items()}
