"""How big the pruning challenge of notebook 08 is: its perceptrons, what they learn, and the layers that are timed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Challenge:
    """One perceptron per number from the notebook's seed on, all of the same shape."""

    dataset: str  # digits (8 × 8), enlarged (28 × 28) or mnist
    hidden: tuple[int, ...]  # units in each hidden layer
    networks: int
    epochs: int
    lr: float
    memorised: int  # images whose labels, real or shuffled, a network learns by heart
    memory_epochs: int
    widths: tuple[int, ...]  # of the square layers that are timed


LITTLE = Challenge("digits", (100, 100, 50, 20), 5, 30, 0.05, 300, 120, (64, 256, 1024))
WHOLE = Challenge("enlarged", (1000, 1000, 500, 200), 5, 8, 0.05, 600, 40, (64, 128, 256, 512, 1024, 2048))
PUBLISHED = Challenge("mnist", (1000, 1000, 500, 200), 5, 10, 0.05, 3000, 40, (64, 128, 256, 512, 1024, 2048, 4096))
