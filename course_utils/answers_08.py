"""The exercises of notebook 08: their solutions, and the mistakes that people make. Read this after you have tried."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from course_utils.exercises import Exercise
from course_utils.reach import connected, really_gone
from course_utils.scopes import globally, keep_top


def some_networks() -> list[tuple]:
    """Matrices of three networks: rows of all scales, a last layer that is not to be touched, and rows that tie."""
    random = torch.Generator().manual_seed(0)
    cases: list[tuple] = []
    for sizes, sparsity in (((6, 110, 7, 5), 0.9), ((5, 12, 15, 4), 0.25), ((4, 130, 3), 0.5)):
        weights = [torch.randn(o, i, generator=random) for i, o in pairwise(sizes)]
        weights[0] *= torch.linspace(0.9, 1.1, sizes[1])[torch.randperm(sizes[1], generator=random), None]
        cases.append((weights, sparsity))
    tied = torch.cat([torch.eye(4), 2 * torch.eye(4), torch.eye(4)[:2]])  # norms 1 (six times) and 2 (four times)
    return [*cases, ([tied, torch.randn(3, 10, generator=random)], 0.4)]


def by_rows(score: Callable[[Tensor], Tensor], count: Callable[[int, float], int] | None = None) -> Callable:
    """An answer that removes, in all layers but the last, the rows with the smallest score."""

    def answer(weights: list[Tensor], sparsity: float) -> list[Tensor]:
        masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
        for weight, mask in zip(weights[:-1], masks, strict=False):
            scores = score(weight)
            gone = count(len(scores), sparsity) if count else round(sparsity * len(scores))
            mask[scores.argsort(stable=True)[:gone]] = False
        return masks

    return answer


def unit_masks(weights: list[Tensor], sparsity: float) -> list[Tensor]:
    """In each layer but the last, the round(sparsity · rows) rows with the smallest L2 norm go."""
    kept = [keep_top(weight.norm(dim=1), sparsity) for weight in weights[:-1]]
    masks = [row[:, None].expand_as(weight) for row, weight in zip(kept, weights, strict=False)]
    return [*masks, torch.ones_like(weights[-1], dtype=torch.bool)]


def columns(weights: list[Tensor], sparsity: float) -> list[Tensor]:
    """Columns instead of rows, for the mistakes below."""
    turned = unit_masks([*(weight.T for weight in weights[:-1]), weights[-1].T], sparsity)
    return [mask.T for mask in turned]


def at_the_cut(weights: list[Tensor], sparsity: float) -> list[Tensor]:
    """A threshold instead of a count, for the mistakes below."""
    masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
    for weight, mask in zip(weights[:-1], masks, strict=False):
        norms = weight.norm(dim=1)
        mask[norms <= norms.sort().values[round(sparsity * len(norms)) - 1]] = False
    return masks


def above_the_cut(weights: list[Tensor], sparsity: float, larger: Callable = torch.ge) -> list[Tensor]:
    """A threshold at the first row that stays, for the mistakes below."""
    norms = [weight.norm(dim=1) for weight in weights[:-1]]
    kept = [larger(norm, norm.sort().values[round(sparsity * len(norm))]) for norm in norms]
    masks = [row[:, None].expand_as(weight) for row, weight in zip(kept, weights, strict=False)]
    return [*masks, torch.ones_like(weights[-1], dtype=torch.bool)]


def readers_too(masks: list[Tensor]) -> list[Tensor]:
    """Rows, and the next layer's columns, for the mistakes below."""
    return [masks[0], *(mask & before.any(1) for before, mask in pairwise(masks))]


def in_one_ring(weights: list[Tensor], sparsity: float) -> list[Tensor]:
    """All hidden units compete, for the mistakes below."""
    kept = globally({str(i): weight.norm(dim=1) for i, weight in enumerate(weights[:-1])}, sparsity)
    masks = [row[:, None].expand_as(weight) for row, weight in zip(kept.values(), weights, strict=False)]
    return [*masks, torch.ones_like(weights[-1], dtype=torch.bool)]


