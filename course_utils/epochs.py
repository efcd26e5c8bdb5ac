"""An epoch of fine-tuning with timm's parts: mixup and cutmix, label smoothing, a teacher, a moving average.

Everything random is drawn from (seed, epoch, process), so that a run that was stopped goes on as if it had not been.
"""

import math
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import timm.loss
import torch
from timm.data import Mixup
from timm.data.loader import PrefetchLoader
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from course_utils import dist, distill
from course_utils.data import pixels_last
from course_utils.evaluation import followed
from course_utils.options import Options
from course_utils.teachers import two_heads


@dataclass(frozen=True)
class Run:
    """The parts of a fine-tuning: the network, what changes with it, and what it learns from."""

    options: Options
    model: nn.Module
    forward: Callable
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None
    images: PrefetchLoader
    ask: Callable[[Tensor], Tensor] | None  # the teacher

    def result(self) -> nn.Module:
        """The network that is to be used: the moving average, if there is one."""
        return self.average.module if self.average else self.model


def begin(model: nn.Module, options: Options, images: PrefetchLoader, ask: Callable | None) -> Run:
    """All parts at the beginning of a fine-tuning."""
    if ask:
        two_heads(model)
    try:
        optimizer = create_optimizer_v2(model, options.optimizer, options.lr, options.weight_decay)
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"--optimizer {options.optimizer} is none that timm makes, such as adamw or sgd") from error
    average = ModelEmaV3(model, options.ema, use_warmup=True) if options.ema else None
    return Run(options, model, dist.spread(model), optimizer, average, images, ask)


def schedule(run: Run) -> CosineLRScheduler:
    """The learning rate of each step: up in a straight line, then down in half a cosine."""
    total = run.options.epochs * len(run.images) + 1
    rise = run.options.warmup * total
    return CosineLRScheduler(run.optimizer, total, warmup_t=rise, t_in_epochs=False)  # ty: ignore[invalid-argument-type]


def mixing(options: Options, classes: int) -> Mixup | None:
    """timm's mixup and cutmix, which also make labels smooth; None without both."""
    if not (options.mixup or options.cutmix):
        return None
    return Mixup(options.mixup, options.cutmix, label_smoothing=options.smoothing, num_classes=classes)


@contextmanager
def dice(seed: int) -> Generator[None]:
    """Everything random draws from `seed` inside the block; afterwards all generators are as they were."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    random.setstate(before[0])
    np.random.set_state(before[1])


def error(run: Run, x: Tensor, y: Tensor, mix: Mixup | None) -> Tensor:
    """The loss of one batch: by the labels, and with a teacher also by its answers."""
    options = run.options
    smooth = timm.loss.LabelSmoothingCrossEntropy(options.smoothing)
    x, targets = mix(x, y) if mix else (x, y)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=options.bf16):
        given = run.forward(pixels_last(x))
    own, taught = (scores.float() for scores in (given if isinstance(given, tuple) else (given, given)))
    loss = timm.loss.SoftTargetCrossEntropy()(own, targets) if mix else smooth(own, targets)
    if run.ask is None:
        return loss
    theirs = run.ask(x)
    if options.distillation == "soft":
        return (1 - options.alpha) * loss + options.alpha * distill.soft(taught, theirs, y, options.temperature, 1.0)
    return (1 - options.alpha) * loss + options.alpha * distill.hard(taught, theirs, y, 1.0)


def one_epoch(run: Run, epoch: int, classes: int) -> dict[str, float]:
    """Train for one epoch, counted from 0."""
    options, steps, rate = run.options, len(run.images), schedule(run)
    mix, losses = mixing(options, classes), torch.zeros((), dtype=torch.double, device=dist.device())
    run.model.train()
    run.images.sampler.set_epoch(epoch)
    with dice(10007 * options.seed + 101 * epoch + dist.rank()):
        batches = followed(run.images, steps, f"epoch {epoch + 1}/{options.epochs}, batch")
        for step, (x, y) in enumerate(batches, epoch * steps + 1):
            rate.step_update(step)
            loss = error(run, x, y, mix)
            run.optimizer.zero_grad()
            loss.backward()
            if options.clip:
                nn.utils.clip_grad_norm_(run.model.parameters(), options.clip)
            run.optimizer.step()
            if run.average:
                run.average.update(run.model, step)
            losses += loss.detach()
    mean = dist.average(losses).item() / steps
    if not math.isfinite(mean):
        raise ValueError(f"the loss is {mean} in epoch {epoch + 1}: try a smaller --lr than {options.lr}")
    return {"training_loss": mean, "lr": run.optimizer.param_groups[0]["lr"]}
