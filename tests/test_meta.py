"""The house keeps its own rules: reading order, lengths, and notebooks that say only what they computed."""

import ast
import json
import re
import statistics
from pathlib import Path

import pytest

from course_utils.keys import stripped

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "course_utils").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHOWN = (
    "masks",
    "scores",
    "curvature",
    "units",
    "slimming",
    "activity",
    "regression",
    "rebuild",
    "scopes",
    "budgets",
    "sparse",
    "speed",
    "reach",
    "grains",
    "schedules",
    "tickets",
    "channels",
    "importance",
    "heads",
    "kinds",
    "arenas",
    "distill",
    "graphs",
    "measure",
)


def order() -> list[str]:
    doc = ast.get_docstring(ast.parse((ROOT / "course_utils/__init__.py").read_text(encoding="utf-8")))
    return doc.split("\n\n")[1].split()


def notebook(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(c["source"]) for c in notebook(path)["cells"] if c["cell_type"] == kind]


def course_imports(tree: ast.AST) -> list[tuple[str, str]]:
    """(module, name) of every import from the course."""
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("course_utils")]
    pairs = [(n.module, a.name) for n in froms for a in n.names]
    return [(name, "") if module == "course_utils" else (module.split(".")[1], name) for module, name in pairs]


def test_the_reading_order_names_every_module_once():
    assert sorted(order()) == sorted(p.stem for p in PACKAGE if p.stem != "__init__")


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: p.stem)
def test_imports_go_upward_only(path):
    place = {name: i for i, name in enumerate(order())}
    for module, _ in course_imports(ast.parse(path.read_text(encoding="utf-8"))):
        assert place[module] < place.get(path.stem, -1), f"{path.stem} imports {module}, which comes later"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: p.stem)
