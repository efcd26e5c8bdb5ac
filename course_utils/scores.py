"""A criterion gives every prunable weight a score, and small scores go first: criterion(model, batches) -> Scores.

Scores have the names and shapes of the weights, like masks. Your own criterion is one more function of this form.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_utils.calibration import Batches, looking, samples, watching
from course_utils.masks import prunable
from course_utils.measure import evaluating

Scores = dict[str, Tensor]
Criterion = Callable[..., Scores]


def magnitude(model: nn.Module, batches: Iterable = ()) -> Scores:
    """|w|: a small weight moves its output little."""
    return {name: w.detach().abs() for name, w in prunable(model).items()}


def chance(model: nn.Module, batches: Iterable = (), seed: int = 0) -> Scores:
    """A random number for each weight: the control that every criterion has to beat."""
    random = torch.Generator().manual_seed(seed)
    return {name: torch.rand(w.shape, generator=random).to(w.device) for name, w in prunable(model).items()}


def taylor(model: nn.Module, batches: Batches) -> Scores:
    """|w g|: to first order, how much the mean loss changes when w becomes zero."""
    weights, count = prunable(model), 0
    with looking(model):
        for parameter in model.parameters():
            parameter.requires_grad_(True)  # a frozen weight has a score, too
            parameter.grad = torch.zeros_like(parameter)
        for x, y in samples(model, batches, labelled=True):
            cross_entropy(model(x), y, reduction="sum").backward()
            count += len(x)
        grads = {name: w.grad for name, w in weights.items() if w.grad is not None}
    return {name: (weights[name].detach() * grad / count).abs() for name, grad in grads.items()}


def wanda(model: nn.Module, batches: Batches) -> Scores:
    """|w| ‖x‖: a weight matters as much as the signal that flows through it."""
    weights = prunable(model)
    power: dict[str, Tensor | float] = dict.fromkeys(weights, 0.0)

    def see(layer: str, x: Tensor, output: Tensor) -> None:
        module = model.get_submodule(layer)
        if getattr(module, "groups", 1) > 1:
            raise ValueError(f"{layer} is a convolution in {module.groups} groups: not every row reads every channel")
        channel_last = x if isinstance(module, nn.Linear) else x.movedim(1, -1)
        power[f"{layer}.weight"] += channel_last.flatten(0, -2).square().sum(0)

    with evaluating(model), watching(model, [name.removesuffix(".weight") for name in weights], see):
        for x, _ in samples(model, batches):
            model(x)
    norms = {name: torch.as_tensor(p).sqrt() for name, p in power.items()}
    return {n: w.detach().abs() * norms[n].view(1, -1, *[1] * (w.ndim - 2)) for n, w in weights.items()}
