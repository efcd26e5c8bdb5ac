"""A profile says how big an experiment is: `smoke` (a minute), `laptop` (some minutes), `full` (a GPU and real data).

Numbers live here and not in the notebooks. Nothing else in the course branches on the profile.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TypeVar

import torch

from course_utils.challenges import LITTLE, PUBLISHED, WHOLE, Challenge
from course_utils.contests import LEARNT, STRUCTURED, TUNED, UNITS, WEIGHTS, Contest
from course_utils.lotteries import Lottery

Option = TypeVar("Option")


@dataclass(frozen=True)
class Profile:
    """The sizes of one profile; sequences are ordered, the most telling entry first."""

    name: str
    dataset: str  # the default of the notebooks' parameter `dataset`
    width: float  # of the baseline ResNet, relative to ResNet-50
    blocks: tuple[int, ...]  # its bottleneck blocks per stage
    epochs: int  # of the baseline's training
    batch_size: int
    lr: float
    bf16: bool
    compiled: bool
    parents: tuple[int, ...]  # seeds of the independently trained networks
    controls: tuple[int, ...]  # seeds of the networks that are trained as a control
    first_epochs: int  # of the network that notebook 01 trains before your eyes
    sparsities: tuple[float, ...]  # of a one-shot sweep
    repair_images: int  # of a short fine-tuning
    repeats: int  # of a latency measurement
    test_images: int  # notebooks 02, 03, 05, 06: that a trial is tested on
    unit_sparsities: tuple[float, ...]  # notebook 03: of channels
    thinning_epochs: int  # notebook 03: of sparsity training, each over `repair_images`
    calibration_images: int  # notebook 04: that the curvature is measured on
    dampings: tuple[float, ...]  # notebook 04: tried on validation images
    trims: tuple[float, ...]  # notebook 05: of units, milder than `unit_sparsities`
    perceptrons: tuple[int, ...]  # notebook 05: seeds of networks without BatchNorm, trained in a moment
    fitted_sparsities: tuple[float, ...]  # notebook 06: of units whose readers are fitted anew
    fitted_images: int  # notebook 06: that they are fitted on
    weights: Contest  # notebook 07: criteria for weights
    units: Contest  # notebook 07: criteria for whole channels
    tuned: tuple[tuple[str, str], ...]  # notebook 07: the pairs that are trained on after the cut
    tuned_parents: tuple[int, ...]
    digit_lottery: Lottery  # notebook 10: of perceptrons
    lottery: Lottery  # notebook 10: of CIFAR ResNets; without seeds, none is drawn
    flow_rounds: int  # notebook 10: in which SynFlow removes weights
    challenge: Challenge  # notebook 08: perceptrons, what they learn, and the layers that are timed
    schedule_rounds: int  # notebook 09: of iterative pruning; the network is looked at after each
    schedule_images: int  # notebook 09: in an epoch of any retraining
    schedule_epochs: int  # notebook 09: of any retraining
    schedule_levels: tuple[float, ...]  # notebook 09: sparsities that are cut at once, and retrained
    mac_budgets: tuple[float, ...]  # notebook 11: parts of the MACs that are left
    group_methods: tuple[tuple[str, str], ...]  # notebook 11: criteria for groups, and scopes
    group_lessons: tuple[tuple[str, str, str, float], ...]  # notebook 11: what is learnt after the cut
    timed_turns: int  # notebook 11: of a large network on this computer
    scope_networks: tuple[str, ...]  # notebook 12: whose channels compete
    scope_budgets: tuple[float, ...]  # notebook 12: parts of the MACs that are left
    scope_images: int  # notebook 12: that gradients are accumulated over, and that a cut is tested on
    taught_images: int  # notebook 12: of a short fine-tuning, with a teacher and without
    minutes: float = field(default=float("inf"), repr=False)  # stop between trials after so many (`--minutes`)
    fresh: float = field(default=0.0, repr=False)  # networks made before this moment are trained anew (`--fresh`)


SMOKE = Profile(
    name="smoke", dataset="solids", width=0.125, blocks=(1, 1, 1, 1), epochs=5, batch_size=50, lr=0.1, bf16=False,
    compiled=False, parents=(0, 1, 2), controls=(0,), first_epochs=2, sparsities=(0.8, 0.5), repair_images=1500,
    repeats=5, test_images=500,
    unit_sparsities=(0.5, 0.8), thinning_epochs=1, calibration_images=128, dampings=(1e-5, 1e-2),
    weights=Contest(WEIGHTS.pairs[:6], WEIGHTS.levels[:1]), units=Contest(UNITS.pairs, UNITS.levels[:1]),
    tuned=TUNED[:2], tuned_parents=(0,), trims=(0.3, 0.5), perceptrons=tuple(range(10, 18)),
    fitted_sparsities=(0.5,), fitted_images=128, flow_rounds=15,
    digit_lottery=Lottery((0, 1, 2), rounds=5, kept=0.64, epochs=10, images=1197, early=2, late=8, forks=(0, 6)),
    lottery=Lottery((), 2, kept=0.3, epochs=6, images=2000, early=1, late=5, forks=(0, 1), width=0.5, depth=8),
    challenge=LITTLE,
    schedule_rounds=3, schedule_images=450, schedule_epochs=1, schedule_levels=(0.9, 0.5),
    mac_budgets=(0.5,), group_methods=STRUCTURED[:6], group_lessons=LEARNT[:1], timed_turns=3,
    scope_networks=("deit", "resnet"), scope_budgets=(0.5,), scope_images=256, taught_images=300,
)  # fmt: skip
LAPTOP = replace(
    SMOKE, name="laptop", controls=(0, 1, 2), first_epochs=5, sparsities=(0.8, 0.5, 0.9, 0.7, 0.3, 0.6, 0.95, 0.4),
    repair_images=4000, repeats=15, test_images=1000,
    unit_sparsities=(0.5, 0.8, 0.7, 0.2, 0.3, 0.4, 0.6),
    challenge=WHOLE, thinning_epochs=3, calibration_images=1024, dampings=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    weights=WEIGHTS, units=UNITS, tuned_parents=(0, 1, 2),
    tuned=TUNED, trims=(0.3, 0.5, 0.1, 0.2, 0.7), perceptrons=tuple(range(10, 26)),
    fitted_sparsities=(0.5, 0.3, 0.7, 0.1), fitted_images=256, flow_rounds=99,
    digit_lottery=replace(SMOKE.digit_lottery, seeds=(0, 1, 2, 3, 4, 5), rounds=10, kept=0.8, forks=(0, 6, 2)),
    lottery=replace(SMOKE.lottery, seeds=(0, 1, 2)),
    schedule_rounds=9, schedule_images=3000, schedule_levels=(0.9, 0.5, 0.95, 0.7, 0.3, 0.1),
    mac_budgets=(0.5, 0.25), group_methods=STRUCTURED, group_lessons=LEARNT, timed_turns=11,
    scope_networks=("deit", "resnet", "convnext", "mobilenet"), scope_budgets=(0.5, 0.7), scope_images=1024,
    taught_images=3000,
)  # fmt: skip
FULL = Profile(
    name="full", dataset="cifar10", width=1.0, blocks=(3, 4, 6, 3), epochs=80, batch_size=256, lr=0.2, bf16=True,
    compiled=True, parents=(0, 1, 2), controls=(0, 1, 2), first_epochs=80, sparsities=(*LAPTOP.sparsities, 0.98),
    repeats=30, repair_images=45_000, test_images=10_000,
    unit_sparsities=LAPTOP.unit_sparsities, thinning_epochs=20,
    calibration_images=1024, dampings=LAPTOP.dampings,
    weights=Contest((*WEIGHTS.pairs, *WEIGHTS.others), WEIGHTS.levels),
    units=Contest((*UNITS.pairs, *UNITS.others), UNITS.levels), tuned=TUNED, tuned_parents=(0, 1, 2),
    trims=LAPTOP.trims, perceptrons=LAPTOP.perceptrons, fitted_sparsities=LAPTOP.fitted_sparsities, fitted_images=1024,
    flow_rounds=99, digit_lottery=LAPTOP.digit_lottery,
    lottery=Lottery((0, 1, 2), 10, kept=0.8, epochs=160, images=45_000, early=6, late=140, forks=(0, 6, 1, 3, 12)),
    challenge=PUBLISHED,
    schedule_rounds=9, schedule_images=45_000, schedule_epochs=27, schedule_levels=LAPTOP.schedule_levels,
    mac_budgets=(0.5, 0.25, 0.75, 0.1), group_methods=STRUCTURED, group_lessons=LEARNT, timed_turns=31,
    scope_networks=LAPTOP.scope_networks, scope_budgets=LAPTOP.scope_budgets, scope_images=3200, taught_images=45_000,
)  # fmt: skip
PROFILES = {profile.name: profile for profile in (SMOKE, LAPTOP, FULL)}


def start(name: str) -> Profile:
    """The profile called `name`; also sets one thread per process, because two on a shared core are far slower."""
    if name not in PROFILES:
        raise ValueError(f"there is no profile {name!r}: choose one of {', '.join(PROFILES)}")
    torch.set_num_threads(1)
    minutes = float(os.environ.get("COURSE_MINUTES") or "inf")
    return replace(PROFILES[name], minutes=minutes, fresh=float(os.environ.get("COURSE_FRESH") or 0))


def choose(options: dict[str, Option], name: str) -> Option:
    """options[name], or one sentence about what there is to choose from."""
    if name not in options:
        raise ValueError(f"there is no {name!r}: choose one of {', '.join(options)}")
    return options[name]


def best_device() -> torch.device:
    """The GPU if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def grid(**axes: Iterable) -> list[dict]:
    """All combinations, the last axis changing fastest: put what is compared last, and every prefix is balanced."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
