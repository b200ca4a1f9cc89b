# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases for scenarios: built once by the release playbook, then varied and signed again, good and bad ones."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import yaml

from tests.loader.bundles import Bundle, describe, write
from tests.support.play import ROOT
from tests.support.sysfleet import Release

FEATURES = Path(__file__).with_name("features")
LOADER = f"loader/{platform.machine()}/ebpf-loader"
WRAPPED = "ef_publish_interval"


def varied(base: Release, folder: Path, key: Path, version: str, sequence: int, loader: Path | None = None) -> Release:
    """The same release under another version, and with another loader if one is given, as a bundle in a folder."""
    root = folder / version
    with tarfile.open(base.bundle) as tar:
        tar.extractall(root, filter="fully_trusted")
    bundle = Bundle(root, key)
    document = bundle.manifest
    if loader is not None:
        write(root / LOADER, loader.read_bytes(), 0o755)
        document["files"][LOADER] = describe(root / LOADER)
    document["bundle"].update(version=version, sequence=sequence)
    bundle.write_manifest(document)
    return Release(root, version, bundle.digest)


def bad_loader(folder: Path, *defines: str) -> Path:
    """The repository's loader with bad_loader.c around it; what it does is in `defines`."""
    objects = sorted((ROOT / "build/loader-obj" / platform.machine()).glob("*/*.o"))
    assert objects, "build the loader first: make build"
    target = folder / "ebpf-loader"
    flags = ["-static", "-pthread", f"-Wl,--wrap={WRAPPED}", "-Wl,--build-id=none"]
    libraries = ["-lbpf", "-lelf", "-lz", "-ljansson", "-lsodium", "-lseccomp"]
    source = Path(__file__).with_name("bad_loader.c")
    command = ["gcc", *flags, *defines, str(source), *map(str, objects), *libraries, "-o", str(target)]
    subprocess.run(command, check=True)
    subprocess.run(["strip", str(target)], check=True)
    return target


def feature(name: str, folder: Path, **budget: int) -> Path:
    """A copy of one of the features here whose contract has that budget, to be built into a release."""
    place = folder / name
    shutil.copytree(FEATURES / name, place)
    contract: dict[str, Any] = yaml.safe_load((place / "contract.yml").read_text())
    contract["expires"] = str(contract["expires"])
    contract["budget"].update(budget)
    (place / "contract.yml").write_text(yaml.safe_dump(contract, sort_keys=False))
    return place
