"""The bank of wrong answers of notebook 10, written by another hand than the hints: each gets the hint it deserves."""

import itertools

import numpy as np
import pytest
import torch

from course_utils.answers_10 import barring, rewinding
from course_utils.exercises import judged, outcome, same


def arrays(state):
    return {name: t.numpy() for name, t in state.items()}


def tensors(state):
    return {name: torch.from_numpy(np.asarray(a)) for name, a in state.items()}


def survivors(values, masks, sparsity, size=np.abs):
    """One long row of all weights; the smallest go, those already gone before all others."""
    rows = [np.where(masks[n].ravel(), size(values[n]).ravel(), -np.inf) for n in masks]
    row = np.concatenate(rows)
    keep = np.ones(len(row), bool)
    keep[np.argsort(row, kind="stable")[: round(sparsity * len(row))]] = False
    pieces = np.split(keep, np.cumsum([len(r) for r in rows])[:-1])
    return {n: piece.reshape(masks[n].shape) for n, piece in zip(masks, pieces, strict=True)}


def numpied(answer):
    """The answer, written for numpy arrays, as a function of tensors."""

    def wrapped(trained, begin, masks, sparsity):
        return tensors(answer(arrays(trained), arrays(begin), arrays(masks), sparsity))

    return wrapped


def zeroed(state, keep):
    return {n: np.where(keep[n], a, np.float32(0)) if n in keep else a for n, a in state.items()}


@numpied
def right(trained, begin, masks, sparsity):
    return zeroed(begin, survivors(trained, masks, sparsity))


@numpied
def right_without_restrict(trained, begin, masks, sparsity):
    """What is gone is zero in `trained`, so it goes first by itself."""
    everything = {n: np.ones_like(m) for n, m in masks.items()}
    return zeroed(begin, survivors(trained, everything, sparsity))


@numpied
def stale_statistics(trained, begin, masks, sparsity):
    state = zeroed(begin, survivors(trained, masks, sparsity))
    return {n: trained[n] if "running" in n else a for n, a in state.items()}


@numpied
def weights_only(trained, begin, masks, sparsity):
    state = zeroed(begin, survivors(trained, masks, sparsity))
    return {n: a if n in masks else trained[n] for n, a in state.items()}


@numpied
def relative(trained, begin, masks, sparsity):
    alive = sum(int(m.sum()) for m in masks.values())
    total = sum(m.size for m in masks.values())
    return zeroed(begin, survivors(trained, masks, (total - alive + sparsity * alive) / total))


@numpied
def by_layer(trained, begin, masks, sparsity):
    keep = {n: survivors(trained, {n: masks[n]}, sparsity)[n] for n in masks}
    return zeroed(begin, keep)


@numpied
def stay_as_learnt(trained, begin, masks, sparsity):
    keep = survivors(trained, masks, sparsity)
    return {n: np.where(keep[n], a, trained[n]) if n in keep else a for n, a in begin.items()}


@numpied
def biases_compete(trained, begin, masks, sparsity):
    """One contest of all tensors; nothing has been marked as gone before."""
    keep = survivors(trained, {n: np.ones(a.shape, bool) for n, a in trained.items()}, sparsity)
    return {n: np.where(keep[n], a, np.float32(0)) for n, a in begin.items()}


@numpied
def by_distance(trained, begin, masks, sparsity):
    return zeroed(begin, survivors({n: trained[n] - begin[n] for n in masks}, masks, sparsity))


@numpied
def all_but_the_weights(trained, begin, masks, sparsity):
    learnt = zeroed(trained, survivors(trained, masks, sparsity))
    return {n: learnt[n] if n in masks else a for n, a in begin.items()}


@numpied
def without_the_rest(trained, begin, masks, sparsity):
    state = zeroed(begin, survivors(trained, masks, sparsity))
    return {n: state[n] for n in masks}


