"""The exercises of notebook 12: their solutions, and the mistakes that people make. Read this after you have tried."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from course_utils.distill import soft
from course_utils.exercises import Exercise
from course_utils.importance import normalised
from course_utils.kinds import isomorphically
from course_utils.masks import Masks
from course_utils.scopes import globally, keep_top, layerwise
from course_utils.scores import Scores


def some_groups() -> list[tuple]:
    """(scores, sparsity, kinds): groups of three kinds in mixed order, on other scales, and with ties."""
    cases = []
    for seed, sparsity in ((0, 0.37), (1, 0.6), (2, 0.76)):
        draw = torch.Generator().manual_seed(seed)
        kinds = {"a": "inner", "c": "stream", "b": "inner", "d": "inner", "e": "stream", "stem": "stem"}
        sizes = {"a": 6, "c": 9, "b": 8, "d": 4, "e": 4, "stem": 7}
        loud = {"a": 1.0, "c": 9.0, "b": 1.7, "d": 3.0, "e": 3.0, "stem": 0.4}
        scores = {n: (8 * loud[n] * torch.rand(size, generator=draw)).round() + 1 for n, size in sizes.items()}
        cases.append((scores, sparsity, kinds))
    return cases


def by_kind(scores: Scores, kinds: dict[str, str], decide: Callable[[Scores], Masks]) -> Masks:
    """decide(the groups of one kind), kind by kind."""
    classes = {kind: {n: s for n, s in scores.items() if kinds[n] == kind} for kind in kinds.values()}
    masks = {name: mask for rivals in classes.values() for name, mask in decide(rivals).items()}
    return {name: masks[name] for name in scores}


def cut_off(scores: Scores, sparsity: float, ties_go: bool) -> Masks:
    """The mistake of a threshold: all ties go, or all of them stay."""
    flat = torch.cat(list(scores.values())).sort().values
    cut = flat[round(sparsity * len(flat)) - 1]
    return {n: s > cut if ties_go else s >= cut for n, s in scores.items()}


def quantile(scores: Scores, sparsity: float, ties_go: bool) -> Masks:
    """The mistake of torch.quantile: a cut between two scores, and the ties on one side."""
    cut = torch.cat(list(scores.values())).quantile(sparsity)
    return {n: s > cut if ties_go else s >= cut for n, s in scores.items()}


def last_of_equals(scores: Scores, sparsity: float) -> Masks:
    """The mistake of letting the last ones among equals go."""
    turned = globally({n: scores[n].flip(0) for n in reversed(scores)}, sparsity)
    return {n: turned[n].flip(0) for n in scores}


def rounded_down(scores: Scores, sparsity: float) -> Masks:
    """The mistake int(sparsity · n)."""
    n = sum(map(len, scores.values()))
    return globally(scores, int(sparsity * n) / n)


def same_number(scores: Scores, sparsity: float) -> Masks:
    """The mistake of equal numbers, not fractions, for the groups of a kind."""
    share = round(sparsity * sum(map(len, scores.values())) / len(scores))
    return {n: keep_top(s, min(share, len(s)) / len(s)) for n, s in scores.items()}


def flipped(masks: Masks) -> Masks:
    """True for what goes."""
    return {n: ~m for n, m in masks.items()}


def whole_groups(scores: Scores, sparsity: float) -> Masks:
    """The mistake of ranking groups by their mean: some go as a whole."""
    stays = keep_top(torch.stack([s.mean() for s in scores.values()]), sparsity)
    return {n: stay.expand(len(s)) for (n, s), stay in zip(scores.items(), stays, strict=True)}


ranking = Exercise(
    task="Masks that remove, of each kind, exactly round(sparsity * n) channels, the smallest; among equals the first.",
    solution=isomorphically,
    cases=some_groups,
    hints=(
        "Collect first: for each kind, the dict of the scores of its groups.",
        "Inside a kind all channels compete, whatever group they are in: that is what globally does with such a dict.",
        "For kind in set(kinds.values()): globally({n: s for n, s in scores.items() if kinds[n] == kind}, sparsity).",
    ),
    mistakes={
        "You rank each group alone. That is the layer-wise scope: groups of one kind compete with each other.": (
            lambda scores, sparsity, kinds: layerwise(scores, sparsity)
        ),
        "You rank all channels of the network in one row. Only groups of one kind may be compared.": (
            lambda scores, sparsity, kinds: globally(scores, sparsity)
        ),
        "You take the same *number* from each group of a kind. Which group loses how many is decided by the ranking.": (
            lambda scores, sparsity, kinds: by_kind(scores, kinds, lambda s: same_number(s, sparsity))
        ),
        "Your cut is a value, and with <= all ties go. Count: exactly round(sparsity * n) of each kind.": (
            lambda scores, sparsity, kinds: by_kind(scores, kinds, lambda s: cut_off(s, sparsity, ties_go=True))
        ),
        "Your cut is a value, and with < its ties stay. Count: exactly round(sparsity * n) of each kind.": (
            lambda scores, sparsity, kinds: by_kind(scores, kinds, lambda s: cut_off(s, sparsity, ties_go=False))
        ),
        "torch.quantile gives a value between two scores, not a count; with >= its ties stay. Count the smallest.": (
            lambda scores, sparsity, kinds: by_kind(scores, kinds, lambda s: quantile(s, sparsity, ties_go=False))
        ),
        "torch.quantile gives a value between two scores, not a count; with > its ties go. Count the smallest.": (
            lambda scores, sparsity, kinds: by_kind(scores, kinds, lambda s: quantile(s, sparsity, ties_go=True))
        ),
        "As many go as should, but among equals your last ones. In this course the first go.": (
            lambda scores, sparsity, kinds: by_kind(scores, kinds, lambda s: last_of_equals(s, sparsity))
        ),
        "You round down. Exactly round(sparsity * n) go, in each kind.": (
            lambda scores, sparsity, kinds: by_kind(scores, kinds, lambda s: rounded_down(s, sparsity))
        ),
        "True keeps. You return the opposite.": (
            lambda scores, sparsity, kinds: flipped(isomorphically(scores, sparsity, kinds))
        ),
        "The largest went. Small scores go first.": (
            lambda scores, sparsity, kinds: isomorphically({n: -s for n, s in scores.items()}, sparsity, kinds)
        ),
        "You keep the fraction `sparsity`. In this course, sparsity is what goes.": (
            lambda scores, sparsity, kinds: isomorphically(scores, 1 - sparsity, kinds)
        ),
        "You divide each group by its mean first. That may be wise, but not here: compare the scores as they are.": (
            lambda scores, sparsity, kinds: isomorphically(normalised(scores), sparsity, kinds)
        ),
        "You leave alone a kind that has one group only. Its channels compete among themselves.": (
            lambda scores, sparsity, kinds: (
                isomorphically(scores, sparsity, kinds) | {"stem": torch.ones_like(scores["stem"], dtype=torch.bool)}
            )
        ),
        "You rank whole groups by their mean. The competitors are channels.": (
            lambda scores, sparsity, kinds: by_kind(scores, kinds, lambda s: whole_groups(s, sparsity))
        ),
    },
)


def some_lessons() -> list[tuple]:
    """(logits, teacher_logits, labels, temperature, alpha)."""
    cases = []
    for seed, (images, classes, temperature, alpha) in enumerate(
        ((7, 5, 4.0, 0.3), (4, 3, 2.5, 0.8), (5, 6, 1.5, 0.6))
    ):
        draw = torch.Generator().manual_seed(seed)
        logits, teacher = (3 * torch.randn(images, classes, generator=draw, dtype=torch.float64) for _ in range(2))
        cases.append((logits, teacher, torch.randint(classes, (images,), generator=draw), temperature, alpha))
    return cases


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Σ p (log p - log q) for each image."""
    return (p * (p.log() - q.log())).sum(1)


