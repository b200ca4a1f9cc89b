# SPDX-License-Identifier: GPL-3.0-or-later
"""What the integration tests share with those of the loader: the binary, objects, key and trust."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.loader.conftest import feature_objects, other_key, signing_key, trust
from tests.loader.conftest import loader as built_loader

__all__ = ["built_loader", "feature_objects", "loader", "other_key", "signing_key", "trust"]


@pytest.fixture(scope="session")
def loader(built_loader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the binary, which a build beside us does not take away."""
    copy = tmp_path_factory.mktemp("loader") / "ebpf-loader"
    shutil.copy(built_loader, copy)
    return copy
