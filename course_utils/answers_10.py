"""The exercises of notebook 10: their solutions, and the mistakes that people make. Read this after you have tried."""

import torch

from course_utils.exercises import Exercise
from course_utils.masks import Masks
from course_utils.scopes import globally, layerwise, restrict
from course_utils.tickets import Snapshot, barrier

SHAPES = {"conv.weight": (4, 2, 3, 3), "fc.weight": (5, 4)}
OTHERS = ("conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")


def some_rounds() -> list[tuple]:
    """Trained states, the states that they began with, masks of earlier rounds, and how much is to be gone."""
    random = torch.Generator().manual_seed(0)

    def state() -> Snapshot:
        weights = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
        weights["conv.weight"] *= 0.5  # layers differ in scale, so that the scope shows
        return weights | {name: torch.rand(4, generator=random) + 0.5 for name in OTHERS}

    cases = []
    for before, sparsity in ((0.0, 0.2), (0.2, 0.36), (0.36, 0.75)):
        masks = globally({n: torch.rand(shape, generator=random) for n, shape in SHAPES.items()}, before)
        trained, begin = state(), state()
        cases.append((trained | {n: trained[n] * m for n, m in masks.items()}, begin, masks, sparsity))
    return cases


def sizes_of(state: Snapshot, masks: Masks) -> Snapshot:
    """|w| of what is left; what is gone is the first to go."""
    return restrict({name: state[name].abs() for name in masks}, masks)


def masked(state: Snapshot, masks: Masks) -> Snapshot:
    """The state with zeros where the masks remove."""
    return state | {name: state[name] * mask for name, mask in masks.items()}


def next_ticket(trained: Snapshot, begin: Snapshot, masks: Masks, sparsity: float) -> Snapshot:
    """Choose by |trained|, all layers together; start from `begin`, all of it; zero what is gone."""
    new = globally(sizes_of(trained, masks), sparsity)
    return masked(begin, new)


def rewound(names: tuple[str, ...]):
    """A round that leaves the tensors `names` as training left them, for the mistakes below."""

    def answer(trained: Snapshot, begin: Snapshot, masks: Masks, sparsity: float) -> Snapshot:
        return next_ticket(trained, begin, masks, sparsity) | {name: trained[name] for name in names}

    return answer


def not_zeroed(trained: Snapshot, begin: Snapshot, masks: Masks, sparsity: float) -> Snapshot:
    """Survivors go back, and removed weights keep their trained values."""
    new = globally(sizes_of(trained, masks), sparsity)
    return begin | {name: torch.where(mask, begin[name], trained[name]) for name, mask in new.items()}


def upside_down(trained: Snapshot, begin: Snapshot, masks: Masks, sparsity: float) -> Snapshot:
    """The largest weights go, for the mistakes below."""
    large = {name: -trained[name].abs() for name in masks}
    return masked(begin, globally(restrict(large, masks), sparsity))


def everything_pruned(trained: Snapshot, begin: Snapshot, masks: Masks, sparsity: float) -> Snapshot:
    """Biases and statistics compete, too, for the mistakes below."""
    return masked(begin, globally({name: tensor.abs() for name, tensor in trained.items()}, sparsity))


rewinding = Exercise(
    task="One round of iterative magnitude pruning: choose by what was learnt, start from where it began.",
    solution=next_ticket,
    cases=some_rounds,
    hints=(
        "The scores are {name: trained[name].abs() for name in masks}; after restrict, what is gone goes first.",
        "globally(scores, sparsity) gives the new masks.",
        "Begin with dict(begin), all of it; then replace each weight that has a mask by begin[name] * mask.",
    ),
    mistakes={
        "You did not rewind: your survivors keep what they have learnt. (SynFlow's code once did so.)": (
            lambda trained, begin, masks, sparsity: masked(trained, globally(sizes_of(trained, masks), sparsity))
        ),
        "Everything went back except what counts: your surviving weights keep what they have learnt. Take begin's.": (
            lambda trained, begin, masks, sparsity: (
                begin | {n: trained[n] * m for n, m in globally(sizes_of(trained, masks), sparsity).items()}
            )
        ),
        "You return the new masks. Return the state: every tensor of `begin`, weights times their new masks.": (
            lambda trained, begin, masks, sparsity: globally(sizes_of(trained, masks), sparsity)
        ),
        "Your state holds the masked weights only. Biases and BatchNorm belong to it: begin with dict(begin).": (
            lambda trained, begin, masks, sparsity: {n: next_ticket(trained, begin, masks, sparsity)[n] for n in masks}
        ),
        "Biases and BatchNorm compete in your scores, and some are zeroed. Score only the names in `masks`.": (
            everything_pruned
        ),
        "You choose by how far a weight has moved. Magnitude pruning asks where it has arrived: |trained|.": (
            lambda trained, begin, masks, sparsity: masked(
                begin, globally(sizes_of({n: trained[n] - begin[n] for n in masks}, masks), sparsity)
            )
        ),
        "You lost the mask: the whole network is back at its beginning, and what was removed has returned.": (
            lambda trained, begin, masks, sparsity: begin
        ),
        "You kept the old masks: this round removes nothing.": (
            lambda trained, begin, masks, sparsity: masked(begin, masks)
        ),
        "BatchNorm's running statistics come from the end of training. They are state, too: take them from `begin`.": (
            rewound(OTHERS[3:])
        ),
        "Only what has a mask went back. Biases, BatchNorm's parameters and its statistics must go back as well.": (
            rewound(OTHERS)
        ),
        "You choose by the first values. Who stays is decided by the trained ones; the first are where they start.": (
            lambda trained, begin, masks, sparsity: next_ticket(begin, begin, masks, sparsity)
        ),
        "The largest weights go. Small scores go first, so the score is |w|, and True keeps.": upside_down,
        "Removed weights keep their trained values. They have to be zero.": not_zeroed,
        "Each of your layers loses the same part. Here all layers share one competition: globally.": (
            lambda trained, begin, masks, sparsity: masked(begin, layerwise(sizes_of(trained, masks), sparsity))
        ),
        "You remove `sparsity` of what is LEFT. In this course sparsity counts all weights, those already gone too.": (
            lambda trained, begin, masks, sparsity: next_ticket(trained, begin, masks, compounded(masks, sparsity))
        ),
        "Signed values are compared: -3 counts as less than 0.1. Take the absolute value first.": (
            lambda trained, begin, masks, sparsity: masked(
                begin, globally(restrict({name: trained[name] for name in masks}, masks), sparsity)
            )
        ),
    },
)


