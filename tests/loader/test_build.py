# SPDX-License-Identifier: GPL-3.0-or-later
"""The build of the loader: static, stripped, equal bytes from any folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.loader.conftest import BUILD, ROOT

pytestmark = pytest.mark.apart


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The build folders of two copies of bpf/, in folders of different names."""
    folders = []
    for name in ("one", "another/deeper"):
        copy = tmp_path_factory.mktemp("copy") / name / "bpf"
        shutil.copytree(ROOT / "bpf", copy)
        done = subprocess.run(["make", "-s", "-C", str(copy)], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"make failed:\n{done.stderr[-4000:]}")
        folders.append(copy.parent / "build")
    return folders


@pytest.fixture(scope="module")
def built(loader: Path, feature_objects: Path) -> Path:
    """The build folder of this tree, up to date."""
    return BUILD


def artifacts(build: Path) -> dict[str, bytes]:
    """What a release takes from a build folder, by relative path."""
    paths = [*build.glob("loader/*/*"), *build.glob("features/*/*")]
    return {str(path.relative_to(build)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_reproducible(builds: list[Path]) -> None:
    one, another = (artifacts(build) for build in builds)
    assert len(one) > 1
    assert sorted(one) == sorted(another)
    assert [path for path in one if one[path] != another[path]] == []


def test_no_path_of_the_build_machine(built: Path) -> None:
    found = artifacts(built)
    assert len(found) > 1
    assert [path for path, data in found.items() if str(built.parent).encode() in data] == []


def test_loader_is_static_and_stripped(built: Path) -> None:
    binary = next(built.glob("loader/*/ebpf-loader"))
    shown = subprocess.run(
        ["readelf", "--wide", "--segments", "--sections", str(binary)], check=True, capture_output=True
    ).stdout.decode()
    assert "INTERP" not in shown
    assert ".symtab" not in shown
    assert ".note.gnu.build-id" not in shown
    assert "GNU_RELRO" in shown


def test_features_keep_btf_and_shed_dwarf(built: Path) -> None:
    objects = list(built.glob("features/*/*.bpf.o"))
    assert objects
    for path in objects:
        shown = subprocess.run(
            ["readelf", "--wide", "--sections", str(path)], check=True, capture_output=True
        ).stdout.decode()
        assert ".BTF.ext" in shown, path
        assert ".debug_info" not in shown, path
