"""The course's promises about speed, as ratios measured in one run: `python course.py bench`."""

import contextlib
import copy
import ctypes
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable

import nbformat
import psutil
import torch
import torch_pruning
from nbformat.v4 import new_code_cell, new_notebook
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune

from course_utils.activity import awake
from course_utils.curvature import fisher, inverse_fisher
from course_utils.data import Split, batches, pixels_last
from course_utils.graphs import groups_of, suggested
from course_utils.importance import group_l2, normalised
from course_utils.kinds import isomorphically, kinds_of
from course_utils.masks import prunable
from course_utils.measure import latency, macs
from course_utils.models import resnet50
from course_utils.rebuild import layer_obs
from course_utils.regression import lasso, thinet
from course_utils.scopes import globally, layerwise
from course_utils.scores import magnitude, taylor, wanda
from course_utils.speed import break_even, race
from course_utils.train import hold
from course_utils.units import bn_scale, inner, remove

failed = []


def report(what: str, measured: float, promise: float, at_most: bool = True) -> None:
    """One line: what was measured, and whether the promise holds."""
    good = measured <= promise if at_most else measured >= promise
    if not good:
        failed.append(what)
    sign = "≤" if at_most else "≥"
    print(f"{'ok  ' if good else 'MISS'} {what}: {measured:.3f} (promise {sign} {promise:g})", flush=True)


def peak_extra(work: Callable) -> int:
    """Bytes by which the process grew at most while `work` ran, sampled every millisecond."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # on Linux: give back what earlier work has left behind
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    peak, done = [0], threading.Event()
    before = resident()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], resident() - before)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    kept = work()
    done.set()
    thread.join()
    del kept
    return peak[0]


def resident() -> int:
    """Bytes of memory this process has now."""
    return psutil.Process().memory_info().rss


def seconds(work: Callable, repeats: int = 5) -> float:
    """The median time of `work`."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def torchs(model: nn.Module, sparsity: float) -> dict:
    """PyTorch's own global pruning of the same weights; returns its masks by name."""
    modules = {name: model.get_submodule(name.removesuffix(".weight")) for name in prunable(model)}
    pairs = [(module, "weight") for module in modules.values()]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=sparsity)
    return {name: module.weight_mask.bool() for name, module in modules.items()}


def decision() -> None:
    """One global magnitude decision on 23.5 million weights, against torch.nn.utils.prune."""
    dense = resnet50()
    ours = seconds(lambda: globally(magnitude(dense), 0.9))
    copies = [copy.deepcopy(dense) for _ in range(3)]
    theirs = statistics.median(seconds(lambda c=c: torchs(c, 0.9), 1) for c in copies)
    report(f"global mask, time / torch's ({ours:.2f} s / {theirs:.2f} s)", ours / theirs, 0.15)
    other = copy.deepcopy(dense)
    reference: dict = {}
    more = peak_extra(lambda: reference.update(torchs(other, 0.9)))
    ours_more = peak_extra(lambda: globally(magnitude(dense), 0.9))
    report(f"global mask, extra memory / torch's ({ours_more >> 20} / {more >> 20} MiB)", ours_more / more, 0.5)
    masks = globally(magnitude(dense), 0.9)
    cut = torch.cat([w.detach().abs()[masks[n]] for n, w in prunable(dense).items()]).min()
    different = [w.detach().abs()[masks[n] != reference[n]] for n, w in prunable(dense).items()]
    away = sum(int(((d < cut * (1 - 1e-6)) | (d > cut * (1 + 1e-6))).sum()) for d in different)
    report("global mask, weights decided differently from torch, other than at the cut", away, 0)


def held_step() -> None:
    """A training step of ResNet-50 that holds its masks, against the dense step; steps take turns."""
    model = resnet50()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)
    after = hold(model, globally(magnitude(model), 0.9))
    x, y = pixels_last(torch.randn(8, 3, 32, 32)), torch.arange(8)
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(24):
        began = time.perf_counter()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if turn % 2:
            after(turn)
        if turn >= 4:
            times[bool(turn % 2)].append(time.perf_counter() - began)
    dense, held = (statistics.median(times[k]) for k in (False, True))
    what = f"training step with masks held / dense step ({1000 * held:.0f} / {1000 * dense:.0f} ms, batch 8)"
    report(what, held / dense, 1.03)


def loader() -> None:
    """Augmented batches, against a DataLoader over torchvision's CIFAR10 class with the same augmentation."""
    from torchvision import datasets, transforms

    images = torch.randint(256, (5000, 32, 32, 3), dtype=torch.uint8)
    theirs = datasets.CIFAR10.__new__(datasets.CIFAR10)  # the class, without its download
    theirs.data, theirs.targets, theirs.target_transform = images.numpy(), [0] * 5000, None
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    theirs.transform = transforms.Compose([*steps, transforms.Normalize(mean, std)])
    slow = torch.utils.data.DataLoader(theirs, batch_size=128, shuffle=True)
    ours = images.permute(0, 3, 1, 2).contiguous()
    split = Split(ours, torch.zeros(5000).long(), torch.tensor(mean), torch.tensor(std))
    there = seconds(lambda: sum(len(y) for _, y in slow), 3)
    here = seconds(lambda: sum(len(y) for _, y in batches(split, 128, 0, flip=True, shift=4)), 3)
    what = f"images/s, ours / DataLoader's ({5000 / here:,.0f} / {5000 / there:,.0f})"
    report(what, there / here, 10, at_most=False)


