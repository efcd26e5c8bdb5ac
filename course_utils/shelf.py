"""The shelf is what the data sets look like from the command line: `python course.py data [list | get NAME | …]`.

list (the default)  which data sets are here, where, what they need
get NAME            download one: the only command of the course that fetches data
import FILE         verify a file that you have, and copy it to $COURSE_DATA
verify [NAME]       read what is here completely: checksum and number of images
prepare             draw the course's own images, once
"""

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from course_utils.archives import SOURCES, Source, homes, published
from course_utils.data import Data
from course_utils.download import bring, fetch
from course_utils.files import data_root

Loaders = Mapping[str, Callable[[], Data]]


def standing(source: Source) -> Path | None:
    """Where a data set is read from, if it is here: the first of its possible places."""
    files = published(source)
    whole = files if len(files) == len(source.files) else []
    return next((place for place in [*homes(source), *whole] if place.is_file()), None)


def image_folders() -> list[Path]:
    """The folders under $COURSE_DATA that have the parts train and val."""
    root = data_root()
    return sorted(p for p in root.iterdir() if (p / "train").is_dir() and (p / "val").is_dir()) if root.is_dir() else []


def show(loaders: Loaders) -> None:
    """Print which data sets there are, which are here, and how to get the others."""
    rows = [("data set", "MB", "notebooks", "where it is, or how to get it")]
    rows.append(("solids", "43", "00, 01, 02", "in the course: drawn on this computer, once"))
    rows.append(("digits", "0", "-", "in scikit-learn, which comes with the course"))
    for name, source in SOURCES.items():
        place = standing(source) or f"not here: python course.py data get {name}"
        rows.append((name, str(source.megabytes), source.notebooks, str(place)))
    for place in image_folders():
        rows.append(("folder", "-", "-", f'here: folder("{place}")'))
    rows.append(("folder", "-", "-", "any folder of yours with train/CLASS/*.jpg and val/CLASS/*.jpg"))
    for name, megabytes, notebooks, where in rows:
        print(f"{name:9} {megabytes:>4}  {notebooks:11} {where}")
    print(f"Real data are looked for in {data_root()} (set COURSE_DATA to change that).")


def get(loaders: Loaders, name: str) -> None:
    """Read a data set; if it is not here, or its published files are not intact, download it first."""
    source = SOURCES[name]
    try:
        data = loaders[name]()
    except (FileNotFoundError, ValueError):
        if any(place.is_file() for place in homes(source)):
            raise  # the user's own tensors come first, and only the user may delete them
        fetch(source)
        data = loaders[name]()
    print(f"{summary(data)}  {standing(source)}")


def bring_in(loaders: Loaders, file: str) -> None:
    """Verify a file and copy it to $COURSE_DATA."""
    print(f"{file} is in order, and now also {bring(Path(file).expanduser().resolve())}")


def verify(loaders: Loaders, name: str = "") -> None:
    """Read a data set, or all that are here; tell about every bad one."""
    faults = []
    here = [other for other in loaders if other not in SOURCES or standing(SOURCES[other])]
    for each in [name] if name else here:
        try:
            print(summary(loaders[each]()), flush=True)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))


def summary(data: Data) -> str:
    """'cifar10   0123456789abcdef  train 45000, val 5000, test 10000'."""
    return f"{data.name:11} {data.checksum}  train {len(data.train)}, val {len(data.val)}, test {len(data.test)}"


def prepare(loaders: Loaders) -> None:
    """Draw the course's own images unless they are here; say so if that takes long."""
    line = threading.Timer(2, print, ("drawing the course's own images, once: less than a minute …",), {"flush": True})
    line.start()
    try:
        loaders["solids"]()
    finally:
        line.cancel()


# what each command is called, how many words follow it at least and at most, and what they are
COMMANDS = {
    "list": (show, 0, 0, ""),
    "get": (get, 1, 1, "NAME"),
    "import": (bring_in, 1, 1, "FILE"),
    "verify": (verify, 0, 1, "NAME"),
    "prepare": (prepare, 0, 0, ""),
}


def mistake(loaders: Loaders, command: str, words: list[str]) -> str:
    """What is wrong with the words of a command, in one sentence; nothing if they are right."""
    if command not in COMMANDS:
        return f"there is no command {command!r}: choose one of {', '.join(COMMANDS)}."
    names = {"get": SOURCES, "verify": loaders}.get(command, {})
    _, least, most, what = COMMANDS[command]
    if len(words) < least:
        return f"{command} needs a {what}" + (f": choose one of {', '.join(names)}." if names else ".")
    if len(words) > most:
        return f"{command} takes {f'one {what}' if most else 'nothing'}: {words[most]!r} is too much."
    if names and words and words[0] not in names:
        return f"there is no data set {words[0]!r} to {command}: choose one of {', '.join(names)}."
    return ""


def main(argv: list[str], loaders: Loaders) -> int:
    """One command; a mistyped one gives 2, one that fails gives 1, both with one sentence."""
    command, *words = argv or ["list"]
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    if sentence := mistake(loaders, command, words):
        print(sentence, file=sys.stderr)
        return 2
    try:
        COMMANDS[command][0](loaders, *words)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: nothing half-done was left behind.", file=sys.stderr)
        return 130
    return 0
