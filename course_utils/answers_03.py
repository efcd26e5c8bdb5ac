"""The exercises of notebook 03: their solutions, and the mistakes that people make. Read this after you have tried."""

import torch
from torch import Tensor

from course_utils.exercises import Exercise
from course_utils.scopes import keep_top
from course_utils.slimming import push

Tensors = dict[str, Tensor]


def pushed(gradients: Tensors, values: Tensors, scales: list[str], strength: float) -> Tensors:
    """The gradients of loss + strength · Σ|γ|, when `gradients` are those of the loss and `scales` the names of γ."""
    return {name: push(values[name], strength, g) if name in scales else g for name, g in gradients.items()}


def some_gradients() -> list[tuple]:
    """A convolution and two BatchNorms, of which the first or both are pushed; scales of both signs, and a zero."""
    random = torch.Generator().manual_seed(0)
    sizes = {"conv.weight": (3, 4), "bn1.weight": (6,), "bn1.bias": (6,), "bn2.weight": (5,), "bn2.bias": (5,)}
    values = {name: torch.randn(size, generator=random) for name, size in sizes.items()}
    gradients = {name: torch.randn(size, generator=random) for name, size in sizes.items()}
    values["bn1.weight"][2] = 0.0
    return [(gradients, values, ["bn1.weight"], 0.5), (gradients, values, ["bn1.weight", "bn2.weight"], 0.1)]


def with_term(gradients: Tensors, names: list[str], term) -> Tensors:
    """The gradients, plus term(name) for these names."""
    return {name: g + term(name) if name in names else g for name, g in gradients.items()}


pushing = Exercise(
    task="Add the gradient of strength · Σ|γ| to the gradients of the loss; only the scales γ have it.",
    solution=pushed,
    cases=some_gradients,
    hints=(
        "What is the derivative of |γ|? It is +1 to the right of zero, -1 to the left of it, and we take 0 at zero.",
        "values[name].sign() is that derivative, for a whole tensor. Only names in `scales` get it.",
        "Return a dict with the same names: g + strength * values[name].sign() if name in scales, else g.",
    ),
    mistakes={
        "You add strength · γ. That is the gradient of γ²/2, an L2 term: its pull fades before γ is zero.": (
            lambda g, v, scales, s: with_term(g, scales, lambda n: s * v[n])
        ),
        "You add strength · |γ|, the term itself. What a gradient needs is its derivative, the sign of γ.": (
            lambda g, v, scales, s: with_term(g, scales, lambda n: s * v[n].abs())
        ),
        "You take the sign of the gradient. The term knows nothing of the loss: take the sign of γ.": (
            lambda g, v, scales, s: with_term(g, scales, lambda n: s * g[n].sign())
        ),
        "You subtract. The optimizer subtracts the gradient already, so your γ would grow: add.": (
            lambda g, v, scales, s: with_term(g, scales, lambda n: -s * v[n].sign())
        ),
        "You push every tensor, β and the convolutions too. Only the names in `scales` are pushed.": (
            lambda g, v, scales, s: with_term(g, list(g), lambda n: s * v[n].sign())
        ),
        "You add the same number to all γ: a negative γ is then pushed away from zero. Its sign is missing.": (
            lambda g, v, scales, s: with_term(g, scales, lambda n: s)
        ),
        "You put the L1 part in the place of the loss's gradient. Add it: γ has to hear both.": (
            lambda g, v, scales, s: {n: s * v[n].sign() if n in scales else t for n, t in g.items()}
        ),
        "You return the scales only. The other tensors need their gradients too: return all names.": (
            lambda g, v, scales, s: {n: t for n, t in pushed(g, v, scales, s).items() if n in scales}
        ),
    },
)


def silenced(gamma: Tensor, beta: Tensor, sparsity: float) -> tuple[Tensor, Tensor]:
    """γ and β in which the round(sparsity · n) units with the smallest |γ| say nothing."""
    return muted(gamma, beta, keep_top(gamma.abs(), sparsity))


def some_scales() -> list[tuple]:
    """Scales of both signs, with ties, of odd and even number."""
    random = torch.Generator().manual_seed(1)
    gamma, beta = (torch.randn(11, generator=random) for _ in range(2))
    tied = torch.tensor([0.5, -0.1, 0.1, -0.9, 0.1, 0.7])
    return [(tied, torch.arange(1.0, 7.0), 0.3), (gamma, beta, 0.5), (gamma, beta, 0.25), (gamma, beta, 0.0)]


def muted(gamma: Tensor, beta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """γ and β, zero where the mask says False."""
    return gamma * mask, beta * mask


def below(gamma: Tensor, sparsity: float) -> Tensor:
    """A mask that keeps what is larger than a cut, for a mistake below."""
    gone = round(sparsity * len(gamma))
    size = gamma.abs()
    return size > size.sort().values[gone - 1] if gone else size >= 0


silencing = Exercise(
    task="Silence exactly round(sparsity · n) units, those with the smallest |γ|: return the new γ and the new β.",
    solution=silenced,
    cases=some_scales,
    hints=(
        "First a mask: which scope of notebook 02 keeps the largest scores of one tensor? The score is |γ|.",
        "A unit says γ · x̂ + β. With γ = 0 it still says β, always. What must be zero as well?",
        "mask = keep_top(gamma.abs(), sparsity), and then return gamma * mask, beta * mask.",
    ),
    mistakes={
        "You forgot β: a unit with γ = 0 still says relu(β), at every pixel. Set both to zero.": (
            lambda g, b, p: (silenced(g, b, p)[0], b)
        ),
        "You silenced β alone: the unit still speaks through γ. Set both to zero.": (
            lambda g, b, p: (g, silenced(g, b, p)[1])
        ),
        "You used a threshold: under ties all equal units go, which is too many. Count, as keep_top does.": (
            lambda g, b, p: muted(g, b, below(g, p))
        ),
        "You ranked γ itself, so the most negative units went first. A loud unit may have a negative γ: rank |γ|.": (
            lambda g, b, p: muted(g, b, keep_top(g, p))
        ),
        "You silenced the loudest units; the smallest |γ| have to go.": (
            lambda g, b, p: muted(g, b, keep_top(-g.abs(), p))
        ),
        "You ranked by |β|. The score of a unit is |γ|: how much of what it sees it lets through.": (
            lambda g, b, p: muted(g, b, keep_top(b.abs(), p))
        ),
        "Your sparsity is the fraction that stays. In this course it is always the fraction that goes.": (
            lambda g, b, p: silenced(g, b, 1 - p)
        ),
        "You return the units that are left. Silent units keep their place: same length, zeros inside.": (
            lambda g, b, p: tuple(t[keep_top(g.abs(), p)] for t in (g, b))
        ),
    },
)
