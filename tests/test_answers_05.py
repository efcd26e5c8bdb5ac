"""The bank of wrong answers of notebook 05, written by another hand than the hints: each gets the hint it deserves."""

import itertools

import numpy as np
import pytest
import torch

from course_utils.answers_05 import choosing, counting_zeros
from course_utils.exercises import judged, outcome, same


def normed(batch, norm):
    t = {name: value.numpy().astype(np.float64) for name, value in norm.state_dict().items()}
    columns = [t[n].reshape(1, -1, 1, 1) for n in ("running_mean", "running_var", "weight", "bias")]
    mean, var, gamma, beta = columns
    return (batch.numpy().astype(np.float64) - mean) / np.sqrt(var + norm.eps) * gamma + beta


def table(batches, norm):
    """position × channel: is it zero?"""
    arrays = [np.maximum(normed(b, norm), 0) == 0 for b in batches]
    return np.concatenate([a.transpose(0, 2, 3, 1).reshape(-1, a.shape[1]) for a in arrays])


def right(batches, norm):
    return torch.from_numpy(table(batches, norm).sum(0) / len(table(batches, norm)))


def batch_by_batch(batches, norm):
    return torch.from_numpy(np.mean([table([b], norm).mean(0) for b in batches], axis=0))


def per_image(batches, norm):
    return torch.tensor(
        [float((np.maximum(normed(b[[i]], norm), 0) == 0).mean()) for b in batches for i in range(len(b))]
    )


def raw(batches, norm, test=lambda a: a <= 0):
    return torch.from_numpy(np.concatenate([test(b.numpy()) for b in batches]).mean((0, 2, 3)))


def after_norm(batches, norm, test):
    return torch.from_numpy(np.concatenate([test(normed(b, norm)) for b in batches]).mean((0, 2, 3)))


COUNTING = {
    "before BatchNorm": raw,
    "averages": batch_by_batch,
    "whole layer": lambda b, norm: torch.tensor(table(b, norm).mean()),
    "each image": per_image,
    "NOT zero": lambda b, norm: torch.from_numpy((~table(b, norm)).mean(0)),
    "small values": lambda b, norm: after_norm(b, norm, lambda a: a < 0.1),
    "with == 0": lambda b, norm: after_norm(b, norm, lambda a: a == 0),
    "below 0 before the ReLU": lambda b, norm: after_norm(b, norm, lambda a: a < 0),
    "last batch": lambda b, norm: right([b[-1]], norm),
    "return counts": lambda b, norm: torch.from_numpy(table(b, norm).sum(0)),
}


def competition(silent, sparsity, score, floor=1, removed=None):
    """Masks by hand: the lowest scores of one long row go, the first among equals; the best of a layer is not in it."""
    names = list(silent)
    rows = [np.asarray(score(silent[n].numpy().astype(np.float64)), dtype=np.float64) for n in names]
    for row in rows:
        row[np.argsort(row)[len(row) - floor :]] = np.inf
    row = np.concatenate(rows)
    gone = round(sparsity * len(row)) if removed is None else removed(row)
    keep = np.ones(len(row), bool)
    keep[np.argsort(np.round(row, 6), kind="stable")[:gone]] = False
    return dict(zip(names, map(torch.from_numpy, np.split(keep, np.cumsum([len(r) for r in rows])[:-1])), strict=True))


def wakeful(share):
    return (1 - share) / (1 - share).mean()


def best(silent, sparsity):
    return competition(silent, sparsity, wakeful)


def at_or_below(silent, sparsity):
    def all_that_tie(row):
        cut = np.sort(row)[round(sparsity * len(row)) - 1]
        return int((row <= cut + 1e-6).sum())

    return competition(silent, sparsity, wakeful, removed=all_that_tie)


def layer_by_layer(silent, sparsity):
    return {n: best({n: s}, sparsity)[n] for n, s in silent.items()}


def protect_first(silent, sparsity):
    scores = {n: 1 - s for n, s in silent.items()}
    for s in scores.values():
        s[s.argmax()] = torch.inf
    if any((s / s.mean()).isnan().any() for s in scores.values()):
        raise ValueError("some scores are NaN: a criterion has to give every weight a number")


CHOOSING = {
    "FEWEST zeros": lambda s, p: competition(s, p, lambda a: a / a.mean()),
    "above a cut": at_or_below,
    "raw values": lambda s, p: competition(s, p, lambda a: 1 - a),
    "floor is missing": lambda s, p: competition(s, p, wakeful, floor=0),
    "that is layer-wise": layer_by_layer,
    "protect first": protect_first,
    "divide APoZ itself": lambda s, p: competition(s, p, lambda a: -a / a.mean()),
    "subtract the layer's mean": lambda s, p: competition(s, p, lambda a: a.mean() - a),
    "fraction that stays": lambda s, p: best(s, 1 - p),
    "other way round": lambda s, p: {n: ~m for n, m in best(s, p).items()},
}
BANK = [(counting_zeros, words, answer) for words, answer in COUNTING.items()]
BANK += [(choosing, words, answer) for words, answer in CHOOSING.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(counting_zeros, right), (choosing, best)])
def test_another_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@pytest.mark.parametrize("exercise", [counting_zeros, choosing])
def test_the_stub_is_open_and_an_error_is_a_sentence(exercise):
    assert judged(exercise, lambda *inputs: None)[0] == "open"
    state, sentence = judged(exercise, lambda *inputs: 1 / 0)
    assert state == "wrong" and "ZeroDivisionError" in sentence


@pytest.mark.parametrize("exercise", [counting_zeros, choosing])
def test_all_mistakes_differ_from_each_other_and_from_the_solution(exercise):
    answers = [exercise.solution, *exercise.mistakes.values()]
    results = [[outcome(answer, case) for case in exercise.cases()] for answer in answers]
    assert not any(same(one, other) for one, other in itertools.combinations(results, 2))
    assert len(exercise.mistakes) >= 6 and len(exercise.hints) >= 3
