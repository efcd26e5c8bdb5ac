"""Real data sets: read exactly, refused clearly, never half-written. All files here are small and made by the tests."""

import gzip
import hashlib
import io
import multiprocessing
import os
import random
import runpy
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from course_utils import archives, download, pictures, sources
from course_utils.archives import SOURCES

SIZES = (35, 15, 20)  # of the small copies: training, validation, test
ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty data folder and an empty cache, and data sets of 70 images."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    for name, source in SOURCES.items():
        monkeypatch.setitem(SOURCES, name, replace(source, sizes=SIZES))
    return tmp_path / "data"


def noise(*shape, below=256, seed=0):
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, below, shape, dtype=np.uint8)


def tar_of(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, blob in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))


def bless(name):
    """Let the md5 of the small files that lie there be the right ones."""
    root = Path(os.environ["COURSE_DATA"])
    files = {file: hashlib.md5((root / file).read_bytes()).hexdigest() for file in SOURCES[name].files}
    SOURCES[name] = replace(SOURCES[name], files=files)


def cifar10_archive(home):
    """An archive as published, shuffled; returns its pixels (n, channel, row, column) and labels in the right order."""
    pixels, labels = noise(70, 3, 32, 32), noise(70, below=10, seed=1)
    rows = [
        bytes([label]) + b"".join(image[c].tobytes() for c in range(3))
        for image, label in zip(pixels, labels, strict=True)
    ]
    blobs = {f"data_batch_{k + 1}.bin": b"".join(rows[10 * k : 10 * k + 10]) for k in (3, 0, 4, 2, 1)}
    blobs |= {"test_batch.bin": b"".join(rows[50:]), "readme.html": b"<p>hello", "batches.meta.txt": b"airplane\n"}
    tar_of(home / ARCHIVES["cifar10"], {f"cifar-10-batches-bin/{name}": blob for name, blob in blobs.items()})
    bless("cifar10")
    return pixels, labels


def cifar100_archive(home):
    pixels, fine, coarse = noise(70, 3, 32, 32), noise(70, below=100, seed=1), noise(70, below=20, seed=2)
    rows = [bytes([c, f]) + image.tobytes() for image, f, c in zip(pixels, fine, coarse, strict=True)]
    names = "\n".join(f"thing_{i}" for i in range(100))
    blobs = {"test.bin": b"".join(rows[50:]), "fine_label_names.txt": names.encode() + b"\n\n"}
    blobs |= {"coarse_label_names.txt": b"group\n", "train.bin": b"".join(rows[:50])}
    tar_of(home / ARCHIVES["cifar100"], {f"cifar-100-binary/{name}": blob for name, blob in blobs.items()})
    bless("cifar100")
    return pixels, fine


def mnist_files(home, zipped=True):
    pixels, labels = noise(70, 28, 28), noise(70, below=10, seed=1)
    raw = home / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, chosen in {"train": slice(50), "t10k": slice(50, 70)}.items():
        n = len(labels[chosen]).to_bytes(4, "big")
        side = (28).to_bytes(4, "big")
        images = b"\0\0\x08\x03" + n + side + side + pixels[chosen].tobytes()
        for name, blob in {
            "images-idx3": images,
            "labels-idx1": b"\0\0\x08\x01" + n + labels[chosen].tobytes(),
        }.items():
            path = raw / f"{part}-{name}-ubyte"
            (path.with_name(path.name + ".gz") if zipped else path).write_bytes(gzip.compress(blob) if zipped else blob)
    if zipped:
        bless("mnist")
    return pixels[:, None], labels


def tensors_of(pixels, labels):
    """What `unpack_data.py` writes: images (n, row, column, channel)."""
    nhwc = torch.stack([torch.stack([torch.from_numpy(c) for c in image], -1) for image in pixels])
    labels = torch.from_numpy(labels.astype(np.int64))
    tensors = {"train_images": nhwc[:50], "train_labels": labels[:50], "test_images": nhwc[50:]}
    return {k: v.clone() for k, v in (tensors | {"test_labels": labels[50:]}).items()}


