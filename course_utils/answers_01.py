"""The exercises of notebook 01: their solutions, and the mistakes that people make. Read this after you have tried."""

import torch
from torch import Tensor

from course_utils.exercises import Exercise


def conv_macs(inputs: int, outputs: int, kernel: int, height: int, width: int, stride: int) -> int:
    """kernel² · inputs MACs for each number of the output: `outputs` channels, ⌈height / stride⌉ × ⌈width / stride⌉."""
    rows, columns = -(-height // stride), -(-width // stride)
    return kernel**2 * inputs * outputs * rows * columns


def some_convolutions() -> list[tuple]:
    """(inputs, outputs, kernel, height, width, stride): even and odd sizes, with and without a stride."""
    return [(3, 8, 3, 32, 32, 1), (8, 16, 3, 7, 5, 2), (16, 4, 1, 8, 8, 1), (4, 6, 5, 9, 7, 2), (2, 5, 3, 11, 8, 3)]


counting_macs = Exercise(
    task="The MACs of one convolution with padding kernel // 2 (kernel odd); height and width are those of its input.",
    solution=conv_macs,
    cases=some_convolutions,
    hints=(
        "First: how many MACs does one number of the output cost? It reads kernel × kernel pixels of every channel.",
        "Then: how many numbers does the output have? With this padding, each side is divided by the stride.",
        "A side of 7 at stride 2 gives positions 0, 2, 4, 6: four. Rounding up is -(-7 // 2), or (7 - 1) // 2 + 1.",
    ),
    mistakes={
        "You forget the stride: with stride 2 the filter stops at every second row and column only.": (
            lambda i, o, k, h, w, s: k * k * i * o * h * w
        ),
        "You divide by the stride once. It skips rows *and* columns.": (
            lambda i, o, k, h, w, s: k * k * i * o * -(-h // s) * w
        ),
        "Your kernel is a line: it has kernel × kernel places, in every input channel.": (
            lambda i, o, k, h, w, s: conv_macs(i, o, k, h, w, s) // k
        ),
        "You count a multiplication and an addition as two. Together they are one MAC (two FLOPs).": (
            lambda i, o, k, h, w, s: 2 * conv_macs(i, o, k, h, w, s)
        ),
        "You count a bias for every output. It is an addition without a multiplication, and we do not count it.": (
            lambda i, o, k, h, w, s: (k * k * i + 1) * o * -(-h // s) * -(-w // s)
        ),
        "You forget the input channels: every filter reads all of them.": (
            lambda i, o, k, h, w, s: conv_macs(1, o, k, h, w, s)
        ),
        "You forget the output channels: there is one filter for each of them.": (
            lambda i, o, k, h, w, s: conv_macs(i, 1, k, h, w, s)
        ),
        "You round down. A side of 7 at stride 2 has the positions 0, 2, 4, 6: four of them. Round up.": (
            lambda i, o, k, h, w, s: k * k * i * o * (h // s) * (w // s)
        ),
        "You do not round: half a position does not exist. Round each side up, before you multiply.": (
            lambda i, o, k, h, w, s: k * k * i * o * (h / s) * (w / s)
        ),
        "You forget the padding: without it the output would be smaller than the input even at stride 1.": (
            lambda i, o, k, h, w, s: k * k * i * o * ((h - k) // s + 1) * ((w - k) // s + 1)
        ),
        "These are the parameters. Every weight is used again at every output position: multiply by their number.": (
            lambda i, o, k, h, w, s: k * k * i * o
        ),
        "These are the numbers in the output. Each costs kernel × kernel × inputs MACs.": (
            lambda i, o, k, h, w, s: o * -(-h // s) * -(-w // s)
        ),
        "You take the image for a square: use height for the rows and width for the columns.": (
            lambda i, o, k, h, w, s: conv_macs(i, o, k, h, h, s)
        ),
    },
)


def hit_rate(outputs: Tensor, labels: Tensor) -> float:
    """The fraction of the rows whose largest number stands at the place that the label names."""
    return (outputs.argmax(1) == labels).float().mean().item()


def some_outputs() -> list[tuple]:
    """Class scores and labels: as many rows as classes, more of them, and a case in which every row is right."""
    random = torch.Generator().manual_seed(0)
    square, tall = torch.randn(5, 5, generator=random), torch.randn(12, 4, generator=random)
    mixed = torch.where(torch.arange(12) % 3 == 0, tall.argmin(1), tall.argmax(1))
    mixed[:2] = tall[:2].argsort(1)[:, 1]  # neither the largest nor the smallest
    some = square.argmax(1)
    some[0], some[1] = square[0].argmin(), square[1].argsort()[1]
    sure = torch.tensor([1, 2, 0, 1])
    return [(square, some), (tall, mixed), (2 * torch.eye(4)[sure], sure)]


measuring = Exercise(
    task="The fraction of the rows of `outputs` (images × classes) whose largest number stands where the label says.",
    solution=hit_rate,
    cases=some_outputs,
    hints=(
        "What a network says about an image is the place of the largest number in that image's row.",
        "outputs.argmax(1) gives that place for every row; comparing it with labels gives one True or False each.",
        "The mean of Trues and Falses is the fraction that we want: .float(), then .mean(), then .item().",
    ),
    mistakes={
        "You return how many are right. The fraction is that, divided by the number of rows.": (
            lambda outputs, labels: int((outputs.argmax(1) == labels).sum())
        ),
        "You look for the largest number in each column. A row is an image: argmax over axis 1.": (
            lambda outputs, labels: (outputs.argmax(0) == labels).float().mean().item()
        ),
        "Your argmax has no axis, so it looks at the whole table at once: argmax over axis 1 gives one place a row.": (
            lambda outputs, labels: (outputs.argmax() == labels).float().mean().item()
        ),
        "You compare the largest *score* with the label. The label names its place: argmax, not max.": (
            lambda outputs, labels: (outputs.max(1).values == labels).float().mean().item()
        ),
        "You take the smallest score of each row. The network's answer is the largest.": (
            lambda outputs, labels: hit_rate(-outputs, labels)
        ),
        "You return percent. Accuracies in this course are fractions between 0 and 1; only print as percent.": (
            lambda outputs, labels: 100 * hit_rate(outputs, labels)
        ),
        "You return the fraction that is wrong: that is the error, 1 minus the accuracy.": (
            lambda outputs, labels: 1 - hit_rate(outputs, labels)
        ),
        "You divide by the number of classes. Divide by the number of rows: one for each image.": (
            lambda outputs, labels: int((outputs.argmax(1) == labels).sum()) / outputs.shape[1]
        ),
        "You divide with //, which drops everything behind the point. Divide with /.": (
            lambda outputs, labels: int((outputs.argmax(1) == labels).sum()) // len(labels)
        ),
        "You return one True or False for each image. Their mean is the accuracy: .float().mean().item().": (
            lambda outputs, labels: outputs.argmax(1) == labels
        ),
        "The value is right, but it is still a tensor: .item() makes a plain number of it.": (
            lambda outputs, labels: torch.tensor(hit_rate(outputs, labels))
        ),
    },
)
