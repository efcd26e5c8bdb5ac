"""Ways to decide who competes with whom: what each counts, what moves, and that nothing is ever emptied."""

import pytest
import torch

from course_utils.arenas import all_normalised, all_raw, by_chance, each_alone, isomorphic, isomorphic_raw, mixed_up

KINDS = {"a": "inner", "b": "inner", "c": "stream", "d": "inner"}


def scores(seed=0):
    draw = torch.Generator().manual_seed(seed)
    loud = {"a": 1.0, "b": 50.0, "c": 0.01, "d": 3.0}
    sizes = {"a": 10, "b": 14, "c": 12, "d": 6}
    return {n: loud[n] * (0.1 + torch.rand(size, generator=draw)) for n, size in sizes.items()}


def gone(masks, *names):
    return sum(int((~masks[n]).sum()) for n in names or masks)


@pytest.mark.parametrize("decide", [isomorphic, isomorphic_raw, mixed_up])
def test_each_kind_loses_its_part(decide):
    masks = decide(scores(), 0.4, KINDS)
    assert (gone(masks, "a", "b", "d"), gone(masks, "c")) == (12, 5)
    own = decide(scores(), {"inner": 0.5, "stream": 0.0}, KINDS) if decide is not mixed_up else masks
    assert decide is mixed_up or (gone(own, "a", "b", "d"), gone(own, "c")) == (15, 0)


def test_loudness_decides_only_where_it_may():
    s = scores()
    assert gone(isomorphic_raw(s, 0.4, KINDS), "b") == 0 < gone(isomorphic(s, 0.4, KINDS), "b")
    assert gone(all_raw(s, 0.4, KINDS), "c") == 11 > gone(all_normalised(s, 0.4, KINDS), "c")
    louder = s | {"a": 7 * s["a"]}
    for decide in (isomorphic, all_normalised, each_alone):
        one, other = decide(s, 0.4, KINDS), decide(louder, 0.4, KINDS)
        assert all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    "decide", [isomorphic, isomorphic_raw, each_alone, all_normalised, all_raw, mixed_up, by_chance]
)
def test_a_channel_of_each_group_always_stays(decide):
    masks = decide(scores(), 0.8, KINDS)
    assert list(masks) == list(KINDS) and all(mask.any() for mask in masks.values())


def test_controls_count_as_their_originals():
    s = scores()
    for control, original in ((mixed_up, isomorphic), (by_chance, each_alone)):
        one, other = control(s, 0.4, KINDS), original(s, 0.4, KINDS)
        assert all(one[n].sum() == other[n].sum() for n in one)
        assert any(not torch.equal(one[n], other[n]) for n in one)
