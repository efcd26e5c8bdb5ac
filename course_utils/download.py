"""An arrival is a file on its way to $COURSE_DATA, downloaded or brought by you: it gets there whole or not at all.

Only `fetch` goes to the network, and only `python course.py data get NAME` calls it.
"""

import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.error import URLError

from course_utils.archives import SOURCES, Source, check_file, check_tensors, intact, is_pickle
from course_utils.files import cache_root, data_root, load_tensors, locked

PATIENCE = 60.0  # seconds without a byte until a download is given up


@contextmanager
def landing(source: Source) -> Generator[Path]:
    """An empty folder beside the data, for one process at a time; it vanishes however the block ends."""
    root, part = data_root(), data_root() / f".{source.name}.part"
    with locked(cache_root() / "data" / f"{source.name}.arriving"):
        new = not root.exists()
        try:
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            part.mkdir(parents=True)
            yield part
        except ConnectionError:
            raise
        except OSError as error:
            hint = "free some space, or set COURSE_DATA to a folder you may write to"
            raise OSError(f"cannot store {source.name} in {root} ({error}): {hint}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if new:
                with suppress(OSError):  # not empty: the data arrived
                    root.rmdir()


def put(arrived: Path, target: Path) -> None:
    """Move a whole file to where it belongs, in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    arrived.replace(target)


def fetch(source: Source) -> None:
    """Download the published files that are not there, or are there but not intact."""
    with landing(source) as folder:
        wanted = {name: md5 for name, md5 in source.files.items() if not intact(data_root() / name, md5)}
        for name, md5 in wanted.items():
            download(source, Path(name).name, md5, folder)
        for name in wanted:
            put(folder / Path(name).name, data_root() / name)


def download(source: Source, name: str, md5: str, folder: Path) -> None:
    """Download one file into `folder`, from the first of the source's addresses that has it intact."""
    from torchvision.datasets.utils import download_url

    reason, before = "", socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        for url in source.urls:
            try:
                return download_url(url + name, folder, name, md5)
            except (URLError, HTTPException, ConnectionError, TimeoutError, SSLError, RuntimeError) as error:
                reason = f"{url + name}: {error}"
    finally:
        socket.setdefaulttimeout(before)
    hint = f"is there a network? Else fetch it elsewhere and run `python course.py data import {name}`"
    raise ConnectionError(f"{name} could not be downloaded ({reason}): {hint}")


def bring(file: Path) -> Path:
    """Verify a file that the user has, and copy it to where the course looks for it."""
    source, target = known(file)
    if file.suffix == ".safetensors":
        check_tensors(source, load_tensors(file)[0], file)
    else:
        check_file(source, file)
    with landing(source) as folder:
        shutil.copyfile(file, folder / file.name)
        put(folder / file.name, target)
    return target


def known(file: Path) -> tuple[Source, Path]:
    """Which data set a file belongs to, by its name, and where it is to lie."""
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}")
    places = {Path(name).name: (source, name) for source in SOURCES.values() for name in source.files}
    places |= {f"{name}.safetensors": (source, f"{name}.safetensors") for name, source in SOURCES.items()}
    for source in SOURCES.values():
        if file.name in source.pickles:
            raise ValueError(f"{file} {is_pickle(source)}")
    if file.name not in places or not file.is_file():
        raise ValueError(f"{file} is none of the files that the course can import: {', '.join(places)}")
    source, name = places[file.name]
    return source, data_root() / name
