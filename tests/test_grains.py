"""Pieces of rows: single weights at one end, whole units at the other, counted exactly in between."""

import pytest
import torch

from course_utils.grains import piece_mask, shuffled_layer, strongest_rows
from course_utils.scopes import keep_top
from course_utils.speed import Backward, break_even, race, square_layer


def matrix(rows: int = 12, columns: int = 20) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(rows, columns, generator=random) * torch.rand(rows, 1, generator=random)


@pytest.mark.parametrize("sparsity", [0, 0.25, 0.5, 0.9, 1])
def test_the_two_ends_are_weights_and_units(sparsity):
    weight = matrix()
    assert torch.equal(piece_mask(weight, 1, sparsity), keep_top(weight.abs(), sparsity))
    rows = keep_top(weight.norm(dim=1), sparsity)[:, None].expand_as(weight)
    assert torch.equal(piece_mask(weight, 1000, sparsity), rows)


@pytest.mark.parametrize("size", [3, 4, 7, 10])
def test_pieces_by_a_double_loop(size):
    weight = matrix()
    count = max(1, round(20 / size))
    pieces = [[column for column in range(20) if column * count // 20 == piece] for piece in range(count)]
    assert {len(piece) for piece in pieces} <= {20 // count, 20 // count + 1}
    scores = {(r, p): weight[r, piece].square().mean().item() for r in range(12) for p, piece in enumerate(pieces)}
    gone = sorted(scores, key=lambda place: scores[place])[: round(0.7 * len(scores))]
    wanted = torch.ones(12, 20, dtype=torch.bool)
    for r, p in gone:
        wanted[r, pieces[p]] = False
    assert torch.equal(piece_mask(weight, size, 0.7), wanted)


def test_shuffling_keeps_the_weights_and_moves_them():
    weight = matrix()
    mixed = shuffled_layer(weight, 3)
    assert torch.equal(mixed.flatten().sort().values, weight.flatten().sort().values)
    assert mixed.shape == weight.shape and (mixed == weight).float().mean() < 0.2
    assert torch.equal(mixed, shuffled_layer(weight, 3)) and not torch.equal(mixed, shuffled_layer(weight, 4))


@pytest.mark.parametrize("energy", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_the_fewest_rows_that_hold_enough(energy):
    weight = matrix()
    squares = weight.double().square().sum(1)
    mask = strongest_rows(weight, energy)
    rows = mask.any(1)
    assert torch.equal(rows, mask.all(1)) and mask.shape == weight.shape
    assert squares[rows].sum() >= energy * squares.sum()
    assert squares[rows].sum() - squares[rows].min() < energy * squares.sum() or int(rows.sum()) == 1
    assert rows.all() or squares[rows].min() >= squares[~rows].max()


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((0.5, 0.8, 1.2), "85%"),
        ((0.5, 0.6, 0.9), "none up to 90%"),
        ((1.0, 1.5, 2.0), "50% or less"),
        ((1.2, 0.5, 1.5), "85%"),  # once slower again, a break-even before does not count
        ((1.2, 1.5, 0.9), "none up to 90%"),
    ],
)
def test_break_even(ratios, words):
    assert break_even((0.5, 0.8, 0.9), ratios) == words


@pytest.mark.parametrize("block", [1, 4])
def test_square_layers_have_what_they_were_asked_for(block):
    weight = square_layer(16, 0.75, block, seed=2).weight
    assert int((weight != 0).sum()) == 64
    assert torch.equal(weight, square_layer(16, 0.75, block, seed=2).weight)
    blocks = weight.unflatten(0, (-1, block)).unflatten(2, (-1, block)).transpose(1, 2).flatten(2)
    assert torch.equal((blocks != 0).any(2), (blocks != 0).all(2))


def test_a_race_reports_ratios_of_its_milliseconds():
    kinds = {"CSR": 1} | ({"blocks": 4} if torch.backends.mkl.is_available() else {})
    found = race(16, 0.5, kinds, repeats=2)
    for direction in ("forward", "backward"):
        for kind in kinds:
            ratio = found[f"dense, {direction}, ms"] / found[f"{kind}, {direction}, ms"]
            assert found[f"{kind}, {direction}"] == pytest.approx(ratio)


def test_backward_alone_gives_the_gradients():
    layer, x, grad = torch.nn.Linear(5, 3), torch.randn(4, 5), torch.randn(4, 3)
    backward = Backward(layer, x)
    with torch.no_grad():  # as it is timed
        for_x, for_weight, for_bias = backward(grad)
    assert torch.allclose(for_x, grad @ layer.weight) and torch.allclose(for_weight, grad.T @ x, atol=1e-6)
    assert torch.allclose(for_bias, grad.sum(0))


def test_pieces_and_blocks_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="at least one weight, not 0"):
        piece_mask(torch.ones(2, 3), 0, 0.5)
    with pytest.raises(ValueError, match="blocks of 4 do not divide a layer of width 10"):
        square_layer(10, 0.5, 4)
