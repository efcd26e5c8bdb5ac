"""What a cut saves, and what of it arrives: parameters and MACs of several forms of a network beside their times."""

import copy
from math import log2

import torch
from torch import Tensor, nn

from course_utils.channels import Groups
from course_utils.measure import latency, macs, parameters
from course_utils.patterns import n_of_m
from course_utils.scopes import layerwise, rounded
from course_utils.units import remove, unit_chance


def doublings(faster: float) -> float:
    """log₂: 0 as fast, 1 twice, 2 four times as fast."""
    return log2(faster)


def raced(forms: dict[str, nn.Module], x: Tensor, turns: int) -> dict[str, dict[str, float]]:
    """For each form its size, its MACs for one image, and its milliseconds for all of `x`; they take turns."""
    times = latency(forms, x, turns)
    return {
        name: {"parameters": parameters(form), "macs": macs(form, x[:1])}
        | {"ms": times[name].median, "low": times[name].low, "high": times[name].high}
        for name, form in forms.items()
    }


def worth(forms: dict[str, nn.Module], x: Tensor, turns: int) -> dict:
    """What the forms of a network cost, and how many doublings faster it is with half of it silent, and removed."""
    found = raced(forms, x, turns)
    faster = {name: doublings(found["whole"]["ms"] / row["ms"]) for name, row in found.items()}
    return {"forms": found, "silent": faster["half silent"], "removed": faster["50% removed"]}


def costs(title: str, forms: dict[str, dict[str, float]]) -> list[dict[str, str]]:
    """Rows of a table: what each form costs, and by how much less than the whole, in MACs and in milliseconds."""
    rows, whole = [], forms["whole"]
    for name, row in forms.items():
        ratio, faster = whole["macs"] / row["macs"], whole["ms"] / row["ms"]
        rows.append(
            {"network": f"{title}, {name}", "parameters": f"{row['parameters']:,}", "MACs": f"{row['macs']:,}"}
            | {"ms": f"{row['ms']:.1f} ({row['low']:.1f}–{row['high']:.1f})", "MAC ratio": f"{ratio:.2f}"}
            | {"measured": f"{faster:.2f}", "ratio of both": f"{faster / ratio:.2f}"}
        )
    return rows


def in_eights(model: nn.Module, groups: Groups, sparsity: float, x: Tensor, turns: int, multiple: int = 8) -> dict:
    """The same cut as it comes and in multiples of 8: MACs in a microsecond, and the gain in doublings."""
    scores = unit_chance(model, groups)
    masks = layerwise(scores, sparsity)
    pair = {"as it comes": masks, f"multiples of {multiple}": rounded(masks, scores, multiple)}
    found = raced({name: remove(model, groups, m) for name, m in pair.items()}, x, turns)
    rates = [len(x) * row["macs"] / row["ms"] / 1000 for row in found.values()]
    return {"rates": dict(zip(pair, rates, strict=True)), "gain": doublings(rates[1] / rates[0])}


def two_of_four(width: int, turns: int) -> dict[str, float]:
    """Milliseconds of a square layer in half precision on a GPU: dense, and packed as 2:4."""
    dense = nn.Linear(width, width, bias=False).half().cuda()
    packed = copy.deepcopy(dense)
    mask = n_of_m({"weight": dense.weight.detach().abs()}, keep=2, of=4)["weight"]
    sparse = torch.sparse.to_sparse_semi_structured(dense.weight.detach() * mask)
    packed.weight = nn.Parameter(sparse, requires_grad=False)
    x = torch.randn(width, width, device="cuda", dtype=torch.float16)
    return {name: t.median for name, t in latency({"dense": dense, "2:4": packed}, x, turns).items()}
