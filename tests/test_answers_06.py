"""The bank of wrong answers of notebook 06, written by another hand than the hints: each gets the hint it deserves."""

import numpy as np
import pytest
import torch

from course_utils.answers_06 import refitting, removing
from course_utils.exercises import judged, outcome, same


def fit(columns, target, size):
    solution = np.linalg.lstsq(columns, target, rcond=None)[0]
    return torch.from_numpy(solution.T.reshape(target.shape[1], -1, size))


def table(x, keep=None):
    x = x.numpy() if keep is None else x.numpy()[:, keep.numpy()]
    return x.reshape(len(x), -1)


def right(x, pruned, w, keep):
    return fit(table(pruned, keep), table(x) @ table(w).T, w.shape[2])


def one_number_per_channel(x, pruned, w, keep):
    """Old weights times β, from the normal equations."""
    kept = np.flatnonzero(keep.numpy())
    z = np.stack([(pruned[:, c].numpy() @ w[:, c].numpy().T).ravel() for c in kept], 1)
    y = (table(x) @ table(w).T).ravel()
    beta = np.linalg.solve(z.T @ z, z.T @ y)
    return w[:, keep] * torch.from_numpy(beta)[None, :, None]


def mixed_columns(x, pruned, w, keep):
    columns = np.concatenate([keep.numpy()] * w.shape[2])
    return fit(table(pruned)[:, columns], table(x) @ table(w).T, w.shape[2])


REFITTING = {
    "β·W": one_number_per_channel,
    "Your inputs are the original": lambda x, p, w, k: fit(table(x, k), table(x) @ table(w).T, w.shape[2]),
    "then drop some": lambda x, p, w, k: fit(table(p), table(x) @ table(w).T, w.shape[2])[:, k],
    "mixed up": mixed_columns,
    "says in the pruned network": lambda x, p, w, k: fit(table(p, k), table(p) @ table(w).T, w.shape[2]),
    "what the kept channels said": lambda x, p, w, k: fit(table(p, k), table(x, k) @ table(w, k).T, w.shape[2]),
    "nothing was fitted": lambda x, p, w, k: torch.stack([w[:, c] for c in np.flatnonzero(k.numpy())], 1),
    "its shape is not": lambda x, p, w, k: right(x, p, w, k).reshape(len(w), -1),
}


def loop(z, count, cost, keep_sum=True, again=False):
    z, gone, total = z.numpy(), [], np.zeros(len(z))
    while len(gone) < count:
        costs = [np.inf if c in gone and not again else cost(total, z[:, c]) for c in range(z.shape[1])]
        gone.append(int(np.argmin(costs)))
        total = z[:, gone].sum(1) if keep_sum else z[:, gone[-1]]
    return gone


def naive(z, count):
    return loop(z, count, lambda s, c: ((s + c) ** 2).sum())


REMOVING = {
    "alone": lambda z, n: np.argsort((z.numpy() ** 2).sum(0), kind="stable")[:n].tolist(),
    "whom to keep": lambda z, n: loop(z, n, lambda s, c: -((s + c) ** 2).sum()),
    "went last": lambda z, n: loop(z, n, lambda s, c: ((s + c) ** 2).sum(), keep_sum=False),
    "with the sign": lambda z, n: loop(z, n, lambda s, c: (s + c).sum()),
    "before you square": lambda z, n: loop(z, n, lambda s, c: (s + c).sum() ** 2),
    "You subtract": lambda z, n: loop(z, n, lambda s, c: ((s - c) ** 2).sum()),
    "chosen again": lambda z, n: loop(z, n, lambda s, c: ((s + c) ** 2).sum(), again=True),
    "those that stay": lambda z, n: sorted(set(range(z.shape[1])) - set(naive(z, n))),
}
BANK = [(refitting, words, answer) for words, answer in REFITTING.items()]
BANK += [(removing, words, answer) for words, answer in REMOVING.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(refitting, right), (removing, naive)])
def test_another_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@pytest.mark.parametrize("exercise", [refitting, removing])
def test_mistakes_can_be_told_apart_and_the_stub_is_open(exercise):
    cases = exercise.cases()
    answers = [[outcome(f, case) for case in cases] for f in (exercise.solution, *exercise.mistakes.values())]
    assert not any(same(a, b) for i, a in enumerate(answers) for b in answers[:i])
    assert judged(exercise, lambda *arguments: None)[0] == "open"
    assert len(exercise.mistakes) >= 6 and len(exercise.hints) == 3
