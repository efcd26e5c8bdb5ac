"""Attentions with packed rows: their two groups come from their own layout, and what makes others odd is a sentence."""

from typing import Any

from torch import nn

from course_utils.channels import Groups
from course_utils.vits import packed

Reasons = dict[str, str]  # why something cannot be cut, by its name


def attentions(model: nn.Module) -> tuple[Groups, Reasons]:
    """Heads and their dimensions of every attention with packed rows, and why some cannot be cut."""
    groups, reasons = {}, {}
    for name, module in model.named_modules():
        if isinstance(getattr(module, "qkv", None), nn.Module):
            if odd := oddity(module):
                reasons[f"{name}.qkv"] = f"{name} is an attention ({type(module).__name__}) {odd}"
                continue
            own = packed(name, module)
            own[f"{name}.heads"] |= {f"{name}.{table}": axis for table, axis in tables(module).items()}
            if is_there(module, "q_norm"):
                del own[f"{name}.dims"]
                reasons[f"{name}.dims"] = f"{name} normalises its queries over the dimensions of a head"
            groups |= own
    return groups, reasons


def is_there(module: nn.Module, part: str) -> bool:
    """Has the module this part, and does the part do something?"""
    return not isinstance(getattr(module, part, None), nn.Identity | None)


def oddity(attention: Any) -> str:
    """What makes an attention's rows other than (q, k, v) × heads × dimensions; nothing if they are."""
    parts = (attention.qkv, getattr(attention, "proj", None))
    if not all(isinstance(part, nn.Linear) for part in parts) or not hasattr(attention, "num_heads"):
        return "that does not keep its heads in linear layers qkv and proj"
    if attention.qkv.out_features != 3 * attention.proj.in_features:
        return "whose queries, keys and values are not equally many"
    if getattr(attention, "head_first", False):
        return "that packs q, k and v head by head"
    if is_there(attention, "norm") or is_there(attention, "gate"):
        return "that normalises or gates all heads together"
    return ""


def tables(attention: Any) -> dict[str, int]:
    """Tables of relative positions, which have one column, or one map, for each head."""
    return {
        name: list(table.shape).index(attention.num_heads)
        for name, table in attention.named_parameters()
        if name.endswith("relative_position_bias_table")
    }
