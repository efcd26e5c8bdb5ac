"""One training loop with one hook. It runs on any device, and continues exactly where a killed run stopped.

`train` changes the model in place and returns its log, one dict per epoch. `hold` is the hook that pruning needs.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_utils.checkpoints import fingerprint, keep, restore, told
from course_utils.data import Split, batches
from course_utils.masks import Masks, fitting
from course_utils.measure import accuracy, in_mode
from course_utils.progress import counted

Hook = Callable[[int], None]
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # (class scores, images, labels) -> the loss of a batch


def one_cycle(progress: float, warmup: float = 0.2) -> float:
    """Up in a straight line to 1 at `warmup`, then down in half a cosine to 0 at the end."""
    if progress < warmup:
        return progress / warmup
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def constant(progress: float) -> float:
    """Always 1."""
    return 1.0


def decayed(model: nn.Module, weight_decay: float) -> list[dict]:
    """The weights in two groups: matrices decay, normalisation and biases do not."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]


def sgd(model: nn.Module, recipe: "Recipe") -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum."""
    weights = decayed(model, recipe.weight_decay)
    return torch.optim.SGD(weights, recipe.lr, recipe.momentum, nesterov=recipe.momentum > 0)


def adamw(model: nn.Module, recipe: "Recipe") -> torch.optim.Optimizer:
    """Adam with decoupled weight decay, which transformers need; steps are as large as `lr`, whatever the gradient."""
    return torch.optim.AdamW(decayed(model, recipe.weight_decay), recipe.lr)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, apart from the data and the seed."""

    epochs: int
    batch_size: int = 50
    lr: float = 0.1
    schedule: FunctionType = one_cycle
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    flip: bool = True
    shift: int = 2
    bf16: bool = False
    compiled: bool = False
    optimizer: FunctionType = sgd

    def __post_init__(self) -> None:
        """Refuse what no training can be."""
        if self.epochs < 0 or self.batch_size < 1:
            raise ValueError(f"a recipe needs epochs ≥ 0 and batch_size ≥ 1, not {self.epochs} and {self.batch_size}")

    def words(self) -> str:
        """The recipe as text, for keys and records."""
        return json.dumps(asdict(self) | {n: getattr(self, n).__name__ for n in ("schedule", "optimizer")})


def hold(model: nn.Module, masks: Masks) -> Hook:
    """An `after_step` that keeps removed weights at zero, whatever gradient and momentum want."""
    pairs = [(weight, masks[name].to(weight)) for name, weight in fitting(model, masks).items()]  # as numbers: faster

    @torch.no_grad()
    def after_step(step: int) -> None:
        for weight, mask in pairs:
            weight.mul_(mask)

    return after_step


def train(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    seed: int = 0,
    after_step: Hook = lambda step: None,
    val: Split | None = None,
    checkpoint: Path | None = None,
    first: int = 0,
    objective: Objective | None = None,
) -> list[dict]:
    """Train in place, from epoch `first` on; return a record per epoch. With a `checkpoint`, go on from the latest."""
    possible(recipe, first, checkpoint, objective)
    optimizer = recipe.optimizer(model, recipe)
    run = fingerprint(model, split, recipe.words() + (f" from {first}" if first else ""), seed) if checkpoint else ""
    log = restore(model, optimizer, checkpoint, run) if checkpoint else []
    forward = torch.compile(model) if recipe.compiled and split.images.is_cuda else model
    model.train()
    for epoch in range(first + len(log), recipe.epochs):
        began = time.perf_counter()
        with seeded(seed * 10007 + epoch), told(epoch, recipe.epochs, checkpoint):
            record = one_epoch(
                forward, split, recipe, optimizer, epoch, seed, after_step, objective or by_labels(recipe)
            )
            if val is not None:
                record["val_accuracy"] = accuracy(model, val)
            log.append({"epoch": epoch + 1} | record | {"seconds": time.perf_counter() - began})
            if checkpoint:
                keep(model, optimizer, log, checkpoint, run)
    return log


def possible(recipe: Recipe, first: int, checkpoint: Path | None, objective: Objective | None) -> None:
    """Refuse what `train` cannot begin, or could not go on with."""
    if not 0 <= first <= recipe.epochs:
        raise ValueError(f"first is an epoch from 0 to {recipe.epochs}, not {first}")
    if checkpoint and objective:
        raise ValueError(f"{checkpoint} would not know the objective (a teacher, say): train without a checkpoint")


def by_labels(recipe: Recipe) -> Objective:
    """The usual objective: cross entropy, with the recipe's label smoothing."""
    return lambda scores, x, y: cross_entropy(scores, y, label_smoothing=recipe.label_smoothing)


def one_epoch(
    forward: Callable,
    split: Split,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    seed: int,
    after_step: Hook,
    objective: Objective,
) -> dict:
    """One pass over the data; the order of the images depends on (seed, epoch) alone."""
    steps = math.ceil(len(split) / recipe.batch_size)
    stream = batches(split, recipe.batch_size, seed * 10007 + epoch, recipe.flip, recipe.shift)
    total, right = 0.0, 0
    for step, (x, y) in counted(enumerate(stream, epoch * steps), steps, f"epoch {epoch + 1}/{recipe.epochs}, batch"):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.schedule((step + 1) / (recipe.epochs * steps + 1))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.bf16 and x.is_cuda):
            scores = forward(x)
            loss = objective(scores, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after_step(step)
        total, right = total + loss.detach() * len(y), right + (scores.argmax(1) == y).sum()
    total = float(total)
    if not math.isfinite(total):
        raise ValueError(f"the loss is {total} in epoch {epoch + 1}: try a smaller learning rate than {recipe.lr}")
    return {"loss": total / len(split), "train_accuracy": int(right) / len(split)}


def refresh(model: nn.Module, split: Split, recipe: Recipe, seed: int = 0) -> None:
    """Let BatchNorm measure its means and variances anew on `split`: no labels, no gradients, no weight changes."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
    with in_mode(model, training=True), torch.no_grad():
        for x, _ in batches(split, recipe.batch_size, seed, recipe.flip, recipe.shift):
            model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@contextmanager
def seeded(seed: int):
    """Dropout and the like draw from `seed` inside the block; afterwards torch's global generator is as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
