"""A schedule is an iterator of sparsities: how much is gone after each round of pruning."""

from collections.abc import Iterator


def one_shot(final: float) -> Iterator[float]:
    """s: everything goes at once."""
    yield final


def geometric(final: float, rounds: int) -> Iterator[float]:
    """1 - (1 - s)^(k/n): each round removes the same fraction of the weights that are left."""
    for k in range(1, rounds + 1):
        yield 1 - (1 - final) ** (k / rounds)


def cubic(final: float, rounds: int) -> Iterator[float]:
    """s - s (1 - k/n)³: fast while there is much to remove, slow towards the end."""
    for k in range(1, rounds + 1):
        yield final - final * (1 - k / rounds) ** 3