def half_the_channels() -> None:
    """ResNet-50 with half of all channels, batch 8, against the whole: measured speed beside the MAC ratio."""
    x = torch.randn(8, 3, 32, 32)
    models: dict[str, nn.Module] = {"dense": resnet50(), "half": resnet50(width=0.5)}
    times = latency(models, x, repeats=7)
    ratio = macs(models["dense"], x) / macs(models["half"], x)
    speedup = times["dense"].median / times["half"].median
    report(f"ResNet-50 with half the channels, speed-up at {ratio:.2f}× fewer MACs", speedup, 3, at_most=False)
    print(f"     (that is {speedup / ratio:.2f} of what its MACs promise)", flush=True)


def their_pruner(model: nn.Module, sparsity: float, isomorphic: bool = False) -> nn.Module:
    """Torch-Pruning's own result: group L2, each layer alone or all that is built alike together."""
    small, l2 = copy.deepcopy(model), torch_pruning.importance.GroupMagnitudeImportance(p=2)
    how = {"importance": l2, "pruning_ratio": sparsity, "isomorphic": isomorphic, "global_pruning": isomorphic}
    torch_pruning.pruner.BasePruner(small, torch.zeros(1, 3, 32, 32), ignored_layers=[small.fc], **how).step()
    return small


def our_pruner(model: nn.Module, groups: dict, sparsity: float, isomorphic: bool = False) -> nn.Module:
    """The same with the course's parts."""
    scores = normalised(group_l2(model, groups))
    masks = isomorphically(scores, sparsity, kinds_of(model, groups)) if isomorphic else layerwise(scores, sparsity)
    return remove(model, groups, masks)


def fastest(works: dict[str, Callable], turns: int) -> dict[str, float]:
    """The least time of each, in turns."""
    found: dict[str, float] = dict.fromkeys(works, float("inf"))
    for turn in range(turns + 1):  # the first one warms up
        for name, work in works.items():
            began = time.perf_counter()
            work()
            found[name] = min(found[name], time.perf_counter() - began) if turn else found[name]
    return found


def shrinking() -> None:
    """Score, plan and shrink ResNet-50 beside Torch-Pruning, in turns; then the speed of what is left."""
    model, x = resnet50().eval(), torch.zeros(1, 3, 32, 32)
    for isomorphic, word in ((False, "local"), (True, "isomorphic")):
        works = {
            "theirs": lambda how=isomorphic: their_pruner(model, 0.5, how),
            "by hand": lambda how=isomorphic: our_pruner(model, model.groups(), 0.5, how),
            "found": lambda how=isomorphic: our_pruner(model, suggested(model, x)[0], 0.5, how),
            "proven": lambda: groups_of(model, x),
        }
        times = fastest(works, 5)
        for name in ("by hand", "found"):
            what = f"half of ResNet-50 goes, {word}, groups {name}: time / Torch-Pruning's ({times['theirs']:.2f} s)"
            report(what, times[name] / times["theirs"], 1)
        print(f"     (finding and proving the groups takes {times['proven']:.2f} s)", flush=True)
    fast = torch.channels_last  # the whole network is faster in this format, too
    pixels, sparsities = torch.randn(16, 3, 32, 32).to(memory_format=fast), (0.25, 0.5, 0.75)
    nets = {"whole": model} | {f"ours {s}": our_pruner(model, model.groups(), s).eval() for s in sparsities}
    nets |= {f"Torch-Pruning's {s}": their_pruner(model, s).eval() for s in sparsities}
    nets = {name: copy.deepcopy(net).to(memory_format=fast) for name, net in nets.items()}
    with torch.inference_mode():
        times = fastest({name: (lambda net=net: net(pixels)) for name, net in nets.items()}, 12)
    for s, promise in zip(sparsities, (0.95, 0.95, 0.7), strict=True):
        ratio = macs(model, x) / macs(nets[f"ours {s}"], x)
        ours, theirs = (times["whole"] / times[f"{who} {s}"] for who in ("ours", "Torch-Pruning's"))
        what = f"ResNet-50 without {s:.0%} of its channels, batch 16: speed-up / MAC ratio ({ours:.2f} / {ratio:.2f})"
        report(what, ours / ratio, promise, at_most=False)
        print(f"     (Torch-Pruning's network in the same run: {theirs:.2f}, {theirs / ratio:.3f})", flush=True)


