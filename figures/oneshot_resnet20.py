"""One cut of the published ResNet-20 on CIFAR-10, at 10 … 90 %, without any retraining: all 10,000 test images.

Needs CIFAR-10 (`python course.py data`) and the network of github.com/akamaster/pytorch_resnet_cifar10 as
weights/cifar10_resnet20.safetensors beside it. Goes on where it stopped; writes oneshot_resnet20.png, .json.
"""

import copy
import sys
from dataclasses import replace

import torch

from course_utils.checkpoints import load_state
from course_utils.files import cache_root, load_tensors
from course_utils.masks import apply_masks
from course_utils.measure import accuracy, nonzero
from course_utils.models import resnet_cifar
from course_utils.plots import curves, interval, new_figure, save_reference
from course_utils.profiles import grid
from course_utils.scopes import globally, layerwise
from course_utils.scores import chance, magnitude
from course_utils.sources import cifar10, data_root
from course_utils.train import Recipe, refresh
from course_utils.trials import collect, select, where

PUBLISHED = 0.9173
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what this network was trained with
SPARSITIES = tuple(tenths / 10 for tenths in range(1, 10))
DRAWS = (0, 1, 2)  # of random masks
REFRESHED = 1000  # training images, without labels, for fresh BatchNorm statistics
SCOPES = {"global": globally, "layer-wise": layerwise, "chance": globally}

torch.set_num_threads(1)
data = cifar10()
train, test = (replace(split, mean=torch.tensor(MEAN), std=torch.tensor(STD)) for split in (data.train, data.test))
file = data_root() / "weights" / "cifar10_resnet20.safetensors"
network = resnet_cifar(20)
load_state(network, load_tensors(file)[0], file)


def dense():
    """The accuracy as it was published."""
    return {"accuracy": accuracy(network, test), "not zero": nonzero(network)}


def try_out(who, statistics, sparsity, draw):
    """Cut once; if the statistics are fresh, BatchNorm has measured anew; then all test images."""
    pruned = copy.deepcopy(network)
    scores = chance(pruned, seed=draw) if who == "chance" else magnitude(pruned)
    apply_masks(pruned, SCOPES[who](scores, sparsity))
    if statistics == "fresh":
        refresh(pruned, train.first(REFRESHED), Recipe(epochs=0, shift=4), seed=draw)
    return {"accuracy": accuracy(pruned, test), "not zero": nonzero(pruned)}


place = cache_root() / "trials" / "oneshot_resnet20.jsonl"
whole = collect(dense, [{}], place)[0].results["accuracy"]
print(f"dense: {whole:.2%} of {len(test):,} test images, published {PUBLISHED:.2%}", flush=True)
if abs(whole - PUBLISHED) > 0.001:
    sys.exit("the network is not reproduced: is this the right file, are these all test images?")
conditions = grid(sparsity=SPARSITIES, draw=(0,), who=("global", "layer-wise"), statistics=("as they were", "fresh"))
conditions += grid(sparsity=SPARSITIES, draw=DRAWS, who=("chance",), statistics=("fresh",))
trials = collect(try_out, conditions, place)

table = [{"cut": "none", "statistics": "as they were", "removed": "0%", "accuracy": f"{whole:.2%}"}]
for who, statistics, sparsity in dict.fromkeys(
    (t.inputs["who"], t.inputs["statistics"], t.inputs["sparsity"]) for t in trials
):
    found = [t.results["accuracy"] for t in select(trials, who=who, statistics=statistics, sparsity=sparsity)]
    mean, half = interval(found)
    words = f"{mean:.2%}" + (f" ± {half:.2%}" if len(found) > 1 else "")
    table.append({"cut": who, "statistics": statistics, "removed": f"{sparsity:.0%}", "accuracy": words})
figure, axes = new_figure(10, 4.2, ncols=2, sharey=True)
for ax, statistics in zip(axes, ("as they were", "fresh"), strict=True):
    curves(ax, select(trials, statistics=statistics), "sparsity", "accuracy", "who")
    ax.axhline(whole, color="grey", ls=":")
    ax.axhline(0.1, color="grey", ls="--")
    ax.set(
        xlabel="fraction of the weights removed", xlim=(0, 1), ylim=(0, 1), title=f"BatchNorm statistics {statistics}"
    )
axes[0].set(ylabel="accuracy on 10,000 test images of CIFAR-10")
records = {
    "label": "Published ResNet-20, CIFAR-10, cut once, no retraining", "dense": whole, "published": f"{PUBLISHED:.2%}",
    "test images": len(test), "images of fresh statistics": REFRESHED, "draws of chance": len(DRAWS),
    "data": {"name": data.name, "checksum": data.checksum}, "where": where(), "table": table,
    "trials": [t.inputs | t.results for t in trials],
}  # fmt: skip
save_reference(figure, "oneshot_resnet20", records)
for line in table:
    print("  ".join(line.values()))
