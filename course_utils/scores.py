"""A criterion gives every prunable weight a score, and small scores go first: criterion(model, batches) -> Scores.

Scores have the names and shapes of the weights, like masks. Your own criterion is one more function of this form.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from course_utils.masks import prunable

Scores = dict[str, Tensor]
Criterion = Callable[..., Scores]


def magnitude(model: nn.Module, batches: Iterable = ()) -> Scores:
    """|w|: a small weight moves its output little."""
    return {name: w.detach().abs() for name, w in prunable(model).items()}


def chance(model: nn.Module, batches: Iterable = (), seed: int = 0) -> Scores:
    """A random number for each weight: the control that every criterion has to beat."""
    random = torch.Generator().manual_seed(seed)
    return {name: torch.rand(w.shape, generator=random).to(w.device) for name, w in prunable(model).items()}