def cifar10_tensors(home, **changes):
    pixels, labels = noise(70, 3, 32, 32), noise(70, below=10, seed=1)
    home.mkdir(exist_ok=True)
    tensors = tensors_of(pixels, labels) | changes
    save_file({k: v for k, v in tensors.items() if v is not None}, home / "cifar10.safetensors")
    return pixels, labels


def assert_same(data, pixels, labels):
    """Every pixel, every label, every split."""
    assert [len(split) for split in (data.train, data.val, data.test)] == list(SIZES)
    for split, part in ((data.train, slice(35)), (data.val, slice(35, 50)), (data.test, slice(50, 70))):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert np.array_equal(split.images.numpy(), pixels[part])
        assert split.labels.tolist() == labels[part].tolist()


def one_sentence(text):
    text = str(text).strip()
    assert text and "\n" not in text and "Traceback" not in text
    return text


def command(capsys, *words):
    """Exit code, what was printed, and what was said on stderr."""
    code = sources.main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


# --- each source, read exactly --------------------------------------------------------------------------------------


def test_the_table_holds_the_published_numbers():
    from torchvision import datasets

    for name, sizes in (("cifar10", (45000, 5000, 10000)), ("mnist", (55000, 5000, 10000))):
        assert SOURCES[name].sizes == sizes
    assert SOURCES["cifar10"].files == {ARCHIVES["cifar10"]: "c32a1d4ab5d03f1284b67883e8d87530"}
    assert SOURCES["cifar100"].files == {ARCHIVES["cifar100"]: "03b5dce01913d631647c71ecec9e9cb8"}
    assert {Path(f).name: m for f, m in SOURCES["mnist"].files.items()} == dict(datasets.MNIST.resources)


@pytest.mark.parametrize("make, load", [(cifar10_archive, "cifar10"), (cifar100_archive, "cifar100"),
                                        (mnist_files, "mnist"), (cifar10_tensors, "cifar10")])  # fmt: skip
def test_every_pixel_and_label_arrives(home, make, load):
    pixels, labels = make(home)
    first = getattr(sources, load)()
    assert_same(first, pixels, labels)
    assert getattr(sources, load)().checksum == first.checksum


def test_a_pixel_lies_where_the_format_says(home):
    cifar10_archive(home)
    with tarfile.open(home / ARCHIVES["cifar10"]) as tar:
        blob = tar.extractfile("cifar-10-batches-bin/data_batch_1.bin").read()
    image = sources.cifar10().train.images[7]
    for channel, row, column in ((0, 0, 1), (0, 1, 0), (1, 3, 17), (2, 31, 5)):
        assert image[channel, row, column] == blob[7 * 3073 + 1 + 1024 * channel + 32 * row + column]


def test_class_names(home):
    cifar100_archive(home)
    assert sources.cifar100().classes[:2] == ("thing_0", "thing_1") and len(sources.cifar100().classes) == 100
    cifar10_tensors(home)
    assert sources.cifar10().classes[3] == "cat"
    save_file(tensors_of(noise(70, 3, 32, 32), noise(70, below=100)), home / "cifar100.safetensors")
    assert sources.cifar100().classes[41] == "41"


def test_mnist_may_lie_there_unpacked(home):
    pixels, labels = mnist_files(home, zipped=False)
    assert_same(sources.mnist(), pixels, labels)


def test_the_cache_has_the_form_of_the_users_file(home):
    pixels, labels = cifar10_archive(home)
    sources.cifar10()
    (home / ARCHIVES["cifar10"]).unlink()
    (home.parent / "cache/data/cifar10.safetensors").rename(home / "cifar10.safetensors")
    assert_same(sources.cifar10(), pixels, labels)


def test_the_users_tensors_come_before_the_archive(home):
    pixels, labels = cifar10_tensors(home)
    (home / ARCHIVES["cifar10"]).write_bytes(b"never opened")
    assert_same(sources.cifar10(), pixels, labels)


# --- what is missing, corrupt or foreign ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_a_missing_set_names_the_place_and_two_ways_out(home, name):
    with pytest.raises(FileNotFoundError) as error:
        getattr(sources, name)()
    text = one_sentence(error.value)
    assert str(home) in text and f"python course.py data get {name}" in text and "COURSE_DATA" in text
    assert not home.exists() and not (home.parent / "cache").exists()