def mixed(z: Tensor, labels: Tensor, alpha: float, teachers: Tensor) -> Tensor:
    """(1 - α) · CE(labels) + α · what the teacher's part is."""
    return (1 - alpha) * cross_entropy(z, labels) + alpha * teachers


def softened(z: Tensor, t: Tensor, temperature: float, of_teacher: float | None = None) -> Tensor:
    """KL(teacher ‖ student) for each image, at this temperature; the teacher's may be another one."""
    return divergence(softmax(t / (of_teacher or temperature), 1), softmax(z / temperature, 1))


def crossed(z: Tensor, t: Tensor, temperature: float) -> Tensor:
    """The mistake of the cross-entropy in place of the divergence: - Σ p log q."""
    return -(softmax(t / temperature, 1) * log_softmax(z / temperature, 1)).sum(1)


distilling = Exercise(
    task="(1 - alpha) * cross-entropy(labels) + alpha * T² * KL(teacher ‖ student), the mean over the images.",
    solution=soft,
    cases=some_lessons,
    hints=(
        "The labels' part sees the plain logits: torch.nn.functional.cross_entropy(logits, labels).",
        "p = softmax(teacher_logits / T, 1), q = softmax(logits / T, 1); KL is the sum of p * (log p - log q) over the "
        "classes.",
        "Take the mean of the KL over the images, times T², times alpha; add (1 - alpha) times the labels' part.",
    ),
    mistakes={
        "T² is missing. Softened logits have gradients that are about T² times smaller: give it back.": (
            lambda z, t, y, T, a: mixed(z, y, a, softened(z, t, T).mean())
        ),
        "You multiply by T, and not by T².": lambda z, t, y, T, a: mixed(z, y, a, T * softened(z, t, T).mean()),
        "Your divergence is turned round. KL(teacher ‖ student): the teacher's probabilities are the weights.": (
            lambda z, t, y, T, a: mixed(z, y, a, T**2 * softened(t, z, T).mean())
        ),
        "The teacher is not softened. Both are divided by the temperature.": (
            lambda z, t, y, T, a: mixed(z, y, a, T**2 * softened(z, t, T, of_teacher=1.0).mean())
        ),
        "The student is not softened. Both are divided by the temperature.": (
            lambda z, t, y, T, a: mixed(z, y, a, T**2 * softened(z, t, 1.0, of_teacher=T).mean())
        ),
        "The labels' part sees softened logits. Only the teacher's part is at temperature T.": (
            lambda z, t, y, T, a: mixed(z / T, y, a, T**2 * softened(z, t, T).mean())
        ),
        "alpha and 1 - alpha have changed places: alpha is the teacher's part.": (
            lambda z, t, y, T, a: mixed(z, y, 1 - a, T**2 * softened(z, t, T).mean())
        ),
        "You take the mean over the classes, too. Sum over the classes, then the mean over the images.": (
            lambda z, t, y, T, a: mixed(z, y, a, T**2 * softened(z, t, T).mean() / z.shape[1])
        ),
        "You sum over the images. Take their mean, so that a larger batch is not a larger loss.": (
            lambda z, t, y, T, a: mixed(z, y, a, T**2 * softened(z, t, T).sum())
        ),
        "That is the teacher's cross-entropy, -Σ p log q. Its gradient is the same, but KL is 0 when both agree.": (
            lambda z, t, y, T, a: mixed(z, y, a, T**2 * crossed(z, t, T).mean())
        ),
        "cross_entropy takes logits and does the softmax itself. You gave it probabilities.": (
            lambda z, t, y, T, a: mixed(softmax(z, 1), y, a, T**2 * softened(z, t, T).mean())
        ),
        "You learn from the teacher's first choice alone: that is hard distillation. Use all of its probabilities.": (
            lambda z, t, y, T, a: mixed(z, y, a, cross_entropy(z, t.argmax(1)))
        ),
        "The labels are missing: (1 - alpha) of the loss is theirs.": (
            lambda z, t, y, T, a: a * T**2 * softened(z, t, T).mean()
        ),
        "The labels' part has its full weight. Multiply it by 1 - alpha.": (
            lambda z, t, y, T, a: cross_entropy(z, y) + a * T**2 * softened(z, t, T).mean()
        ),
        "Your softmax runs over the images. Each image has its own probabilities, over the classes: dim=1.": (
            lambda z, t, y, T, a: mixed(z, y, a, T**2 * softened(z.T, t.T, T).sum() / len(z))
        ),
        "kl_div wants the logarithm of the student's probabilities first: log_softmax, not softmax.": (
            lambda z, t, y, T, a: mixed(
                z, y, a, T**2 * kl_div(softmax(z / T, 1), softmax(t / T, 1), reduction="batchmean")
            )
        ),
        "kl_div wants the teacher's probabilities, not their logarithm (or log_target=True). You get NaN.": (
            lambda z, t, y, T, a: mixed(
                z, y, a, T**2 * kl_div(log_softmax(z / T, 1), log_softmax(t / T, 1), reduction="batchmean")
            )
        ),
        "Your divergence has the wrong sign: log p - log q, with the teacher's p first.": (
            lambda z, t, y, T, a: mixed(z, y, a, -(T**2) * softened(z, t, T).mean())
        ),
        "T² multiplies the labels' part, too. It belongs to the teacher's part alone.": (
            lambda z, t, y, T, a: T**2 * mixed(z, y, a, softened(z, t, T).mean())
        ),
    },
)
