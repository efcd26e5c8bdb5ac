"""How sure is a mean? Its 95 % interval, from as few values as there are."""

import math

from scipy.special import stdtrit


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of the 95 % Student-t interval."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.inf
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
