"""The bank of wrong answers of notebook 03, written by another hand than the hints: each gets the hint it deserves."""

import itertools

import numpy as np
import pytest
import torch

from course_utils.answers_03 import pushing, silencing
from course_utils.exercises import judged, outcome, same


def as_numpy(tensors):
    return {name: t.numpy().astype(np.float64) for name, t in tensors.items()}


def as_torch(arrays):
    return {name: torch.from_numpy(np.asarray(a, dtype=np.float32)) for name, a in arrays.items()}


def pull(kind, everywhere=False):
    """An answer that adds kind(γ, gradient) times the strength to the gradient of the scales, or of all tensors."""

    def answer(gradients, values, scales, strength):
        grads, vals = as_numpy(gradients), as_numpy(values)
        for name in list(grads) if everywhere else scales:
            grads[name] = grads[name] + strength * kind(vals[name], grads[name])
        return as_torch(grads)

    return answer


def l1(value, gradient):
    return np.where(value > 0, 1.0, np.where(value < 0, -1.0, 0.0))


def l1_alone(gradients, values, scales, strength):
    found = as_numpy(gradients)
    found.update({name: strength * np.sign(values[name].numpy()) for name in scales})
    return as_torch(found)


def scales_alone(gradients, values, scales, strength):
    whole = pull(l1)(gradients, values, scales, strength)
    return {name: whole[name] for name in scales}


PUSHING = {
    "an L2 term": pull(lambda value, gradient: value),
    "the term itself": pull(lambda value, gradient: np.abs(value)),
    "sign of the gradient": pull(lambda value, gradient: np.sign(gradient)),
    "You subtract": pull(lambda value, gradient: -l1(value, gradient)),
    "every tensor": pull(l1, everywhere=True),
    "sign is missing": pull(lambda value, gradient: np.ones_like(value)),
    "in the place of the loss's gradient": l1_alone,
    "the scales only": scales_alone,
}


def cut(score, count):
    """Positions of the `count` smallest scores; among equals the first."""
    return np.argsort(np.asarray(score), kind="stable")[:count]


def hush(score=np.abs, count=lambda p, n: round(p * n), gamma_too=True, beta_too=True):
    """An answer that silences count(p, n) units with the smallest score(γ)."""

    def answer(gamma, beta, sparsity):
        g, b = gamma.numpy().copy(), beta.numpy().copy()
        gone = cut(score(g), count(sparsity, len(g)))
        if gamma_too:
            g[gone] = 0.0
        if beta_too:
            b[gone] = 0.0
        return torch.from_numpy(g), torch.from_numpy(b)

    return answer


def threshold(gamma, beta, sparsity):
    size = np.abs(gamma.numpy())
    count = round(sparsity * len(size))
    keep = size > np.sort(size)[count - 1] if count else np.full(len(size), True)
    return torch.from_numpy(gamma.numpy() * keep), torch.from_numpy(beta.numpy() * keep)


def by_beta(gamma, beta, sparsity):
    b, g = hush()(beta, gamma, sparsity)
    return g, b


def shorter(gamma, beta, sparsity):
    keep = np.setdiff1d(np.arange(len(gamma)), cut(np.abs(gamma.numpy()), round(sparsity * len(gamma))))
    return gamma[keep], beta[keep]


SILENCING = {
    "You forgot β": hush(beta_too=False),
    "silenced β alone": hush(gamma_too=False),
    "used a threshold": threshold,
    "ranked γ itself": hush(score=lambda g: g),
    "the loudest units": hush(score=lambda g: -np.abs(g)),
    "ranked by |β|": by_beta,
    "fraction that stays": hush(count=lambda p, n: round((1 - p) * n)),
    "the units that are left": shorter,
}
BANK = [(pushing, words, answer) for words, answer in PUSHING.items()]
BANK += [(silencing, words, answer) for words, answer in SILENCING.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(pushing, pull(l1)), (silencing, hush())])
def test_another_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@pytest.mark.parametrize("exercise", [pushing, silencing])
def test_the_stub_is_open_and_every_mistake_differs_from_every_other(exercise):
    assert judged(exercise, lambda *inputs: None)[0] == "open"
    answers = [exercise.solution, *exercise.mistakes.values()]
    outcomes = [[outcome(answer, case) for case in exercise.cases()] for answer in answers]
    assert not any(same(a, b) for a, b in itertools.combinations(outcomes, 2))
    assert not any(isinstance(value, str) for found in outcomes for value in found), "a mistake that raises"


@pytest.mark.parametrize("exercise", [pushing, silencing])
def test_there_are_hints_and_an_error_is_a_sentence(exercise):
    assert len(exercise.hints) >= 3 and len(exercise.mistakes) >= 5
    state, sentence = judged(exercise, lambda *inputs: 1 / 0)
    assert state == "wrong" and "ZeroDivisionError" in sentence
