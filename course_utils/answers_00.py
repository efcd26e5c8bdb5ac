"""The exercise of notebook 00: its solution, and the mistakes that people make. Read this after you have tried."""

import statistics

from course_utils.exercises import Exercise


def median_speedup(before: list[float], after: list[float]) -> float:
    """median(before) / median(after): 2 means twice as fast."""
    return statistics.median(before) / statistics.median(after)


def some_times() -> list[tuple]:
    """Milliseconds with a busy moment among them, as real ones have it."""
    first = ([30.0, 31.0, 29.0, 90.0, 30.5], [15.0, 14.0, 16.0, 15.5, 60.0])
    return [first, ([8.0, 8.1, 7.9, 8.3], [8.0, 8.2, 30.0, 8.1])]


speedup = Exercise(
    task="From two lists of milliseconds, say how many times as fast the second network is.",
    solution=median_speedup,
    cases=some_times,
    hints=(
        "Twice as fast means half the time. Which of the two numbers goes on top?",
        "One busy moment must not count: which average ignores a single large value?",
        "statistics.median(before) / statistics.median(after)",
    ),
    mistakes={
        "Upside down: you divide after by before. Half the time is twice the speed.": (
            lambda b, a: statistics.median(a) / statistics.median(b)
        ),
        "You take the mean: one busy moment (the 90 in the first list) moves it. Take the median.": (
            lambda b, a: statistics.mean(b) / statistics.mean(a)
        ),
        "You take the fastest pass of each. A minimum of a few passes is luck; take the median.": (
            lambda b, a: min(b) / min(a)
        ),
        "That is the time saved, as a fraction. A speed-up is a ratio: 50 % less time is 2 times as fast.": (
            lambda b, a: 1 - statistics.median(a) / statistics.median(b)
        ),
        "That is the difference in milliseconds. It says nothing without the time before: divide.": (
            lambda b, a: statistics.median(b) - statistics.median(a)
        ),
        "You average the ratios of single passes. A busy moment spoils its pair; take the medians first.": (
            lambda b, a: statistics.mean(x / y for x, y in zip(b, a, strict=True))
        ),
        "Per cent? A speed-up is a plain ratio: 2, not 200.": lambda b, a: 100 * median_speedup(b, a),
    },
)
