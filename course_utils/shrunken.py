"""A shrunken network as two files: its tensors (.safetensors), and beside them (.json) what it is made from.

The architecture is built by its name, every tensor gets the shape it has in the file, and the sizes that a layer notes
for itself (num_heads, groups, …) become those in the file: nothing is unpickled, and no object of before is needed.
"""

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from course_utils import zoo
from course_utils.files import cache_root, load_tensors, locked, new_file, save_tensors
from course_utils.fitting import fill, misfit, set_sizes, sizes_of, tensors_of, unlike
from course_utils.zoo import Like

FORMAT = 1
NEEDED = {"format": int, "like": dict, "sha256": str, "sizes": dict, "about": dict}
PICKLES = (".pth", ".pt", ".bin", ".pkl", ".th")


def beside(file: Path) -> Path:
    """The description of a network's file."""
    if file.suffix != ".safetensors":
        way = "; bring it in with `python course.py import`" if file.suffix in PICKLES else ""
        raise ValueError(f"{file} is no file of a shrunken network, whose name ends in .safetensors{way}")
    return file.with_suffix(".json")


def coming(file: Path) -> Path:
    """Where new tensors wait until the description names them."""
    return file.with_name(f".{file.name}.new")


def digest(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def seal(record: dict) -> str:
    """A checksum of what a description says about the network; the tensors' file carries it."""
    parts = {name: record[name] for name in ("format", "like", "sizes", "kept") if name in record}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save(model: nn.Module, file: Path, like: Like, kept: dict | None = None, **about: Any) -> None:
    """Write a network that was made from the architecture `like`: both files new, or both as they were."""
    fresh = zoo.outline(like)
    tensors = tensors_of(model, fresh)
    if wrong := misfit(tensors, fresh) or unlike(model, fresh):
        raise ValueError(f"this network was not made from {zoo.title(like)}: {wrong}")
    record = {"format": FORMAT, "like": like, "sizes": sizes_of(model, fresh), "about": about}
    try:
        text = json.dumps(record | ({"kept": kept} if kept else {}))
    except TypeError as error:
        raise ValueError(f"a file can hold numbers, words, lists and dicts about a network ({error})") from error
    write(tensors, json.loads(text), Path(file))


def write(tensors: dict[str, Tensor], record: dict, file: Path) -> None:
    """The new tensors first, under another name; then the description, which now holds; then their own name."""
    place, waiting, text = beside(file), coming(file), ""
    with locked(cache_root() / "locks" / hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]):
        try:
            save_tensors(tensors, waiting, record=seal(record))
            text = json.dumps({**record, "sha256": digest(waiting)}, indent=1) + "\n"
            with new_file(place) as part:
                part.write_text(text, encoding="utf-8")
            waiting.chmod(stat.S_IMODE(place.stat().st_mode))  # readable by whom the description is readable
            waiting.replace(file)
        except BaseException:
            if not (place.is_file() and place.read_text(encoding="utf-8") == text):
                waiting.unlink(missing_ok=True)
            raise


def read(file: Path) -> dict:
    """The description of a network's file."""
    place = beside(file)
    for path in (file, place):
        if not path.is_file() and not (path == file and coming(file).is_file()):
            raise FileNotFoundError(f"there is no file {path}; a shrunken network is {file.name} and {place.name}")
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is damaged, or no description of a shrunken network ({error})") from error
    if isinstance(record, dict) and isinstance(record.get("format"), int) and record["format"] > FORMAT:
        raise ValueError(f"{place} has format {record['format']}, and this course reads {FORMAT}: update the course")
    if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in NEEDED.items()):
        raise ValueError(f"{place} is no description of a shrunken network: it lacks one of {', '.join(NEEDED)}")
    return record


def tensors_for(file: Path, record: dict) -> dict[str, Tensor]:
    """The tensors that a description belongs to; after a kill they may still be under the name they waited with."""
    for place in (file, coming(file), file):  # a writer may be giving them their own name at this moment
        if place.is_file() and digest(place) == record["sha256"]:
            tensors, about = load_tensors(place)
            if about.get("record") != seal(record):
                raise ValueError(f"{beside(file)} was altered since it was saved with {file.name}")
            return tensors
    raise ValueError(f"{file} was altered, or {beside(file).name} is that of another file: their checksums differ")


def opened(file: Path) -> tuple[nn.Module, Like]:
    """The network in a file, in evaluation mode, and the architecture that it was made from."""
    record = read(file)
    tensors, like = tensors_for(file, record), record["like"]
    try:
        model = zoo.outline(zoo.checked(like))
    except ValueError as error:
        raise ValueError(f"{beside(file)}: {error}") from error
    try:
        if wrong := misfit(tensors, model):
            raise ValueError(wrong)
        fill(model, tensors)
        set_sizes(model, record["sizes"])
    except ValueError as error:
        raise ValueError(f"{file} belongs to another architecture than {zoo.title(like)}: {error}") from error
    return model.eval(), like


def load(file: Path) -> nn.Module:
    """The network in a file, in evaluation mode."""
    return opened(Path(file))[0]


def open_network(word: str, classes: int | None = None, random: bool = False) -> tuple[nn.Module, Like]:
    """The network that a file or a name stands for, and its architecture; random weights only where asked for."""
    file = Path(word)
    if file.is_dir() and len(file.parts) > 1:
        raise ValueError(f"{file} is a folder: name a file of a network in it, such as {file / 'best.safetensors'}")
    if file.suffix not in (".safetensors", ".json", *PICKLES) and not file.is_file():
        like = zoo.like_of(word, classes)
        return (zoo.build(like) if random else zoo.trained(like)), like
    model, like = opened(file)
    if classes and zoo.classes_of(model) != classes:
        raise ValueError(f"{file} tells {zoo.classes_of(model)} classes apart, not {classes}")
    return model, like
