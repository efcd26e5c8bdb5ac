"""The exercises of notebook 04: their solutions, and the mistakes that people make. Read this after you have tried."""

import torch
from torch import Tensor

from course_utils.exercises import Exercise


def some_neurons() -> list[tuple]:
    """Images as rows, labels 0 and 1, and the weights of one neuron that has learnt something but not everything."""
    random = torch.Generator().manual_seed(0)
    found = []
    for images, inputs in ((7, 4), (12, 3), (5, 6)):
        x = torch.randn(images, inputs, generator=random) + 0.5
        found.append((x, torch.randint(2, (images,), generator=random).float(), torch.randn(inputs, generator=random)))
    return found


def neuron_fisher(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The diagonal of the empirical Fisher of one neuron: g = (p − y) x for each image, squared, averaged."""
    p = torch.sigmoid(x @ w)
    gradients = (p - y)[:, None] * x
    return gradients.square().mean(0)


def rows(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The gradients of all images, for the mistakes below."""
    return (torch.sigmoid(x @ w) - y)[:, None] * x


squaring = Exercise(
    task="The diagonal of the empirical Fisher: the mean over the images of the squared gradient of each image.",
    solution=neuron_fisher,
    cases=some_neurons,
    hints=(
        "First p = torch.sigmoid(x @ w): one probability for each image. Then one gradient for each image.",
        "(p - y)[:, None] * x has the shape of x: row n is the gradient of image n.",
        "Square every number of it, and only then take the mean over the images, .mean(0).",
    ),
    mistakes={
        "You average the gradients and square the mean: over a whole batch they cancel. Square first, average after.": (
            lambda x, y, w: rows(x, y, w).mean(0).square()
        ),
        "You add up the gradients and square the sum: that is the batch's gradient. Square each image's own first.": (
            lambda x, y, w: rows(x, y, w).sum(0).square()
        ),
        "You sum over the images. F is their mean: divide by how many there are.": (
            lambda x, y, w: rows(x, y, w).square().sum(0)
        ),
        "You forgot the square: what you have is the gradient of the mean loss, which training drives to zero.": (
            lambda x, y, w: rows(x, y, w).mean(0)
        ),
        "You take absolute values. F is made of squares.": lambda x, y, w: rows(x, y, w).abs().mean(0),
        "You compare p with what the neuron says itself, round(p). Use the label y that came with the image.": (
            lambda x, y, w: rows(x, torch.sigmoid(x @ w).round(), w).square().mean(0)
        ),
        "p (1 − p) x² is the Fisher over labels that the neuron would draw: the true one. Use the labels you have.": (
            lambda x, y, w: (torch.sigmoid(x @ w) * (1 - torch.sigmoid(x @ w)))[:, None].mul(x.square()).mean(0)
        ),
        "You take the mean over the weights, axis 1. The images are axis 0.": (
            lambda x, y, w: rows(x, y, w).square().mean(1)
        ),
    },
)


def some_surgeries() -> list[tuple]:
    """Weights, the inverse of a curvature with strong ties between them, and which weight has to go."""
    random = torch.Generator().manual_seed(1)
    found = []
    for size, q in ((3, 1), (5, 4), (4, 0)):
        x = torch.randn(3 * size, size, generator=random)
        x[:, 1:] += x[:, :-1]
        found.append((torch.randn(size, generator=random), torch.linalg.inv(x.mT @ x / len(x)), q))
    return found


def operate(w: Tensor, inverse: Tensor, q: int) -> tuple[Tensor, Tensor]:
    """What the loss pays when weight q goes and the others make up for it, and all weights afterwards."""
    cost = w[q] ** 2 / (2 * inverse[q, q])
    moved = w - w[q] / inverse[q, q] * inverse[:, q]
    moved[q] = 0  # it is, up to rounding
    return cost, moved


def cost_of(w: Tensor, inverse: Tensor, q: int) -> Tensor:
    """The right cost, for the mistakes below."""
    return operate(w, inverse, q)[0]


def without(w: Tensor, q: int) -> Tensor:
    """The weights with weight q at zero and the others as they were."""
    return w.index_fill(0, torch.tensor(q), 0.0)


surgery = Exercise(
    task="Remove weight q as Optimal Brain Surgeon does: return what it costs, and all weights afterwards.",
    solution=operate,
    cases=some_surgeries,
    hints=(
        "The cost is w_q² / (2 [H⁻¹]_qq). `inverse` is H⁻¹ already, so [H⁻¹]_qq is inverse[q, q].",
        "The update is δ = −w_q / [H⁻¹]_qq · H⁻¹[:, q], a whole column, and the new weights are w + δ.",
        "return w[q] ** 2 / (2 * inverse[q, q]), w - w[q] / inverse[q, q] * inverse[:, q]",
    ),
    mistakes={
        "Your cost multiplies by [H⁻¹]_qq. Divide by it: the *more* freedom the others have, the less it costs.": (
            lambda w, inverse, q: (w[q] ** 2 * inverse[q, q] / 2, operate(w, inverse, q)[1])
        ),
        "Your cost is ½ H_qq w_q²: that is OBD, which holds the others still. 1 / [H⁻¹]_qq is not H_qq.": (
            lambda w, inverse, q: (w[q] ** 2 * torch.linalg.inv(inverse)[q, q] / 2, operate(w, inverse, q)[1])
        ),
        "Your cost is twice too large: the ½ of the Taylor expansion is missing.": (
            lambda w, inverse, q: (2 * cost_of(w, inverse, q), operate(w, inverse, q)[1])
        ),
        "Your update has the wrong sign: weight q is doubled, not removed. Check that w[q] becomes zero.": (
            lambda w, inverse, q: (cost_of(w, inverse, q), w + w[q] / inverse[q, q] * inverse[:, q])
        ),
        "Your update forgets to divide by [H⁻¹]_qq, so the removed weight is not zero. Check w[q] afterwards.": (
            lambda w, inverse, q: (cost_of(w, inverse, q), w - w[q] * inverse[:, q])
        ),
        "Weight q is zero, and the others have not moved: then they make up for nothing. Move the whole column.": (
            lambda w, inverse, q: (cost_of(w, inverse, q), without(w, q))
        ),
        "You return δ, the change. Return the weights afterwards, w + δ.": (
            lambda w, inverse, q: (cost_of(w, inverse, q), operate(w, inverse, q)[1] - w)
        ),
        "The others moved, and weight q stayed what it was. It has to be zero.": (
            lambda w, inverse, q: (
                cost_of(w, inverse, q),
                torch.where(torch.arange(len(w)) == q, w, operate(w, inverse, q)[1]),
            )
        ),
        "Right, and in the wrong order: the cost first, then the weights.": (
            lambda w, inverse, q: operate(w, inverse, q)[::-1]
        ),
    },
)
