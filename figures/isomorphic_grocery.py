"""ImageNet's DeiT-Tiny on Grocery Store photos: who may compete with whom, at two budgets of MACs, before and after.

Needs an image folder `grocery` (train/CLASS, val/CLASS, test/CLASS) and weights/deit_tiny_patch16_224_fp16.safetensors
under $COURSE_DATA. (The original spells class 67 differently in test: rename that folder as in train.) Goes on where it
stopped; writes isomorphic_grocery.png, .json. Less than an hour on one quiet core.
"""

import copy
from dataclasses import replace
from functools import cache

import torch
from timm.layers import resample_abs_pos_embed
from torch.nn.functional import cross_entropy

from course_utils.budgets import shuffled
from course_utils.data import batches
from course_utils.files import cache_root, load_tensors
from course_utils.importance import group_taylor, normalised
from course_utils.kinds import isomorphically, kinds_of
from course_utils.measure import macs, outputs, parameters
from course_utils.models import deit_tiny
from course_utils.pictures import folder
from course_utils.plots import new_figure, save_reference
from course_utils.profiles import grid
from course_utils.scopes import at_least, globally, layerwise, rounded, spare
from course_utils.sources import data_root
from course_utils.train import Recipe, adamw, train
from course_utils.trials import collect, where
from course_utils.units import remove

SIZE, EPOCHS, MORE, FLOOR, MULTIPLE = 96, 6, 2, 8, 2
BUDGETS = (0.5, 0.25)  # of the dense network's MACs
MEAN, STD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
SCOPES = ("layer-wise", "global, raw", "global, normalised", "isomorphic", "isomorphic, shuffled")
WHOLE = tuple(f"{scope}, embedding whole" for scope in ("layer-wise", "isomorphic"))

torch.set_num_threads(1)
data = folder(data_root() / "grocery", SIZE)
data = replace(data, **{part: replace(getattr(data, part), mean=MEAN, std=STD) for part in ("train", "val", "test")})
recipe = Recipe(EPOCHS, 32, 3e-4, weight_decay=0.05, shift=8, optimizer=adamw)
example = torch.zeros(1, 3, SIZE, SIZE)


