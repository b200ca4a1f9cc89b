# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the loader share: the binary, a signing key, trust files."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from tests.loader.bundles import Trust, make_key

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"


def run_make(*arguments: str) -> None:
    """Run make for bpf/, one at a time on this machine."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "-C", str(ROOT / "bpf"), *arguments], check=False, capture_output=True, text=True
        )
    if done.returncode:
        pytest.fail(f"make {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


@pytest.fixture(scope="session")
def loader() -> Path:
    """The loader's binary: freshly built, or the one that EBPF_FLEET_LOADER names."""
    chosen = os.environ.get("EBPF_FLEET_LOADER")
    if chosen:
        return Path(chosen)
    run_make("loader")
    return BUILD / "loader" / platform.machine() / "ebpf-loader"


@pytest.fixture(scope="session")
def feature_objects() -> Path:
    """The folder of the compiled objects: NAME/VARIANT.bpf.o."""
    run_make("features")
    return BUILD / "features"


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The private key that signs the tests' releases."""
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key that no trust file names."""
    return make_key(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture
def trust(tmp_path: Path, signing_key: Path) -> Iterator[Trust]:
    """Trust files that allow the signing key."""
    yield Trust(tmp_path / "trust", signing_key)