def sample_by_sample(model: nn.Module, pairs: list) -> None:
    """The plain diagonal Fisher: one backward pass for each image, its gradient squared and added."""
    sums = {name: torch.zeros_like(w) for name, w in prunable(model).items()}
    for x, y in pairs:
        for image, label in zip(x.split(1), y.split(1), strict=True):
            model.zero_grad()
            cross_entropy(model(image), label).backward()
            for name, w in prunable(model).items():
                sums[name].addcmul_(w.grad, w.grad)
    model.zero_grad()


def forward_backward(model: nn.Module, pairs: list) -> None:
    """The yardstick: gradients of the same images, batch by batch."""
    for x, y in pairs:
        cross_entropy(model(x), y).backward()
    model.zero_grad()


def criteria() -> None:
    """One decision of every criterion on ResNet-50, in forward-backward passes over the same images, and its memory."""
    model, random = resnet50().eval(), torch.Generator().manual_seed(0)
    pairs = [(pixels_last(torch.randn(8, 3, 32, 32, generator=random)), torch.arange(8)) for _ in range(4)]
    groups = inner(model)
    forward_backward(model, pairs)
    awake(model, groups, pairs[:1])  # warm up
    unit = seconds(lambda: forward_backward(model, pairs), 3)
    plain = seconds(lambda: sample_by_sample(model, pairs), 1)
    print(f"     one forward-backward pass over 32 images: {unit:.2f} s; sample by sample {plain / unit:.2f} of it")
    costs = {
        "magnitude": lambda: magnitude(model), "scaling": lambda: bn_scale(model, groups),
        "zeros (APoZ)": lambda: awake(model, groups, pairs), "Taylor": lambda: taylor(model, pairs),
        "Wanda": lambda: wanda(model, pairs), "diagonal Fisher": lambda: fisher(model, pairs),
        "OBS, blocks of 10": lambda: inverse_fisher(model, pairs, 1e-4, 10),
        "LASSO": lambda: lasso(model, groups, pairs), "ThiNet": lambda: thinet(model, groups, pairs),
        "SparseGPT": lambda: layer_obs(model, pairs),
    }  # fmt: skip
    for name, work in costs.items():
        more = peak_extra(work) >> 20
        took = seconds(work, 3 if name in ("zeros (APoZ)", "Taylor") else 1)
        what = f"{name}, forward-backward passes ({took:.2f} s, {more} MiB more)"
        if name in ("zeros (APoZ)", "Taylor"):
            report(what, took / unit, 1.2)
        else:
            print(f"     {what}: {took / unit:.3f}", flush=True)
        if name == "diagonal Fisher":
            report("diagonal Fisher, time / the plain loop's", took / plain, 1)


def sparse_layers() -> None:
    """A sparse linear layer of width 1024, 64 examples at once: how much faster, and from which sparsity on."""
    levels = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    kinds = {"CSR": 1} | ({"blocks of 32": 32} if torch.backends.mkl.is_available() else {})
    found = {level: race(1024, level, kinds, repeats=21) for level in levels}
    for direction in ("forward", "backward"):
        what = f"dense / CSR, width 1024, 95 %, {direction}"
        ratio = found[0.95][f"CSR, {direction}"]
        if direction == "forward":
            report(what, ratio, 3, at_most=False)
        else:  # no promise: the dense layer's gradient is a fresh tensor, whose cost is up to the memory allocator
            print(f"     {what}: {ratio:.3f}", flush=True)
        for kind in kinds:
            cut = break_even(levels, [found[level][f"{kind}, {direction}"] for level in levels])
            print(f"     {kind}, {direction}: as fast as dense from a sparsity of {cut} on", flush=True)


def sweeps() -> None:
    """Twelve runs of a notebook that works for two seconds: two workers against one, and then nothing to do."""
    work = "import time\nend = time.process_time() + 2\nwhile time.process_time() < end:\n    sum(range(1000))"
    cells = [new_code_cell("seed = 0", metadata={"tags": ["parameters"]}), new_code_cell(work)]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), f"{folder}/00_work.ipynb")
        seeds = [f"-pseed={seed}" for seed in range(12)]
        words = [sys.executable, "-m", "course_utils.sweep", *seeds, f"{folder}/00_work.ipynb"]

        def sweep(jobs: int) -> None:
            env = {**os.environ, "COURSE_CACHE": f"{folder}/{jobs}"}
            subprocess.run([*words, "--jobs", str(jobs)], env=env, check=True, capture_output=True)

        one, two, none = (seconds(lambda jobs=jobs: sweep(jobs), 1) for jobs in (1, 2, 2))
    report(f"sweep of 12 runs, time with two workers / with one ({two:.0f} / {one:.0f} s)", two / one, 0.6)
    report("sweep with nothing to do, seconds", none, 10)


def main() -> int:
    """Run every benchmark on one thread."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    for bench in (decision, held_step, loader, half_the_channels, shrinking, criteria, sparse_layers, sweeps):
        bench()
    print(f"{len(failed)} of the promises missed" if failed else "every promise kept")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
