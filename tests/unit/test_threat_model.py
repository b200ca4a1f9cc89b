# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/threat-model.md names, for each promise, tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/threat-model.md"
# `tests/folder/test_file.py::Class::test_name`, as pytest names it.
NAMED = re.compile(r"`(tests/[a-z_0-9/]+\.py)((?:::\w+)*)`")


def named_tests() -> list[tuple[str, str]]:
    return sorted(set(NAMED.findall(PAGE.read_text(encoding="utf-8"))))


def named_in(path: Path) -> set[str]:
    """Every test of a file as "::Class::test" or "::test", and every class that holds one."""
    found: set[str] = {""}  # the file as a whole
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found.add(f"::{node.name}")
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            inner = [one.name for one in node.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")]
            found.update(f"::{node.name}::{name}" for name in inner)
            found.update([f"::{node.name}"] if inner else [])
    return found


@pytest.mark.parametrize(("path", "name"), named_tests())
def test_the_named_test_exists(path: str, name: str) -> None:
    file = ROOT / path
    assert file.is_file(), f"{path}: there is no such file"
    assert name in named_in(file), f"{path}{name}: there is no such test; name the test or change the page"


def rows_of_promises() -> list[str]:
    """The rows of each table whose last column is `held by`."""
    rows: list[str] = []
    inside = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.rstrip().endswith("| held by |"):
            inside = True
        elif inside and not set(line) <= set("|- "):
            rows.append(line)
    return rows


def test_there_are_promises() -> None:
    assert len(rows_of_promises()) >= 25


@pytest.mark.parametrize("row", rows_of_promises())
def test_each_promise_names_a_test(row: str) -> None:
    assert NAMED.search(row.rstrip("| ").rsplit("|", 1)[-1]), f"this promise names no test: {row}"
