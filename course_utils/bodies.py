"""A body is its signed distance, `p -> f(p)`, f < 0 inside: `sphere(p) = |p| - 0.85`; p is [3, N] and y points up."""

from collections.abc import Callable

import torch
from torch import Tensor

SDF = Callable[[Tensor], Tensor]  # points [3, N] -> signed distances [N], or less than the distance, never more


def length(*parts: Tensor) -> Tensor:
    """√(a² + b² + …): the Euclidean length, with a gradient at zero too."""
    return torch.stack(parts).square().sum(0).add(1e-12).sqrt()


def box(parts: tuple[Tensor, ...], half: tuple[float, ...]) -> Tensor:
    """Distance to |a| ≤ half_a, |b| ≤ half_b, …: a box of any dimension."""
    excess = torch.stack([part.abs() - h for part, h in zip(parts, half, strict=True)])
    return length(*excess.clamp(min=0)) + excess.amax(0).clamp(max=0)


def sphere(p: Tensor) -> Tensor:
    """|p| - 0.85: a ball."""
    return length(*p) - 0.85


def cube(p: Tensor) -> Tensor:
    """|x|, |y|, |z| ≤ 0.65: a cube."""
    return box(tuple(p), (0.65, 0.65, 0.65))


def cylinder(p: Tensor) -> Tensor:
    """|(x, z)| ≤ 0.6, |y| ≤ 0.75: a rectangle turned about the y axis."""
    return box((length(p[0], p[2]), p[1]), (0.6, 0.75))


def cone(p: Tensor) -> Tensor:
    """A tip at y = 0.9 and a disc of radius 0.8 at y = -0.7: the slope cut off by the base."""
    return torch.maximum((2 * length(p[0], p[2]) + p[1] - 0.9) / 5**0.5, -0.7 - p[1])


def torus(p: Tensor) -> Tensor:
    """A circle of radius 0.25 turned about the y axis at 0.7: a ring."""
    return length(length(p[0], p[2]) - 0.7, p[1]) - 0.25


def octahedron(p: Tensor) -> Tensor:
    """|x| + |y| + |z| ≤ 1: eight faces."""
    return (p.abs().sum(0) - 1) / 3**0.5


def prism(p: Tensor) -> Tensor:
    """A triangle in (x, y), |z| ≤ 0.7: a roof."""
    triangle = torch.maximum(0.866 * p[0].abs() + 0.5 * p[1], -p[1]) - 0.5
    return torch.maximum(triangle, p[2].abs() - 0.7)


def cross(p: Tensor) -> Tensor:
    """Three bars along x, y and z: a jack."""
    bars = [box(tuple(p.roll(i, 0)), (0.9, 0.22, 0.22)) for i in range(3)]
    return torch.stack(bars).amin(0)


def dumbbell(p: Tensor) -> Tensor:
    """Balls at y = ±0.55 and a rod between them."""
    ball = length(p[0], p[1].abs() - 0.55, p[2]) - 0.42
    return torch.minimum(ball, box((length(p[0], p[2]), p[1]), (0.15, 0.5)))


def bowl(p: Tensor) -> Tensor:
    """| |p| - 0.8 | ≤ 0.1, y ≤ 0.1: the lower half of a hollow ball."""
    return torch.maximum((length(*p) - 0.8).abs() - 0.1, p[1] - 0.1)


BODIES: tuple[SDF, ...] = (sphere, cube, cylinder, cone, torus, octahedron, prism, cross, dumbbell, bowl)


def march(sdf: SDF, origins: Tensor, directions: Tensor, steps: int = 64) -> Tensor:
    """t ← t + f(o + t d) / |d|: the t [N] at which the rays o + t d, [3, N], meet the body, inf where they do not."""
    t, speed = torch.zeros(origins.shape[1]), length(*directions)
    for _ in range(steps):
        t = t + sdf(origins + t * directions) / speed
    return torch.where(sdf(origins + t * directions).abs() < 3e-4, t, torch.inf)


def normals(sdf: SDF, points: Tensor) -> Tensor:
    """∇f, by autograd: at points [3, N] of the surface, the direction in which the distance grows."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        return torch.autograd.grad(sdf(points).sum(), points)[0]
