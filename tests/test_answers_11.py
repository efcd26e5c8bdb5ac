"""The bank of wrong answers of notebook 11, written by another hand than the hints: each gets the hint it deserves."""

import itertools

import numpy as np
import pytest
import torch

from course_utils.answers_11 import heading, shrinking
from course_utils.exercises import judged, outcome, same


def cutter(skip=(), reader="runs", keep_of=lambda keep, count: keep, bias=False, inputs=False):
    """An answer that cuts every tensor but those in `skip`, and the linear layer's columns in the way `reader`."""

    def answer(tensors, keep):
        t = {name: value.numpy() for name, value in tensors.items()}
        count = t["conv.weight"].shape[0]
        chosen = list(keep_of(keep.tolist(), count))
        pixels = t["fc.weight"].shape[1] // count
        found = {}
        for name, value in t.items():
            found[name] = value if name in skip or name.startswith("fc") else np.take(value, chosen, axis=0)
        if inputs:
            found["conv.weight"] = np.take(t["conv.weight"], chosen, axis=1)
        if bias:
            found["fc.bias"] = t["fc.bias"][chosen]
        ways = {
            "runs": [c * pixels + p for c in chosen for p in range(pixels)],
            "strides": [p * count + c for p in range(pixels) for c in chosen],
            "single": chosen,
            "none": list(range(count * pixels)),
        }
        axis = 0 if reader == "rows" else 1
        found["fc.weight"] = np.take(t["fc.weight"], ways.get(reader, chosen), axis=axis)
        return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}

    return answer


NORM = tuple(f"bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var"))


