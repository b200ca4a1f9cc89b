# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/folders.yml against the imports that are really there: no arrow runs up, none runs in a circle."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterator, Mapping

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ORDER = yaml.safe_load((ROOT / "docs/folders.yml").read_text(encoding="utf-8"))
COLLECTION = "ansible_collections.ebpf.fleet."
# What a test module may import of the tools: the tool that it tests.
HARNESS = [path for path in ROOT.glob("tests/**/*.py") if not path.name.startswith("test_")]


def imported(source: str) -> set[str]:
    """The full names that a module imports, wherever in it; `from a import b` gives a.b, as b may be a module.
    What is relative stays in its folder."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update(f"{node.module}.{one.name}" for one in node.names)
    return names


def file_of(name: str) -> Path | None:
    """The file of the collection that a name means: the module, or what holds the name."""
    if not name.startswith(COLLECTION):
        return None
    parts = name[len(COLLECTION) :].split(".")
    for length in (len(parts), len(parts) - 1):
        base = ROOT.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    raise AssertionError(f"{name} is no file of the collection")


INCLUDE = re.compile(r'^#include "([a-z_/]+)\.h"', re.MULTILINE)


def c_arrows(folder: Path) -> dict[Path, set[Path]]:
    """{header: headers that it or its source includes} below a folder; a source without a header is itself."""
    found: dict[Path, set[Path]] = {}
    for path in sorted([*folder.rglob("*.h"), *folder.rglob("*.c")]):
        own = path.with_suffix(".h") if path.with_suffix(".h").is_file() else path
        targets = {folder / f"{name}.h" for name in INCLUDE.findall(path.read_text(encoding="utf-8"))}
        missing = [target for target in targets if not target.is_file()]
        assert not missing, f"{path}: {missing} is not below {folder}: write its folder too"
        found.setdefault(own, set()).update(targets - {own})
    return found


def arrows(folder: Path) -> dict[Path, set[Path]]:
    """{file: files of ours that it imports or includes} below a folder."""
    if not list(folder.rglob("*.py")):
        return c_arrows(folder)
    found = {}
    for path in sorted(folder.rglob("*.py")):
        targets = {file_of(name) for name in imported(path.read_text(encoding="utf-8"))}
        found[path] = {target for target in targets if target is not None and target != path}
    return found


def ranks(listed: list[str | list[str]]) -> dict[str, int]:
    """{folder: its place}; folders of one line share a place."""
    return {name: at for at, line in enumerate(listed) for name in ([line] if isinstance(line, str) else line)}


def room_of(path: Path, top: Path, rooms: Mapping[str, int]) -> str | None:
    """The longest of the listed folders that the file lies in; None outside of them."""
    inside = path.relative_to(top).as_posix() if path.is_relative_to(top) else ""
    return max((room for room in rooms if inside.startswith(f"{room}/")), key=len, default=None)


def wrong_arrows(top: Path, listed: list[str | list[str]]) -> Iterator[str]:
    """A sentence for each import that runs up, or from a folder to another of the same place."""
    rooms = ranks(listed)
    for source, targets in arrows(top).items():
        of = room_of(source, top, rooms)
        for target in sorted(targets):
            to = room_of(target, top, rooms)
            said = f"{source.relative_to(ROOT)} imports {target.relative_to(ROOT)}"
            if of is None or to is None:
                yield f"{said}: one of both is in no folder of the list"
            elif of != to and rooms[to] >= rooms[of]:
                yield f"{said}: {of} may not use {to}"


def circle(graph: Mapping[Path, set[Path]]) -> list[Path]:
    """The files of one circle; empty where there is none."""
    done: set[Path] = set()

    def follow(node: Path, way: list[Path]) -> list[Path]:
        if node in way:
            return way[way.index(node) :]
        if node in done:
            return []
        done.add(node)
        return next((found for one in sorted(graph.get(node, ())) if (found := follow(one, [*way, node]))), [])

    return next((found for node in sorted(graph) if (found := follow(node, []))), [])


@pytest.mark.parametrize("top", sorted(ORDER))
def test_no_import_runs_up(top: str) -> None:
    assert list(wrong_arrows(ROOT / top, ORDER[top])) == []


@pytest.mark.parametrize("top", sorted(ORDER))
def test_every_folder_is_in_the_list_and_every_one_of_the_list_is_there(top: str) -> None:
    files = [path for path in (ROOT / top).rglob("*.*") if path.suffix in (".py", ".c", ".h")]
    files = [path for path in files if path.parent != ROOT / top]
    rooms = ranks(ORDER[top])
    assert [path for path in files if room_of(path, ROOT / top, rooms) is None] == []
    assert [room for room in rooms if not any(room_of(path, ROOT / top, {room: 0}) for path in files)] == []


@pytest.mark.parametrize("top", ["plugins", "collectors", "bpf/loader"])
def test_nothing_runs_in_a_circle(top: str) -> None:
    assert circle(arrows(ROOT / top)) == []


def test_every_package_says_what_may_not_be_in_it() -> None:
    for room in ranks(ORDER["plugins/module_utils"]):
        said = ast.get_docstring(ast.parse((ROOT / "plugins/module_utils" / room / "__init__.py").read_text()))
        assert said and ("Nothing here" in said or "Pure" in said), room


def test_what_tests_and_tools_share_imports_no_tool() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in HARNESS
        for name in imported(path.read_text(encoding="utf-8"))
        if name.partition(".")[0] == "tools"
    }
    assert wrong == set()


def test_a_wrong_arrow_and_a_circle_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above could fail: a kill that uses a contract, and two files that use each other."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    utils = tmp_path / "plugins/module_utils"
    for name, text in (
        ("kill/a.py", f"def f():\n    from {COLLECTION}plugins.module_utils.contract import b\n"),
        ("contract/b.py", f"from {COLLECTION}plugins.module_utils.contract.c import x\n"),
        ("contract/c.py", f"import {COLLECTION}plugins.module_utils.contract.b\nx = 1\n"),
    ):
        (utils / name).parent.mkdir(parents=True, exist_ok=True)
        (utils / name).write_text(text)
    said = list(wrong_arrows(utils, ["kill", "contract"]))
    assert len(said) == 1 and said[0].endswith("contract/b.py: kill may not use contract")
    assert [path.name for path in circle(arrows(utils))] == ["b.py", "c.py"]


def test_a_wrong_include_and_a_circle_of_includes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that uses what is above it, and two sources that call each other."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    for name, text in (
        ("base/a.h", '#include "run/b.h"\n'),
        ("run/b.h", ""),
        ("run/b.c", '#include "run/b.h"\n#include "run/c.h"\n'),
        ("run/c.h", ""),
        ("run/c.c", '#include "run/c.h"\n#include "run/b.h"\n'),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(wrong_arrows(tmp_path, ["base", "run"])) == ["base/a.h imports run/b.h: base may not use run"]
    assert [path.name for path in circle(arrows(tmp_path))] == ["b.h", "c.h"]
