"""A scene is what there is to see before it is seen: a body, its pose and colour, a room, a sun; `draw` makes some.

A domain says how scenes are drawn. HOME is the course's own; AWAY has other materials and light, and finer classes.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from course_utils.bodies import BODIES

CHUNK = 200  # scenes drawn from one seed, and rendered together
CLASSES = ("sphere", "cube", "cylinder", "cone", "torus", "octahedron", "prism", "cross", "dumbbell", "bowl")

Scene = dict[str, Tensor]  # one entry an image: numbers [B], vectors [B, 3], frames [B, 3, 3]
Range = tuple[float, float]
Colours = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Domain:
    """How scenes are drawn: a number uniformly from its range, a colour from its tuple; angles are in radians."""

    name: str = "home"
    classes: tuple[str, ...] = CLASSES
    variants: tuple[Range, ...] = ((0.9, 1.1),)  # heights of a body; label = body × len(variants) + variant
    body: Colours = ((0.85, 0.3, 0.25), (0.95, 0.65, 0.2), (0.35, 0.65, 0.35), (0.25, 0.5, 0.8), (0.6, 0.4, 0.7))
    room: Colours = ((0.8, 0.75, 0.65), (0.6, 0.7, 0.75), (0.7, 0.65, 0.7), (0.65, 0.72, 0.6), (0.75, 0.75, 0.75))
    size: Range = (0.8, 1.1)
    shift: Range = (-0.3, 0.3)  # of the body from (0, 0, 4)
    pitch: Range = (0.3, 0.6)  # of the camera, downwards
    yaw: Range = (-0.5, 0.5)  # of the room
    turn: Range = (-0.9, 0.9)  # of the body about its axis
    tilt: Range = (-0.4, 0.4)  # of that axis
    azimuth: Range = (-1.2, 1.2)  # of the sun; at 0 it is behind the camera
    elevation: Range = (0.6, 1.2)  # of the sun
    ambient: Range = (0.35, 0.5)
    texture: Range = (0.0, 0.2)
    noise: Range = (0.0, 0.04)


HOME = Domain()
AWAY = Domain(
    name="away",
    classes=tuple(f"{shape} {body}" for body in CLASSES for shape in ("squat", "slim")),
    variants=((0.6, 0.75), (1.25, 1.45)),
    body=((0.9, 0.85, 0.75), (0.35, 0.35, 0.45), (0.2, 0.65, 0.65), (0.8, 0.5, 0.3), (0.85, 0.5, 0.65)),
    room=((0.6, 0.4, 0.35), (0.35, 0.45, 0.6), (0.45, 0.55, 0.4), (0.65, 0.6, 0.5)),
    azimuth=(1.2, 2.0),
    ambient=(0.4, 0.5),
    texture=(0.1, 0.3),
)


def rotation(angle: Tensor, a: int, b: int) -> Tensor:
    """cos, -sin; sin, cos in the plane of the axes a and b: matrices [B, 3, 3]."""
    matrix = torch.eye(3).repeat(len(angle), 1, 1)
    matrix[:, a, a] = matrix[:, b, b] = angle.cos()
    matrix[:, b, a] = angle.sin()
    matrix[:, a, b] = -angle.sin()
    return matrix


def draw(domain: Domain, generator: Generator) -> Scene:
    """One chunk of scenes: (p - centre) @ room or @ body is the point p as the room, or the unit body, sees it."""

    def number(low: float | Tensor, high: float | Tensor) -> Tensor:
        return low + (high - low) * torch.rand(CHUNK, generator=generator)

    def colour(choices: Colours) -> Tensor:
        return torch.tensor(choices)[torch.randint(len(choices), (CHUNK,), generator=generator)]

    classes = len(BODIES) * len(domain.variants)
    labels = torch.cat([torch.randperm(classes, generator=generator) for _ in range(0, CHUNK, classes)])[:CHUNK]
    height = number(*torch.tensor(domain.variants)[labels % len(domain.variants)].T)
    size, one = number(*domain.size), torch.ones(CHUNK)
    room = rotation(number(*domain.pitch), 2, 1) @ rotation(number(*domain.yaw), 0, 2)
    tilt = rotation(number(*domain.tilt), 1, 2) @ rotation(number(*domain.tilt), 0, 1)
    pose = room @ tilt @ rotation(number(*domain.turn), 0, 2)
    sun = room @ rotation(number(*domain.azimuth), 0, 2) @ rotation(number(*domain.elevation), 1, 2)
    return {
        "labels": labels,
        "centre": torch.stack([number(*domain.shift) + start for start in (0, 0, 4)], 1),
        "size": size,
        "room": room,
        "body": pose / (size * torch.stack((one, height, one))).T[:, None],
        "sun": -sun[:, :, 2],
        "colours": torch.stack([colour(domain.room), colour(domain.room), colour(domain.body)], 1),
        "ambient": number(*domain.ambient),
        "texture": number(*domain.texture),
        "noise": number(*domain.noise),
    }
