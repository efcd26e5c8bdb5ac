"""The exercises of notebook 05: their solutions, and the mistakes that people make. Read this after you have tried."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from course_utils.activity import relative
from course_utils.exercises import Exercise
from course_utils.masks import Masks
from course_utils.scopes import at_least, globally, layerwise
from course_utils.scores import Scores


def some_outputs() -> list[tuple]:
    """Batches that a convolution has written, the last one smaller, and a BatchNorm with a muted channel."""
    random = torch.Generator().manual_seed(0)
    cases = []
    for channels, sizes in ((4, (4, 4, 1)), (3, (5, 2)), (2, (3,))):
        norm = nn.BatchNorm2d(channels).eval()
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
        norm.bias.data -= torch.linspace(0.3, 2.2, channels)
        norm.weight.data[-1], norm.bias.data[-1] = 0, 0  # a muted channel: exactly 0 before the ReLU, too
        cases.append(
            ([torch.randn(n, channels, 3, 4, generator=random) + n / 4 for n in sizes], norm.requires_grad_(False))
        )
    return cases


def share_of_zeros(batches: list[Tensor], norm: nn.Module) -> Tensor:
    """For each channel, zeros / positions, after BatchNorm and ReLU, over all batches."""
    count, seen = torch.tensor(0), 0
    for x in batches:
        zero = relu(norm(x)) == 0
        count, seen = count + zero.sum((0, 2, 3)), seen + zero[:, 0].numel()
    return count / seen


def whole(batches: list[Tensor], norm: nn.Module) -> Tensor:
    """The activations of all batches in one tensor, for the mistakes below."""
    return relu(norm(torch.cat(batches)))


counting_zeros = Exercise(
    task="Of all positions (image × pixel), at which part is each channel exactly zero, after BatchNorm and ReLU?",
    solution=share_of_zeros,
    cases=some_outputs,
    hints=(
        "For one batch: relu(norm(x)) == 0 is a table of True and False, image × channel × row × column.",
        "Sum it over all axes but the channels, .sum((0, 2, 3)), and add these counts up over the batches.",
        "Divide once, at the end, by the number of positions: images × rows × columns, of all batches together.",
    ),
    mistakes={
        "You count before BatchNorm. It shifts every channel, and the ReLU comes after it: relu(norm(x)).": (
            lambda batches, norm: (relu(torch.cat(batches)) == 0).double().mean((0, 2, 3))
        ),
        "You average the batches' averages: the last batch is smaller, and its images count for too much.": (
            lambda batches, norm: torch.stack([share_of_zeros([x], norm) for x in batches]).mean(0)
        ),
        "You return one number for the whole layer. Each channel needs its own: do not sum over axis 1.": (
            lambda batches, norm: (whole(batches, norm) == 0).double().mean()
        ),
        "You return one number for each image. Keep axis 1, the channels, and sum over the others.": (
            lambda batches, norm: (whole(batches, norm) == 0).double().mean((1, 2, 3))
        ),
        "You count what is NOT zero: APoZ is the other part.": lambda batches, norm: 1 - share_of_zeros(batches, norm),
        "You count small values as zeros. After a ReLU a zero is exactly 0: compare with ==.": (
            lambda batches, norm: (whole(batches, norm).abs() < 0.1).double().mean((0, 2, 3))
        ),
        "You compare before the ReLU, with == 0: there almost nothing is exactly zero.": (
            lambda batches, norm: (norm(torch.cat(batches)) == 0).double().mean((0, 2, 3))
        ),
        "You count what is below 0 before the ReLU. What is exactly 0 there, a muted channel, is a zero as well.": (
            lambda batches, norm: (norm(torch.cat(batches)) < 0).double().mean((0, 2, 3))
        ),
        "You return what the last batch says. Add the counts up over all batches.": (
            lambda batches, norm: share_of_zeros(batches[-1:], norm)
        ),
        "You return counts. Divide them by the number of positions.": (
            lambda batches, norm: (whole(batches, norm) == 0).sum((0, 2, 3))
        ),
    },
)


def some_shares() -> list[tuple]:
    """APoZ of four layers: quiet ones and lively ones, one with ties, one so even that a global cut may take it all."""
    random = torch.Generator().manual_seed(0)
    quiet, wide = (low + part * torch.rand(9, generator=random) for low, part in ((0.6, 0.35), (0.05, 0.6)))
    ties = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.5, 0.1])
    even = 0.85 + 0.02 * torch.rand(4, generator=random)
    silent = {"quiet": quiet, "wide": wide, "ties": ties, "even": even}
    return [(silent, 0.25), (silent, 0.5), (silent, 0.75)]


def lively(silent: Scores) -> Scores:
    """1 - APoZ."""
    return {name: 1 - share for name, share in silent.items()}


def chosen(silent: Scores, sparsity: float) -> Masks:
    """All units compete by how awake they are, relative to their layer; the best of each layer stays."""
    return globally(at_least(relative(lively(silent)), 1), sparsity)


def above_the_cut(silent: Scores, sparsity: float) -> Masks:
    """As `chosen`, but by a threshold: for the mistakes below."""
    scores = at_least(relative(lively(silent)), 1)
    row = torch.cat(list(scores.values())).sort().values
    return {name: s > row[round(sparsity * len(row)) - 1] for name, s in scores.items()}


def choice(score, scope=globally, floor: int = 1):
    """An answer that scores the layers' APoZ in its own way, for the mistakes below."""

    def answer(silent: Scores, sparsity: float) -> Masks:
        return scope(at_least(score(silent), floor), sparsity)

    return answer


choosing = Exercise(
    task="All units compete by how awake they are, relative to their layer's mean; each layer keeps its best one.",
    solution=chosen,
    cases=some_shares,
    hints=(
        "Small scores go first, and high APoZ shall go: begin with 1 - APoZ, layer by layer.",
        "Divide by the layer's mean with relative(…), then protect the best unit of each layer with at_least(…, 1).",
        "Then one competition for all: globally(…, sparsity).",
    ),
    mistakes={
        "You remove the units with the FEWEST zeros. Small scores go first, so the score has to be 1 - APoZ.": (
            choice(relative)
        ),
        "You keep what lies above a cut: units that tie with it all go, and then too many are gone. Count instead.": (
            above_the_cut
        ),
        "You compare raw values between layers. Divide by the layer's mean first: relative(…).": choice(lively),
        "Your floor is missing: one layer loses all its units. Protect the best with at_least(…, 1).": (
            choice(lambda silent: relative(lively(silent)), floor=0)
        ),
        "Each of your layers loses the same part: that is layer-wise. Here all layers share one competition.": (
            choice(lambda silent: relative(lively(silent)), scope=layerwise)
        ),
        "You protect first and divide afterwards: a protected score is infinite, and so is its layer's mean.": (
            lambda silent, sparsity: globally(relative(at_least(lively(silent), 1)), sparsity)
        ),
        "You divide APoZ itself by its mean. Take 1 - APoZ first: what matters is how awake a unit is.": (
            choice(lambda silent: {name: -s for name, s in relative(silent).items()})
        ),
        "You subtract the layer's mean. That is another comparison; here you divide by it.": (
            choice(lambda silent: {name: s - s.mean() for name, s in lively(silent).items()})
        ),
        "Your sparsity is the fraction that stays. In this course it is always the fraction that goes.": (
            lambda silent, sparsity: chosen(silent, 1 - sparsity)
        ),
        "True keeps and False removes. Your masks are the other way round.": (
            lambda silent, sparsity: {name: ~mask for name, mask in chosen(silent, sparsity).items()}
        ),
    },
)
