"""Networks and measurements against oracles of their own; rendered data against closed forms."""

import math
import time
from dataclasses import replace

import pytest
import torch
from conftest import generic
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import pad

from course_utils import bodies, parents
from course_utils.checkpoints import load_state
from course_utils.data import Split, digits, solids
from course_utils.measure import accuracy, evaluating, latency, loss, nonzero, outputs, parameters, size_on_disk
from course_utils.models import BasicBlock, deit_tiny, mlp, resnet50, resnet_cifar
from course_utils.profiles import SMOKE
from course_utils.scenes import AWAY, HOME
from course_utils.solids import render
from course_utils.train import Recipe, one_epoch, refresh


def test_the_shortcut_of_option_a_is_he_et_als():
    block = BasicBlock(16, 32)
    x = torch.randn(2, 16, 8, 8)
    expected = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))  # eight silent channels on either side
    assert torch.equal(block.shortcut(x), expected)


def test_the_cifar_resnets_carry_the_published_names():
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for depth in (20, 56):
        old = {n: t for n, t in generic(resnet_cifar(depth)).state_dict().items() if not n.endswith("tracked")}
        load_state(resnet_cifar(depth), old, "a file of 2018, without counters")
        blocks = [f"layer{s}.{b}" for s in (1, 2, 3) for b in range((depth - 2) // 6)]
        names = {"conv1.weight", "linear.weight", "linear.bias"} | {f"bn1.{n}" for n in norm}
        names |= {f"{b}.conv{i}.weight" for b in blocks for i in (1, 2)}
        names |= {f"{b}.bn{i}.{n}" for b in blocks for i in (1, 2) for n in norm}
        assert set(resnet_cifar(depth).state_dict()) == names
    assert parameters(resnet_cifar(20)) == 269_722 and parameters(resnet_cifar(56)) == 853_018


def test_resnet50_is_torchvisions_but_for_the_stem():
    from torchvision.models import resnet50 as theirs

    reference = theirs(num_classes=10)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    ours = resnet50().eval()
    ours.load_state_dict(generic(reference).state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours(x), reference(x), rtol=1e-4, atol=1e-3)


def test_a_narrow_deit_runs():
    model = deit_tiny(classes=10, size=32, patch=4, width=0.25, depth=2)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10) and parameters(model) < 100_000


def split_of(count: int, classes: int = 10) -> Split:
    random = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8, generator=random)
    labels = torch.randint(classes, (count,), generator=random)
    return Split(images, labels, torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25]))


def test_accuracy_and_loss_image_by_image():
    model, split = generic(resnet50(width=0.0625, blocks=(1, 1))), split_of(273)
    x = (split.images.double() / 255 - split.mean.view(-1, 1, 1)) / split.std.view(-1, 1, 1)
    with torch.no_grad():
        scores = torch.stack([model(image[None].float())[0] for image in x])
    right = sum(int(s.argmax() == y) for s, y in zip(scores, split.labels, strict=True)) / 273
    nll = -sum(float(s.log_softmax(0)[y]) for s, y in zip(scores, split.labels, strict=True)) / 273
    assert accuracy(model, split) == pytest.approx(right) and loss(model, split) == pytest.approx(nll, rel=1e-3)
    assert torch.allclose(outputs(model, split), scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", [True, False])
def test_evaluation_restores_the_mode_even_after_an_error(mode):
    model = resnet50(width=0.0625, blocks=(1,)).train(mode)
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
        raise ZeroDivisionError
    assert model.training == mode and torch.is_grad_enabled()


def test_size_on_disk_is_that_of_a_file(tmp_path):
    model = resnet50(width=0.125, blocks=(1, 1))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert size_on_disk(model) == (tmp_path / "model.safetensors").stat().st_size
    before = size_on_disk(model, zipped=True)
    with torch.no_grad():
        model.layer2[0].conv2.weight.zero_()
    assert size_on_disk(model, zipped=True) < before < size_on_disk(model) + 1000
    assert nonzero(model) < parameters(model)


class Sleepy(nn.Module):
    """Takes a known time, and notes its turn."""

    def __init__(self, name, seconds, turns):
        super().__init__()
        self.name, self.seconds, self.turns = name, seconds, turns

    def forward(self, x):
        self.turns.append(self.name)
        time.sleep(self.seconds)
        return x


def test_latency_takes_turns_warms_up_and_takes_the_median():
    turns: list[str] = []
    models = {"a": Sleepy("a", 0.004, turns), "b": Sleepy("b", 0.012, turns)}
    threads = torch.get_num_threads()
    times = latency(models, torch.zeros(1, 3, 4, 4), repeats=5)
    assert turns == ["a", "b"] * 7 and torch.get_num_threads() == threads
    assert 4 <= times["a"].median < times["b"].median and times["a"].low <= times["a"].median <= times["a"].high


def test_fresh_statistics_are_the_mean_over_the_batches():
    model, split = generic(resnet50(width=0.0625, blocks=(1,))), split_of(60)
    recipe = Recipe(epochs=1, batch_size=20, flip=False, shift=0)
    before = {n: p.clone() for n, p in model.named_parameters()}
    refresh(model, split, recipe, seed=4)
    x = (split.images.float() / 255 - split.mean.view(-1, 1, 1)) / split.std.view(-1, 1, 1)
    with torch.no_grad():
        expected = model.conv1(x).mean((0, 2, 3))
    assert torch.allclose(model.bn1.running_mean, expected, atol=1e-4) and model.bn1.momentum == 0.1
    assert not model.training and all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_digits_are_real_and_their_splits_share_nothing():
    data = digits()
    assert [len(s) for s in (data.train, data.val, data.test)] == [1197, 300, 300]
    rows = torch.cat([s.images.flatten(1) for s in (data.train, data.val, data.test)])
    from sklearn.datasets import load_digits

    original = torch.tensor(load_digits().data).mul(255 / 16).round().byte()
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, original.tolist()))


