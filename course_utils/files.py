"""Where things lie, and how they are written: whole or not at all. Tensors become safetensors files, never pickles."""

import os
import tempfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent


def cache_root() -> Path:
    """What the course makes on this computer: `.course/` beside the notebooks, or $COURSE_CACHE."""
    return Path(os.environ.get("COURSE_CACHE") or ROOT / ".course").expanduser().resolve()


def data_root() -> Path:
    """Where real data and weights are looked for: $COURSE_DATA, or `course-data` in your home folder."""
    return Path(os.environ.get("COURSE_DATA") or Path.home() / "course-data").expanduser().resolve()


@contextmanager
def new_file(path: Path) -> Generator[Path]:
    """A temporary path that takes the place of `path` when the block ends well, and vanishes when it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)


def writable(folder: Path) -> None:
    """Refuse a folder for results that cannot be made or written in, before the work."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"--out: cannot write in {folder} ({error.strerror}): choose another place") from error


def unwritable(path: Path, error: Exception) -> OSError:
    """One sentence for a full disk, a read-only folder, a file where a folder should be."""
    reason = getattr(error, "strerror", None) or error
    ours = path.absolute().is_relative_to(cache_root())
    way = "set COURSE_CACHE to a folder you may write to" if ours else "choose another place"
    return OSError(f"cannot write {path}: {reason}; free some space, or {way}")


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Only one process at a time is inside this block for this `path`; a killed process lets go by itself."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"))
        lock.acquire()
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def save_tensors(tensors: dict[str, Tensor], path: Path, **about: str) -> None:
    """Write `tensors` and some words `about` them to one safetensors file."""
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    about["crc"] = repr(sorted((name, crc(t)) for name, t in whole.items()))
    with new_file(path) as part:
        try:
            save_file(whole, part, metadata=about)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def crc(tensor: Tensor) -> int:
    """A quick checksum of a tensor."""
    return zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a safetensors file and the words about them."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
        sums = about.pop("crc", None)
        if sums and sums != repr(sorted((name, crc(t)) for name, t in tensors.items())):
            raise SafetensorError("its checksums do not fit")
        return tensors, about
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated, corrupt or no safetensors file ({error}): delete it") from error
