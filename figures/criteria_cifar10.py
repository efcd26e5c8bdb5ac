"""The contest of notebook 07 on the published ResNet-56 and ResNet-20, with CIFAR-10 and without any training of ours.

Needs CIFAR-10 (`python course.py data`) and the two networks of github.com/akamaster/pytorch_resnet_cifar10 as
weights/cifar10_resnet56.safetensors and …20… beside it. Goes on where it stopped; writes criteria_cifar10.png, .json.
"""

import copy
import sys
import time
from dataclasses import replace
from functools import cache

import torch

from course_utils import curvature, rebuild
from course_utils.activity import awake, relative
from course_utils.budgets import erk, lamp, shuffled
from course_utils.checkpoints import load_state
from course_utils.contests import UNITS, WEIGHTS, Contest, in_turn
from course_utils.data import batches
from course_utils.files import cache_root, load_tensors
from course_utils.masks import apply_masks
from course_utils.measure import accuracy, latency, macs, nonzero, parameters, size_on_disk
from course_utils.models import resnet_cifar
from course_utils.plots import curves, interval, new_figure, save_reference
from course_utils.regression import lasso, thinet
from course_utils.scopes import at_least, globally, layerwise, rowwise
from course_utils.scores import chance, magnitude, taylor, wanda
from course_utils.sources import cifar10, data_root
from course_utils.train import Recipe, refresh
from course_utils.trials import collect, select, where
from course_utils.units import bn_scale, inner, remove, unit_chance, unit_norm

PUBLISHED = {"ResNet-56": 0.9339, "ResNet-20": 0.9173}
TESTED, LOOKED_AT, REFRESHED = 1000, 128, 300  # test images of a trial; of a criterion; of fresh statistics
DRAWS = (0, 1, 2)  # of calibration images and random numbers, at the first level
STILL = ("magnitude", "scaling", "norm")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what these networks were trained with
RECIPE = Recipe(epochs=0, shift=4)

torch.set_num_threads(1)
data = cifar10()
train, test = (replace(split, mean=torch.tensor(MEAN), std=torch.tensor(STD)) for split in (data.train, data.test))
example = torch.zeros(1, 3, 32, 32)


def published(name: str) -> torch.nn.Module:
    """One of the two networks, strictly loaded."""
    place = data_root() / "weights" / f"cifar10_{name.lower().replace('-', '')}.safetensors"
    model = resnet_cifar(int(name.split("-")[1]))
    load_state(model, load_tensors(place)[0], place)
    return model.eval()


networks = {name: published(name) for name in PUBLISHED}


def rarely_silent(network, groups, images):
    """Channels that are seldom zero, each compared with its layer."""
    return relative(awake(network, groups, images))


CRITERIA = {
    "magnitude": magnitude, "Taylor": taylor, "Wanda": wanda, "OBD": curvature.obd, "OBS": curvature.obs,
    "SparseGPT": rebuild.layer_obs, "chance": chance,
}  # fmt: skip
CHANNELS = {
    "scaling": bn_scale, "zeros": rarely_silent, "LASSO": lasso, "ThiNet": thinet, "norm": unit_norm,
    "chance, channels": unit_chance,
}  # fmt: skip


def lamp_shuffled(scores, sparsity):
    """LAMP's layer sparsities, the choice left to chance."""
    return shuffled(lamp(scores, sparsity), seed=1)


SCOPES = {
    "layer-wise": layerwise, "row-wise": rowwise, "global": globally, "LAMP": lamp, "ERK": erk,
    "LAMP, shuffled": lamp_shuffled,
}  # fmt: skip


def calibration(draw):
    """Other training images for every draw, without augmentation."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(draw))[:LOOKED_AT]
    return list(batches(replace(train, images=train.images[order], labels=train.labels[order]), 32))


@cache
def decided(name, criterion, draw):
    """A criterion's scores for one network, and the seconds they took."""
    network, images, began = networks[name], calibration(draw), time.perf_counter()
    extra = {"seed": draw} if criterion.startswith("chance") else {}
    if criterion in CHANNELS:
        scores = at_least(CHANNELS[criterion](network, inner(network), images, **extra), 1)
    else:
        scores = CRITERIA[criterion](network, images, **extra)
    return scores, time.perf_counter() - began


@cache
def inverse(name, draw):
    """The inverse Fisher blocks that OBS repairs with."""
    return curvature.inverse_fisher(networks[name], calibration(draw), 1e-4, 50)


def cut(name, criterion, scope, sparsity, draw):
    """One network after the cut."""
    network = copy.deepcopy(networks[name])
    if criterion == "nothing":
        return network
    masks = SCOPES[scope](decided(name, criterion, draw)[0], sparsity)
    if criterion in CHANNELS:
        return remove(network, inner(network), masks)
    if criterion == "OBS":
        curvature.compensate(network, masks, inverse(name, draw))
    elif criterion == "SparseGPT":
        rebuild.mend(network, masks, calibration(draw))
    else:
        apply_masks(network, masks)
    return network


def dense(name):
    """The accuracy on all test images, as published."""
    return {"accuracy": accuracy(networks[name], test)}


