"""Distillation: both formulas by another hand, the gradient, and a student that learns from a teacher alone."""

import copy

import numpy as np
import pytest
import torch
from conftest import generic
from torch import nn

from course_utils.data import digits
from course_utils.distill import hard, soft, taught
from course_utils.measure import accuracy
from course_utils.models import mlp
from course_utils.train import Recipe, train

RECIPE = Recipe(epochs=4, batch_size=50, lr=0.1, flip=False, shift=0)


def some(seed=0):
    draw = torch.Generator().manual_seed(seed)
    logits, teacher = (3 * torch.randn(7, 5, dtype=torch.float64, generator=draw) for _ in range(2))
    return logits, teacher, torch.randint(5, (7,), generator=draw)


def probabilities(logits, temperature=1.0):
    powers = np.exp(logits.numpy() / temperature)
    return powers / powers.sum(1, keepdims=True)


def surprise(logits, labels):
    return -np.log(probabilities(logits)[np.arange(len(labels)), labels.numpy()]).mean()


@pytest.mark.parametrize("temperature, alpha", [(1.0, 1.0), (4.0, 0.9), (2.5, 0.3), (3.0, 0.0)])
def test_soft_is_its_formula(temperature, alpha):
    logits, teacher, labels = some()
    p, q = probabilities(teacher, temperature), probabilities(logits, temperature)
    divergence = (p * (np.log(p) - np.log(q))).sum(1).mean()
    expected = (1 - alpha) * surprise(logits, labels) + alpha * temperature**2 * divergence
    assert soft(logits, teacher, labels, temperature, alpha).item() == pytest.approx(expected, rel=1e-12)


def test_hard_takes_the_first_choice():
    logits, teacher, labels = some()
    expected = 0.7 * surprise(logits, labels) + 0.3 * surprise(logits, teacher.argmax(1))
    assert hard(logits, teacher, labels, alpha=0.3).item() == pytest.approx(expected, rel=1e-12)
    assert hard(logits, 100 * teacher, labels) == hard(logits, teacher, labels)


def test_temperature_squared_keeps_the_gradient_as_large():
    """At a high temperature T² · the gradient is (z - z_teacher - their means) / classes: it no longer depends on T."""
    logits, teacher, labels = some()
    slopes = []
    for temperature in (50.0, 500.0):
        z = logits.clone().requires_grad_()
        soft(z, teacher, labels, temperature, alpha=1.0).backward()
        slopes.append(z.grad)
    gap = logits - teacher
    limit = (gap - gap.mean(1, keepdim=True)) / 5 / 7
    assert torch.allclose(slopes[1], limit, rtol=2e-2, atol=1e-3)
    assert torch.allclose(slopes[0], slopes[1], rtol=0.2, atol=1e-2)


def test_labels_may_be_distributions():
    logits, teacher, labels = some()
    one_hot = torch.eye(5, dtype=torch.float64)[labels]
    for way in (soft, hard):
        assert torch.isclose(way(logits, teacher, one_hot), way(logits, teacher, labels))


@pytest.mark.parametrize("way", [soft, hard])
def test_what_no_teacher_can_be_is_refused(way):
    logits, teacher, labels = some()
    with pytest.raises(ValueError, match=r"same classes, but their scores are \(7, 4\) and \(7, 5\)"):
        way(logits, teacher[:, :4], labels)
    with pytest.raises(ValueError, match="from 0 to 1, not 1.5"):
        way(logits, teacher, labels, alpha=1.5)
    with pytest.raises(ValueError, match="a temperature is a number above 0, for example 3, not 0"):
        soft(logits, teacher, labels, temperature=0)


def network(seed=0):
    torch.manual_seed(seed)
    return mlp((64, 40, 10))


def only_the_teacher(logits, teacher_logits, labels):
    return soft(logits, teacher_logits, labels, alpha=1.0)


def test_a_student_learns_from_its_teacher_alone():
    teacher, student, data = network(), network(1), digits()
    train(teacher, data.train, RECIPE)
    before = copy.deepcopy(teacher.state_dict())
    train(student, data.train, RECIPE, objective=taught(teacher, only_the_teacher))
    assert accuracy(student, data.val) > 0.85
    assert teacher.training and all(p.grad is None for p in network().parameters())
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())


def test_the_teacher_is_asked_in_evaluation_mode_and_without_gradients():
    seen = []

    class Teacher(nn.Module):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return torch.zeros(len(x), 10)

    teacher = Teacher().train()
    objective = taught(teacher)
    loss = objective(torch.zeros(3, 10, requires_grad=True), torch.zeros(3, 1), torch.tensor([1, 2, 3]))
    assert seen == [(False, False)] and teacher.training and loss.requires_grad


def test_without_a_teacher_training_is_what_it_was():
    data, networks = digits(), []

    def plain(logits, x, labels):
        return nn.functional.cross_entropy(logits, labels)

    for objective in (None, plain):
        networks.append(generic(network()))
        train(networks[-1], data.train.first(200), RECIPE, objective=objective)
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in networks), strict=True))


def test_a_checkpoint_that_would_not_know_the_teacher_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train without a checkpoint"):
        train(network(), digits().train, RECIPE, checkpoint=tmp_path / "run", objective=taught(network()))
