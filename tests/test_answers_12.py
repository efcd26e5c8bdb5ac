"""The bank of wrong answers of notebook 12, written by another hand than the hints: each gets the hint it deserves."""

import numpy as np
import pytest
import torch

from course_utils.answers_12 import distilling, ranking
from course_utils.exercises import judged


def ranked(how_many=round, of=lambda kinds: kinds, order=lambda row: row, part=lambda s: s):
    """An answer that sorts, for each value of of(kinds), one row of numbers and lets the first ones go."""

    def answer(scores, sparsity, kinds):
        classes = of(kinds)
        gone = {name: np.zeros(len(s), bool) for name, s in scores.items()}
        for one in dict.fromkeys(classes.values()):
            places = [(name, i) for name in scores if classes[name] == one for i in range(len(scores[name]))]
            row = np.array([scores[name][i].item() for name, i in places])
            for k in np.argsort(order(row), kind="stable")[: how_many(part(sparsity) * len(row))]:
                gone[places[k][0]][places[k][1]] = True
        return {name: torch.from_numpy(~mask) for name, mask in gone.items()}

    return answer


right = ranked()


def by_value(compare):
    """An answer that compares with the score of the last one to go."""

    def answer(scores, sparsity, kinds):
        found = {}
        for name, s in scores.items():
            row = np.sort(np.concatenate([scores[n].numpy() for n in scores if kinds[n] == kinds[name]]))
            found[name] = torch.from_numpy(compare(s.numpy(), row[round(sparsity * len(row)) - 1]))
        return found

    return answer


def by_quantile(compare):
    """An answer that compares with numpy's quantile of the kind."""

    def answer(scores, sparsity, kinds):
        found = {}
        for name, s in scores.items():
            row = np.concatenate([scores[n].numpy() for n in scores if kinds[n] == kinds[name]])
            found[name] = torch.from_numpy(compare(s.numpy(), np.quantile(row, sparsity).astype(row.dtype)))
        return found

    return answer


def largest_stay(scores, sparsity, kinds):
    """Sorts downwards, stably: among equals the first stay."""
    found = {name: np.zeros(len(s), bool) for name, s in scores.items()}
    for kind in dict.fromkeys(kinds.values()):
        places = [(name, i) for name in scores if kinds[name] == kind for i in range(len(scores[name]))]
        places.sort(key=lambda place: -scores[place[0]][place[1]].item())
        for name, i in places[: len(places) - round(sparsity * len(places))]:
            found[name][i] = True
    return {name: torch.from_numpy(mask) for name, mask in found.items()}


def equal_numbers(scores, sparsity, kinds):
    found = {}
    for name, s in scores.items():
        family = [n for n in scores if kinds[n] == kinds[name]]
        share = round(sparsity * sum(len(scores[n]) for n in family) / len(family))
        mask = np.ones(len(s), bool)
        mask[np.argsort(s.numpy(), kind="stable")[:share]] = False
        found[name] = torch.from_numpy(mask)
    return found


def opposite(scores, sparsity, kinds):
    return {n: torch.logical_not(m) for n, m in right(scores, sparsity, kinds).items()}


def divided(scores, sparsity, kinds):
    return right({n: s / s.sum() * len(s) for n, s in scores.items()}, sparsity, kinds)


def spares_the_single(scores, sparsity, kinds):
    masks, words = right(scores, sparsity, kinds), list(kinds.values())
    return {n: torch.ones(len(m), dtype=torch.bool) if words.count(kinds[n]) == 1 else m for n, m in masks.items()}


def groups_go(scores, sparsity, kinds):
    found = {}
    for kind in dict.fromkeys(kinds.values()):
        family = [n for n in scores if kinds[n] == kind]
        order = sorted(family, key=lambda n: float(scores[n].mean()))
        for place, name in enumerate(order):
            found[name] = torch.full((len(scores[name]),), place >= round(sparsity * len(family)))
    return {name: found[name] for name in scores}


RANKING = {
    "each group alone": ranked(of=lambda kinds: {n: n for n in kinds}),
    "in one row": ranked(of=lambda kinds: dict.fromkeys(kinds, "all")),
    "same *number*": equal_numbers,
    "all ties go": by_value(lambda s, cut: s > cut),
    "ties stay": by_value(lambda s, cut: s >= cut),
    "with >= its ties stay": by_quantile(lambda s, cut: s >= cut),
    "with > its ties go": by_quantile(lambda s, cut: s > cut),
    "your last ones": largest_stay,
    "round down": ranked(how_many=int),
    "the opposite": opposite,
    "The largest went": ranked(order=lambda row: -row),
    "keep the fraction": ranked(part=lambda s: 1 - s),
    "by its mean first": divided,
    "one group only": spares_the_single,
    "whole groups by their mean": groups_go,
}


