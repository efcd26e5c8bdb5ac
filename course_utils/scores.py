"""A criterion gives every prunable weight a score, and small scores go first: criterion(model, batches) -> Scores.

Scores have the names and shapes of the weights, like masks. Your own criterion is one more function of this form.
"""

import copy
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
    weights = prunable(model)
    return {name: (weights[name].detach() * g).abs() for name, g in slopes(model, batches, weights).items()}


def slopes(model: nn.Module, batches: Batches, weights: dict[str, nn.Parameter]) -> Scores:
    """g: the gradient of the mean loss for each of these weights, summed up over all batches."""
    count = 0
    with looking(model):
        for parameter in model.parameters():
            parameter.requires_grad_(True)  # a frozen weight has a score, too
            parameter.grad = torch.zeros_like(parameter)
        for x, y in samples(model, batches, labelled=True):
            cross_entropy(model(x), y, reduction="sum").backward()
            count += len(x)
        return {name: w.grad / count for name, w in weights.items() if w.grad is not None}


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


def snip(model: nn.Module, batches: Batches) -> Scores:
    """|w g| before training, the slope for a mask at 1; BatchNorm normalises by the batch, as in a first step."""
    twin, count = copy.deepcopy(model).requires_grad_(True).train(), 0
    for x, y in samples(model, batches, labelled=True):
        cross_entropy(twin(x), y, reduction="sum").backward()  # sums up over the batches
        count += len(x)
    return {name: (w * w.grad / count).abs().detach() for name, w in prunable(twin).items() if w.grad is not None}


def synflow(model: nn.Module, batches: Batches) -> Scores:
    """|w| ∂R/∂|w| with R = 1ᵀ Π|W| 1: the part of all flow from inputs to outputs that passes through w."""
    twin = copy.deepcopy(model).requires_grad_(True).double().eval()
    with torch.no_grad():
        for name, t in twin.state_dict().items():
            constant = name.endswith(("bias", "running_mean"))  # only what is multiplied carries flow
            t.copy_(torch.zeros_like(t) if constant else t.abs())
    x, _ = next(iter(samples(model, batches)))
    twin(torch.ones((1, *x.shape[1:]), dtype=torch.float64, device=x.device)).sum().backward()
    return {name: (w * w.grad).detach() for name, w in prunable(twin).items() if w.grad is not None}
