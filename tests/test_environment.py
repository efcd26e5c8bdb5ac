"""What gets installed: the lock agrees with pyproject.toml, and conda's way in works for real."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CORE = {"jupyterlab", "torch", "torchvision", "timm", "matplotlib", "papermill", "nbval"}


def locked():
    """The versions in the lock; a package may have several, for different computers."""
    pins = [line.rstrip(" \\") for line in LOCK.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    found = {}
    for pin in map(Requirement, pins):
        found.setdefault(canonicalize_name(pin.name), []).append(Version(next(iter(pin.specifier)).version))
    return found


def pip_section():
    """The words behind `pip:` in environment.yml."""
    return next(entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))


def test_the_lock_holds_no_address():
    assert not re.search(r"(https?|file|git\+\w+|ssh)://|(^|\s)--(index|extra-index|find-links)|@ ", LOCK)


def test_the_lock_has_a_hash_for_every_package():
    assert len(re.findall(r"^\S+==\S+.*\\\n    --hash=sha256:", LOCK, re.MULTILINE)) == len(
        re.findall(r"^\S+==", LOCK, re.MULTILINE)
    )


def test_the_lock_satisfies_pyproject():
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["test"]]
    for requirement in map(Requirement, wanted):
        versions = locked().get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is not in requirements.lock"
        assert all(requirement.specifier.contains(v, prereleases=True) for v in versions), requirement


def test_environment_yml_is_what_conda_accepts():
    plain = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    assert all(re.fullmatch(r"[a-z][a-z0-9_.-]*(=[0-9][0-9.]*)?", entry) for entry in plain), plain
    assert {entry.split("=")[0] for entry in plain} == {"python", "pip"}
    python = next(entry.split("=")[1] for entry in plain if entry.startswith("python="))
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(f"{python}.0")
    assert pip_section() == ["-e ."]


def test_environment_yml_names_the_seven_core_packages():
    comment = " ".join(re.findall(r"^#(.*)$", (ROOT / "environment.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\w+", comment)) >= CORE
    assert {Requirement(line).name for line in PROJECT["project"]["dependencies"]} >= CORE


@pytest.fixture
def home(tmp_path):
    """A copy of what an installation needs in a path with a space, removed afterwards: it grows to gigabytes."""
    copy = tmp_path / "a copy"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "environment.yml"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "course_utils", copy / "course_utils", ignore=shutil.ignore_patterns("__pycache__"))
    yield copy
    shutil.rmtree(copy, ignore_errors=True)


def test_the_pip_section_of_environment_yml_installs(home):
    """As conda does it: pip reads these lines as a file of requirements, beside environment.yml. It takes minutes."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
    python = home / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (home / "condaenv.txt").write_text("\n".join(pip_section()) + "\n")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "-U", "-r", "condaenv.txt"]
    done = subprocess.run(pip, cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    look = f"import {', '.join(sorted(CORE))}, course_utils as ours; print(torch.__file__, ours.__file__, sep='|')"
    done = subprocess.run([python, "-c", look], cwd=home.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch_file, our_file = map(Path, done.stdout.strip().split("|"))
    assert torch_file.is_relative_to(home / "env")
    assert our_file.is_relative_to(home)
