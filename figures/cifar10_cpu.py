"""A quarter-width ResNet-50 on all of CIFAR-10, eight epochs on one CPU thread: a real result before there is a GPU."""

import torch

from course_utils.files import cache_root
from course_utils.models import resnet50
from course_utils.sources import cifar10
from course_utils.train import Recipe, train

torch.set_num_threads(1)
RECIPE = Recipe(epochs=8, batch_size=128, lr=0.1, shift=4)
data = cifar10()
torch.manual_seed(0)
model = resnet50(width=0.25)
log = train(model, data.train, RECIPE, seed=0, val=data.val, checkpoint=cache_root() / "checkpoints" / "cifar10-cpu")
for record in log:
    print(record, flush=True)
