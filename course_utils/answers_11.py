"""The exercises of notebook 11: their solutions, and the mistakes that people make. Read this after you have tried."""

import torch
from torch import Tensor

from course_utils.exercises import Exercise

Tensors = dict[str, Tensor]


def shrunk(tensors: Tensors, keep: Tensor) -> Tensors:
    """The tensors of convolution, BatchNorm, flatten and linear layer when only the channels `keep` are left."""
    columns = runs(tensors, keep).flatten()
    small = {name: t if name.startswith("fc") else t[keep] for name, t in tensors.items()}
    return small | {"fc.weight": tensors["fc.weight"][:, columns]}


def runs(tensors: Tensors, keep: Tensor) -> Tensor:
    """One row for each kept channel: its columns in the linear layer, which stand side by side after a flatten."""
    pixels = tensors["fc.weight"].shape[1] // len(tensors["conv.weight"])
    return keep[:, None] * pixels + torch.arange(pixels)


def some_layers() -> list[tuple]:
    """Two little networks; all tensors are different numbers."""
    cases = []
    for seed, channels, pixels, kept in ((0, 4, 6, [0, 2, 3]), (1, 5, 4, [1, 4])):
        random = torch.Generator().manual_seed(seed)
        sizes = {"conv.weight": (channels, 6, 3, 3), "conv.bias": (channels,)}
        sizes |= {f"bn.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")}
        sizes |= {"fc.weight": (7, channels * pixels), "fc.bias": (7,)}
        cases.append(({name: torch.rand(size, generator=random) for name, size in sizes.items()}, torch.tensor(kept)))
    return cases


def untouched(tensors: Tensors, keep: Tensor, *names: str) -> Tensors:
    """The right answer, but for these names the old tensors."""
    return shrunk(tensors, keep) | {name: tensors[name] for name in names}


def others(tensors: Tensors, keep: Tensor) -> Tensor:
    """The channels that are not in `keep`."""
    count = len(tensors["conv.weight"])
    return torch.tensor([c for c in range(count) if c not in keep.tolist()])


def silenced(tensors: Tensors, keep: Tensor) -> Tensors:
    """All tensors as large as before, with zeros for the channels that are not in `keep`."""
    gone, columns = others(tensors, keep), runs(tensors, others(tensors, keep)).flatten()
    silent = {n: t if n.startswith("fc") else t.index_fill(0, gone, 0) for n, t in tensors.items()}
    return silent | {"fc.weight": tensors["fc.weight"].index_fill(1, columns, 0)}


def reading(tensors: Tensors, keep: Tensor, read) -> Tensors:
    """The right answer, but the linear layer's weight is read(weight)."""
    return shrunk(tensors, keep) | {"fc.weight": read(tensors["fc.weight"])}


shrinking = Exercise(
    task="Keep only some channels of a convolution that is followed by BatchNorm, a flatten and a linear layer.",
    solution=shrunk,
    cases=some_layers,
    hints=(
        "Which tensors have one entry (or one row) for each channel? All of conv and bn: tensor[keep].",
        "The linear layer reads: its weight is cut along axis 1. How many columns has each channel after the flatten?",
        "pixels = columns // channels. Channel c has the columns c * pixels, c * pixels + 1, …, all side by side.",
        "columns = (keep[:, None] * pixels + torch.arange(pixels)).flatten(), then fc.weight[:, columns].",
    ),
    mistakes={
        "You forgot the running statistics: running_mean and running_var have one number for each channel too.": (
            lambda t, keep: untouched(t, keep, "bn.running_mean", "bn.running_var")
        ),
        "You forgot the reader: fc.weight still has columns for channels that nobody writes any more.": (
            lambda t, keep: untouched(t, keep, "fc.weight")
        ),
        "You forgot the convolution's bias: it has one number for each channel.": (
            lambda t, keep: untouched(t, keep, "conv.bias")
        ),
        "You cut fc.weight along axis 0: these rows are the classes. The channels are read along axis 1.": (
            lambda t, keep: reading(t, keep, lambda w: w[keep])
        ),
        "You took one column for each channel. After a flatten each channel has as many columns as it has pixels.": (
            lambda t, keep: reading(t, keep, lambda w: w[:, keep])
        ),
        "Your columns are those of channels that come last. A flatten puts the pixels of one channel side by side.": (
            lambda t, keep: reading(
                t, keep, lambda w: w.unflatten(1, (-1, len(t["conv.weight"])))[:, :, keep].flatten(1)
            )
        ),
        "You cut fc.bias as well. It has one number for each class, and no class goes.": (
            lambda t, keep: shrunk(t, keep) | {"fc.bias": t["fc.bias"][keep]}
        ),
        "You cut conv.weight along axis 1, its inputs. The channels that it writes are its rows, axis 0.": (
            lambda t, keep: shrunk(t, keep) | {"conv.weight": t["conv.weight"][:, keep]}
        ),
        "You cut every tensor along axis 0. That is where channels are written; fc reads them, along axis 1.": (
            lambda t, keep: {name: tensor[keep] for name, tensor in t.items()}
        ),
        "You cut conv.weight alone. Whatever has a number for each channel goes along, and so does who reads it.": (
            lambda t, keep: t | {"conv.weight": t["conv.weight"][keep]}
        ),
        "You left BatchNorm as it was. All four of its tensors have one number for each channel.": (
            lambda t, keep: untouched(t, keep, *(name for name in t if name.startswith("bn")))
        ),
        "You forgot BatchNorm's bias: it has one number for each channel.": (
            lambda t, keep: untouched(t, keep, "bn.bias")
        ),
        "You return some of the tensors only. Those that are not cut belong to the small network, too.": (
            lambda t, keep: {name: tensor for name, tensor in shrunk(t, keep).items() if name != "fc.bias"}
        ),
        "You set the other channels to zero. That silences them; here they shall be gone, and the tensors smaller.": (
            lambda t, keep: silenced(t, keep)
        ),
        "You removed the channels in `keep`. They are those that stay.": lambda t, keep: shrunk(t, others(t, keep)),
        "You kept the first channels, as many as asked for. `keep` says which ones.": (
            lambda t, keep: shrunk(t, torch.arange(len(keep)))
        ),
    },
)


