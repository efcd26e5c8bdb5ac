"""How notebook 10 draws its tickets: which networks, how often they are pruned, how long each of them is trained.

One lottery costs len(seeds) × (rounds + 1) trainings before any control has been trained.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lottery:
    """One kind of network: each of `rounds` cuts keeps the fraction `kept` of what is left, by weight."""

    seeds: tuple[int, ...]
    rounds: int
    kept: float
    epochs: int
    images: int  # that an epoch has
    early: int  # an epoch near the start: where rewinding may go back to
    late: int  # an epoch near the end: a control
    forks: tuple[int, ...]  # epochs after which two children part, most telling first
    width: float = 1.0  # of the convolutional networks
    depth: int = 20

    def density(self, level: int) -> float:
        """The fraction of the weights that is left after `level` cuts."""
        return self.kept**level