def test_one_of_four_files_is_missing(home):
    mnist_files(home)
    (home / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels"):
        sources.mnist()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_pickle_is_not_read(home, name, capsys):
    pickle = home / ARCHIVES[name].replace("binary", "python")
    tar_of(pickle, {"data_batch_1": b"\x80\x02."})
    with pytest.raises(FileNotFoundError, match="is a pickle") as error:
        getattr(sources, name)()
    assert ARCHIVES[name] in one_sentence(error.value)
    code, _, err = command(capsys, "import", str(pickle))
    assert code == 1 and "is a pickle" in one_sentence(err)


@pytest.mark.parametrize("name, make, harm", [
    ("cifar10", cifar10_archive, lambda blob: blob[: len(blob) // 2]),
    ("cifar100", cifar100_archive, lambda blob: blob[:-1] + bytes([blob[-1] ^ 1])),
    ("mnist", mnist_files, lambda blob: b""),
])  # fmt: skip
def test_a_wrong_md5_is_refused(home, name, make, harm):
    make(home)
    path = home / next(iter(SOURCES[name].files))
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ValueError) as error:
        getattr(sources, name)()
    assert str(path) in one_sentence(error.value) and f"data get {name}" in str(error.value)
    assert not list(home.parent.glob("cache/data/*.safetensors"))


@pytest.mark.parametrize("harm", [
    lambda path: path.write_bytes(path.read_bytes()[:5000]),
    lambda path: path.write_bytes(b"no archive"),
    lambda path: tar_of(path, {"cifar-10-batches-bin/data_batch_1.bin": bytes(3073 * 50)}),
    lambda path: tar_of(path, {"data_batch_1.bin": bytes(3073 * 49), "test_batch.bin": bytes(3073 * 20)}),
    lambda path: tar_of(path, {"data_batch_1.bin": bytes(3073 * 50 - 1), "test_batch.bin": bytes(3073 * 20)}),
    lambda path: tar_of(path, {"data_batch_1.bin": b"\xff" * 3073 * 50, "test_batch.bin": bytes(3073 * 20)}),
])  # fmt: skip
def test_a_bad_archive_with_a_right_md5_is_refused(home, harm):
    cifar10_archive(home)
    harm(home / ARCHIVES["cifar10"])
    bless("cifar10")
    with pytest.raises(ValueError) as error:
        sources.cifar10()
    assert ARCHIVES["cifar10"] in one_sentence(error.value)
    assert not list(home.parent.glob("cache/data/*.safetensors"))


@pytest.mark.parametrize("blob", [b"", b"\0\0\x08", b"\0\0\x0d\x03", b"\0\0\x08\x03\0\0", b"\0\0\x08\x01\0\0\0\x09abc"])
def test_a_bad_idx_file_is_refused(home, blob):
    mnist_files(home, zipped=False)
    (home / "MNIST/raw/train-images-idx3-ubyte").write_bytes(blob)
    with pytest.raises(ValueError) as error:
        sources.mnist()
    assert "train-images-idx3-ubyte" in one_sentence(error.value)


@pytest.mark.parametrize("changes, said", [
    ({"test_labels": None}, "it has no test_labels"),
    ({"train_images": torch.zeros(50, 3, 32, 32, dtype=torch.uint8)}, "train_images has the shape (50, 3, 32, 32)"),
    ({"train_images": torch.zeros(50, 32, 32, 3)}, "train_images is torch.float32"),
    ({"test_images": torch.zeros(19, 32, 32, 3, dtype=torch.uint8)}, "test_images has the shape (19,"),
    ({"test_labels": torch.zeros(20, dtype=torch.int32)}, "test_labels is torch.int32"),
    ({"train_labels": torch.full((50,), 10)}, "train_labels go from 10 to 10, not from 0 to 9"),
    ({"train_labels": torch.full((50,), -1)}, "train_labels go from -1 to -1"),
])  # fmt: skip
def test_foreign_tensors_are_refused(home, changes, said, capsys):
    cifar10_tensors(home, **changes)
    with pytest.raises(ValueError) as error:
        sources.cifar10()
    text = one_sentence(error.value)
    assert said in text and str(home / "cifar10.safetensors") in text and "delete it" in text
    code, _, err = command(capsys, "verify", "cifar10")
    assert code == 1 and said in one_sentence(err)


@pytest.mark.parametrize("place", ["data", "cache/data"])
def test_a_truncated_file_of_tensors_is_refused(home, place):
    cifar10_tensors(home)
    path = home.parent / place / "cifar10.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    blob = (home / "cifar10.safetensors").read_bytes()
    (home / "cifar10.safetensors").unlink()
    path.write_bytes(blob[:-100])
    with pytest.raises(ValueError) as error:
        sources.cifar10()
    assert str(path) in one_sentence(error.value) and "delete it" in str(error.value)


def test_a_cache_that_cannot_be_written(home, monkeypatch):
    cifar10_archive(home)
    monkeypatch.setenv("COURSE_CACHE", str(home / ARCHIVES["cifar10"] / "below"))
    with pytest.raises(OSError) as error:
        sources.cifar10()
    assert "COURSE_CACHE" in one_sentence(error.value)


# --- many at once ---------------------------------------------------------------------------------------------------


def load_in_a_process(barrier, counter, source):
    """Load when all are ready; leave a mark for every conversion."""
    convert = sources.convert

    def counted(*args):
        with counter.open("a") as file:
            file.write("x")
        time.sleep(0.3)
        convert(*args)

    sources.convert = counted
    SOURCES["cifar10"] = source
    barrier.wait(60)
    assert len(sources.cifar10().train) == SIZES[0]


def test_four_processes_convert_once(home, tmp_path):
    cifar10_archive(home)
    spawn = multiprocessing.get_context("spawn")
    barrier, counter = spawn.Barrier(4), tmp_path / "counter"
    args = (barrier, counter, SOURCES["cifar10"])
    crowd = [spawn.Process(target=load_in_a_process, args=args) for _ in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(100)
    assert [process.exitcode for process in crowd] == [0] * 4
    assert counter.read_text() == "x"
    assert not list(tmp_path.rglob("*.part"))


# --- downloads: only when asked -------------------------------------------------------------------------------------


class Answer(io.BytesIO):
    """What urlopen returns."""

    def __init__(self, url, blob):
        super().__init__(blob)
        self.url, self.length = url, len(blob)


def network(monkeypatch, answers):
    """A network that has these files (bytes) or none at all; returns the list of addresses that were asked for."""
    asked = []

    def urlopen(request, *args, **more):
        asked.append(request.full_url)
        name = request.full_url.rpartition("/")[2]
        if name not in answers:
            raise URLError("Name or service not known")
        return Answer(request.full_url, answers[name])

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


def published_blobs(home, make):
    """The files that `make` writes, as they would come from the network, and what is in them."""
    truth = make(home)
    blobs = {}
    for path in sorted(home.rglob("*.gz")):
        blobs[path.name] = path.read_bytes()
        path.unlink()
    for path in sorted([*home.rglob("*"), home], reverse=True):
        path.rmdir()
    return blobs, truth


@pytest.mark.parametrize("make, name", [(cifar10_archive, "cifar10"), (mnist_files, "mnist")])
def test_get_downloads_once(home, monkeypatch, capsys, make, name):
    blobs, truth = published_blobs(home, make)
    asked = network(monkeypatch, blobs)
    code, out, _ = command(capsys, "get", name)
    assert code == 0 and "train 35, val 15, test 20" in out and asked
    assert_same(getattr(sources, name)(), *truth)
    assert {str(p.relative_to(home)) for p in home.rglob("*.gz")} == set(SOURCES[name].files)
    assert not list(home.rglob("*.part"))
    asked.clear()
    assert command(capsys, "get", name)[0] == 0 and not asked


def test_loading_never_downloads(home, monkeypatch):
    blobs, _ = published_blobs(home, cifar10_archive)
    asked = network(monkeypatch, blobs)
    with pytest.raises(FileNotFoundError):
        sources.cifar10()
    assert not asked


def test_get_replaces_a_corrupt_archive_and_clears_what_a_killed_one_left(home, monkeypatch, capsys):
    blobs, truth = published_blobs(home, cifar10_archive)
    network(monkeypatch, blobs)
    (home / ".cifar10.part").mkdir(parents=True)
    (home / ".cifar10.part" / ARCHIVES["cifar10"]).write_bytes(b"half")
    (home / ARCHIVES["cifar10"]).write_bytes(b"half")
    assert command(capsys, "get", "cifar10")[0] == 0
    assert_same(sources.cifar10(), *truth)
    assert [p.name for p in home.iterdir()] == [ARCHIVES["cifar10"]]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_no_network(home, monkeypatch, capsys, name):
    asked = network(monkeypatch, {})
    code, out, err = command(capsys, "get", name)
    assert code == 1 and not out and asked
    assert "python course.py data import" in one_sentence(err) and "network" in err
    assert not home.exists()


def test_a_download_that_breaks_leaves_nothing(home, monkeypatch, capsys):
    blobs, _ = published_blobs(home, cifar10_archive)
    network(monkeypatch, {name: blob[:-10] for name, blob in blobs.items()})
    code, _, err = command(capsys, "get", "cifar10")
    assert code == 1 and "data import" in err.strip().splitlines()[-1] and "Traceback" not in err
    assert not home.exists()


def test_get_leaves_bad_tensors_to_the_user(home, monkeypatch, capsys):
    asked = network(monkeypatch, {})
    cifar10_tensors(home, test_labels=None)
    code, _, err = command(capsys, "get", "cifar10")
    assert code == 1 and "delete it" in one_sentence(err) and not asked


# --- import ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, file", [(cifar10_archive, ARCHIVES["cifar10"]), (cifar10_tensors, "cifar10.safetensors")]
)
def test_import_copies_a_good_file(home, tmp_path, capsys, make, file):
    truth = make(home)
    mine = tmp_path / "Down loads" / file
    mine.parent.mkdir()
    (home / file).rename(mine)
    code, out, err = command(capsys, "import", str(mine))
    assert code == 0 and not err and str(home / file) in out
    assert_same(sources.cifar10(), *truth)
    assert mine.is_file() and [p.name for p in home.iterdir()] == [file]


def test_import_puts_mnist_where_torchvision_does(home, tmp_path, capsys):
    blobs, truth = published_blobs(home, mnist_files)
    for name, blob in blobs.items():
        (tmp_path / name).write_bytes(blob)
        assert command(capsys, "import", str(tmp_path / name))[0] == 0
    assert_same(sources.mnist(), *truth)


@pytest.mark.parametrize("file, blob, said", [
    (ARCHIVES["cifar10"], b"half", "md5"),
    ("cifar10.safetensors", b"half", "truncated"),
    ("holiday.zip", b"PK", "none of the files"),
    ("absent.tar.gz", None, "there is no file"),
])  # fmt: skip
def test_import_refuses_a_bad_file(home, tmp_path, capsys, file, blob, said):
    if blob is not None:
        (tmp_path / file).write_bytes(blob)
    code, _, err = command(capsys, "import", str(tmp_path / file))
    assert code == 1 and said in one_sentence(err) and file in err
    assert not home.exists()


@pytest.mark.parametrize("blow, code", [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)])
def test_an_interrupted_import_leaves_nothing(home, tmp_path, monkeypatch, capsys, blow, code):
    cifar10_archive(home)
    mine = tmp_path / ARCHIVES["cifar10"]
    (home / mine.name).rename(mine)
    home.rmdir()

    def half(origin, target):
        Path(target).write_bytes(Path(origin).read_bytes()[:100])
        raise blow

    monkeypatch.setattr(download.shutil, "copyfile", half)
    got, _, err = command(capsys, "import", str(mine))
    assert got == code and one_sentence(err)
    assert not home.exists() and mine.is_file()


def test_import_into_a_place_that_cannot_be_written(home, tmp_path, monkeypatch, capsys):
    cifar10_tensors(home)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "file" / "below"))
    code, _, err = command(capsys, "import", str(home / "cifar10.safetensors"))
    assert code == 1 and "COURSE_DATA" in one_sentence(err)


