"""The bank of wrong answers of notebook 08, written by another hand than the hints: each gets the hint it deserves."""

import itertools

import numpy as np
import pytest
import torch

from course_utils.answers_08 import counting_gone, cutting_units
from course_utils.exercises import judged, outcome, same


def cut(weights, sparsity, score, removed=None, last=False, axis=0):
    """Masks by numpy: of each layer, the rows (or columns) with the lowest scores."""
    masks = [np.ones(tuple(w.shape), dtype=bool) for w in weights]
    for i in range(len(weights) - (not last)):
        matrix = np.moveaxis(weights[i].numpy().astype(np.float64), axis, 0)
        values = score(matrix)
        gone = round(sparsity * len(values)) if removed is None else removed(values, sparsity)
        np.moveaxis(masks[i], axis, 0)[np.argsort(np.round(values, 6), kind="stable")[:gone]] = False
    return [torch.from_numpy(mask) for mask in masks]


def l2(matrix):
    return np.sqrt((matrix**2).sum(1))


def right(weights, sparsity):
    return cut(weights, sparsity, l2)


def hundredths(values, sparsity):
    return (len(values) // 100) * round(sparsity * 100)


def up_to_the_cut(values, sparsity):
    return int((values <= np.sort(values)[round(sparsity * len(values)) - 1] + 1e-9).sum())


def and_the_next(values, sparsity):
    return int((values <= np.sort(values)[round(sparsity * len(values))] + 1e-9).sum())


def below_the_cut(values, sparsity):
    return int((values < np.sort(values)[round(sparsity * len(values))] - 1e-9).sum())


def columns_too(weights, sparsity):
    masks = [mask.numpy() for mask in right(weights, sparsity)]
    both = [mask & before.any(axis=1) for before, mask in itertools.pairwise(masks)]
    return [torch.from_numpy(mask) for mask in (masks[0], *both)]


def single(weights, sparsity):
    flat = [torch.from_numpy(w.numpy().reshape(-1, 1).copy()) for w in weights]
    masks = cut(flat, sparsity, lambda matrix: np.abs(matrix[:, 0]))
    return [mask.reshape(w.shape) for mask, w in zip(masks, weights, strict=True)]


def one_competition(weights, sparsity):
    norms = np.concatenate([l2(w.numpy().astype(np.float64)) for w in weights[:-1]])
    keep = np.ones(len(norms), dtype=bool)
    keep[np.argsort(np.round(norms, 6), kind="stable")[: round(sparsity * len(norms))]] = False
    pieces = np.split(keep, np.cumsum([len(w) for w in weights[:-1]])[:-1])
    masks = [torch.from_numpy(np.repeat(k[:, None], w.shape[1], 1)) for k, w in zip(pieces, weights, strict=False)]
    return [*masks, torch.ones(weights[-1].shape, dtype=torch.bool)]


CUTTING = {
    "L1 norm": lambda w, s: cut(w, s, lambda m: np.sqrt(m * m).sum(1)),
    "m // 100": lambda w, s: cut(w, s, l2, removed=hundredths),
    "cut columns": lambda w, s: cut(w, s, l2, axis=1),
    "output layer": lambda w, s: cut(w, s, l2, last=True),
    "single weights": single,
    "LARGEST": lambda w, s: cut(w, s, lambda m: -l2(m)),
    "fraction that stays": lambda w, s: right(w, 1 - s),
    "threshold": lambda w, s: cut(w, s, l2, removed=up_to_the_cut),
    "one competition": one_competition,
    "one value for each row": lambda w, s: [mask.any(1) for mask in right(w, s)],
    "other way round": lambda w, s: [~mask for mask in right(w, s)],
    "round down": lambda w, s: cut(w, s, l2, removed=lambda values, sparsity: int(sparsity * len(values))),
    "one row too many": lambda w, s: cut(w, s, l2, removed=and_the_next),
    "cut stay": lambda w, s: cut(w, s, l2, removed=below_the_cut),
    "columns of the next layer": columns_too,
    "return weights": lambda w, s: [torch.where(mask, x, 0 * x) for x, mask in zip(w, right(w, s), strict=True)],
    "hold numbers": lambda w, s: [torch.from_numpy(mask.numpy().astype(np.float32)) for mask in right(w, s)],
    "mask is missing": lambda w, s: right(w, s)[:-1],
    "before you square": lambda w, s: cut(w, s, lambda m: np.abs(m.sum(1))),
}


def paths(masks, forward=True, backward=True):
    """For each weight: on how many paths it lies, by products of matrices of whole numbers."""
    kept = [mask.numpy().astype(object) for mask in masks]
    found = []
    for i, matrix in enumerate(kept):
        to = np.ones(kept[0].shape[1], dtype=object)
        for earlier in kept[:i] if forward else []:
            to = earlier @ to
        away = np.ones(kept[-1].shape[0], dtype=object)
        for later in reversed(kept[i + 1 :]) if backward else []:
            away = later.T @ away
        if not forward:
            to = np.ones(matrix.shape[1], dtype=object)
        if not backward:
            away = np.ones(matrix.shape[0], dtype=object)
        found.append((matrix * to[None, :] * away[:, None]) > 0)
    return found


def fraction(found):
    return 1 - sum(f.astype(bool).sum() for f in found) / sum(f.size for f in found)


def gone(masks):
    return float(fraction(paths(masks)))


def beside(masks):
    kept = [mask.numpy() for mask in masks]
    found = [k.copy() for k in kept]
    for i, k in enumerate(kept):
        if i > 0:
            found[i] = found[i] & kept[i - 1].any(axis=1)[None, :]
        if i + 1 < len(kept):
            found[i] = found[i] & kept[i + 1].any(axis=0)[:, None]
        assert found[i].shape == k.shape
    return float(fraction(found))


def all_instead_of_any(masks):
    kept = [mask.numpy() for mask in masks]
    found = [kept[0]] + [k & before.all(axis=1)[None, :] for before, k in itertools.pairwise(kept)]
    return float(fraction(found))


def one_back(masks):
    kept = [mask.numpy() for mask in masks]
    found = [kept[0]] + [k & before.any(axis=1)[None, :] for before, k in itertools.pairwise(kept)]
    return float(fraction(found))


COUNTING = {
    "nominal": lambda masks: float(fraction([mask.numpy() for mask in masks])),
    "forward only": lambda masks: float(fraction(paths(masks, backward=False))),
    "backward only": lambda masks: float(fraction(paths(masks, forward=False))),
    "one layer ahead": beside,
    "LEFT": lambda masks: 1 - gone(masks),
    "average the layers": lambda masks: float(np.mean([fraction([found]) for found in paths(masks)])),
    "output layer": lambda masks: float(fraction(paths(masks)[:-1])),
    "ONE of its weights": all_instead_of_any,
    "still a tensor": lambda masks: torch.from_numpy(np.array(gone(masks))),
    "percent": lambda masks: 100 * gone(masks),
    "not further": one_back,
    "return a count": lambda masks: int(sum((~found.astype(bool)).sum() for found in paths(masks))),
}
BANK = [(cutting_units, words, answer) for words, answer in CUTTING.items()]
BANK += [(counting_gone, words, answer) for words, answer in COUNTING.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(cutting_units, right), (counting_gone, gone)])
def test_another_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@pytest.mark.parametrize("exercise", [cutting_units, counting_gone])
def test_the_stub_is_open_and_an_error_is_a_sentence(exercise):
    assert judged(exercise, lambda *inputs: None)[0] == "open"
    state, sentence = judged(exercise, lambda *inputs: 1 / 0)
    assert state == "wrong" and "ZeroDivisionError" in sentence


@pytest.mark.parametrize("exercise", [cutting_units, counting_gone])
def test_all_mistakes_differ_from_each_other_and_from_the_solution(exercise):
    answers = [exercise.solution, *exercise.mistakes.values()]
    results = [[outcome(answer, case) for case in exercise.cases()] for answer in answers]
    assert not any(same(one, other) for one, other in itertools.combinations(results, 2))
    assert len(exercise.mistakes) >= 6 and len(exercise.hints) >= 3