def head_scores(qkv: Tensor, proj: Tensor, heads: int) -> Tensor:
    """Σ|w| over a head's rows of q, k and v, and Σ|w| over its columns of proj; the mean of the two."""
    return (written(qkv, heads) + read(proj, heads)) / 2


def written(qkv: Tensor, heads: int) -> Tensor:
    """Σ|w| in the rows of qkv, which are parts × heads × dimensions."""
    return qkv.abs().unflatten(0, (3, heads, -1)).sum((0, 2, 3))


def read(proj: Tensor, heads: int) -> Tensor:
    """Σ|w| in the columns of proj, which are heads × dimensions."""
    return proj.abs().unflatten(1, (heads, -1)).sum((0, 2))


def some_attentions() -> list[tuple]:
    """Attentions with two and with three heads; weights of both signs."""
    cases = []
    for seed, heads, dimensions in ((0, 2, 3), (1, 3, 4)):
        random, width = torch.Generator().manual_seed(seed), heads * dimensions
        cases.append(
            (
                torch.randn(3 * width, width, generator=random) + 0.2,
                torch.randn(width, width, generator=random) + 0.1,
                heads,
            )
        )
    return cases


heading = Exercise(
    task="Score each head of an attention by the weights that would go with it: rows of qkv, columns of proj.",
    solution=head_scores,
    cases=some_attentions,
    hints=(
        "The rows of qkv are q, then k, then v; inside each part head after head: qkv.unflatten(0, (3, heads, -1)).",
        "That has four axes: part, head, dimension, input. Sum |w| over all of them but the head.",
        "proj reads the heads: proj.unflatten(1, (heads, -1)) has the axes output, head, dimension.",
        "(rows.abs().sum((0, 2, 3)) + columns.abs().sum((0, 2))) / 2: the mean of the two tensors.",
    ),
    mistakes={
        "You cut qkv into one block of rows for each head. It is packed the other way: all of q, then k, then v.": (
            lambda qkv, proj, heads: (qkv.abs().unflatten(0, (heads, -1)).sum((1, 2)) + read(proj, heads)) / 2
        ),
        "You took the heads in turn, row by row. Inside q the rows of one head stand side by side.": (
            lambda qkv, proj, heads: (
                (
                    qkv.abs().unflatten(0, (3, -1, heads)).sum((0, 1, 3))
                    + proj.abs().unflatten(1, (-1, heads)).sum((0, 1))
                )
                / 2
            )
        ),
        "You took rows of proj. It reads the heads: they are its columns, axis 1.": (
            lambda qkv, proj, heads: (written(qkv, heads) + read(proj.T, heads)) / 2
        ),
        "You counted the rows of q alone. A head also has its rows in k and in v.": (
            lambda qkv, proj, heads: (written(qkv[: len(qkv) // 3].repeat(3, 1), heads) / 3 + read(proj, heads)) / 2
        ),
        "You forgot the reader: the columns of proj go with a head, too.": (
            lambda qkv, proj, heads: written(qkv, heads)
        ),
        "You added the two tensors. The group's score is their mean, so that long groups are not larger for that.": (
            lambda qkv, proj, heads: written(qkv, heads) + read(proj, heads)
        ),
        "You averaged over the entries of a tensor. They are summed: all of them go with the head.": (
            lambda qkv, proj, heads: (
                (written(qkv, heads) / qkv[: len(qkv) // heads].numel() + read(proj, heads) / (proj.numel() / heads))
                / 2
            )
        ),
        "You added signed weights, and they cancel. Take |w| first.": (
            lambda qkv, proj, heads: (
                (qkv.unflatten(0, (3, heads, -1)).sum((0, 2, 3)) + proj.unflatten(1, (heads, -1)).sum((0, 2))) / 2
            )
        ),
        "You squared the weights. Here the score is the sum of |w|.": (
            lambda qkv, proj, heads: (written(qkv.square(), heads) + read(proj.square(), heads)) / 2
        ),
        "You forgot the writers: a head's rows of q, k and v go with it, too.": (
            lambda qkv, proj, heads: read(proj, heads)
        ),
        "You divided by four, as if q, k and v were three tensors. They are one: qkv.": (
            lambda qkv, proj, heads: (written(qkv, heads) + read(proj, heads)) / 4
        ),
        "You took columns of qkv. These read the embedding; the heads are its rows, axis 0.": (
            lambda qkv, proj, heads: (qkv.abs().unflatten(1, (heads, -1)).sum((0, 2)) + read(proj, heads)) / 2
        ),
        "You gave each dimension a score. A head is all its dimensions together: one score for each head.": (
            lambda qkv, proj, heads: (qkv.abs().unflatten(0, (3, -1)).sum((0, 2)) + proj.abs().sum(0)) / 2
        ),
    },
)
