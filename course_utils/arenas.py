"""Who competes with whom: ways to decide, with equal signatures, decide(scores, sparsity, kinds) -> Masks.

Each leaves every group at least one channel. `normalised` first divides each group's scores by their mean.
"""

from course_utils.budgets import shuffled
from course_utils.importance import normalised
from course_utils.kinds import isomorphically
from course_utils.masks import Masks
from course_utils.scopes import at_least, globally, layerwise
from course_utils.scores import Scores

Kinds = dict[str, str]
Ratios = float | dict[str, float]


def isomorphic(scores: Scores, sparsity: Ratios, kinds: Kinds) -> Masks:
    """Channels of one kind compete, each group's scores divided by their mean: Fang et al.'s way."""
    return isomorphically(at_least(normalised(scores), 1), sparsity, kinds)


def isomorphic_raw(scores: Scores, sparsity: Ratios, kinds: Kinds) -> Masks:
    """Channels of one kind compete with their scores as they are."""
    return isomorphically(at_least(scores, 1), sparsity, kinds)


def each_alone(scores: Scores, sparsity: float, kinds: Kinds) -> Masks:
    """Each group loses the same fraction of its channels; kinds do not matter."""
    return layerwise(at_least(scores, 1), sparsity)


def all_normalised(scores: Scores, sparsity: float, kinds: Kinds) -> Masks:
    """All channels of the network compete, each group's scores divided by their mean."""
    return globally(at_least(normalised(scores), 1), sparsity)


def all_raw(scores: Scores, sparsity: float, kinds: Kinds) -> Masks:
    """All channels of the network compete with their scores as they are."""
    return globally(at_least(scores, 1), sparsity)


def mixed_up(scores: Scores, sparsity: Ratios, kinds: Kinds) -> Masks:
    """The control for the choice: as many channels of each group as isomorphic, but others."""
    return shuffled(isomorphic(scores, sparsity, kinds))


def by_chance(scores: Scores, sparsity: float, kinds: Kinds) -> Masks:
    """The control for everything: each group loses the same fraction, at random."""
    return shuffled(each_alone(scores, sparsity, kinds), seed=1)