cutting_units = Exercise(
    task="In each layer but the last, round(sparsity · rows) rows go: those with the smallest L2 norm.",
    solution=unit_masks,
    cases=some_networks,
    hints=(
        "One layer first: weight.norm(dim=1) is one number for each row, that is for each unit.",
        "smallest_weights(norms, sparsity) says which rows stay; [:, None].expand_as(weight) makes a matrix of that.",
        "Do this for weights[:-1], and add torch.ones_like(weights[-1], dtype=torch.bool) for the last.",
    ),
    mistakes={
        "That is the L1 norm: sqrt(w²) of each weight is |w|. Square, sum over the row, and then take the root.": (
            by_rows(lambda w: w.square().sqrt().sum(1))
        ),
        "You remove too few: (m // 100) · k forgets the rest when m is no multiple of 100. Use round(s · m).": (
            by_rows(lambda w: w.norm(dim=1), lambda m, sparsity: m // 100 * round(100 * sparsity))
        ),
        "You cut columns. In x @ W a unit is a column, but PyTorch keeps W transposed: its units are rows.": columns,
        "You prune the output layer, too: its rows are the classes, and each of them is needed.": (
            lambda weights, sparsity: unit_masks([*weights, weights[-1]], sparsity)[:-1]
        ),
        "You remove single weights. A unit goes as a whole: score its row with one number.": (
            lambda weights, sparsity: [
                *(keep_top(weight.abs(), sparsity) for weight in weights[:-1]), weights[-1] == weights[-1]
            ]
        ),
        "You remove the rows with the LARGEST norm.": by_rows(lambda w: -w.norm(dim=1)),
        "Your sparsity is the fraction that stays. In this course it is always the fraction that goes.": (
            lambda weights, sparsity: unit_masks(weights, 1 - sparsity)
        ),
        "You compare with a threshold: all rows that tie at the cut go, which is too many. Count.": at_the_cut,
        "All layers share one competition here. The challenge takes the same fraction from each layer.": in_one_ring,
        "You return one value for each row. A mask has the shape of its weights: [:, None].expand_as(weight).": (
            lambda weights, sparsity: [mask[:, 0] for mask in unit_masks(weights, sparsity)]
        ),
        "True keeps and False removes. Your masks are the other way round.": (
            lambda weights, sparsity: [~mask for mask in unit_masks(weights, sparsity)]
        ),
        "You sum the weights of a row before you square: their signs cancel. Square first: weight.norm(dim=1).": (
            by_rows(lambda w: w.sum(1).abs())
        ),
        "You round down: int(s · m) removes one too few if the rest is large. Use round(s · m).": (
            by_rows(lambda w: w.norm(dim=1), lambda m, sparsity: int(sparsity * m))
        ),
        "You remove one row too many: with k = round(s · m), the row at sorted[k] is the first that stays.": (
            lambda weights, sparsity: above_the_cut(weights, sparsity, torch.gt)
        ),
        "You compare with a threshold: all rows that tie at the cut stay, so too few go. Count.": above_the_cut,
        "You remove columns of the next layer, too. They are useless by now; counting them is exercise 2.": (
            lambda weights, sparsity: readers_too(unit_masks(weights, sparsity))
        ),
        "You return weights. Return masks: True for what stays, False for what goes.": (
            lambda weights, sparsity: [w * m for w, m in zip(weights, unit_masks(weights, sparsity), strict=True)]
        ),
        "Your masks hold numbers. They are right, but a mask is True or False: .bool().": (
            lambda weights, sparsity: [mask.float() for mask in unit_masks(weights, sparsity)]
        ),
        "One mask is missing: the last layer needs one, too, all True.": (
            lambda weights, sparsity: unit_masks(weights, sparsity)[:-1]
        ),
    },
)  # fmt: skip


def some_masks() -> list[tuple]:
    """Masks in which units die in rows, in columns, and one after the other."""
    random = torch.Generator().manual_seed(4)
    cases = []
    for sizes, density in (((6, 8, 7, 5, 4), 0.25), ((5, 9, 6, 6, 3), 0.3), ((4, 6, 5, 2), 0.35)):
        masks = [torch.rand(o, i, generator=random) < density for i, o in pairwise(sizes)]
        cases.append((masks,))
    whole = [torch.ones(6, 4, dtype=torch.bool), torch.ones(5, 6, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)]
    whole[0][:3], whole[1][4] = False, False
    return [*cases, (whole,)]


def gone_of(alive: list[Tensor]) -> float:
    """1 - left / all, for the mistakes below."""
    return 1 - sum(int(mask.sum()) for mask in alive) / sum(mask.numel() for mask in alive)


def only_fed(masks: list[Tensor]) -> list[Tensor]:
    """Forward only, for the mistakes below."""
    fed, alive = torch.ones(masks[0].shape[1], dtype=torch.bool), []
    for mask in masks:
        alive.append(mask & fed)
        fed = alive[-1].any(1)
    return alive


def only_heard(masks: list[Tensor]) -> list[Tensor]:
    """Backward only, for the mistakes below."""
    return [mask.T for mask in only_fed([mask.T for mask in reversed(masks)])][::-1]


def neighbours(masks: list[Tensor]) -> list[Tensor]:
    """One step forward and one back, for the mistakes below."""
    alive = [mask.clone() for mask in masks]
    for i in range(len(masks) - 1):
        alive[i + 1] &= masks[i].any(1)
        alive[i] &= masks[i + 1].any(0)[:, None]
    return alive


counting_gone = Exercise(
    task="Which fraction of all weights is really gone: removed, or on no path from input to output?",
    solution=really_gone,
    cases=some_masks,
    hints=(
        "Forward: fed starts as all True; after a layer, a unit is fed if any kept weight comes from a fed unit.",
        "Backward, with columns: a unit is heard if any kept weight takes it to a heard unit of the next layer.",
        "A weight is left if mask & fed (of its column) & heard[:, None] (of its row). Count over all layers at once.",
    ),
    mistakes={
        "You count only what was removed: the nominal sparsity.": gone_of,
        "You go forward only. A unit that nobody listens to is of no use either: go backward, too.": (
            lambda masks: gone_of(only_fed(masks))
        ),
        "You go backward only. A unit that nothing reaches stays zero: go forward, too.": (
            lambda masks: gone_of(only_heard(masks))
        ),
        "You look one layer ahead and one back. Death spreads: a unit whose only reader is dead is dead as well.": (
            lambda masks: gone_of(neighbours(masks))
        ),
        "You return the fraction that is LEFT.": lambda masks: 1 - really_gone(masks),
        "You average the layers' fractions. Layers have different sizes: add up the counts, and divide once.": (
            lambda masks: sum(gone_of([mask]) for mask in connected(masks)) / len(masks)
        ),
        "You leave out the output layer: its columns die with the units that they read.": (
            lambda masks: gone_of(connected(masks)[:-1])
        ),
        "You take a unit for dead when ONE of its weights is gone. It is dead when all are: any(1), not all(1).": (
            lambda masks: gone_of(
                [mask & before.all(1) for mask, before in zip(masks[1:], masks[:-1], strict=True)] + [masks[0]]
            )
        ),
        "You return a count. Divide it by the number of all weights.": (
            lambda masks: sum(int((~mask).sum()) for mask in connected(masks))
        ),
        "The value is right, but it is still a tensor: int(mask.sum()), or .item(), makes a plain number of it.": (
            lambda masks: torch.tensor(really_gone(masks))
        ),
        "You return percent. A fraction lies between 0 and 1.": lambda masks: 100 * really_gone(masks),
        "You look one layer back and not further: count only kept weights from FED units. Then go backward.": (
            lambda masks: gone_of([masks[0], *(mask & before.any(1) for before, mask in pairwise(masks))])
        ),
    },
)