def try_out(name, criterion, scope, sparsity, draw):
    """Cut one network, let BatchNorm measure anew, and ask it about some test images."""
    network = cut(name, criterion, scope, sparsity, draw)
    if criterion != "nothing":
        refresh(network, train.first(REFRESHED), RECIPE, seed=draw)
    return {
        "accuracy": accuracy(network, test.first(TESTED)), "parameters": parameters(network),
        "not zero": nonzero(network), "MACs": macs(network, example), "kB": size_on_disk(network) / 1000,
        "kB zipped": size_on_disk(network, zipped=True) / 1000,
        "decision": 0.0 if criterion == "nothing" else decided(name, criterion, draw)[1],
    }  # fmt: skip


def conditions(name):
    """All trials of one network, with all draws at the first level; what looks at nothing needs only one draw."""
    found = [{"name": name, "criterion": "nothing", "scope": "global", "sparsity": 0.0, "draw": 0}]
    for trial in in_turn(contests(name), DRAWS):
        draw = trial.pop("parent")
        still = trial["criterion"] in STILL and "shuffled" not in trial["scope"]
        first = trial["sparsity"] in (WEIGHTS.levels[0], UNITS.levels[0])
        if draw == 0 or (first and not still):
            found.append({"name": name, **trial, "draw": draw})
    return found


def contests(name):
    """Everything for ResNet-56; the first pairs at the first level for ResNet-20."""
    whole = (WEIGHTS, UNITS)
    return whole if name == "ResNet-56" else [Contest(contest.pairs, contest.levels[:1]) for contest in whole]


place = cache_root() / "trials" / "criteria_cifar10.jsonl"
whole = {t.inputs["name"]: t.results["accuracy"] for t in collect(dense, [{"name": n} for n in networks], place)}
for name, score in whole.items():
    print(f"{name}: {score:.2%} of {len(test):,} test images, published {PUBLISHED[name]:.2%}", flush=True)
    if abs(score - PUBLISHED[name]) > 0.001:
        sys.exit(f"{name} is not reproduced: is this the right file, are these all test images?")
trials = [t for name in networks for t in collect(try_out, conditions(name), place)]


def row(name, criterion, scope, sparsity):
    """One line of the table: the mean over the draws, with its interval where there are several."""
    found = select(trials, name=name, criterion=criterion, scope=scope, sparsity=sparsity)
    mean, half = interval([t.results["accuracy"] for t in found])
    first, network = found[0].results, cut(name, criterion, scope, sparsity, 0)
    times = latency({"dense": networks[name], "cut": network}, example.repeat(8, 1, 1, 1), 9)
    return {
        "network": name, "criterion": criterion, "scope": scope, "removed": f"{sparsity:.0%}",
        "accuracy": f"{mean:.1%}" + (f" ± {half:.1%}" if len(found) > 1 else ""),
        "parameters": f"{first['parameters']:,}", "not zero": f"{first['not zero']:,}", "MACs": f"{first['MACs']:,}",
        "kB": round(first["kB"]), "kB zipped": round(first["kB zipped"]),
        "× faster": f"{times['dense'].median / times['cut'].median:.2f}", "decision, s": f"{first['decision']:.2f}",
    }  # fmt: skip


table = []
for name in networks:
    table.append(row(name, "nothing", "global", 0.0))
    for contest in contests(name):
        table += [row(name, *pair, contest.levels[0]) for pair in (*contest.pairs, *contest.others)]
figure, axes = new_figure(14, 4.5, ncols=3, sharey=True)
scoped = [pair for pair in WEIGHTS.pairs if pair[0] == "magnitude"]
panels = (
    (scoped, "scope", "ResNet-56: magnitude in several scopes"),
    ([pair for pair in WEIGHTS.pairs if pair[0] != "magnitude"] + scoped[:1], "criterion", "ResNet-56: several pairs"),
    (UNITS.pairs, "criterion", "ResNet-56: whole channels, layer-wise"),
)
for ax, (pairs, by, title) in zip(axes, panels, strict=True):
    mine = [t for t in select(trials, name="ResNet-56") if (t.inputs["criterion"], t.inputs["scope"]) in pairs]
    curves(ax, mine, "sparsity", "accuracy", by)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, [" · ".join({p[0]: p for p in pairs}.get(label, (label,))) for label in labels])
    ax.axhline(select(trials, name="ResNet-56", criterion="nothing")[0].results["accuracy"], color="grey", ls=":")
    ax.axhline(0.1, color="grey", ls="--")
    ax.set(xlabel="fraction removed", xlim=(0, 1), ylim=(0, 1), title=title)
axes[0].set(ylabel=f"accuracy on {TESTED:,} test images of CIFAR-10")
about = {name: {"dense": whole[name], "images": len(test), "published": f"{PUBLISHED[name]:.2%}"} for name in networks}
records = {
    "label": "Published networks, CIFAR-10, cut once, fresh BatchNorm statistics, no training",
    "networks": about, "test images of a trial": TESTED, "calibration images": LOOKED_AT, "draws": len(DRAWS),
    "data": {"name": data.name, "checksum": data.checksum}, "where": where(), "table": table,
    "trials": [t.inputs | t.results for t in trials],
}  # fmt: skip
save_reference(figure, "criteria_cifar10", records)
for line in table:
    print("  ".join(str(value) for value in line.values()))
