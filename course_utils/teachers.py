"""A teacher answers about the images that another network sees, in its own size and colours."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from course_utils.folders import View
from course_utils.measure import evaluating


def answers(teacher: nn.Module, own: View, shown: View) -> Callable[[Tensor], Tensor]:
    """The teacher as a function of images that another network sees: it gets them in its own colours and size."""

    def ask(x: Tensor) -> Tensor:
        mean, std, own_mean, own_std = (torch.tensor(n).to(x).view(-1, 1, 1) for n in (*colours(shown), *colours(own)))
        x = (x * std + mean - own_mean) / own_std if colours(shown) != colours(own) else x
        if own.size != shown.size:
            x = interpolate(x, (own.size, own.size), mode="bicubic", align_corners=False, antialias=True)
        with evaluating(teacher):
            return teacher(x).float()

    return ask


def colours(view: View) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of a view."""
    return view.mean, view.std


def two_heads(model: nn.Module) -> bool:
    """Has the network a second head that learns from a teacher, as DeiT's distilled ones have? It is switched on."""
    switch = getattr(model, "set_distilled_training", None)
    if switch is None:
        return False
    switch(True)
    return True
