"""Real data sets: looked for under $COURSE_DATA, checked, and kept as tensors; never downloaded unasked.

`cifar10()`, `cifar100()`, `mnist()` and `folder(path)` bring them into a notebook; `python course.py data` lists them.
"""

import sys
import tarfile
import zlib
from pathlib import Path

from course_utils import shelf
from course_utils.archives import (
    SOURCES,
    Source,
    check_file,
    check_tensors,
    homes,
    is_pickle,
    published,
    read_cifar,
    read_mnist,
    way_out,
)
from course_utils.data import Data, digits, hold_out, make_data, solids
from course_utils.files import data_root, load_tensors, locked, save_tensors
from course_utils.pictures import folder

__all__ = ["cifar10", "cifar100", "folder", "mnist"]

UNREADABLE = (OSError, EOFError, ValueError, IndexError, tarfile.TarError, zlib.error)


def cifar10() -> Data:
    """CIFAR-10: 45,000 training, 5,000 validation and 10,000 test photographs of ten things, 32 × 32."""
    return load(SOURCES["cifar10"])


def cifar100() -> Data:
    """CIFAR-100: as many photographs as CIFAR-10, of a hundred things."""
    return load(SOURCES["cifar100"])


def mnist() -> Data:
    """MNIST: 55,000 training, 5,000 validation and 10,000 test images of handwritten digits, 28 × 28, grey."""
    return load(SOURCES["mnist"])


def load(source: Source) -> Data:
    """A published data set; the last of its training images are for validation."""
    path = stored(source)
    tensors, about = load_tensors(path)
    check_tensors(source, tensors, path)
    names = tuple(about.get("classes", "").split("\n"))
    classes = names if len(names) == len(source.classes) else source.classes
    train, test = (tensors[f"{part}_images"].permute(0, 3, 1, 2).contiguous() for part in ("train", "test"))
    parts = hold_out(train, tensors["train_labels"], source.sizes[1])
    return make_data(source.name, classes, parts | {"test": (test, tensors["test_labels"])})


def stored(source: Source) -> Path:
    """The file with the tensors of a data set: yours, or the one that is made, once, from the published files."""
    given, place = homes(source)
    if given.is_file() or place.is_file():
        return given if given.is_file() else place
    files = published(source)
    if len(files) < len(source.files):
        raise missing(source)
    with locked(place):
        if not place.is_file():
            convert(source, files, place)
    return place


def missing(source: Source) -> FileNotFoundError:
    """One sentence that says where a data set was looked for, and how to get it."""
    ways = f"run `python course.py data get {source.name}`, or set COURSE_DATA to the folder that holds it"
    for pickle in source.pickles:
        if (data_root() / pickle).exists():
            return FileNotFoundError(f"{data_root() / pickle} {is_pickle(source)} ({ways})")
    names = {path.name.removesuffix(".gz") for path in published(source)}
    absent = next(name for name in source.files if Path(name).name.removesuffix(".gz") not in names)
    return FileNotFoundError(f"{data_root()} has neither {source.name}.safetensors nor {absent}: {ways}")


def convert(source: Source, files: list[Path], place: Path) -> None:
    """Read the published files and store what is in them as tensors."""
    for path in files:
        if path.suffix == ".gz":
            check_file(source, path)
    origin = files[0] if len(files) == 1 else files[0].parent
    try:
        tensors, names = read_mnist(files) if source.name == "mnist" else read_cifar(files[0])
    except UNREADABLE as error:
        raise ValueError(f"{origin} cannot be read ({error}): {way_out(source)}") from error
    check_tensors(source, tensors, origin)
    save_tensors(tensors, place, classes="\n".join(names or source.classes))


LOADERS = {f.__name__: f for f in (solids, digits, cifar10, cifar100, mnist)}


def main(argv: list[str] | None = None) -> int:
    """The command line, `python course.py data`."""
    return shelf.main(sys.argv[1:] if argv is None else argv, LOADERS)


if __name__ == "__main__":
    sys.exit(main())
