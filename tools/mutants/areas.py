# SPDX-License-Identifier: GPL-3.0-or-later
"""areas.yml: what is an area, which files it has, which test files may see its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, NamedTuple

import yaml

from tools.mutants import rules_python, rules_text, rules_yaml
from tools.mutants.fault import Fault

ROOT = Path(__file__).resolve().parents[2]
# It tries the rules on every file, and so would be asked about every fault.
OWN_TEST = "tests/unit/test_mutants.py"


class Area(NamedTuple):
    """`name` is LANGUAGE/NAME; files and tests are paths below the tree, tests in the order in which they run.

    `slow`: are tests that are marked slow used too?
    """

    name: str
    files: list[str]
    tests: list[str]
    slow: bool = False

    @property
    def language(self) -> str:
        return self.name.split("/")[0]

    @property
    def traced(self) -> bool:
        """Is it recorded which tests run its functions, or open its file?"""
        return self.language in ("python", "playbooks")

    @property
    def built(self) -> bool:
        """Does a fault need a build before a test can meet it?"""
        return self.language in ("c", "bpf")


def read(root: Path = ROOT) -> dict[str, Area]:
    listed = yaml.safe_load((root / "tools/mutants/areas.yml").read_text(encoding="utf-8"))
    return {
        name: Area(name, _files(root, one["files"]), _tests(root, one["tests"]), one.get("slow", False))
        for name, one in listed.items()
    }


def _files(root: Path, patterns: list[str]) -> list[str]:
    """In the order of the patterns; a pattern without a file is kept apart by the test of this list, not here."""
    found = {path.relative_to(root).as_posix(): None for one in patterns for path in sorted(root.glob(one))}
    return [path for path in found if not path.endswith(("__init__.py", OWN_TEST))]


def _tests(root: Path, named: list[str]) -> list[str]:
    return [one for name in named for one in ([name] if name.endswith(".py") else _files(root, [f"{name}/test_*.py"]))]


def faults(path: str, text: str) -> Iterator[Fault]:
    """Every fault that the rules make in a file, whatever its language."""
    kind = path.rsplit(".", 1)[-1]
    if kind == "py":
        return rules_python.faults(path, text)
    if kind in ("c", "h"):
        return rules_text.c_faults(path, text)
    if kind == "sh":
        return rules_text.shell_faults(path, text)
    if kind == "j2":
        return rules_yaml.template_faults(path, text)
    return rules_yaml.faults(path, text)
