"""When may a result be used again? When nothing that it came from has changed. A key is a digest of all of that.

It covers the inputs, the code (syntax trees: comments do not count), and the data and networks that the code mentions.
"""

import ast
import dis
import hashlib
import importlib.util
import inspect
import textwrap
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor, nn

from course_utils.files import crc

PACKAGE = "course_utils"


def key_of(work: FunctionType, inputs: dict) -> str:
    """A digest of `work`, of everything it mentions, and of its inputs."""
    parts: dict[str, str] = {}
    mention(work.__name__, work, work, parts)
    text = repr(sorted(parts.items())) + repr(sorted(inputs.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mention(name: str, thing: Any, work: FunctionType, parts: dict[str, str]) -> None:
    """Note in `parts` what `thing` is; follow functions to the names they use, and dicts to their items."""
    if isinstance(thing, FunctionType | type) and thing.__module__.startswith(PACKAGE):
        parts[name] = thing.__qualname__
        parts |= {module: tree(module) for module in with_imports(thing.__module__)}
    elif isinstance(thing, FunctionType) and thing.__globals__ is work.__globals__:
        mention_function(thing, work, parts)
    elif isinstance(thing, nn.Module):
        parts[name] = repr([(n, crc(t)) for n, t in thing.state_dict().items()])
    elif isinstance(thing, Tensor):
        parts[name] = str(crc(thing))
    elif isinstance(thing, dict):
        for item, value in thing.items():
            mention(f"{name}[{item!r}]", value, work, parts)
    elif hasattr(thing, "checksum"):
        parts[name] = thing.checksum
    elif is_dataclass(thing):
        mention(name, {field.name: getattr(thing, field.name) for field in fields(thing) if field.repr}, work, parts)
    elif isinstance(thing, str | int | float | bool | tuple | list | None):
        parts[name] = repr(thing)


def mention_function(function: FunctionType, work: FunctionType, parts: dict[str, str]) -> None:
    """A function of the notebook: its own syntax tree, and whatever it takes from the notebook's names."""
    if function.__qualname__ in parts:
        return
    parts[function.__qualname__] = stripped(textwrap.dedent(inspect.getsource(function)))
    outside = {name: function.__globals__.get(name) for name in global_names(function.__code__)}
    for name, value in (outside | dict(inspect.getclosurevars(function).nonlocals)).items():
        mention(name, value, work, parts)


def global_names(code: CodeType) -> set[str]:
    """The global names that a function, and the functions inside it, use."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*(global_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def stripped(source: str) -> str:
    """The syntax tree of `source` as text, without comments, layout and docstrings."""
    parsed = ast.parse(source)
    for node in ast.walk(parsed):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(parsed)


@cache
def tree(module: str) -> str:
    """The digest of a course module's syntax tree."""
    return hashlib.sha256(stripped(source_of(module)).encode()).hexdigest()


@cache
def with_imports(module: str) -> frozenset[str]:
    """A course module, and the course modules that it imports."""
    nodes = ast.walk(ast.parse(source_of(module)))
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom) and (n.module or "").startswith(PACKAGE)]
    imported = {n.module for n in froms if n.module != PACKAGE} | {
        f"{PACKAGE}.{a.name}" for n in froms if n.module == PACKAGE for a in n.names
    }
    return frozenset({module}).union(*(with_imports(other) for other in imported))


def source_of(module: str) -> str:
    """The text of a course module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no course module {module}")
    return Path(spec.origin).read_text(encoding="utf-8")
