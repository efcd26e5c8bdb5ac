"""Notebook 01's exercises against wrong answers as people write them: each gets the hint that fits, none stops it."""

import itertools
import math

import pytest
import torch
from torch import nn

from course_utils.answers_01 import counting_macs, measuring
from course_utils.exercises import check, hint, judged, outcome, same
from course_utils.measure import macs


def out(size, kernel, stride):
    """PyTorch's own formula for the side of a convolution's output."""
    return (size + 2 * (kernel // 2) - kernel) // stride + 1


def by_torch(inputs, outputs, kernel, height, width, stride):
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    return layer.weight.numel() * layer(torch.zeros(1, inputs, height, width))[0, 0].numel()


def by_loops(inputs, outputs, kernel, height, width, stride):
    places = itertools.product(range(outputs), range(0, height, stride), range(0, width, stride))
    return sum(inputs * kernel * kernel for _ in places)


def same_stride_ignored(inputs, outputs, kernel, height, width, stride):
    return sum(kernel**2 * inputs for _ in range(outputs) for _ in range(height * width))


def stride_on_the_area(inputs, outputs, kernel, height, width, stride):
    weights = inputs * outputs * kernel * kernel
    return weights * math.ceil(height / stride) * width


def kernel_once(inputs, outputs, kernel, height, width, stride):
    return inputs * outputs * kernel * out(height, kernel, stride) * out(width, kernel, stride)


def as_flops(inputs, outputs, kernel, height, width, stride):
    multiplications = inputs * outputs * kernel**2 * out(height, kernel, stride) * out(width, kernel, stride)
    additions = multiplications
    return multiplications + additions


def with_bias(inputs, outputs, kernel, height, width, stride):
    places = out(height, kernel, stride) * out(width, kernel, stride)
    return inputs * outputs * kernel**2 * places + outputs * places


def depthwise(inputs, outputs, kernel, height, width, stride):
    return kernel**2 * outputs * out(height, kernel, stride) * out(width, kernel, stride)


def one_filter(inputs, outputs, kernel, height, width, stride):
    return kernel**2 * inputs * out(height, kernel, stride) * out(width, kernel, stride)


def floored(inputs, outputs, kernel, height, width, stride):
    rows, columns = int(height / stride), int(width / stride)
    return nn.Conv2d(inputs, outputs, kernel).weight.numel() * rows * columns


def fractional(inputs, outputs, kernel, height, width, stride):
    return kernel**2 * inputs * outputs * height * width / stride**2


def unpadded(inputs, outputs, kernel, height, width, stride):
    grid = nn.Conv2d(inputs, outputs, kernel, stride)(torch.zeros(1, inputs, height, width))
    return grid.numel() * inputs * kernel**2


def weights_only(inputs, outputs, kernel, height, width, stride):
    return nn.Conv2d(inputs, outputs, kernel, bias=False).weight.numel()


def output_numbers(inputs, outputs, kernel, height, width, stride):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)(torch.zeros(1, inputs, height, width)).numel()


def squared(inputs, outputs, kernel, height, width, stride):
    return kernel**2 * inputs * outputs * out(height, kernel, stride) ** 2


def count(outputs, labels):
    return sum(int(row.argmax()) == int(label) for row, label in zip(outputs, labels, strict=True))


def columns(outputs, labels):
    return (outputs.max(dim=0).indices == labels).double().mean().item()


def whole_table(outputs, labels):
    place = int(outputs.flatten().argmax())
    return sum(place == int(label) for label in labels) / len(labels)


def scores_as_labels(outputs, labels):
    values, _ = outputs.topk(1, dim=1)
    return sum(float(v) == float(label) for v, label in zip(values, labels, strict=True)) / len(labels)


def least(outputs, labels):
    return (outputs.sort(dim=1).indices[:, 0] == labels).sum().item() / len(labels)


def percent(outputs, labels):
    return 100.0 * count(outputs, labels) / len(labels)


def error_rate(outputs, labels):
    return (outputs.argmax(dim=1) != labels).sum().item() / len(labels)


def per_class(outputs, labels):
    return count(outputs, labels) / len(outputs[0])


def integer(outputs, labels):
    return int(count(outputs, labels) / len(labels))


def one_each(outputs, labels):
    return outputs.max(1)[1].eq(labels)


def still_a_tensor(outputs, labels):
    return outputs.argmax(1).eq(labels).sum() / labels.numel()


def by_rows(outputs, labels):
    return count(outputs, labels) / len(labels)


def by_topk(outputs, labels):
    return (outputs.topk(1).indices.squeeze(1) == labels).double().mean().item()


WRONG = [
    (counting_macs, same_stride_ignored, "forget the stride"),
    (counting_macs, stride_on_the_area, "by the stride once"),
    (counting_macs, kernel_once, "kernel is a line"),
    (counting_macs, as_flops, "as two"),
    (counting_macs, with_bias, "a bias"),
    (counting_macs, depthwise, "forget the input channels"),
    (counting_macs, one_filter, "forget the output channels"),
    (counting_macs, floored, "round down"),
    (counting_macs, fractional, "do not round"),
    (counting_macs, unpadded, "forget the padding"),
    (counting_macs, weights_only, "are the parameters"),
    (counting_macs, output_numbers, "numbers in the output"),
    (counting_macs, squared, "for a square"),
    (measuring, count, "how many are right"),
    (measuring, columns, "each column"),
    (measuring, whole_table, "has no axis"),
    (measuring, scores_as_labels, "largest *score*"),
    (measuring, least, "smallest score"),
    (measuring, percent, "percent"),
    (measuring, error_rate, "fraction that is wrong"),
    (measuring, per_class, "number of classes"),
    (measuring, integer, "//"),
    (measuring, one_each, "one True or False"),
    (measuring, still_a_tensor, "still a tensor"),
]
RIGHT = [(counting_macs, by_torch), (counting_macs, by_loops), (measuring, by_rows), (measuring, by_topk)]
BOTH = pytest.mark.parametrize("exercise", [counting_macs, measuring], ids=["macs", "accuracy"])


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG, ids=[answer.__name__ for _, answer, _ in WRONG])
def test_wrong_answer_gets_its_own_hint(exercise, answer, words):
    state, sentence = judged(exercise, answer)
    assert state == "wrong"
    assert words in sentence
    assert sum(words in other for other in exercise.mistakes) == 1, "these words do not single out one hint"