def muted(tensors, keep):
    count = len(tensors["conv.weight"])
    stays = np.isin(np.arange(count), keep.numpy()).astype(np.float32)
    wide = stays.repeat(tensors["fc.weight"].shape[1] // count)
    t = {name: value.numpy() for name, value in tensors.items()}
    found = {n: v if n.startswith("fc") else v * stays.reshape(-1, *[1] * (v.ndim - 1)) for n, v in t.items()}
    return {n: torch.from_numpy(v) for n, v in (found | {"fc.weight": t["fc.weight"] * wide}).items()}


SHRINKING = {
    "forgot the running statistics": cutter(skip=("bn.running_mean", "bn.running_var")),
    "forgot the reader": cutter(reader="none"),
    "forgot the convolution's bias": cutter(skip=("conv.bias",)),
    "along axis 0: these rows": cutter(reader="rows"),
    "one column for each channel": cutter(reader="single"),
    "channels that come last": cutter(reader="strides"),
    "cut fc.bias as well": cutter(bias=True),
    "along axis 1, its inputs": cutter(inputs=True),
    "those that stay": cutter(keep_of=lambda keep, count: sorted(set(range(count)) - set(keep))),
    "kept the first channels": cutter(keep_of=lambda keep, count: range(len(keep))),
    "every tensor along axis 0": cutter(reader="rows", bias=True),
    "cut conv.weight alone": cutter(skip=(*NORM, "conv.bias"), reader="none"),
    "left BatchNorm as it was": cutter(skip=NORM),
    "forgot BatchNorm's bias": cutter(skip=("bn.bias",)),
    "some of the tensors only": lambda t, keep: {n: v for n, v in cutter()(t, keep).items() if n != "fc.bias"},
    "to zero": muted,
}


def scorer(row, column=None, size=np.abs, parts=3, mean=False, both=True, join=lambda a, b: (a + b) / 2, swap=False):
    """An answer by double loops: row(part, head, d, heads, dims) is the row of qkv, column the one of proj."""
    column = column or (lambda h, d, heads, dims: h * dims + d)

    def answer(qkv, proj, heads):
        q, p = qkv.double().numpy(), proj.double().numpy()
        p = p.T if swap else p
        dims, scores = q.shape[0] // (3 * heads), []
        for h in range(heads):
            rows = [row(part, h, d, heads, dims) for part in range(parts) for d in range(dims)]
            columns = [column(h, d, heads, dims) for d in range(dims)]
            writes = sum(size(v) for r in rows for v in q[r])
            reads = sum(size(v) for c in columns for v in p[:, c])
            if mean:
                writes, reads = writes / (len(rows) * q.shape[1]), reads / (len(columns) * p.shape[0])
            scores.append(join(writes, reads) if both else writes)
        return torch.tensor(scores, dtype=torch.float32)

    return answer


def packed(part, h, d, heads, dims):
    return part * heads * dims + h * dims + d


def each_dimension(qkv, proj, heads):
    q, p = np.abs(qkv.numpy()), np.abs(proj.numpy())
    width = p.shape[1]
    return torch.tensor([(q[c::width].sum() + p[:, c].sum()) / 2 for c in range(width)])


def columns_of_qkv(qkv, proj, heads):
    q, p = (np.abs(m.numpy()).reshape(-1, heads, m.shape[1] // heads).sum((0, 2)) for m in (qkv, proj))
    return torch.from_numpy((q + p) / 2)


HEADING = {
    "one block of rows for each head": scorer(lambda part, h, d, heads, dims: h * 3 * dims + part * dims + d),
    "the heads in turn, row by row": scorer(
        lambda part, h, d, heads, dims: part * heads * dims + d * heads + h,
        column=lambda h, d, heads, dims: d * heads + h,
    ),
    "You took rows of proj": scorer(packed, swap=True),
    "rows of q alone": scorer(packed, parts=1),
    "forgot the reader": scorer(packed, both=False),
    "You added the two tensors": scorer(packed, join=lambda a, b: a + b),
    "averaged over the entries": scorer(packed, mean=True),
    "signed weights": scorer(packed, size=lambda v: v),
    "each dimension a score": each_dimension,
    "squared the weights": scorer(packed, size=np.square),
    "forgot the writers": scorer(packed, join=lambda a, b: b),
    "divided by four": scorer(packed, join=lambda a, b: (a + b) / 4),
    "took columns of qkv": columns_of_qkv,
}
BANK = [(shrinking, words, answer) for words, answer in SHRINKING.items()]
BANK += [(heading, words, answer) for words, answer in HEADING.items()]


@pytest.mark.parametrize(("exercise", "words", "answer"), BANK, ids=[w for _, w, _ in BANK])
def test_a_wrong_answer_gets_its_own_hint(exercise, words, answer):
    state, sentence = judged(exercise, answer)
    assert state == "wrong" and words in sentence, sentence


@pytest.mark.parametrize(("exercise", "answer"), [(shrinking, cutter()), (heading, scorer(packed))])
def test_another_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@pytest.mark.parametrize("exercise", [shrinking, heading])
def test_the_stub_is_open_and_every_mistake_differs_from_every_other(exercise):
    assert judged(exercise, lambda *inputs: None)[0] == "open"
    answers = [exercise.solution, *exercise.mistakes.values()]
    outcomes = [[outcome(answer, case) for case in exercise.cases()] for answer in answers]
    assert not any(same(a, b) for a, b in itertools.combinations(outcomes, 2))
    assert not any(isinstance(value, str) for found in outcomes for value in found), "a mistake that raises"


@pytest.mark.parametrize("exercise", [shrinking, heading])
def test_there_are_hints_and_an_error_is_a_sentence(exercise):
    assert len(exercise.hints) >= 3 and len(exercise.mistakes) >= 5
    state, sentence = judged(exercise, lambda *inputs: 1 / 0)
    assert state == "wrong" and "ZeroDivisionError" in sentence


def test_a_dict_is_compared_entry_by_entry():
    """Whatever has no hint of its own: the sentence names the first entry that differs."""
    answers = {
        "you return no 'bn.weight'": lambda t, keep: {
            n: v for n, v in shrinking.solution(t, keep).items() if n != "bn.weight"
        },
        "you return 'more'": lambda t, keep: shrinking.solution(t, keep) | {"more": keep},
        "your 'bn.weight' is (3,)": lambda t, keep: shrinking.solution(t, keep) | {"bn.weight": torch.ones(3)},
    }
    for words, answer in answers.items():
        assert words in judged(shrinking, answer)[1]