ROUNDS = {
    "except what counts": all_but_the_weights,
    "return the new masks": numpied(lambda t, b, m, s: survivors(t, m, s)),
    "masked weights only": without_the_rest,
    "compete in your scores": biases_compete,
    "has moved": by_distance,
    "did not rewind": numpied(lambda t, b, m, s: zeroed(t, survivors(t, m, s))),
    "lost the mask": lambda t, b, m, s: dict(b),
    "kept the old masks": numpied(lambda t, b, m, s: zeroed(b, m)),
    "running statistics": stale_statistics,
    "Only what has a mask": weights_only,
    "by the first values": numpied(lambda t, b, m, s: zeroed(b, survivors(b, m, s))),
    "largest weights go": numpied(lambda t, b, m, s: zeroed(b, survivors(t, m, s, lambda a: -np.abs(a)))),
    "keep their trained values": stay_as_learnt,
    "same part": by_layer,
    "of what is LEFT": relative,
    "Signed values": numpied(lambda t, b, m, s: zeroed(b, survivors(t, m, s, lambda a: a))),
}


def row(errors):
    return np.asarray(errors, dtype=float)


def above_the_line(errors):
    line = np.interp(np.arange(len(errors)), [0, len(errors) - 1], [errors[0], errors[-1]])
    return float((row(errors) - line).max())


BARRIERS = {
    "halves c only": lambda e: float(row(e).max() - (e[0] - 0.5 * e[-1])),
    "SUM of the two ends": lambda e: float((row(e) - e[0] - e[-1]).max()),
    "leave the ends out": lambda e: float(row(e)[1:-1].max() - row(e)[[0, -1]].mean()),
    "You divide": lambda e: float(2 * row(e).max() / (e[0] + e[-1])),
    "straight line between": above_the_line,
    "it is a tensor": lambda e: torch.tensor(row(e)).max() - torch.tensor(row(e))[[0, -1]].mean(),
    "with the worse end": lambda e: float(min(row(e).max() - e[0], row(e).max() - e[-1])),
    "with the better end": lambda e: float(max(row(e).max() - e[0], row(e).max() - e[-1])),
    "first network only": lambda e: float((row(e) - e[0]).max()),
    "last network only": lambda e: float((row(e) - e[-1]).max()),
    "half-way only": lambda e: float(row(e)[len(e) // 2] - row(e)[[0, -1]].mean()),
    "mean of the way": lambda e: float(row(e).mean() - row(e)[[0, -1]].mean()),
    "lowest place": lambda e: float(np.ptp(row(e))),
    "sign is reversed": lambda e: float((row(e)[[0, -1]].mean() - row(e)).min()),
    "BEST place": lambda e: float(np.sort(row(e))[0] - row(e)[[0, -1]].mean()),
    "mean of the whole way": lambda e: float((row(e) - row(e).mean()).max()),
    "highest error itself": lambda e: float(np.sort(row(e))[-1]),
}
BANK = [(rewinding, words, answer) for words, answer in ROUNDS.items()]
BANK += [(barring, words, answer) for words, answer in BARRIERS.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


def height(errors):
    return float(row(errors).max() - 0.5 * row(errors)[[0, -1]].sum())


@pytest.mark.parametrize(
    ("exercise", "answer"), [(rewinding, right), (rewinding, right_without_restrict), (barring, height)]
)
def test_another_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@pytest.mark.parametrize("exercise", [rewinding, barring])
def test_the_stub_is_open_and_an_error_is_a_sentence(exercise):
    assert judged(exercise, lambda *inputs: None)[0] == "open"
    state, sentence = judged(exercise, lambda *inputs: 1 / 0)
    assert state == "wrong" and "ZeroDivisionError" in sentence


@pytest.mark.parametrize("exercise", [rewinding, barring])
def test_all_mistakes_differ_from_each_other_and_from_the_solution(exercise):
    answers = [exercise.solution, *exercise.mistakes.values()]
    results = [[outcome(answer, case) for case in exercise.cases()] for answer in answers]
    assert not any(same(one, other) for one, other in itertools.combinations(results, 2))
    assert len(exercise.mistakes) >= 6 and len(exercise.hints) >= 3
