"""A solid is a body in a room, `render(6000, seed=0) -> images, labels, depth`: one ray a pixel, marched in torch."""

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from course_utils.bodies import BODIES, SDF, march, normals
from course_utils.scenes import CHUNK, HOME, Domain, Scene, draw

VERSION = 1  # raised by hand when the pictures change
FIELD = 0.4  # half the picture's width at depth 1


def backdrop(scene: Scene, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """t = (n·c - h) / n·d: depth [B, P], normal [B, P, 3] and 0 or 1 [B, P] for the floor or the wall, the nearer."""
    planes = torch.stack((scene["room"][:, :, 1], -scene["room"][:, :, 2]), 1)  # n, [B, 2, 3]
    heights = planes @ scene["centre"][:, :, None] - torch.tensor([[0.8], [1.5]]) * scene["size"][:, None, None]
    depth, which = (heights / (planes @ rays.T).clamp(max=-1e-3)).min(1)
    return depth, planes.take_along_dim(which[:, :, None], 1), which


def meet(sdf: SDF, scene: Scene, origins: Tensor, directions: Tensor) -> Tensor:
    """t [B, P] of `march` in the body's frame; only rays with |o × d| < 1.3 |d|, which come near it, are marched."""
    origins, directions = (origins - scene["centre"][:, None]) @ scene["body"], directions @ scene["body"]
    near = torch.linalg.cross(origins, directions).norm(dim=2) < 1.3 * directions.norm(dim=2)
    t = torch.full(near.shape, torch.inf)
    t[near] = march(sdf, origins[near].T.contiguous(), directions[near].T.contiguous())
    return t


def picture(sdf: SDF, scene: Scene, rays: Tensor) -> tuple[Tensor, Tensor]:
    """colour × (ambient + sun n·l): images [B, P, 3] in 0 … 1 and depths [B, P] of scenes that hold the same body."""
    depth, normal, which = backdrop(scene, rays)
    rays = rays.expand_as(normal)
    front = meet(sdf, scene, torch.zeros_like(rays), rays)
    hit = front < depth
    depth = torch.where(hit, front, depth)
    points = rays * depth[:, :, None] - scene["centre"][:, None]
    grain = torch.where(hit[:, :, None], points @ scene["body"], points @ scene["room"])
    outward = torch.zeros_like(normal)
    outward[hit] = normals(sdf, grain[hit].T.contiguous()).T
    normal = torch.where(hit[:, :, None], normalize(outward @ scene["body"].mT, dim=2), normal)
    sun = scene["sun"][:, None].expand_as(rays)
    lit = meet(sdf, scene, rays * depth[:, :, None] + 0.03 * normal, sun).isinf()
    ambient = scene["ambient"][:, None]
    light = ambient + (1.1 - ambient) * lit * (normal * sun).sum(2).clamp(min=0)
    light = light * (1 + scene["texture"][:, None] * (6 * grain).sin().prod(2).sign())
    return scene["colours"].take_along_dim(which.where(~hit, 2)[:, :, None], 1) * light[:, :, None], depth


def chunk(generator: Generator, domain: Domain, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """CHUNK images, labels and depths: scenes are drawn, then rendered body by body."""
    scene = draw(domain, generator)
    axis = FIELD * ((torch.arange(size) + 0.5) * 2 / size - 1)
    rays = torch.stack((axis.repeat(size), -axis.repeat_interleave(size), torch.ones(size**2)), 1)  # z = 1: t is depth
    image, depth = torch.empty(CHUNK, size**2, 3), torch.empty(CHUNK, size**2)
    for index, sdf in enumerate(BODIES):
        mine = scene["labels"] // len(domain.variants) == index
        image[mine], depth[mine] = picture(sdf, {name: value[mine] for name, value in scene.items()}, rays)
    image = image + scene["noise"][:, None, None] * torch.randn(image.shape, generator=generator)
    image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.mT.reshape(-1, 3, size, size).contiguous(), scene["labels"], depth.reshape(-1, size, size)


def render(count: int, seed: int, domain: Domain = HOME, size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """images uint8 [count, 3, size, size], labels [count], depth [count, size, size]: the first scenes of a seed."""
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"count must be an integer of at least 0, got {count!r}")
    if not isinstance(size, int) or size < 8:
        raise ValueError(f"size must be an integer of at least 8, got {size!r}")
    generators = [Generator().manual_seed(seed * 1_000_003 + start) for start in range(0, max(count, 1), CHUNK)]
    images, labels, depth = zip(*(chunk(generator, domain, size) for generator in generators), strict=True)
    return torch.cat(images)[:count], torch.cat(labels)[:count], torch.cat(depth)[:count]
