"""A schedule is an iterator of sparsities: how much is gone after each round of pruning."""

from collections.abc import Iterator

from course_utils.scopes import fraction


def one_shot(final: float) -> Iterator[float]:
    """s: everything goes at once."""
    return iter([fraction(final)])


def geometric(final: float, rounds: int) -> Iterator[float]:
    """1 - (1 - s)^(k/n): each round removes the same fraction of the weights that are left."""
    final = fraction(final)
    return (1 - (1 - final) ** (k / rounds) for k in counting(rounds))


def cubic(final: float, rounds: int) -> Iterator[float]:
    """s - s (1 - k/n)³: fast while there is much to remove, slow towards the end."""
    final = fraction(final)
    return (final - final * (1 - k / rounds) ** 3 for k in counting(rounds))


def counting(rounds: int) -> range:
    """1, 2, …, rounds."""
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds is a whole number from 1 on, not {rounds!r}")
    return range(1, rounds + 1)
