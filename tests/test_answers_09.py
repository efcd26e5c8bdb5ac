"""The bank of wrong answers of notebook 09, written by another hand than the hints: each gets the hint it deserves."""

import numpy as np
import pytest
import torch

from course_utils.answers_09 import rise, tighten
from course_utils.exercises import judged


def levels(final, initial, n, way=lambda left: 1 - left**3, ks=None, end=None):
    """initial + way(what is left of the path) of the distance, for every k."""
    ks = np.arange(1, n + 1) if ks is None else ks
    left = np.clip(1 - ks / (end or n), 0, 1)
    return (initial + way(left) * (final - initial)).tolist()


RISE = {
    "forgot where it begins": lambda f, i, n: levels(f, 0.0, n),
    "count k from 0": lambda f, i, n: levels(f, i, n, ks=np.arange(n)),
    "n + 1 numbers": lambda f, i, n: levels(f, i, n, ks=np.arange(n + 1)),
    "one round early": lambda f, i, n: levels(f, i, n, end=n - 1),
    "straight line": lambda f, i, n: np.linspace(i, f, n + 1)[1:].tolist(),
    "exponent is 2": lambda f, i, n: levels(f, i, n, lambda left: 1 - left**2),
    "Slow first": lambda f, i, n: levels(f, i, n, lambda left: (1 - left) ** 3),
    "what is *left*": lambda f, i, n: (1 - np.geomspace(1 - i, 1 - f, n + 1)[1:]).tolist(),
    "fraction that stays": lambda f, i, n: [1 - level for level in levels(f, i, n)],
    "what each round adds": lambda f, i, n: np.diff([i, *levels(f, i, n)]).tolist(),
    "what still has to go. Subtract": lambda f, i, n: ((f - i) * (1 - np.arange(1, n + 1) / n) ** 3).tolist(),
    "come from above": lambda f, i, n: (f + (f - i) * (1 - np.arange(1, n + 1) / n) ** 3).tolist(),
    "is raised to the third power": lambda f, i, n: (f - ((f - i) * (1 - np.arange(1, n + 1) / n)) ** 3).tolist(),
    "leave out what was gone": lambda f, i, n: levels(f - i, 0.0, n),
    "beyond final": lambda f, i, n: (i + f * (1 - (1 - np.arange(1, n + 1) / n) ** 3)).tolist(),
}


def row(scores, masks):
    """All scores, and all masks, in one row each."""
    return [np.concatenate([t.numpy().ravel() for t in d.values()]) for d in (scores, masks)]


def back(gone, masks):
    """A row of what is gone as masks, in the shapes of these."""
    parts = np.split(~gone, np.cumsum([m.numel() for m in masks.values()])[:-1])
    return {n: torch.from_numpy(p.reshape(m.shape)) for (n, m), p in zip(masks.items(), parts, strict=True)}


def smallest(s, count):
    gone = np.zeros(len(s), bool)
    gone[np.argsort(s, kind="stable")[:count]] = True
    return gone


def with_score(of_gone):
    """An answer that gives what is gone this score."""

    def answer(scores, masks, sparsity):
        s, kept = row(scores, masks)
        return back(smallest(np.where(kept, s, of_gone), round(sparsity * len(s))), masks)

    return answer


def counting(how_many):
    """An answer that lets how_many(n, gone, sparsity) of the weights go."""

    def answer(scores, masks, sparsity):
        s, kept = row(scores, masks)
        return back(smallest(np.where(kept, s, -np.inf), how_many(len(s), (~kept).sum(), sparsity)), masks)

    return answer


right = with_score(-np.inf)


def all_anew(scores, masks, sparsity):
    s, _ = row(scores, masks)
    return back(smallest(s, round(sparsity * len(s))), masks)


def afterwards(scores, masks, sparsity):
    return {name: masks[name] & mask for name, mask in all_anew(scores, masks, sparsity).items()}


def layer_by_layer(scores, masks, sparsity):
    return {n: right({n: scores[n]}, {n: masks[n]}, sparsity)[n] for n in masks}


TIGHTEN = {
    "Weights come back": all_anew,
    "weights that are *left*": counting(lambda n, gone, s: round((gone / n + s * (n - gone) / n) * n)),
    "add the level": counting(lambda n, gone, s: min(n, round(gone + s * n))),
    "Too many are gone": afterwards,
    "score of 0": with_score(0.0),
    "layer by layer": layer_by_layer,
    "*last* in line": with_score(np.inf),
    "size of the scores": lambda scores, masks, s: right({n: abs(x) for n, x in scores.items()}, masks, s),
    "keeps too much": lambda scores, masks, s: {n: masks[n] | m for n, m in all_anew(scores, masks, s).items()},
    "masks that you were given": lambda scores, masks, s: {n: m.clone() for n, m in masks.items()},
    "the opposite": lambda scores, masks, s: {n: ~m for n, m in right(scores, masks, s).items()},
    "what was there goes first": lambda scores, masks, s: right(scores, {n: ~m for n, m in masks.items()}, s),
}
BANK = [(rise, words, answer) for words, answer in RISE.items()]
BANK += [(tighten, words, answer) for words, answer in TIGHTEN.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(rise, levels), (tighten, right)])
def test_the_right_answer_passes_and_an_empty_one_is_open(exercise, answer):
    assert judged(exercise, answer)[0] == "right"
    assert judged(exercise, lambda *args: None)[0] == "open"
    assert len(exercise.hints) >= 3


@pytest.mark.parametrize("exercise", [rise, tighten])
def test_the_mistakes_differ_from_each_other(exercise):
    for hint, mistake in exercise.mistakes.items():
        assert judged(exercise, mistake) == ("wrong", hint)