@cache
def dense():
    """ImageNet's weights with a new head, fine-tuned on the photos; the place embeddings are resampled to the size."""
    network = deit_tiny(len(data.classes), SIZE)
    weights = {
        n: t.float()
        for n, t in load_tensors(data_root() / "weights" / "deit_tiny_patch16_224_fp16.safetensors")[0].items()
    }
    weights["pos_embed"] = resample_abs_pos_embed(weights["pos_embed"], [SIZE // 16] * 2)
    own = network.state_dict()
    network.load_state_dict({n: own[n] if n.startswith("head.") else t for n, t in weights.items()})
    torch.nn.init.zeros_(network.get_classifier().weight)
    checkpoint = cache_root() / "networks" / "grocery-deit-tiny"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    train(network, data.train, recipe, val=data.val, checkpoint=checkpoint)
    return network.eval()


@cache
def importance():
    """Taylor scores over 30 batches of training images; heads stay whole, their dimensions compete."""
    groups = {name: group for name, group in dense().groups().items() if not name.endswith("heads")}
    calibration = list(batches(data.train.first(30 * 32), 32))
    return groups, group_taylor(dense(), groups, calibration)


def masks_at(scope, sparsity):
    """Who goes at this sparsity of channels."""
    groups, scores = importance()
    kinds = kinds_of(dense(), groups)
    ways = {
        "layer-wise": (layerwise, scores),
        "global, raw": (globally, scores),
        "global, normalised": (globally, normalised(scores)),
        "isomorphic": (lambda s, amount: isomorphically(s, amount, kinds), normalised(scores)),
    }
    way, _, apart = scope.rpartition(", ") if scope.endswith((", shuffled", ", embedding whole")) else (scope, "", "")
    choose, scores = ways[way]
    if apart == "embedding whole":
        scores = spare(scores, "embedding")
    masks = rounded(choose(at_least(scores, FLOOR), sparsity), scores, MULTIPLE)
    return shuffled(masks) if apart == "shuffled" else masks


def at_budget(scope, budget):
    """The network with the largest MACs that fit the budget: bisection on the sparsity of channels."""
    low, high = 0.0, 0.95
    for _ in range(8):
        middle = (low + high) / 2
        small = remove(dense(), importance()[0], masks_at(scope, middle))
        low, high = (low, middle) if macs(small, example) <= budget * macs(dense(), example) else (middle, high)
    return remove(dense(), importance()[0], masks_at(scope, high)), high


def looked_at(network):
    """What a network is: on all test images, and in size."""
    said, truth = outputs(network, data.test), data.test.labels
    found = {"accuracy": (said.argmax(1) == truth).float().mean().item(), "loss": cross_entropy(said, truth).item()}
    return found | {"MACs": macs(network, example), "parameters": parameters(network)}


def try_out(scope, budget, seed):
    """Cut, look, fine-tune for a few epochs, look again."""
    small, sparsity = at_budget(scope, budget) if scope != "dense" else (copy.deepcopy(dense()), 0.0)
    before = looked_at(small)
    widths = {
        n: p.shape[0] for n, p in small.named_parameters() if n.endswith(("fc1.weight", "qkv.weight", "norm.weight"))
    }
    train(small, data.train, replace(recipe, epochs=MORE), seed=seed)
    after = looked_at(small)
    return {"sparsity": sparsity, "widths": widths, "before": before, "after": after}


place = cache_root() / "trials" / "isomorphic_grocery.jsonl"
conditions = [{"scope": "dense", "budget": 1.0, "seed": 0}, *grid(budget=BUDGETS, seed=(0,), scope=SCOPES + WHOLE)]
trials = collect(try_out, conditions, place)

table = []
for t in trials:
    before, after = t.results["before"], t.results["after"]
    row = {"scope": t.inputs["scope"], "budget": f"{t.inputs['budget']:.0%}", "MACs": f"{before['MACs'] / 1e6:.0f} M"}
    row |= {"parameters": f"{before['parameters'] / 1e6:.2f} M", "sparsity": f"{t.results['sparsity']:.1%}"}
    row |= {"before": f"{before['accuracy']:.1%}", "loss before": f"{before['loss']:.2f}"}
    table.append(row | {"after": f"{after['accuracy']:.1%}", "loss after": f"{after['loss']:.2f}"})
figure, axes = new_figure(10, 4.6, ncols=2, sharey=True, sharex=True)
for ax, budget in zip(axes, BUDGETS, strict=True):
    chosen = [t for t in trials if t.inputs["budget"] == budget]
    for moment, color, shift in (("before", "tab:orange", -0.2), ("after", "tab:blue", 0.2)):
        reached = [t.results[moment]["accuracy"] for t in chosen]
        ax.barh([y + shift for y in range(len(chosen))], reached, 0.4, color=color, label=f"{moment} fine-tuning")
    ax.axvline(trials[0].results["after"]["accuracy"], color="grey", ls=":", label="dense, as many epochs more")
    ax.set(title=f"{budget:.0%} of the MACs", xlim=(0, 1), xlabel=f"accuracy on {len(data.test):,} test photos")
    ax.set_yticks(range(len(chosen)), [t.inputs["scope"] for t in chosen])
axes[0].invert_yaxis()
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
records = {
    "label": "DeiT-Tiny on Grocery Store, one cut by Taylor, equal MACs", "image size": SIZE, "epochs": EPOCHS,
    "epochs after the cut": MORE, "recipe": recipe.words(), "test images": len(data.test), "seeds": 1,
    "data": {"name": data.name, "checksum": data.checksum}, "where": where(), "table": table,
    "trials": [t.inputs | t.results for t in trials],
}  # fmt: skip
save_reference(figure, "isomorphic_grocery", records)
for line in table:
    print("  ".join(line.values()))