# --- the other commands ---------------------------------------------------------------------------------------------


def test_list_tells_what_is_here(home, capsys):
    cifar10_tensors(home)
    (home / "birds" / "train").mkdir(parents=True)
    (home / "birds" / "val").mkdir()
    code, out, err = command(capsys)
    assert code == 0 and not err
    assert str(home / "cifar10.safetensors") in out and "data get cifar100" in out and "data get mnist" in out
    assert "data get cifar10\n" not in out and "solids" in out and "digits" in out and str(home / "birds") in out


def test_verify_prints_checksums_and_names_every_bad_set(home, monkeypatch, capsys):
    cifar10_tensors(home)
    monkeypatch.delitem(sources.LOADERS, "solids")
    monkeypatch.setitem(sources.LOADERS, "digits", lambda: replace(sources.cifar10(), name="digits"))
    code, out, err = command(capsys, "verify")
    assert code == 0 and not err and "digits" in out and "mnist" not in out
    assert sources.cifar10().checksum in out and "train 35, val 15, test 20" in out
    mnist_files(home)
    (home / "MNIST/raw/train-labels-idx1-ubyte.gz").write_bytes(b"")
    code, out, err = command(capsys, "verify")
    assert code == 1 and "cifar10" in out and "train-labels" in one_sentence(err)
    code, _, err = command(capsys, "verify", "cifar100")
    assert code == 1 and "data get cifar100" in one_sentence(err)


