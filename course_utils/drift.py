"""Versions drift: what a pickled layer noted for itself, beside what the same layer notes in today's libraries."""

from typing import Any

from torch import nn

from course_utils.fitting import Sizes, alike, equal, is_plain, kind_of
from course_utils.husks import paired

TRAINING = {"training", "distilled_training", "grad_checkpointing"}  # say how it was trained, not what it is


def noted(found: object, network: nn.Module) -> Sizes:
    """What the pickled layers noted otherwise than those built anew; what only one of the two notes is left out."""
    sizes: Sizes = {}
    for name, husk, layer in paired(found, network):
        if not list(layer.children()) and kind_of(husk) != kind_of(layer):
            raise ValueError(f"{name} is {kind_of(husk)}, and {kind_of(layer)} in the architecture")
        for key, own in vars(layer).items():
            value = in_the_form_of(own, vars(husk).get(key))
            if key in TRAINING or key.startswith("_") or value is None or not (is_plain(own) or type(own) is str):
                continue
            if not alike(own, value):
                raise ValueError(f"{name or 'the network'}.{key} is {value!r}, and {own!r} in the architecture")
            if not equal(own, value):
                sizes.setdefault(name, {})[key] = value
    return sizes


def in_the_form_of(own: object, value: Any) -> Any:
    """A whole number where today there is a fraction, or one number where today there are two."""
    if type(value) is int and isinstance(own, tuple | list):
        return [value] * len(own)
    return float(value) if type(value) is int and type(own) is float else value


def settle(name: str, attention: Any, had: dict[str, Any]) -> None:
    """Let an attention, whose tensors are cut already, note what they say; `had` is what its pickle noted."""
    width, heads = attention.proj.in_features, attention.num_heads
    each = had.get("head_dim", width // max(1, heads))
    if not isinstance(each, int) or not 3 * heads * each == 3 * width == attention.qkv.out_features:
        raise ValueError(f"{name} notes {heads} heads of {each}, but its proj reads {width} numbers")
    new = {"head_dim": each, "attn_dim": width} | ({} if "scale" in had else {"scale": each**-0.5})
    if "scale" in had and "fused_attn" not in had:
        new["fused_attn"] = False  # there was only the one way then, and it used the scale
    for key in vars(attention).keys() & new.keys():
        setattr(attention, key, new[key])
