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
from functools import cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
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
    """Note in `parts` what `thing` is; follow functions, modules and containers to what they hold."""
    if hasattr(thing, "cache_parameters"):  # functools.cache remembers results: what counts is the function
        thing = thing.__wrapped__
    if isinstance(thing, FunctionType | type | ModuleType) and course_module(thing):
        parts[name] = getattr(thing, "__qualname__", thing.__name__)
        parts |= {module: tree(module) for module in with_imports(course_module(thing))}
    elif isinstance(thing, FunctionType | type) and thing.__module__ == work.__module__:
        mention_definition(name, thing, work, parts)
    elif isinstance(thing, FunctionType | type | ModuleType | BuiltinFunctionType):
        parts[name] = f"{getattr(thing, '__module__', '')} {thing.__name__}"  # of another library
    elif isinstance(thing, nn.Module):
        parts[name] = repr((str(thing), [(n, crc(t)) for n, t in thing.state_dict().items()]))
        mention(f"type({name})", type(thing), work, parts)
    elif isinstance(thing, Tensor | np.ndarray):
        parts[name] = str(crc(torch.as_tensor(thing)))
    elif hasattr(thing, "checksum"):
        parts[name] = thing.checksum
    elif isinstance(thing, str | int | float | complex | bytes | Path | torch.device | torch.dtype | None):
        parts[name] = repr(thing)
    else:
        for item, value in contents(name, thing).items():
            mention(f"{name}[{item!r}]", value, work, parts)


def contents(name: str, thing: Any) -> dict:
    """What is inside a container, item by item; refuses what cannot be looked into."""
    if isinstance(thing, dict):
        return {"": len(thing)} | thing
    if isinstance(thing, list | tuple):
        return {"": len(thing)} | dict(enumerate(thing))
    if isinstance(thing, set | frozenset):
        return dict(enumerate(sorted(thing, key=repr)))
    if isinstance(thing, partial):
        return {"function": thing.func, "args": thing.args, "keywords": thing.keywords}
    if is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in fields(thing) if field.repr}
    raise ValueError(f"{name} is a {type(thing).__name__}: nobody can tell whether it changed; make it in the function")


def course_module(thing: Any) -> str:
    """The course module that `thing` is or comes from, if any."""
    module = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
    return module if module.startswith(PACKAGE) else ""


def mention_definition(name: str, thing: Any, work: FunctionType, parts: dict[str, str]) -> None:
    """A function or class of the notebook: its own syntax tree, and whatever it takes from the notebook's names."""
    if name in parts:
        return
    if thing.__name__ == "<lambda>":
        raise ValueError(f"{name} is a lambda: give it a name with def, so that a change of it can be seen")
    inner = [thing] if isinstance(thing, FunctionType) else [f for f in map(plain, vars(thing).values()) if f]
    parts[name] = "\n".join(stripped(textwrap.dedent(inspect.getsource(f))) for f in inner)
    for function in inner:
        for used in global_names(function.__code__):
            if used in function.__globals__:
                mention(used, function.__globals__[used], work, parts)
        defaults = {"defaults": function.__defaults__, "keywords": function.__kwdefaults__}
        for inside, value in (defaults | dict(inspect.getclosurevars(function).nonlocals)).items():
            if getattr(value, "__wrapped__", value) is not thing:
                mention(f"{name}.{inside}", value, work, parts)


def plain(member: Any) -> FunctionType | None:
    """The function inside a method, static or cached method, or property; None for anything else."""
    for layer in ("__func__", "fget", "__wrapped__"):
        member = getattr(member, layer, member)
    return member if isinstance(member, FunctionType) else None


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