def test_solids_are_cached_whole_and_normalised(private_cache, monkeypatch):
    monkeypatch.setattr("course_utils.data.SOLIDS_SPLIT", (60, 20, 20))
    data = solids()
    again = solids()
    assert [len(s) for s in (data.train, data.val, data.test)] == [60, 20, 20] and data.checksum == again.checksum
    pixels = data.train.images.float().transpose(0, 1).flatten(1) / 255
    assert torch.allclose(data.val.mean, pixels.mean(1)) and torch.allclose(data.test.std, pixels.std(1))
    assert data.classes == HOME.classes and len(list((private_cache / "cache" / "data").glob("*.safetensors"))) == 1


@pytest.mark.parametrize("domain", [HOME, AWAY], ids=["home", "away"])
def test_rendering_is_deterministic_balanced_and_finite(domain):
    state = torch.get_rng_state()
    images, labels, depth = render(230, seed=3, domain=domain)
    first = render(30, seed=3, domain=domain)
    assert all(torch.equal(a[:30], b) for a, b in zip((images, labels, depth), first, strict=True))
    assert torch.equal(state, torch.get_rng_state()) and not torch.equal(images, render(230, 4, domain)[0])
    assert images.shape == (230, 3, 32, 32) and images.dtype == torch.uint8 and depth.isfinite().all()
    counts = labels[:200].bincount(minlength=len(domain.classes))
    assert counts.min() == counts.max() == 200 // len(domain.classes)


@pytest.mark.parametrize(("count", "size"), [(-1, 32), (2.5, 32), (10, 4)])
def test_rendering_refuses_nonsense(count, size):
    with pytest.raises(ValueError, match=str(count if size == 32 else size)):
        render(count, 0, size=size)


def test_marching_meets_a_ball_where_geometry_says():
    """|o + t d| = r has the solution t = -o·d - √((o·d)² - |o|² + r²) for unit d."""
    random = torch.Generator().manual_seed(0)
    targets = torch.randn(3, 400, generator=random) * 0.45
    origins = torch.tensor([[0.3], [0.2], [-4.0]]).expand(3, 400).contiguous()
    directions = torch.nn.functional.normalize(targets - origins, dim=0)
    along = (origins * directions).sum(0)
    root = along**2 - (origins**2).sum(0) + 0.85**2
    t = bodies.march(bodies.sphere, origins, directions)
    inside = root > 0.02  # away from the silhouette, where rays graze
    assert inside.sum() > 200 and torch.allclose(t[inside], (-along - root.clamp(min=0).sqrt())[inside], rtol=1e-3)
    assert t[root < -0.02].isinf().all()


@pytest.mark.parametrize("body", bodies.BODIES, ids=lambda b: b.__name__)
def test_no_distance_is_overestimated(body):
    """A signed distance grows by at most the distance walked; else the marcher would step through walls."""
    random = torch.Generator().manual_seed(1)
    p, q = (torch.randn(3, 2000, generator=random) for _ in range(2))
    assert ((body(p) - body(q)).abs() <= (p - q).norm(dim=0) * (1 + 1e-4) + 1e-5).all()
    assert (body(torch.randn(3, 500, generator=random) * 0.01 + 1.3) > 0).all()


def test_shipped_networks_fit_their_record():
    import json

    from course_utils.parents import KINDS, SHIPPED, VERSION
    from course_utils.train import Recipe as Given

    record = json.loads((SHIPPED / "record.json").read_text(encoding="utf-8"))
    assert record["version"] == VERSION and len(record["networks"]) == 3 * len(KINDS)
    for network in record["networks"]:
        recipe = json.loads(network.get("recipe", record["recipe"]))  # the first nine share one
        assert recipe.keys() <= json.loads(Given(epochs=1).words()).keys()
        assert len(network["log"]) == recipe["epochs"] and math.isfinite(network["log"][-1]["loss"])
        assert 0.65 <= network["test_accuracy"] < 0.97
        place = SHIPPED / f"{network['network']}-solids-home-{network['seed']}.safetensors"
        assert place.stat().st_size < 2_000_000


def test_fresh_networks_are_trained_anew_each_time(private_cache, monkeypatch):
    """`--fresh` ignores whatever was made before the command began, checkpoints too."""
    epochs = []

    def counted(*args):
        epochs.append(1)
        return one_epoch(*args)

    monkeypatch.setattr("course_utils.data.SOLIDS_SPLIT", (60, 20, 20))
    monkeypatch.setattr("course_utils.train.one_epoch", counted)
    data = solids()
    for moment, runs in ((0.0, 1), (0.0, 1), (time.time() + 5, 2)):
        sizes = replace(SMOKE, fresh=moment, epochs=1, width=0.0625)
        parents.parent(sizes, data, 0)
        assert len(epochs) == runs
    assert not list((private_cache / "cache" / "networks").glob("*latest*"))


def test_mlp_for_digits():
    assert parameters(mlp((64, 100, 100, 50, 20, 10))) == 64 * 100 + 100 * 100 + 100 * 50 + 50 * 20 + 20 * 10
