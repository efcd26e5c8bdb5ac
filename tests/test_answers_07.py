"""The bank of wrong answers of notebook 07, written by another hand than the hints: each gets the hint it deserves."""

import numpy as np
import pytest
import torch

from course_utils.answers_07 import controlling, lamping
from course_utils.exercises import judged


def ratio(s, tail):
    """s² (or whatever `tail` divides) over what `tail` makes of the sorted squares, by numpy and a loop."""
    flat = s.numpy().astype(float).ravel()
    return torch.from_numpy(np.array([tail(flat, v) for v in flat])).reshape(s.shape)


def right(s):
    return ratio(s, lambda all, v: v**2 / (all[all >= v] ** 2).sum())


LAMPING = {
    "smaller": lambda s: ratio(s, lambda all, v: v**2 / (all[all <= v] ** 2).sum()),
    "the weight itself": lambda s: ratio(s, lambda all, v: v**2 / np.float64((all[all > v] ** 2).sum())),
    "squares": lambda s: ratio(s, lambda all, v: v / all[all >= v].sum()),
    "whole layer": lambda s: ratio(s, lambda all, v: v**2 / (all**2).sum()),
    "maximum": lambda s: ratio(s, lambda all, v: v / all.max()),
    "wrong places": lambda s: torch.from_numpy(np.sort(right(s).numpy().ravel())).reshape(s.shape),
}


def orders(masks, seed):
    """One random order for each layer, from one generator."""
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randperm(mask.numel(), generator=random).numpy() for name, mask in masks.items()}


def mixed(masks, seed):
    found = orders(masks, seed)
    return {n: torch.from_numpy(m.numpy().ravel()[found[n]].reshape(m.shape)) for n, m in masks.items()}


def whole_network(masks, seed):
    row = np.concatenate([m.numpy().ravel() for m in masks.values()])
    row = row[torch.randperm(len(row), generator=torch.Generator().manual_seed(seed)).numpy()]
    ends = np.cumsum([m.numel() for m in masks.values()])[:-1]
    parts = np.split(row, ends)
    return {n: torch.from_numpy(p.reshape(m.shape)) for (n, m), p in zip(masks.items(), parts, strict=True)}


def by_probability(masks, seed):
    random = torch.Generator().manual_seed(seed)
    return {n: torch.rand(m.shape, generator=random).lt(m.numpy().mean()) for n, m in masks.items()}


def rows_only(masks, seed):
    random = torch.Generator().manual_seed(seed)
    return {n: torch.from_numpy(m.numpy()[torch.randperm(m.shape[0], generator=random)]) for n, m in masks.items()}


CONTROLLING = {
    "whole network": whole_network,
    "probability": by_probability,
    "as they were": lambda masks, seed: {n: m.clone() for n, m in masks.items()},
    "only the rows": rows_only,
    "seed 0": lambda masks, seed: mixed(masks, 0),
    "for each layer": lambda masks, seed: {n: mixed({n: m}, seed)[n] for n, m in masks.items()},
    "opposite": lambda masks, seed: {n: ~m for n, m in mixed(masks, seed).items()},
}
BANK = [(lamping, words, answer) for words, answer in LAMPING.items()]
BANK += [(controlling, words, answer) for words, answer in CONTROLLING.items()]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(lamping, right), (controlling, mixed)])
def test_the_right_answer_passes_and_an_empty_one_is_open(exercise, answer):
    assert judged(exercise, answer)[0] == "right"
    assert judged(exercise, lambda *args: None)[0] == "open"
    assert len(exercise.hints) >= 3
