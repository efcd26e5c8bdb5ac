"""Timetables and the hook that keeps to them: exact counts at every step, and nothing that is gone comes back."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import generic
from torch import nn

from course_utils.data import Split
from course_utils.masks import keep_all, prunable, sparsity_of
from course_utils.models import resnet_cifar
from course_utils.schedules import cubic, even, gradually, one_shot, timed
from course_utils.scopes import globally, layerwise
from course_utils.scores import chance
from course_utils.train import Recipe, constant, train

RECIPE = Recipe(epochs=2, batch_size=5, lr=0.05, schedule=constant, weight_decay=0.01)
TIMETABLE = {0: 0.2, 3: 0.5, 4: 0.55, 9: 0.87}


def network() -> nn.Module:
    return generic(resnet_cifar(8, 10, 0.25), 3)


def images() -> Split:
    random = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (30, 3, 12, 12), generator=random, dtype=torch.uint8)
    return Split(pixels, torch.randint(0, 10, (30,), generator=random), torch.full((3,), 0.5), torch.full((3,), 0.2))


def followed(timetable, **options):
    """The zeros of every weight after each step, the hook's masks at the end, and the network."""
    model, seen = network(), []
    masks = keep_all(model)
    hook = gradually(model, masks, timetable, **options)

    def look(step):
        hook(step)
        seen.append({name: (w == 0).clone() for name, w in prunable(model).items()})

    train(model, images(), RECIPE, after_step=look)
    return seen, masks, model


def test_even_removes_as_many_each_time():
    assert list(even(0.9, 9)) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    with pytest.raises(ValueError, match="a whole number from 1 on"):
        even(0.9, 0)


@pytest.mark.parametrize("initial", [0.0, 0.3])
def test_cubic_begins_where_it_is_told(initial):
    from torch.ao.pruning import CubicSL, WeightNormSparsifier

    sparsifier = WeightNormSparsifier(sparsity_level=0.9)
    sparsifier.prepare(nn.Sequential(nn.Linear(4, 4)), [{"tensor_fqn": "0.weight"}])
    scheduler = CubicSL(sparsifier, init_sl=initial, init_t=0, delta_t=1, total_t=5, initially_zero=True)
    levels = []
    for _ in range(5):
        scheduler.step()
        levels.append(sparsifier.groups[0]["sparsity_level"])
    assert list(cubic(0.9, 5, initial)) == pytest.approx(levels)


def test_a_timetable_by_hand():
    assert timed(one_shot(0.9), 100) == {0: 0.9}
    assert timed([0.3, 0.6, 0.9], 12) == {0: 0.3, 4: 0.6, 8: 0.9}
    assert list(timed(even(0.9, 9), 60)) == [k * 60 // 9 for k in range(9)]
    for levels, steps in (([], 5), ([0.1, 0.2], 1)):
        with pytest.raises(ValueError, match=f"{len(levels)} rounds do not fit into {steps} steps"):
            timed(levels, steps)


def test_counts_are_exact_at_every_step_and_nothing_comes_back():
    seen, masks, model = followed(TIMETABLE)
    total = sum(w.numel() for w in prunable(model).values())
    due = [next(TIMETABLE[t] for t in sorted(TIMETABLE, reverse=True) if t <= step + 1) for step in range(12)]
    assert [sum(int(z.sum()) for z in zeros.values()) for zeros in seen] == [round(s * total) for s in due]
    for before, after in pairwise(seen):
        assert all(not (before[name] & ~after[name]).any() for name in after)
    assert all(torch.equal(~masks[name], zeros) for name, zeros in seen[-1].items())
    assert sparsity_of(masks) == pytest.approx(0.87, abs=1 / total)


def test_the_hook_is_the_decisions_by_hand():
    """The same masks, from a row of numpy, a sort and no `restrict`; and the same weights, to the last bit."""
    model, gone, history = network(), {}, []

    def cut(sparsity):
        weights = prunable(model)
        row = np.concatenate([w.detach().abs().numpy().ravel() for w in weights.values()])
        row[np.concatenate([gone.get(n, np.zeros(w.numel(), bool)) for n, w in weights.items()])] = -1
        chosen = np.zeros(len(row), bool)
        chosen[np.argsort(row, kind="stable")[: round(sparsity * len(row))]] = True
        ends = np.cumsum([w.numel() for w in weights.values()])[:-1]
        gone.update(zip(weights, np.split(chosen, ends), strict=True))

    def after_step(step):
        if step + 1 in TIMETABLE:
            zero()
            cut(TIMETABLE[step + 1])
        zero()
        history.append({name: torch.from_numpy(g.copy()) for name, g in gone.items()})

    @torch.no_grad()
    def zero():
        for name, w in prunable(model).items():
            w.view(-1)[torch.from_numpy(gone[name])] = 0

    cut(TIMETABLE[0])
    zero()
    train(model, images(), RECIPE, after_step=after_step)
    seen, _, other = followed(TIMETABLE)
    for mine, zeros in zip(history, seen, strict=True):
        assert all(torch.equal(mine[name], zeros[name].flatten()) for name in zeros)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_criterion_and_a_scope_are_passed_on():
    seen, masks, model = followed({0: 0.5, 6: 0.8}, criterion=partial(chance, seed=7), scope=layerwise)
    expected = layerwise(chance(model, seed=7), 0.8)
    assert all(torch.equal(masks[name], expected[name]) for name in masks)
    assert all(torch.equal(seen[0][n], ~m) for n, m in layerwise(chance(model, seed=7), 0.5).items())


def test_an_empty_timetable_changes_nothing():
    _, masks, model = followed({})
    plain = network()
    train(plain, images(), RECIPE)
    assert sparsity_of(masks) == 0
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))


def test_the_last_step_counts_and_what_is_due_later_never_goes():
    """Twelve steps: a cut after the last of them is made, one that is due later is not."""
    seen, masks, _ = followed({0: 0.2, 12: 0.6, 13: 0.9})
    assert sparsity_of(masks) == pytest.approx(0.6, abs=1e-3)
    assert all(torch.equal(seen[-1][name], ~mask) for name, mask in masks.items())


def test_masks_that_were_there_before_count():
    model = network()
    masks = globally(chance(model, seed=1), 0.4)
    before = {name: mask.clone() for name, mask in masks.items()}
    gradually(model, masks, {0: 0.6})
    assert sparsity_of(masks) == pytest.approx(0.6, abs=1e-3)
    assert all(not (masks[name] & ~before[name]).any() for name in masks)


def test_what_the_hook_refuses():
    model = network()
    with pytest.raises(ValueError, match="a timetable only goes up"):
        gradually(model, keep_all(model), {0: 0.5, 4: 0.4})
    with pytest.raises(ValueError, match="a number from 0 to 1, not 90"):
        gradually(model, keep_all(model), {0: 0.5, 4: 90})
    hook = gradually(model, keep_all(model), {0: 0.5, 3: 0.6})
    with pytest.raises(ValueError, match="the cut before step 3 was missed: begin anew"):
        hook(10)


def test_a_killed_run_is_not_continued_with_half_its_masks(tmp_path):
    """Masks are not in a checkpoint: a run that was cut later than at the start says so, and does not go on."""
    model = network()
    hook = gradually(model, keep_all(model), TIMETABLE)

    def stop(step):
        hook(step)
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, images(), RECIPE, after_step=stop, checkpoint=tmp_path / "run")
    again = network()
    hook = gradually(again, keep_all(again), TIMETABLE)
    with pytest.raises(ValueError, match="missed: begin anew"):
        train(again, images(), RECIPE, after_step=hook, checkpoint=tmp_path / "run")
