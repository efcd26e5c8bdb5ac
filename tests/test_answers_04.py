"""The bank of wrong answers of notebook 04, written by another hand than the hints: each gets the hint it deserves."""

import numpy as np
import pytest
import torch

from course_utils.answers_04 import squaring, surgery
from course_utils.exercises import judged


def arrays(*tensors):
    return [t.numpy().astype(np.float64) for t in tensors]


def tensor(values):
    return torch.tensor(np.asarray(values), dtype=torch.float32)


def sample_by_sample(x, y, w, power=lambda g: g * g, label=lambda y, p: y):
    """One list of numbers for each image."""
    x, y, w = arrays(x, y, w)
    found = []
    for image, answer in zip(x, y, strict=True):
        p = 1 / (1 + np.exp(-np.dot(image, w)))
        found.append([power((p - label(answer, p)) * pixel) for pixel in image])
    return np.array(found)


def true_fisher(x, y, w):
    ones, zeros = (sample_by_sample(x, y * 0 + k, w) for k in (1, 0))
    x, w = arrays(x, w)
    p = 1 / (1 + np.exp(-x @ w))[:, None]
    return tensor((p * ones + (1 - p) * zeros).mean(axis=0))


def fisher_by_hand(x, y, w):
    return tensor(sample_by_sample(x, y, w).mean(axis=0))


def plain(x, y, w):
    return sample_by_sample(x, y, w, power=lambda g: g)


SQUARING = {
    "square the mean": lambda x, y, w: tensor(plain(x, y, w).mean(axis=0) ** 2),
    "square the sum": lambda x, y, w: tensor(plain(x, y, w).sum(axis=0) ** 2),
    "divide by how many": lambda x, y, w: tensor(sample_by_sample(x, y, w).sum(axis=0)),
    "forgot the square": lambda x, y, w: tensor(plain(x, y, w).mean(axis=0)),
    "absolute values": lambda x, y, w: tensor(np.abs(plain(x, y, w)).mean(axis=0)),
    "says itself": lambda x, y, w: tensor(sample_by_sample(x, y, w, label=lambda y, p: float(p > 0.5)).mean(axis=0)),
    "the true one": true_fisher,
    "over the weights": lambda x, y, w: tensor(sample_by_sample(x, y, w).mean(axis=1)),
}


def surgeon(w, inverse, q, half=0.5, cost=lambda w, c: w**2 / c, step=lambda w, c: -w / c):
    """Cost and weights, one weight after the other."""
    w, inverse = arrays(w, inverse)
    moved = [w[i] + step(w[q], inverse[q, q]) * inverse[i, q] for i in range(len(w))]
    return tensor(half * cost(w[q], inverse[q, q])), tensor(moved)


def brain_damage(w, inverse, q):
    curvature = np.linalg.inv(inverse.double().numpy())
    return tensor(0.5 * float(w[q]) ** 2 * curvature[q, q]), surgeon(w, inverse, q)[1]


def only_zeroed(w, inverse, q):
    moved = w.clone()
    moved[q] = 0
    return surgeon(w, inverse, q)[0], moved


def left_in_place(w, inverse, q):
    cost, moved = surgeon(w, inverse, q)
    moved[q] = w[q]
    return cost, moved


SURGERY = {
    "multiplies by": lambda w, i, q: surgeon(w, i, q, cost=lambda w, c: w * w * c)[:1] + surgeon(w, i, q)[1:],
    "that is OBD": brain_damage,
    "½ of the Taylor expansion": lambda w, i, q: surgeon(w, i, q, half=1.0),
    "wrong sign": lambda w, i, q: surgeon(w, i, q, step=lambda w, c: w / c),
    "forgets to divide": lambda w, i, q: surgeon(w, i, q, step=lambda w, c: -w),
    "have not moved": only_zeroed,
    "You return δ": lambda w, i, q: (surgeon(w, i, q)[0], surgeon(w, i, q)[1] - w),
    "It has to be zero": left_in_place,
    "wrong order": lambda w, i, q: tuple(reversed(surgeon(w, i, q))),
}
BANK = [(squaring, words, answer) for words, answer in SQUARING.items()]
BANK += [(surgery, words, answer) for words, answer in SURGERY.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(squaring, fisher_by_hand), (surgery, surgeon)])
def test_another_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@pytest.mark.parametrize("exercise", [squaring, surgery])
def test_every_hint_is_reached_and_none_twice(exercise):
    sentences = [judged(exercise, mistake) for mistake in exercise.mistakes.values()]
    assert sentences == [("wrong", hint) for hint in exercise.mistakes]
    assert len(exercise.hints) >= 3 and judged(exercise, lambda *inputs: None)[0] == "open"