def compounded(masks: Masks, sparsity: float) -> float:
    """1 - (1 - sparsity) · density."""
    kept = torch.cat([mask.flatten() for mask in masks.values()]).float().mean().item()
    return 1 - (1 - sparsity) * kept


def some_paths() -> list[tuple]:
    """Errors on the way between two networks: a hill, ends of different height, no hill, an even number of places."""
    return [
        ([0.05, 0.1, 0.6, 0.7, 0.3, 0.11],),
        ([0.4, 0.3, 0.05, 0.2, 0.1],),
        ([0.03, 0.05, 0.08, 0.04, 0.07],),
        ([0.2, 0.5, 0.9, 0.4, 0.1, 0.1, 0.0],),
    ]


def mean(values: list[float]) -> float:
    """The average."""
    return sum(values) / len(values)


def ends(errors: list[float]) -> list[float]:
    """The first and the last."""
    return [errors[0], errors[-1]]


barring = Exercise(
    task="How much higher is the highest error on the way than the mean of the two ends?",
    solution=barrier,
    cases=some_paths,
    hints=(
        "The highest error on the way is max(errors); the ends belong to the way.",
        "The ends are errors[0] and errors[-1]; take their mean.",
        "Subtract the mean of the ends from the maximum.",
    ),
    mistakes={
        "You compare with the worse end. Take the mean of the two ends.": lambda e: max(e) - max(ends(e)),
        "You compare with the better end. Take the mean of the two ends.": lambda e: max(e) - min(ends(e)),
        "You compare with the first network only. Both children count: take the mean of the ends.": (
            lambda e: max(e) - e[0]
        ),
        "You compare with the last network only. Both children count: take the mean of the ends.": (
            lambda e: max(e) - e[-1]
        ),
        "You look at the place half-way only. The worst place may lie elsewhere: max(errors).": (
            lambda e: e[len(e) // 2] - mean(ends(e))
        ),
        "You compare the mean of the way. A barrier is its highest place.": lambda e: mean(e) - mean(ends(e)),
        "You compare with the lowest place on the way. Compare with the ends.": lambda e: max(e) - min(e),
        "Your sign is reversed: that is how much better the ends are, as a negative number.": (
            lambda e: mean(ends(e)) - max(e)
        ),
        "You take the maximum of accuracies, or the minimum of errors: that is the BEST place on the way.": (
            lambda e: min(e) - mean(ends(e))
        ),
        "You subtract the mean of the whole way. Subtract the mean of its two ends.": lambda e: max(e) - mean(e),
        "Operators: a - b + c / 2 halves c only. Put the sum of the ends in brackets before you halve it.": (
            lambda e: max(e) - e[0] + e[-1] / 2
        ),
        "You subtract the SUM of the two ends. Take their mean: half of it.": lambda e: max(e) - sum(ends(e)),
        "You leave the ends out of the way. They belong to it: without a hill, an end is its highest place.": (
            lambda e: max(e[1:-1]) - mean(ends(e))
        ),
        "You divide by the mean of the ends. A barrier is a difference.": lambda e: max(e) / mean(ends(e)),
        "You compare each place with the straight line between the ends. Here all are compared with the ends' mean.": (
            lambda e: max(x - e[0] - i / (len(e) - 1) * (e[-1] - e[0]) for i, x in enumerate(e))
        ),
        "The number is right, but it is a tensor: `.item()` makes it a float.": lambda e: torch.tensor(barrier(e)),
        "You return the highest error itself. Subtract what the ends have anyway.": lambda e: max(e),
    },
)
