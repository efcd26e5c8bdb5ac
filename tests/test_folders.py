"""Images in folders: which class is which output, what a network sees, and who of several processes reads what."""

from itertools import chain

import images
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageDataset, create_loader, resolve_data_config
from torch import nn

from course_utils import classifiers, dist, folders
from course_utils.folders import View

VIEW = View(size=32, crop_pct=0.9)


@pytest.fixture
def data(tmp_path):
    return images.write(tmp_path / "some images")


def sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 300
    return text


def as_rank(monkeypatch, rank, world):
    """Pretend to be one of several processes."""
    monkeypatch.setattr(dist, "rank", lambda: rank)
    monkeypatch.setattr(dist, "world", lambda: world)


def numbers(loader) -> list[float]:
    """A number for each image, in the order in which they come."""
    return [x.double().sum().item() for batch, _ in loader for x in batch]


def test_classes_are_the_sorted_names_of_the_folders(data):
    found = folders.labelled(data / "train")
    assert found.classes == ["blue", "green", "red"]
    assert all(found.classes[label] in path for path, label in found.samples) and len(found) == 24


def test_labels_follow_the_networks_classes_where_they_are_known(data):
    (data / "val" / ".ipynb_checkpoints").mkdir()
    found = folders.labelled(data / "val", ["yellow", "red", "blue", "green"])
    assert {path.split("/")[-2]: label for path, label in found.samples} == {"red": 1, "blue": 2, "green": 3}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "eval", "test"])
def test_the_names_of_the_validation_folder(tmp_path, name):
    (tmp_path / "train").mkdir()
    (tmp_path / name).mkdir()
    assert folders.place_of(tmp_path, "val") == tmp_path / name


def test_val_comes_before_test(tmp_path):
    for name in ("val", "test"):
        (tmp_path / name).mkdir()
    assert folders.place_of(tmp_path, "val").name == "val" and folders.place_of(tmp_path, "test").name == "test"


def test_folders_that_lack_something(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        folders.place_of(tmp_path / "nowhere", "train")
    (data / "train").rename(data / "other")
    with pytest.raises(ValueError, match="has no folder train, it has other, val: images belong into") as error:
        folders.place_of(data, "train")
    sentence(error)
    with pytest.raises(ValueError, match="has no class folders"):
        folders.labelled(data / "val" / "red")
    with pytest.raises(ValueError, match="green is none of the 2 classes"):
        folders.labelled(data / "val", ["blue", "red"])
    for path in (data / "val" / "green").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="green holds no images"):
        folders.labelled(data / "val")