def test_prepare_draws_the_solids(home, monkeypatch, capsys):
    drawn = []
    monkeypatch.setitem(sources.LOADERS, "solids", lambda: drawn.append(1))
    assert command(capsys, "prepare") == (0, "", "") and drawn == [1]


@pytest.mark.parametrize("words, said", [
    (("fetch",), "'fetch'"), (("get", "cifar11"), "'cifar11'"), (("get", "solids"), "'solids'"), (("get",), "NAME"),
    (("verify", "imagenet"), "'imagenet'"), (("import",), "FILE"), (("list", "x"), "'x'"),
    (("get", "cifar10", "mnist"), "'mnist'"),
])  # fmt: skip
def test_mistyped_commands(home, capsys, words, said):
    code, out, err = command(capsys, *words)
    assert code == 2 and not out and said in one_sentence(err)
    assert "cifar10" in err or words[0] not in ("get", "verify") or len(words) > 2
    assert not home.exists()


def test_the_module_is_a_command(home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sources", "get", "nonsense"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(sources.__file__), run_name="__main__")
    assert end.value.code == 2 and "'nonsense'" in one_sentence(capsys.readouterr().err)


# --- a folder of images ---------------------------------------------------------------------------------------------


def image_folder(root, sizes=((8, 8),), parts=("train", "val", "test"), classes=("pear", "apple", "fig"), per_class=3):
    """Random PNG and BMP images; returns {part: [(class, pixels)]} in the order of the names."""
    truth, shapes = {}, random.Random(0)
    for part in parts:
        for kind in sorted(classes):
            for i in range(per_class):
                height, width = shapes.choice(sizes)
                pixels = noise(height, width, 3, seed=shapes.randrange(10**6))
                path = root / part / kind / f"{i}.{('png', 'bmp')[i % 2]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
                truth.setdefault(part, []).append((kind, pixels))
    return truth


def assert_pictures(data, split, truth):
    assert [data.classes[label] for label in split.labels] == [kind for kind, _ in truth]
    for image, (_, pixels) in zip(split.images, truth, strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)


def test_folder_keeps_every_pixel(home, tmp_path):
    truth = image_folder(tmp_path / "fruit")
    data = sources.folder(tmp_path / "fruit", size=8)
    assert data.classes == ("apple", "fig", "pear") and data.train.images.dtype == torch.uint8
    for part, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        assert_pictures(data, split, truth[part])


def test_folder_without_test_halves_val(home, tmp_path):
    truth = image_folder(tmp_path / "fruit", parts=("train", "val"))
    data = sources.folder(tmp_path / "fruit", size=8)
    assert_pictures(data, data.val, truth["val"][0::2])
    assert_pictures(data, data.test, truth["val"][1::2])


def test_folder_resizes_the_short_side_and_keeps_the_middle(home, tmp_path):
    from torchvision.transforms import functional

    truth = image_folder(tmp_path / "fruit", sizes=((20, 31), (33, 17), (16, 16), (9, 40)))
    data = sources.folder(tmp_path / "fruit", size=12)
    for image, (_, pixels) in zip(data.train.images, truth["train"], strict=True):
        expected = functional.center_crop(functional.resize(Image.fromarray(pixels), [12]), [12, 12])
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_a_class_may_be_absent_from_val(home, tmp_path):
    image_folder(tmp_path / "fruit")
    image_folder(tmp_path / "fruit", parts=("train",), classes=("banana",))
    (tmp_path / "fruit" / "train" / ".ipynb_checkpoints").mkdir()
    data = sources.folder(tmp_path / "fruit", size=8)
    assert data.classes == ("apple", "banana", "fig", "pear")
    assert data.val.labels.unique().tolist() == [0, 2, 3]


def test_folder_is_read_once_and_again_when_it_changes(home, tmp_path, monkeypatch):
    image_folder(tmp_path / "fruit")
    read, real = [], pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda path, size: read.append(path) or real(path, size))
    first = sources.folder(tmp_path / "fruit", size=8)
    assert sources.folder(tmp_path / "fruit", size=8).checksum == first.checksum and len(read) == 27
    assert sources.folder(tmp_path / "fruit", size=4).train.images.shape[-1] == 4 and len(read) == 54
    Image.fromarray(noise(8, 8, 3, seed=9)).save(tmp_path / "fruit/train/fig/0.png")
    os.utime(tmp_path / "fruit/train/fig/0.png", (1, 1))
    assert sources.folder(tmp_path / "fruit", size=8).checksum != first.checksum and len(read) == 81