def test_functions_are_short_and_explained_and_nothing_is_unpickled(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 30, f"{node.name} has over 30 lines"
        assert not isinstance(node, ast.ExceptHandler) or node.type is not None
    for node in tree.body:
        assert not isinstance(node, ast.FunctionDef) or ast.get_docstring(node), f"{node.name} says not what it does"
    assert not re.search(r"weights_only\s*=\s*False|^\s*import pickle|pickle\.load", text, re.MULTILINE)


def definitions(source: str) -> dict[str, str]:
    """Functions and classes defined at the top of `source`, as syntax trees without annotations."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.arg):
                    inner.annotation = None
                if isinstance(inner, ast.FunctionDef):
                    inner.returns = None
            found[node.name] = stripped(ast.unparse(node))
    return found


LIBRARY = {n: tree for p in PACKAGE for n, tree in definitions(p.read_text(encoding="utf-8")).items()}


def disagreements(source: str) -> list[str]:
    return [name for name, tree in definitions(source).items() if LIBRARY.get(name, tree) != tree]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_name_defined_twice_is_the_same_twice(path):
    assert disagreements("\n".join(cells(path, "code"))) == []


def test_a_drifted_definition_would_be_seen():
    assert disagreements("def sparsity_of(masks):\n    return 0.5") == ["sparsity_of"]
    assert disagreements("def constant(progress):\n    '''Another docstring.'''\n    return 1.0  # and a comment") == []


def taught_until(path: Path) -> set[str]:
    """Names that this notebook or an earlier one shows or defines."""
    taught: set[str] = set()
    for notebook in NOTEBOOKS[: NOTEBOOKS.index(path) + 1]:
        source = "\n".join(cells(notebook, "code"))
        taught |= set(definitions(source)) | set(re.findall(r"\bshow\((\w+)\)", source))
        loops = re.findall(r"for \w+ in \(([\w, ]+)\):\n\s+plots\.show\(", source)
        taught |= {name.strip() for names in loops for name in names.split(",")}
    return taught


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_is_imported_was_shown(path):
    used = [(m, n) for m, n in course_imports(ast.parse("\n".join(cells(path, "code")))) if m in SHOWN]
    assert [f"{m}.{n}" for m, n in used if n not in taught_until(path)] == []


PARTS = {
    "one H1": lambda text, code: len(re.findall(r"^# ", text, re.MULTILINE)) == 1,
    "card with minutes": lambda text, code: "**Minutes**" in text and "**You will have shown**" in text,
    "three recall questions": lambda text, code: text.split("\n## ")[1].count("<summary>") == 3,
    "prediction": lambda text, code: "exercises.predict(" in code and "= None  #" in code,
    "exercise with minutes": lambda text, code: re.search(r"## Exercise.*\(\d+ minutes, (easy|medium|hard)\)", text),
    "stub that returns None": lambda text, code: re.search(r"def my_\w+\(.*?return None", code, re.DOTALL),
    "check": lambda text, code: "exercises.check(" in code,
    "show": lambda text, code: "plots.show(" in code,
    "control": lambda text, code: "control" in text,
    "claims": lambda text, code: "ledger(verdicts)" in code and "Claim(" in code and "Question(" in code,
    "limits": lambda text, code: "## What this does not show" in text,
    "open task": lambda text, code: "open task" in text,
    "quiz": lambda text, code: text.split("## Exit quiz")[-1].count("<summary>") >= 6,
    "read on": lambda text, code: 3 <= text.split("## Read on")[-1].count("](http") <= 6,
    "provenance": lambda text, code: "records.footer(" in code,
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
@pytest.mark.parametrize("part", PARTS)
def test_every_notebook_has_every_part(path, part):
    assert PARTS[part]("\n\n".join(cells(path, "markdown")), "\n".join(cells(path, "code")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_sizes_of_a_notebook(path):
    code = [len(source.splitlines()) for source in cells(path, "code")]
    words = sum(len(source.split()) for source in cells(path, "markdown"))
    assert statistics.median(code) <= 6 and max(code) <= 25
    assert 30 <= len(code) + len(cells(path, "markdown")) <= 60 and 1300 <= words <= 3000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_parameters_cell_is_tagged_and_short(path):
    tagged = [c for c in notebook(path)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    names = [node.targets[0].id for node in ast.parse("".join(tagged[0]["source"])).body]
    assert names[:3] == ["profile", "seed", "dataset"] and len(names) <= 6


NUMBER = re.compile(r"(?<![\w.,/#-])(\d+(?:\.\d+)?)\s?(?:%|×|points?\b|ms\b|MB\b|kB\b|times\b)")


def literals(code: str) -> set[float]:
    """The numbers that stand in the code, in its strings and comments too."""
    return {float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", code)}


def unsupported(text: str, known: set[float]) -> list[str]:
    """Percentages, factors and times in prose that no code cell uses and that no source supports."""
    found = []
    for paragraph in text.split("\n\n"):
        if not re.search(r"\]\(http|<summary>|^\|", paragraph):
            numbers = [float(n) for n in NUMBER.findall(paragraph)]
            found += [f"{n:g} in: {paragraph[:120]}" for n in numbers if not {n, round(n / 100, 6)} & known]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_numbers_in_prose_are_computed_or_cited(path):
    text = "\n\n".join(cells(path, "markdown"))
    assert unsupported(text, literals("\n".join(cells(path, "code")))) == []


def test_a_number_typed_into_the_prose_would_be_seen():
    assert unsupported("At 90 % it keeps 74.0 % of the accuracy.", literals("globally(scores, 0.9)")) != []
    assert unsupported("We remove 90 % of the weights.", literals("globally(scores, 0.9)")) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_between_files_lead_somewhere(path):
    for target in re.findall(r"\]\((?!http)([^)#]+)", "\n".join(cells(path, "markdown"))):
        assert (path.parent / target).exists(), target


def test_links_of_the_readme_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_reference_pictures_have_their_records():
    for picture in (ROOT / "figures").glob("*.png"):
        assert picture.with_suffix(".json").is_file(), picture.name


def test_the_readmes_commands_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    source = (ROOT / "course.py").read_text(encoding="utf-8")
    for command in set(re.findall(r"python course\.py (\w+)", text)):
        assert f"python course.py {command} " in ast.get_docstring(ast.parse(source)), command
