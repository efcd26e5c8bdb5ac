"""DeiT, a vision transformer from timm, with its groups of channels written down by hand."""

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from course_utils.channels import Group, Groups, Slots
from course_utils.heads import places


def packed(name: str, attention: nn.Module) -> Groups:
    """The two groups of an attention's packed rows: whole heads, and dimensions (the same ones in every head)."""
    place = places(attention)  # part × head × dimension
    ways = {"heads": place.permute(1, 0, 2), "dims": place.permute(2, 0, 1)}  # the unit first, its places behind it
    found: Groups = {}
    for word, way in ways.items():
        rows, columns = Slots(0, way.flatten(1)), Slots(1, way[:, 0].flatten(1))
        group: Group = {f"{name}.qkv.{leaf}": rows for leaf, _ in attention.get_submodule("qkv").named_parameters()}
        found[f"{name}.{word}"] = group | {f"{name}.proj.weight": columns}
    return found


class DeiT(VisionTransformer):
    """timm's DeiT with `groups()`: embedding, and in each block the heads, their dimensions and the hidden units."""

    def groups(self) -> Groups:
        """The embedding is one stream through all blocks; a block's own channels are its heads and hidden units."""
        names = [f"blocks.{i}" for i in range(len(self.blocks))]
        stream: Group = {"cls_token": 2, "pos_embed": 2, "patch_embed.proj.weight": 0, "patch_embed.proj.bias": 0}
        for norm in [f"{n}.{norm}" for n in names for norm in ("norm1", "norm2")] + ["norm"]:
            stream |= {f"{norm}.weight": 0, f"{norm}.bias": 0}
        for layer in [f"{n}.{layer}" for n in names for layer in ("attn.proj", "mlp.fc2")]:
            stream |= {f"{layer}.weight": 0, f"{layer}.bias": 0}
        stream |= {f"{n}.{layer}.weight": 1 for n in names for layer in ("attn.qkv", "mlp.fc1")} | {"head.weight": 1}
        found: Groups = {"embedding": stream}
        for n in names:
            found |= packed(f"{n}.attn", self.get_submodule(f"{n}.attn"))
            found[f"{n}.mlp"] = {f"{n}.mlp.fc1.weight": 0, f"{n}.mlp.fc1.bias": 0, f"{n}.mlp.fc2.weight": 1}
        return found