def test_a_photograph_stands_upright(home, tmp_path):
    image_folder(tmp_path / "fruit")
    pixels = noise(8, 8, 3)
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "fruit/train/apple/0.png", exif=turned)
    assert np.array_equal(
        sources.folder(tmp_path / "fruit", size=8).train.images[0].permute(1, 2, 0), pixels[::-1, ::-1]
    )


@pytest.mark.parametrize("blob", [b"", b"not an image", "half"])
def test_a_corrupt_image_is_named(home, tmp_path, blob):
    image_folder(tmp_path / "fruit")
    bad = tmp_path / "fruit/val/fig/1.bmp"
    bad.write_bytes(bad.read_bytes()[:100] if blob == "half" else blob)
    with pytest.raises(ValueError) as error:
        sources.folder(tmp_path / "fruit", size=8)
    assert str(bad) in one_sentence(error.value)
    assert not list(home.parent.glob("cache/data/*.safetensors"))


def test_classes_that_train_lacks(home, tmp_path):
    image_folder(tmp_path / "fruit")
    image_folder(tmp_path / "fruit", parts=("test",), classes=("turnip",))
    with pytest.raises(ValueError, match="turnip") as error:
        sources.folder(tmp_path / "fruit", size=8)
    assert str(tmp_path / "fruit" / "test") in one_sentence(error.value)


@pytest.mark.parametrize("make, said", [
    (lambda root: image_folder(root.parent, parts=(root.name,)), "train/CLASS and val/CLASS"),
    (lambda root: image_folder(root, parts=("train", "test")), "no folder val"),
    (lambda root: (image_folder(root), (root / "train/kiwi").mkdir()), "kiwi"),
    (lambda root: (image_folder(root, parts=("train",)), (root / "val").mkdir()), "val"),
    (lambda root: (image_folder(root, parts=("train",)), (root / "val/fig").mkdir(parents=True)), "val"),
    (lambda root: None, "there is no folder"),
])  # fmt: skip
def test_folders_of_another_form(home, tmp_path, make, said):
    make(tmp_path / "fruit")
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        sources.folder(tmp_path / "fruit", size=8)
    assert str(tmp_path / "fruit") in one_sentence(error.value)


@pytest.mark.parametrize("size", [0, -3, 8.5, "big"])
def test_a_size_that_is_none(home, tmp_path, size):
    with pytest.raises(ValueError, match="whole number"):
        sources.folder(tmp_path, size=size)


def test_way_out_names_a_command():
    assert "python course.py data get mnist" in archives.way_out(SOURCES["mnist"])
