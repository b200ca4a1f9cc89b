# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module and plugin of the collection can be imported: a name that moved is found here, not on a host.

So is syntax that the oldest Python of a host lacks: it would stop a module before its first message.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
FILES = sorted(path for path in PLUGINS.rglob("*.py") if path.stem != "__init__")
FOR_HOSTS = sorted(
    [*PLUGINS.glob("module_utils/**/*.py"), *PLUGINS.glob("modules/*.py"), *ROOT.glob("collectors/**/*.py")]
)
OLDEST = (3, 8)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_it_can_be_imported(path: Path) -> None:
    importlib.import_module("ansible_collections.ebpf.fleet." + name_of(path).replace("/", "."))


@pytest.mark.parametrize("path", FOR_HOSTS, ids=name_of)
def test_what_goes_to_hosts_compiles_for_the_oldest_python(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)


def test_none_is_left_out() -> None:
    assert len(FILES) > 100
