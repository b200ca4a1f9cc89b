# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of the BCC collector that a bundle carries: where it starts, its parts, and what these use of module_utils.

As files and not as one archive: each stands in the manifest with its digest, and a host can show what it runs.
"""

from __future__ import annotations

import ast
from pathlib import Path, PurePosixPath
from typing import Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

START = "collector/bcc.py"  # in the bundle; what the host's unit starts
LIB = "collector/lib"  # in the bundle; START puts it before all else that Python searches
START_SOURCE = "collectors/bcc.py"
PARTS = "collectors/fleet_bcc"
COLLECTION = PurePosixPath("ansible_collections/ebpf/fleet")


def collector_files(root: Path) -> dict[str, bytes]:
    """Bundle path to bytes; `root` is the folder of a whole checkout. Raises FleetError (EF_ARGUMENT)."""
    parts = sorted(path.relative_to(root).as_posix() for path in (root / PARTS).glob("*.py"))
    files = {START: _read(root, START_SOURCE)}
    for path in _used(root, [START_SOURCE, f"{PARTS}/__init__.py", *parts]):
        files[f"{LIB}/{COLLECTION / path}"] = _read(root, path)
    return {**_package_files(files), **files}


def _read(root: Path, path: str) -> bytes:
    try:
        return (root / path).read_bytes()
    except OSError as error:
        raise FleetError("EF_ARGUMENT", f"source: {root / path} does not exist, and a contract has 'bcc'; give the bpf "
                         "folder of a whole checkout of the collection", str(root / path)) from error  # fmt: skip


def _used(root: Path, first: list[str]) -> list[str]:
    """The files below `root` that the first ones use, and these in turn; the file that starts is not among them."""
    found: set[str] = set()
    pending = list(first)
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending += _imported(root, _read(root, path))
    return sorted(found - {START_SOURCE})


def _imported(root: Path, source: bytes) -> Iterator[str]:
    """The files of the collection that a source imports, with the packages that they lie in."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        for name in names:
            parts = PurePosixPath(name.replace(".", "/"))
            if COLLECTION in parts.parents:
                yield from _files_of(root, parts.relative_to(COLLECTION))


def _files_of(root: Path, name: PurePosixPath) -> Iterator[str]:
    """The module of that name, if it is one, and the packages above it; a name within a module is neither."""
    for path in (f"{name}.py", *(f"{folder}/__init__.py" for folder in (name, *name.parents))):
        if (root / path).is_file() and path != "__init__.py":
            yield path


def _package_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """An empty __init__.py for each folder below LIB: without it, a package of that name elsewhere on a host wins."""
    folders = {folder for path in files for folder in PurePosixPath(path).parents}
    return {f"{folder}/__init__.py": b"" for folder in folders if PurePosixPath(LIB) in folder.parents}