def test_an_image_that_cannot_be_read_is_named(data):
    broken = data / "val" / "red" / "2.png"
    broken.write_bytes(broken.read_bytes()[:100])
    found = folders.seen(folders.labelled(data / "val"), VIEW)
    for workers in (0, 1):
        with pytest.raises(ValueError, match="cannot be read as an image") as error:
            list(folders.in_order(found, VIEW, 4, workers))
        assert str(broken) in str(error.value)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_network_sees_what_timms_own_loader_shows_it(data, name):
    model = timm.create_model(name)
    config = resolve_data_config(model=model)
    view = folders.view_of(model)
    theirs = create_loader(
        ImageDataset(str(data / "val")),
        input_size=config["input_size"],
        batch_size=5,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=0,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    ours = folders.in_order(folders.seen(folders.labelled(data / "val"), view), view, 5, 0)
    for (x, y), (their_x, their_y) in zip(ours, theirs, strict=True):
        assert torch.equal(x, their_x) and torch.equal(y, their_y)


def test_a_wish_comes_before_what_a_file_says_and_that_before_timm():
    model = timm.create_model("test_vit")
    assert folders.view_of(model).size == 160
    known = {"size": 64, "interpolation": "bilinear", "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.25] * 3}
    assert folders.view_of(model, known, size=0) == View(64, "bilinear", 1.0, (0.5,) * 3, (0.25,) * 3)
    assert folders.view_of(model, known, size=32, interpolation="bicubic").size == 32
    assert folders.view_of(nn.Linear(1, 1)) == View(), "ImageNet's, where nobody knows"


def test_every_image_is_evaluated_once_over_all_processes(data, monkeypatch):
    found = folders.seen(folders.labelled(data / "val"), VIEW)
    alone, shares = numbers(folders.in_order(found, VIEW, 5, 0)), []
    for rank in range(5):
        as_rank(monkeypatch, rank, 5)
        shares += numbers(folders.in_order(found, VIEW, 5, 0))
    assert len(alone) == 12 and sorted(shares) == sorted(alone)


@pytest.mark.parametrize("epoch", [0, 3])
def test_the_batches_of_all_processes_are_those_of_one(data, monkeypatch, epoch):
    found, batches = folders.seen(folders.labelled(data / "train"), VIEW), {}
    for world in (1, 2, 4):
        shares = []
        for rank in range(world):
            as_rank(monkeypatch, rank, world)
            loader = folders.shuffled(found, VIEW, 8 // world, 0, seed=1)
            loader.sampler.set_epoch(epoch)
            shares.append([x.double().sum((1, 2, 3)).tolist() for x, _ in loader])
        batches[world] = [sorted(chain.from_iterable(step)) for step in zip(*shares, strict=True)]
    assert len(batches[1]) == 3 and batches[1] == batches[2] == batches[4]


def test_another_epoch_and_another_seed_are_another_order(data):
    found, orders = folders.seen(folders.labelled(data / "train"), VIEW), []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        loader = folders.shuffled(found, VIEW, 8, 0, seed)
        loader.sampler.set_epoch(epoch)
        orders.append(numbers(loader))
    assert len({tuple(order) for order in orders}) == 3 and len({tuple(sorted(order)) for order in orders}) == 1


def test_a_limit_takes_images_of_all_classes(data):
    found = folders.labelled(data / "train")
    assert [found.targets[i] for i in folders.limited(found, 6).indices] == [0, 0, 1, 1, 2, 2]
    assert folders.limited(found, 0) is found and folders.limited(found, 99) is found


def test_augmentation_that_timm_does_not_know(data):
    with pytest.raises(ValueError, match="'radn-m9' is not like rand-m9-mstd0.5-inc1"):
        folders.seen(folders.labelled(data / "train"), VIEW, train=True, randaugment="radn-m9")


def test_grey_and_transparent_images_are_seen_in_colour(data):
    Image.new("L", (50, 40), 100).save(data / "val" / "red" / "grey.png")
    Image.new("RGBA", (50, 40), (1, 2, 3, 4)).save(data / "val" / "red" / "clear.png")
    found = folders.seen(folders.labelled(data / "val"), VIEW)
    assert all(x.shape[1:] == (3, 32, 32) for x, _ in folders.in_order(found, VIEW, 4, 0))


# --- classes and heads ------------------------------------------------------------------------------------------------


def test_classes_that_match_by_number_or_by_name(data):
    assert classifiers.matched(data / "val", 3).classes == ["blue", "green", "red"]
    names = ["red", "green", "blue", "white"]
    assert classifiers.matched(data / "val", 4, names).samples[0][1] == 2
    with pytest.raises(
        ValueError, match=r"distinguishes 4 classes and .*val has 3 folders.*--classes FILE.*--new-head"
    ):
        classifiers.matched(data / "val", 4, (), ", or ask for a --new-head")
    with pytest.raises(ValueError, match="4 classes are named and the network distinguishes 3"):
        classifiers.matched(data / "val", 3, names)


def test_folders_named_as_imagenets_are_known(tmp_path):
    place = images.write(tmp_path / "few", 1, 1, ("n01440764", "n15075141")) / "val"
    assert {label for _, label in classifiers.matched(place, 1000).samples} == {0, 999}
    assert {label for _, label in classifiers.matched(place, 2).samples} == {0, 1}


def test_a_file_of_names(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n\n")
    assert classifiers.names_in(str(file)) == ["n01440764", "n01443537"]
    file.write_text("a\nb\na\n")
    with pytest.raises(ValueError, match="names the class a twice"):
        classifiers.names_in(str(file))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        classifiers.names_in(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("name", "heads"),
    [("test_vit", ["head"]), ("test_resnet", ["fc"]), ("deit_tiny_distilled_patch16_224", ["head", "head_dist"])],
)
def test_a_new_head_changes_nothing_else(name, heads):
    model = timm.create_model(name).eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    x = torch.zeros(1, 3, *model.pretrained_cfg["input_size"][1:])
    assert classifiers.outputs_of(model, x) == 1000
    classifiers.new_head(model, x, 5, seed=1)
    assert classifiers.outputs_of(model, x) == 5 and model.num_classes == 5
    changed = {n.rsplit(".", 1)[0] for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert sorted(changed) == heads
    first = model.state_dict()[f"{heads[0]}.weight"].clone()
    classifiers.new_head(model, x, 5, seed=1)
    assert torch.equal(model.state_dict()[f"{heads[0]}.weight"], first), "it depends on the seed alone"


def test_the_head_of_a_network_that_is_not_timms():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4))
    classifiers.new_head(model, torch.zeros(1, 3, 8, 8), 7)
    assert [m.weight.shape[0] for m in model if hasattr(m, "weight")] == [4, 4, 7]


def test_what_is_no_classifier():
    with pytest.raises(ValueError, match="no classifier"):
        classifiers.outputs_of(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="does not take images of 8 × 8"):
        classifiers.outputs_of(timm.create_model("test_vit"), torch.zeros(1, 3, 8, 8))


def test_a_transformer_gets_another_size():
    model = timm.create_model("test_vit").eval()
    classifiers.set_size(model, 64)
    assert classifiers.outputs_of(model, torch.zeros(1, 3, 64, 64)) == 1000
