"""The bank of wrong answers of notebook 02, written by another hand than the hints: each gets the hint it deserves."""

import numpy as np
import pytest
import torch

from course_utils.answers_02 import competing, counting
from course_utils.exercises import check, hint, judged


def kth(scores, k):
    return np.sort(scores.numpy().ravel())[k]


def strictly_above_the_last_removed(scores, sparsity):
    k = round(sparsity * scores.numel())
    return scores > (float(kth(scores, k - 1)) if k > 0 else -1.0)


def at_least_the_last_removed(scores, sparsity):
    k = round(sparsity * scores.numel())
    return scores.ge(float(kth(scores, k - 1)) if k > 0 else -1.0)


def positions(scores, count, smallest=True):
    mask = np.full(scores.numel(), True)
    order = np.argsort(scores.numpy().ravel() if smallest else -scores.numpy().ravel(), kind="stable")
    mask[order[:count]] = False
    return torch.from_numpy(mask).reshape(scores.shape)


def right(scores, sparsity):
    return positions(scores, round(sparsity * scores.numel()))


COUNTING = {
    "larger than a cut": strictly_above_the_last_removed,
    "at least the cut": at_least_the_last_removed,
    "remove the largest": lambda s, p: positions(s, round(p * s.numel()), smallest=False),
    "fraction that stays": lambda s, p: positions(s, s.numel() - round(p * s.numel())),
    "round down": lambda s, p: positions(s, int(np.floor(p * s.numel()))),
    "mask is flat": lambda s, p: right(s, p).reshape(-1),
    "the other way round": lambda s, p: ~right(s, p),
    "True and False": lambda s, p: right(s, p).double(),
}


def across(scores, sparsity, scale=lambda s: 1.0):
    names = list(scores)
    row = np.concatenate([scores[n].numpy().ravel() / scale(scores[n].numpy()) for n in names])
    keep = np.ones(len(row), bool)
    keep[np.argsort(row, kind="stable")[: round(sparsity * len(row))]] = False
    ends = np.cumsum([scores[n].numel() for n in names])[:-1]
    return {n: torch.from_numpy(p).reshape(scores[n].shape) for n, p in zip(names, np.split(keep, ends), strict=True)}


def mean_of_cuts(scores, sparsity):
    cuts = [float(kth(s, round(sparsity * s.numel()) - 1)) for s in scores.values()]
    return {n: s > np.mean(cuts) for n, s in scores.items()}


COMPETING = {
    "layer-wise": lambda scores, p: {n: right(s, p) for n, s in scores.items()},
    "by its maximum": lambda scores, p: across(scores, p, np.max),
    "by its mean": lambda scores, p: across(scores, p, np.mean),
    "average the cuts": mean_of_cuts,
    "above the cut": lambda scores, p: {n: ~m for n, m in across(scores, p).items()},
    "masks are flat": lambda scores, p: {n: m.flatten() for n, m in across(scores, p).items()},
    "one long mask": lambda scores, p: torch.cat([m.flatten() for m in across(scores, p).values()]),
}
BANK = [(counting, words, answer) for words, answer in COUNTING.items()]
BANK += [(competing, words, answer) for words, answer in COMPETING.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(counting, right), (competing, across)])
def test_another_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@pytest.mark.parametrize("exercise", [counting, competing])
def test_the_stub_is_open_and_an_error_is_a_sentence(exercise, capsys):
    assert judged(exercise, lambda scores, sparsity: None)[0] == "open"
    state, sentence = judged(exercise, lambda scores, sparsity: 1 / 0)
    assert state == "wrong" and "ZeroDivisionError" in sentence
    check(exercise, lambda: None)  # even a function of the wrong form
    assert capsys.readouterr().out.startswith("✗ ")


def test_an_answer_cannot_spoil_the_cases():
    def greedy(scores, sparsity):
        scores.zero_()
        return right(scores, sparsity)

    assert judged(counting, greedy)[0] == "wrong" and judged(counting, right)[0] == "right"


def test_hints_are_numbered(capsys):
    hint(counting)
    hint(counting, 9)
    first, last = capsys.readouterr().out.splitlines()
    assert "positions" in first and last == "There are 3 hints: ask for 1 to 3."