def p(z, temperature=1.0):
    e = np.exp((z - z.max(1, keepdims=True)) / temperature)
    return e / e.sum(1, keepdims=True)


def labels_part(z, y, temperature=1.0):
    return -np.log(p(z, temperature)[np.arange(len(y)), y]).mean()


def kl(a, b):
    return (a * np.log(a / b)).sum(1)


def lesson(teachers=None, labels=labels_part, weights=lambda a: (1 - a, a)):
    """weights · (the labels' part, the teacher's part)."""

    def answer(logits, teacher_logits, targets, temperature, alpha):
        z, t, y = logits.numpy(), teacher_logits.numpy(), targets.numpy()
        part = temperature**2 * kl(p(t, temperature), p(z, temperature)).mean()
        own, other = weights(alpha)
        value = own * labels(z, y) + other * (part if teachers is None else teachers(z, t, temperature))
        return torch.tensor(float(value), dtype=torch.float64)

    return answer


def cold_labels(logits, teacher_logits, targets, temperature, alpha):
    return lesson(labels=lambda z, y: labels_part(z, y, temperature))(
        logits, teacher_logits, targets, temperature, alpha
    )


def everything_squared(logits, teacher_logits, targets, temperature, alpha):
    plain = lesson(lambda z, t, T: kl(p(t, T), p(z, T)).mean())
    return temperature**2 * plain(logits, teacher_logits, targets, temperature, alpha)


def no_probabilities(z, t, temperature):
    with np.errstate(invalid="ignore"):
        return temperature**2 * kl(np.log(p(t, temperature)), p(z, temperature)).mean()


def exponential(z, t, T):
    """The student's probabilities where their logarithm should be."""
    return T**2 * (p(t, T) * (np.log(p(t, T)) - p(z, T))).sum(1).mean()


DISTILLING = {
    "T² is missing": lesson(lambda z, t, T: kl(p(t, T), p(z, T)).mean()),
    "by T, and not by T²": lesson(lambda z, t, T: T * kl(p(t, T), p(z, T)).mean()),
    "turned round": lesson(lambda z, t, T: T**2 * kl(p(z, T), p(t, T)).mean()),
    "The teacher is not softened": lesson(lambda z, t, T: T**2 * kl(p(t), p(z, T)).mean()),
    "The student is not softened": lesson(lambda z, t, T: T**2 * kl(p(t, T), p(z)).mean()),
    "sees softened logits": cold_labels,
    "changed places": lesson(weights=lambda a: (a, 1 - a)),
    "mean over the classes": lesson(lambda z, t, T: T**2 * kl(p(t, T), p(z, T)).mean() / z.shape[1]),
    "sum over the images": lesson(lambda z, t, T: T**2 * kl(p(t, T), p(z, T)).sum()),
    "-Σ p log q": lesson(lambda z, t, T: -(T**2) * (p(t, T) * np.log(p(z, T))).sum(1).mean()),
    "You gave it probabilities": lesson(labels=lambda z, y: labels_part(p(z), y)),
    "first choice alone": lesson(lambda z, t, T: labels_part(z, t.argmax(1))),
    "The labels are missing": lesson(weights=lambda a: (0, a)),
    "its full weight": lesson(weights=lambda a: (1, a)),
    "over the images. Each": lesson(lambda z, t, T: T**2 * kl(p(t.T, T), p(z.T, T)).sum() / len(z)),
    "log_softmax, not softmax": lesson(exponential),
    "You get NaN": lesson(no_probabilities),
    "wrong sign": lesson(lambda z, t, T: T**2 * (p(t, T) * np.log(p(z, T) / p(t, T))).sum(1).mean()),
    "belongs to the teacher's part alone": everything_squared,
}


@pytest.mark.parametrize(
    "exercise, bank", [(ranking, RANKING), (distilling, DISTILLING)], ids=["ranking", "distilling"]
)
def test_every_wrong_answer_gets_its_own_hint(exercise, bank):
    assert len(bank) == len(exercise.mistakes) >= 5
    said = set()
    for words, answer in bank.items():
        state, sentence = judged(exercise, answer)
        assert state == "wrong" and words in sentence, (words, sentence)
        said.add(sentence)
    assert said == set(exercise.mistakes)


@pytest.mark.parametrize("exercise, answer", [(ranking, right), (distilling, lesson())], ids=["ranking", "distilling"])
def test_right_and_open_answers(exercise, answer):
    assert judged(exercise, answer)[0] == "right"
    assert judged(exercise, lambda *arguments: None)[0] == "open"
    assert len(exercise.hints) >= 3
