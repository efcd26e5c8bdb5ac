"""Distillation: a student learns from the labels and from what a teacher says about the same images.

Soft: all of the teacher's probabilities. Hard: its first choice alone, as if it were a label.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from course_utils.measure import evaluating


def soft(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 3.0, alpha: float = 0.5
) -> Tensor:
    """(1 - α) · CE(labels) + α · T² · KL(teacher ‖ student): both softened by the temperature T."""
    alike(logits, teacher_logits, alpha)
    if not temperature > 0:
        raise ValueError(f"a temperature is a number above 0, for example 3, not {temperature}")
    ours, theirs = (log_softmax(z / temperature, 1) for z in (logits, teacher_logits))
    divergence = kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return (1 - alpha) * cross_entropy(logits, labels) + alpha * temperature**2 * divergence


def hard(logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float = 0.5) -> Tensor:
    """(1 - α) · CE(labels) + α · CE(the teacher's first choice)."""
    alike(logits, teacher_logits, alpha)
    return (1 - alpha) * cross_entropy(logits, labels) + alpha * cross_entropy(logits, teacher_logits.argmax(1))


def alike(logits: Tensor, teacher_logits: Tensor, alpha: float) -> None:
    """Refuse a teacher that speaks of other classes, and a part of the loss that is none."""
    if logits.shape != teacher_logits.shape:
        ours, theirs = tuple(logits.shape), tuple(teacher_logits.shape)
        raise ValueError(f"teacher and student must name the same classes, but their scores are {theirs} and {ours}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the teacher's part of the loss, from 0 to 1, not {alpha}")


def taught(teacher: nn.Module, way: Callable[..., Tensor] = soft) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An `objective` for `train`: the teacher sees the same augmented images, in evaluation mode."""

    def objective(logits: Tensor, x: Tensor, labels: Tensor) -> Tensor:
        with evaluating(teacher):
            said = teacher(x)
        return way(logits, said, labels)

    return objective
