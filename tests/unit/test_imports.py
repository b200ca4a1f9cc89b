# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module and plugin of the collection can be imported: a name that moved is found here, not on a host."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in ROOT.glob("plugins/*/*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_can_be_imported(path: Path) -> None:
    importlib.import_module(f"ansible_collections.ebpf.fleet.plugins.{path.parent.name}.{path.stem}")


def test_none_is_left_out() -> None:
    assert len(FILES) > 100
