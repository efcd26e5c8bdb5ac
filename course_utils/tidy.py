"""Notebooks in their normal form: no outputs but those of the verdict cells, no traces of whoever ran them last.

`python -m course_utils.tidy [--check] [folder or notebook …]`
"""

import json
import sys
from pathlib import Path

VERDICT = "nbval-check-output"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def text(source: str | list[str]) -> str:
    """A cell's text as one string, without spaces at the ends of its lines."""
    return "\n".join(line.rstrip() for line in "".join(source).split("\n")).rstrip("\n")


def lines(source: str | list[str]) -> list[str]:
    """A string as notebooks store it: a list of lines that keep their ends."""
    return "".join(source).splitlines(keepends=True)


def output(kept: dict) -> dict:
    """A verdict cell's output: counted as the first, its text as a list of lines."""
    new = {"execution_count": 1} if "execution_count" in kept else {}
    return kept | new | ({"text": lines(kept["text"])} if "text" in kept else {})


def cell(old: dict, number: int) -> dict:
    """One cell: its tags stay and all other metadata go; a verdict cell keeps its outputs."""
    tags = old.get("metadata", {}).get("tags", [])
    new = {"cell_type": old["cell_type"], "id": f"c{number:02d}", "metadata": {"tags": tags} if tags else {}}
    if old["cell_type"] == "code":
        kept = old.get("outputs", []) if VERDICT in tags else []
        new |= {"execution_count": 1 if kept else None, "outputs": [output(one) for one in kept]}
    new |= {"source": lines(text(old["source"]))}
    return new | ({"attachments": old["attachments"]} if old.get("attachments") else {})


def normal(notebook: dict) -> str:
    """The text of a notebook's file in its normal form."""
    cells = [cell(old, number) for number, old in enumerate(notebook["cells"], start=1)]
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def notebooks(words: list[str]) -> list[Path]:
    """The notebooks that these files and folders name."""
    paths = [Path(word) for word in words]
    return [found for path in paths for found in (sorted(path.glob("*.ipynb")) if path.is_dir() else [path])]


def differing(paths: list[Path]) -> dict[Path, str]:
    """The notebooks that are not in their normal form, each with it."""
    new = {path: normal(json.loads(path.read_text(encoding="utf-8"))) for path in paths}
    return {path: form for path, form in new.items() if form.encode() != path.read_bytes()}


def main(argv: list[str] | None = None) -> int:
    """Tidy notebooks, or with --check only name the untidy ones and return 1."""
    words = sys.argv[1:] if argv is None else argv
    check = "--check" in words
    paths = notebooks([word for word in words if word != "--check"] or ["notebooks"])
    untidy = differing(paths)
    for path, form in untidy.items():
        print(f"{path}: {'not in its normal form: python course.py tidy' if check else 'tidied'}")
        if not check:
            part = path.with_name(f".{path.name}.part")
            part.write_bytes(form.encode())
            part.replace(path)
    print(f"{len(paths)} notebooks, {len(untidy)} {'untidy' if check else 'changed'}.")
    return 1 if check and untidy else 0


if __name__ == "__main__":
    raise SystemExit(main())
