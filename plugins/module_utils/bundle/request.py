# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle is built from, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import btf_index
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf


class BuildRequest(NamedTuple):
    """What to build. ``source`` is the folder with the Makefile, ``build_dir`` where the loader is compiled.

    ``loaders`` maps an architecture to a loader; empty compiles this machine's. ``btf_dirs`` hold
    kernels' whole BTF, ``matrix`` is a capability matrix that was measured on these very objects.
    """

    name: str
    version: str
    sequence: int
    created: str
    features: dict[str, Path]
    source: Path
    build_dir: Path
    loaders: dict[str, Path]
    signing_key: Path
    compatibility: dict[str, list[Any]]
    btf_dirs: tuple[Path, ...] = ()
    matrix: Path | None = None


class Built(NamedTuple):
    """A finished bundle in memory."""

    manifest: mf.Manifest
    members: dict[str, bd.Member]

    @property
    def signature(self) -> bytes:
        return self.members[mf.SIGNATURE].data


def btf_entries(built: Built) -> list[dict[str, Any]]:
    """The kernels for which a bundle has minimal BTF."""
    index = built.members.get(btf_index.PATH)
    return list(btf_index.parse_index(index.data, built.members)) if index else []
