"""`python course.py prune`: from words to a file, published recipes, and bad input in one sentence."""

import copy

import pytest
import timm
import torch
from PIL import Image
from test_network_commands import course  # noqa: F401 (a fixture)
from torch_pruning.utils import count_ops_and_params

from course_utils import prune, shrunken
from course_utils.graphs import groups_of
from course_utils.importance import group_l2, normalised
from course_utils.kinds import kinds_of
from course_utils.measure import macs, parameters
from course_utils.plan import by_kind, planned
from course_utils.scopes import globally, layerwise
from course_utils.units import remove

TINY = "deit_tiny_distilled_patch16_224"
RECIPES = {  # channels, heads, dimensions of a head; published G MACs and M parameters, how far from them we may be
    "4.2G": ("deit_base_distilled_patch16_224", 0.5, 0.5, 0.25, 4.17, 20.72, 0.015),
    "2.6G": ("deit_base_distilled_patch16_224", 0.6, 0.6, 0.3, 2.62, 13.07, 0.02),
    "1.2G": ("deit_small_distilled_patch16_224", 0.5, 0.5, 0.1, 1.21, 5.74, 0.02),
    "0.6G": (TINY, 0.25, 0.3, 0.3, 0.62, 3.08, 0.02),
}


@pytest.mark.parametrize("name", RECIPES)
def test_published_transformers_come_out_as_large(name):
    """Isomorphic-Pruning's recipes with random weights; its sizes are those of Torch-Pruning's counter."""
    network, channels, heads, dims, giga, millions, near = RECIPES[name]
    torch.manual_seed(0)
    model, x = timm.create_model(network).eval(), torch.zeros(1, 3, 224, 224)
    groups = by_hand(model)
    ratios = {"channels": channels, "heads": heads, "dims": dims}
    masks = planned(normalised(group_l2(model, groups)), ratios, by_kind(kinds_of(model, groups)), 1, 2)
    small = remove(model, groups, masks)
    assert abs(parameters(small) / 1e6 / millions - 1) < near
    assert abs(count_ops_and_params(copy.deepcopy(small), x)[0] / 1e9 / giga - 1) < near
    assert abs(macs(small, x) / 1e9 / giga - 1) < near + 0.01  # this counter knows longer products of heads


def by_hand(model):
    """The groups of timm's distilled DeiT as the course writes them for its own, which saves a proof."""
    from course_utils.vits import DeiT

    groups = DeiT.groups(model)
    groups["embedding"] |= {"dist_token": 2, "head_dist.weight": 1}
    return groups


def test_the_distilled_teacher_has_its_published_size():
    model, x = timm.create_model("deit_small_distilled_patch16_224").eval(), torch.zeros(1, 3, 224, 224)
    theirs = count_ops_and_params(copy.deepcopy(model), x)
    assert parameters(model) == theirs[1] == 22_436_432 and round(theirs[0] / 1e9, 2) == 4.64
    assert macs(model, x) == 4_624_140_288


def test_the_groups_of_a_distilled_transformer_are_those_found():
    model = timm.create_model(TINY, depth=2, img_size=32)
    found = groups_of(model, torch.zeros(1, 3, 32, 32))
    assert {frozenset(g) for g in found.values()} == {frozenset(g) for g in by_hand(model).values()}


# --- plans ----------------------------------------------------------------------------------------------------------


def scores():
    draw = torch.Generator().manual_seed(0)
    sizes = {"embedding": 48, "a.heads": 6, "b.heads": 6, "a.dims": 16, "b.dims": 16, "mlp": 96}
    return {name: torch.rand(size, generator=draw) for name, size in sizes.items()}


def test_heads_and_dimensions_have_ratios_of_their_own():
    ratios = {"channels": 0.5, "heads": 0.5, "dims": 0.25}
    masks = planned(scores(), ratios, layerwise, multiple=2)
    assert {n: int(m.sum()) for n, m in masks.items()} == {
        "embedding": 24, "a.heads": 3, "b.heads": 3, "a.dims": 12, "b.dims": 12, "mlp": 48,
    }  # fmt: skip
    masks = planned(scores(), {"channels": 0.25, "heads": 0.0}, layerwise, multiple=4)  # dims follow the channels
    assert [int(masks[n].sum()) for n in ("a.heads", "a.dims", "embedding")] == [6, 12, 36]
    everywhere = planned(scores(), ratios, globally)
    assert int(everywhere["a.heads"].sum() + everywhere["b.heads"].sum()) == 6
    assert int(everywhere["embedding"].sum() + everywhere["mlp"].sum()) == 72


