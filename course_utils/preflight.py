"""Is this computer ready for the course? `python course.py check` looks at versions, disk, memory, data and threads."""

import os
import platform
import shutil
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from course_utils.data import solids
from course_utils.files import cache_root, data_root
from course_utils.measure import latency
from course_utils.models import resnet50
from course_utils.parents import SHIPPED, shipped
from course_utils.profiles import start

CORE = ("jupyterlab", "torch", "torchvision", "timm", "matplotlib", "papermill", "nbval")
Finding = tuple[bool, str, str]  # fine?, what, how it is


def versions() -> list[Finding]:
    """Python and the seven core packages."""
    found = [(sys.version_info >= (3, 11), "Python", platform.python_version())]
    for name in CORE:
        try:
            found.append((True, name, version(name)))
        except PackageNotFoundError:
            found.append((False, name, "is not installed: run `python course.py run` once"))
    return found


def disk() -> Finding:
    """Can the cache be written, and is there room for it?"""
    place = cache_root()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return False, "disk", f"cannot write to {place} ({error.strerror}): set COURSE_CACHE to another folder"
    free = shutil.disk_usage(place).free / 1e9
    return free > 1, "disk", f"{free:.0f} GB free for {place}" + ("" if free > 1 else ": the course needs 1 GB")


def embedded() -> Finding:
    """The data that need no network, and the three networks that come with the course."""
    sizes, began = start("smoke"), time.perf_counter()
    try:
        data = solids()
    except (OSError, ValueError) as error:
        return False, "data", str(error)
    missing = [seed for seed in sizes.parents if shipped(sizes, data, seed) is None]
    if missing:
        return False, "data", f"the shipped networks {missing} are absent from {SHIPPED}: get the course anew"
    return True, "data", f"{data.name}, checksum {data.checksum}, ready in {time.perf_counter() - began:.1f} s"


def real() -> Finding:
    """Real data are a bonus: nothing is wrong without them."""
    place = data_root()
    found = sorted(p.name for p in place.iterdir() if not p.name.startswith(".")) if place.is_dir() else []
    return True, "real data", f"{place}: {', '.join(found) or 'nothing yet (only the profile full needs it)'}"


def speed() -> Finding:
    """One thread per process; how fast is one here?"""
    x = torch.randn(8, 3, 32, 32)
    time_of = latency({"net": resnet50(width=0.125, blocks=(1, 1, 1, 1))}, x, repeats=5)["net"].median
    threads = torch.get_num_threads()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, which is fine"
    return threads == 1, "threads", f"{threads} of {os.cpu_count()} cores; {8000 / time_of:.0f} images/s; GPU: {gpu}"


def findings() -> list[Finding]:
    """Everything there is to say, in the order of its importance."""
    torch.set_num_threads(1)
    found = [*versions(), disk()]
    return [*found, embedded(), real(), speed()] if all(fine for fine, _, _ in found) else found


def main() -> int:
    """Print a table and one sentence."""
    found = findings()
    for fine, what, how in found:
        print(f"{'ok ' if fine else 'NO '} {what:12} {how}")
    bad = [what for fine, what, _ in found if not fine]
    ready = "This computer is ready: `python course.py lab` opens the course."
    print(f"Not ready: see {', '.join(bad)} above." if bad else ready)
    return bool(bad)


if __name__ == "__main__":
    raise SystemExit(main())
