"""Who competes with whom in notebook 07, and in which order: what comes first is what every profile can afford.

With three networks, the first level of most pairs makes 33 trials (`smoke`); with all levels and the others it is 300.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest


@dataclass(frozen=True)
class Contest:
    """Who competes in notebook 07: the `pairs` (criterion, scope) at every level, then the `others` at the first."""

    pairs: tuple[tuple[str, str], ...]
    levels: tuple[float, ...]  # sparsities, the most telling first
    others: tuple[tuple[str, str], ...] = ()

    def rounds(self, parents: Iterable[int]) -> list[list[dict]]:
        """What is to be tried, one list for each level, and inside a level network by network."""
        levels = [(level, self.pairs) for level in self.levels] + [(self.levels[0], self.others)]
        return [
            [
                {"sparsity": level, "parent": parent, "criterion": criterion, "scope": scope}
                for parent in parents
                for criterion, scope in pairs
            ]
            for level, pairs in levels
        ]


def in_turn(contests: Iterable[Contest], parents: Iterable[int]) -> list[dict]:
    """The rounds of several contests, in turn: wherever time is up, all of them have come about equally far."""
    rounds = zip_longest(*(contest.rounds(parents) for contest in contests), fillvalue=[])
    return [trial for turn in rounds for block in turn for trial in block]


WEIGHTS = Contest(
    pairs=(
        ("magnitude", "LAMP"), ("magnitude", "LAMP, shuffled"), ("magnitude", "global"), ("magnitude", "layer-wise"),
        ("Wanda", "LAMP"), ("OBD", "global"), ("OBS", "global"), ("Taylor", "global"), ("chance", "global"),
    ),
    levels=(0.75, 0.5, 0.875, 0.9375, 0.25, 0.96875),  # 4, 2, 8, 16, 1.3 and 32 times fewer weights
    others=(
        ("magnitude", "ERK"), ("Wanda", "layer-wise"), ("Wanda", "row-wise"), ("Wanda", "global"), ("Wanda", "ERK"),
        ("Taylor", "layer-wise"), ("Taylor", "LAMP"), ("Taylor", "ERK"), ("OBD", "layer-wise"), ("OBD", "LAMP"),
        ("OBD", "ERK"), ("OBS", "layer-wise"), ("OBS", "LAMP"), ("OBS", "ERK"), ("SparseGPT", "layer-wise"),
        ("chance", "LAMP"), ("chance", "ERK"),
    ),
)  # fmt: skip
UNITS = Contest(
    pairs=(("scaling", "layer-wise"), ("zeros", "layer-wise"), ("LASSO", "layer-wise"),
        ("chance, channels", "layer-wise")),
    levels=(0.5, 0.25, 0.125, 0.375, 0.625, 0.75),
    others=(
        ("scaling", "global"), ("zeros", "global"), ("LASSO", "global"), ("ThiNet", "layer-wise"),
        ("norm", "layer-wise"),
    ),
)  # fmt: skip
TUNED = (  # trained on after the cut; "nothing" is the dense network, trained on for as long
    ("magnitude", "LAMP"), ("magnitude", "LAMP, shuffled"), ("magnitude", "layer-wise"), ("magnitude", "global"),
    ("Wanda", "LAMP"), ("OBS", "global"), ("chance", "global"), ("scaling", "layer-wise"), ("LASSO", "layer-wise"),
    ("nothing", "global"),
)  # fmt: skip
STRUCTURED = (  # notebook 11: a criterion for groups, and a scope
    ("L2", "local"), ("L2", "local, shuffled"), ("L2", "global raw"), ("L2", "global normalised"),
    ("Taylor", "global normalised"), ("|γ|", "local"), ("L1", "local"), ("Taylor", "local"),
    ("L2", "global normalised, shuffled"), ("L1", "global normalised"), ("|γ|", "global normalised"),
    ("L1", "global raw"), ("Taylor", "global raw"), ("|γ|", "global raw"), ("L2", "global raw, shuffled"),
    ("chance", "global normalised"),
)  # fmt: skip
LEARNT = (  # notebook 11: a lesson after the cut to a part of the MACs; 1.0 is the dense network
    ("trained on", "L2", "local", 0.5), ("from scratch", "L2", "local", 0.5), ("trained on", "L2", "global raw", 0.5),
    ("trained on", "L2", "global normalised", 0.5), ("trained on", "L2", "local, shuffled", 0.5),
    ("from scratch, whole recipe", "L2", "local", 0.5), ("trained on", "L2", "local", 1.0),
)  # fmt: skip