def test_floors_hold_in_every_scope():
    low = scores() | {"embedding": torch.full((48,), 1e-3)}
    ratios = {"channels": 0.5, "heads": 0.0, "dims": 0.0}
    masks = planned(low, ratios | {"channels": 0.9}, globally, floor=4)
    assert int(masks["embedding"].sum()) >= 4 and int(masks["mlp"].sum()) >= 4
    with pytest.raises(ValueError, match=r"ratio 0\.95 for heads would empty a group such as a\.heads, which has 6"):
        planned(scores(), ratios | {"heads": 0.95}, layerwise)
    with pytest.raises(ValueError, match=r"floor of 17 does not fit a\.dims, which has only 16: take a lower one"):
        planned(scores(), ratios, layerwise, floor=17)
    masks = planned(scores(), ratios | {"heads": 0.8}, layerwise, floor=8)  # heads are few: they keep at least one
    assert int(masks["a.heads"].sum()) == 1


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    """A folder as ImageNet's, with two classes of four images."""
    draw = torch.Generator().manual_seed(0)
    for label in ("cat", "dog"):
        (tmp_path / "images" / "train" / label).mkdir(parents=True)
        for i in range(4):
            pixels = torch.randint(256, (48, 48, 3), dtype=torch.uint8, generator=draw).numpy()
            Image.fromarray(pixels).save(tmp_path / "images" / "train" / label / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def parent(tmp_path, private_cache):
    """The file of a small DeiT that tells cats from dogs."""
    like = {"name": TINY, "library": "timm", "arguments": {"depth": 2, "img_size": 32, "num_classes": 2}}
    torch.manual_seed(0)
    model = timm.create_model(TINY, **like["arguments"]).eval()
    shrunken.save(model, tmp_path / "parent.safetensors", like, classes=["cat", "dog"], view={"size": 32})
    return tmp_path / "parent.safetensors"


def words(parent, out, *more):
    return [str(parent), "--out", str(out), "--workers", "0", "--batch-size", "4", *map(str, more)]


def test_from_words_to_a_smaller_file(parent, images, tmp_path, capsys):
    out = tmp_path / "small.safetensors"
    more = ("--data", images, "--ratio", 0.5, "--heads", 0.34, "--head-dim", 0.25, "--batches", 2)
    assert prune.main(words(parent, out, *more)) == 0
    said = capsys.readouterr().out
    small, like = shrunken.opened(out)
    assert like["name"] == TINY and small(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert small.embed_dim == 96 and sum(b.attn.num_heads for b in small.blocks) == 4
    assert f"({parameters(small):,})" in said and f"({macs(small, torch.zeros(1, 3, 32, 32)):,})" in said
    record = shrunken.read(out)
    assert len(record["kept"]["embedding"]) == 96 and record["about"]["classes"] == ["cat", "dog"]
    assert record["about"]["pruned"]["criterion"] == "taylor"
    again = tmp_path / "again.safetensors"  # what was pruned can be pruned again
    assert prune.main(words(out, again, "--criterion", "l1", "--scope", "local", "--ratio", 0.25)) == 0
    assert shrunken.load(again).embed_dim == 72


@pytest.mark.parametrize("scope", ["isomorphic", "global", "local"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "chance"])
def test_every_scope_and_criterion_without_images(parent, tmp_path, scope, criterion):
    out = tmp_path / "small.safetensors"
    assert prune.main(words(parent, out, "--scope", scope, "--criterion", criterion, "--keep", "embedding")) == 0
    small = shrunken.load(out)
    assert small.embed_dim == 192 and parameters(small) < 0.65 * parameters(shrunken.load(parent))


@pytest.mark.parametrize(
    "more, sentence",
    [
        ((), "taylor needs images: give --data DATA, or --criterion l1, l2, bn, chance"),
        (("--criterion", "l1", "--data", "."), "has no folder train"),
        (("--criterion", "l1", "--heads", 0.9, "--scope", "local"), "would empty a group such as blocks.0.attn.heads"),
        (("--criterion", "l1", "--keep", "stem"), "there is no group 'stem' to keep"),
        (("--criterion", "bn"), "no γ to look at; take taylor, l1 or l2"),
        (("--criterion", "l1", "--round-to", 1000), "nothing goes, because widths are multiples of 1000"),
        (("--criterion", "l1", "--floor", 500), "floor of 500 does not fit"),
    ],
)
def test_bad_input_is_one_sentence(parent, tmp_path, monkeypatch, capsys, more, sentence):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert prune.main(words(parent, tmp_path / "small.safetensors", *more)) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not (tmp_path / "small.safetensors").exists()


def test_heads_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match=r"no attention head can be cut here: leave out --head-dim 0\.25"):
        prune.meant({"channels": 0.5, "heads": 0.0, "dims": 0.25}, {"layer1": {}})
    prune.meant({"channels": 0.5, "heads": 0.0}, {"layer1": {}})


def test_a_floor_of_channels_is_none_of_heads():
    rivals = {"attn.heads": torch.arange(3.0), "fc1": torch.arange(16.0)}
    left = planned(rivals, {"channels": 0.5, "heads": 0.34}, globally, floor=8)
    assert [int(mask.sum()) for mask in left.values()] == [2, 8]


def test_a_place_that_cannot_be_written_is_refused_first(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert prune.main(words("resnet5o", tmp_path / "file" / "small.safetensors")) == 2
    assert "choose another place" in capsys.readouterr().err and (tmp_path / "file").is_file()


def test_the_size_that_was_pruned_for_is_noted(parent, tmp_path):
    out = tmp_path / "small.safetensors"
    assert prune.main(words(parent, out, "--criterion", "l1", "--size", 48)) == 0
    assert shrunken.read(out)["about"]["view"]["size"] == 48


def test_an_unknown_network_is_named(private_cache, tmp_path, capsys):
    assert prune.main(words("resnet5o", tmp_path / "s.safetensors", "--criterion", "l1")) == 2
    assert "did you mean resnet50?" in capsys.readouterr().err


def test_every_option_arrives(course):  # noqa: F811
    numbers = {"ratio": 0.25, "heads": 0.1, "head-dim": 0.2, "batches": 3, "batch-size": 4, "round-to": 8, "floor": 5}
    others = {"size": 64, "seed": 7, "workers": 0, "scope": "local", "criterion": "l2", "data": "/d", "classes": "/c"}
    given = [word for name, value in (numbers | others).items() for word in (f"--{name}", str(value))]
    course.prune(["resnet50", "--out", "/o.safetensors", "--random", "--keep", "layer1", "--keep", "stem", *given])
    found = vars(prune.arguments(course.ran.pop()[2:]))
    for name, value in (numbers | others).items():
        assert str(found[name.replace("-", "_")]) == str(value)
    assert (found["network"], found["keep"], found["random"]) == ("resnet50", ["layer1", "stem"], True)
    course.prune(["resnet50", "--out", "/o.safetensors"])
    assert course.ran.pop()[2:] == ["resnet50", "--out", "/o.safetensors"]


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--ratio", "1.0"], "'1.0' is not a number from 0 to below 1"),
        (["--heads", "-1"], "'-1' is not a number of at least 0"),
        (["--scope", "isomorfic"], "did you mean isomorphic?"),
        (["--criterion", "l3"], "there is no criterion 'l3'"),
        (["--round-to", "0"], "'0' is not a whole number of at least 1"),
        (["--out", "small.pth"], "a network's file is called NAME.safetensors"),
        (["--bathces", "3"], "there is no option '--bathces'"),
    ],
)
def test_words_that_cannot_be_meant(course, capsys, more, sentence):  # noqa: F811
    with pytest.raises(SystemExit):
        course.prune(["resnet50", "--out", "/o.safetensors", *more])
    assert sentence in capsys.readouterr().err and not course.ran
