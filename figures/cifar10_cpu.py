"""A quarter-width ResNet-50 on all of CIFAR-10, eight epochs on one CPU thread: a real result before there is a GPU.

Needs CIFAR-10 (`python course.py data`) and an hour; goes on where it stopped. Writes cifar10_cpu.png and .json.
"""

import json

import torch

from course_utils.files import cache_root
from course_utils.measure import accuracy, loss, macs, parameters, size_on_disk
from course_utils.models import resnet50
from course_utils.plots import new_figure, save_reference
from course_utils.sources import cifar10
from course_utils.train import Recipe, train
from course_utils.trials import where

RECIPE = Recipe(epochs=8, batch_size=128, lr=0.1, shift=4)
WIDTH, SEED = 0.25, 0
torch.set_num_threads(1)
data = cifar10()
torch.manual_seed(SEED)
model = resnet50(width=WIDTH)
log = train(model, data.train, RECIPE, SEED, val=data.val, checkpoint=cache_root() / "checkpoints" / "cifar10-cpu")
records = {
    "label": f"ResNet-50 at {WIDTH} of its width, CIFAR-10, {RECIPE.epochs} epochs on one CPU thread, one seed",
    "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
    "test_accuracy": accuracy(model, data.test),
    "test_loss": loss(model, data.test),
    "parameters": parameters(model),
    "macs": macs(model, torch.zeros(1, 3, 32, 32)),
    "bytes": size_on_disk(model),
    "recipe": json.loads(RECIPE.words()),
    "seed": SEED,
    "data": {"name": data.name, "checksum": data.checksum},
    "where": where(),
    "log": log,
}
figure, axes = new_figure()
epochs = [record["epoch"] for record in log]
axes.plot(epochs, [record["train_accuracy"] for record in log], marker="s", label="training images (while training)")
axes.plot(epochs, [record["val_accuracy"] for record in log], marker="o", label="validation images")
axes.plot(epochs[-1:], [records["test_accuracy"]], "k*", ms=12, label=f"test images: {records['test_accuracy']:.1%}")
axes.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1), title="ResNet-50 at a quarter of its width, CIFAR-10, CPU")
axes.legend(loc="lower right")
save_reference(figure, "cifar10_cpu", records)
print(json.dumps(records, indent=1))