def test_bank_reaches_every_hint():
    """A hint that no answer in the bank gets would be a hint that nobody has seen."""
    for exercise in (counting_macs, measuring):
        given = {judged(exercise, answer)[1] for asked, answer, _ in WRONG if asked is exercise}
        assert given == set(exercise.mistakes)


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=[answer.__name__ for _, answer in RIGHT])
def test_right_answer_is_right(exercise, answer):
    assert judged(exercise, answer) == ("right", "Right!")


@BOTH
def test_cases_tell_all_mistakes_apart(exercise):
    cases = exercise.cases()
    answers = {"the solution": exercise.solution} | exercise.mistakes
    got = {name: [outcome(answer, case) for case in cases] for name, answer in answers.items()}
    for a, b in itertools.combinations(got, 2):
        assert not same(got[a], got[b]), f"{a} and {b} look alike"


@BOTH
def test_unfilled_stub_is_open(exercise):
    assert judged(exercise, lambda *inputs: None)[0] == "open"


@BOTH
def test_answer_that_raises_gets_a_sentence(exercise, capsys):
    def broken(*inputs):
        raise KeyError("weigth")

    state, sentence = judged(exercise, broken)
    assert state == "wrong"
    assert "KeyError" in sentence
    check(exercise, broken)
    check(exercise, lambda: 1)  # takes no arguments at all
    assert capsys.readouterr().out.count("✗") == 2


@BOTH
def test_there_are_hints(exercise, capsys):
    for number in range(1, len(exercise.hints) + 1):
        hint(exercise, number)
    assert capsys.readouterr().out.splitlines() == list(exercise.hints)


def test_solution_agrees_with_torch_counter():
    layers = [(3, 8, 3, 32, 32, 1), (8, 4, 3, 15, 9, 2), (6, 5, 1, 7, 7, 2)]
    for inputs, outputs, kernel, height, width, stride in layers:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        counted = macs(layer, torch.zeros(1, inputs, height, width))
        assert counting_macs.solution(inputs, outputs, kernel, height, width, stride) == counted
