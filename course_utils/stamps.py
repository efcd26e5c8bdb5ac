"""A stamp changes with everything that a notebook's run depends on, and not with its prose or outputs.

A run is used again as long as its stamp stays the same.
"""

import ast
import hashlib
import json
import os
from functools import cache
from pathlib import Path

HOME = Path(__file__).parent


def stamp(source: Path, parameters: dict[str, object]) -> str:
    """A digest of all that a run is of: the notebook's code, its parameters, the course, the packages, your data."""
    return digest(code(source), json.dumps(parameters, sort_keys=True, default=repr), package(), own_data())


def digest(*parts: str) -> str:
    """The SHA-256 of some texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def code(notebook: Path) -> str:
    """A notebook's code cells: neither its prose nor its outputs."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\0".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@cache
def package() -> str:
    """A digest of the course's modules (syntax trees), of the networks that it ships, and of requirements.lock."""
    trees = [path.stem + ast.dump(ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(HOME.glob("*.py"))]
    files = [path for path in [*sorted(HOME.glob("networks/*")), HOME.parent / "requirements.lock"] if path.is_file()]
    return digest(*trees, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))


def own_data() -> str:
    """Size and time of your own tensors, if you have some; all other data are drawn or pinned by the package."""
    place = Path(os.environ.get("COURSE_DATA") or Path.home() / "course-data").expanduser()
    found = [(path.name, path.stat()) for path in sorted(place.glob("*.safetensors"))]
    return repr([(name, about.st_size, about.st_mtime_ns) for name, about in found])
