# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Minimal BTF for kernels that have none of their own: what the bundle's objects ask of a kernel's full BTF.

Runs on the controller, with bpftool.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import platform
import re
import shutil
import struct
import tarfile
from pathlib import Path
from typing import Any, Callable, Iterable, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import refuse_irregular
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import btf_index
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import MAX_OBJECT, canonical_json
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfobject import BTF_MAGIC

RAW, PACKED = ".btf", ".btf.tar.xz"
TOOL_FOLDERS = ("/usr/sbin", "/sbin")
MAX_FULL_BTF = 64 * 1024 * 1024
# magic, version, flags, length of the header, types at and length, strings at and length
HEADER = struct.Struct("<HBBIIIII")
MACHINES = {
    "x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64", "ppc64le": "ppc64le",
    "s390x": "s390x", "riscv64": "riscv64",
}  # fmt: skip
HOW = "copy /sys/kernel/btf/vmlinux of a host with that kernel again, see docs/btf.md"


class FullBtf(NamedTuple):
    """A kernel's whole BTF on the controller. ``build_id`` is 40 hex digits or None."""

    machine: str
    release: str
    build_id: str | None
    path: Path


Reduce = Callable[[Path, Path], None]


def find_full_btf(folders: Iterable[Path]) -> list[FullBtf]:
    """Every ``RELEASE.btf`` and ``RELEASE.btf.tar.xz`` below the folders, in a stable order.

    Raises FleetError (EF_ARGUMENT) for a folder without one, a name that is not a release, a
    damaged sidecar, or two files of one kernel.
    """
    found: list[FullBtf] = []
    problems: list[FleetError] = []
    for folder in folders:
        paths = sorted(path for path in folder.rglob("*") if path.name.endswith((RAW, PACKED)) and path.is_file())
        if not paths:
            problems.append(_argument(folder, "holds no BTF", "give a folder with RELEASE.btf, see docs/btf.md"))
        for path in paths:
            try:
                found.append(_describe(path, folder))
            except FleetError as error:
                problems.append(error)
    problems.extend(_twins(found))
    raise_all(problems)
    return sorted(found, key=lambda full: (full.machine, full.release, full.build_id or ""))


def _argument(path: Path, problem: str, remedy: str) -> FleetError:
    return FleetError("EF_ARGUMENT", f"btf_dirs: {path}: {problem}; {remedy}", str(path))


def _describe(path: Path, folder: Path) -> FullBtf:
    release = path.name[: -len(PACKED if path.name.endswith(PACKED) else RAW)]
    if not btf_index.RELEASE.match(release):
        raise _argument(path, f"{release!r} is not a kernel release", "name the file as uname -r prints it, with .btf")
    build_id = _sidecar(path.with_name(release + ".build-id"))
    if build_id is not None and not btf_index.BUILD_ID.match(build_id):
        raise _argument(path.with_name(release + ".build-id"), "does not hold 40 hex digits",
                        "write the GNU build id of /sys/kernel/notes, see docs/btf.md")  # fmt: skip
    machine = _sidecar(path.with_name(release + ".machine")) or _machine_of(path, folder)
    if not btf_index.MACHINE.match(machine):
        raise _argument(
            path.with_name(release + ".machine"), f"{machine!r} is not a machine", "write what uname -m prints"
        )
    return FullBtf(machine, release, build_id, path)


def _sidecar(path: Path) -> str | None:
    """The one word of a small file beside the BTF; None if there is no file."""
    if not path.is_file():
        return None
    return path.read_bytes()[:256].decode("ascii", "replace").strip().lower()


def _machine_of(path: Path, folder: Path) -> str:
    """By the nearest folder that is named as a machine, else this machine."""
    inside = path.parent.relative_to(folder).parts
    for part in reversed([folder.name, *inside]):
        if part in MACHINES:
            return MACHINES[part]
    return platform.machine()


def _twins(found: list[FullBtf]) -> list[FleetError]:
    seen: dict[tuple[str, str, str | None], Path] = {}
    problems = []
    for full in found:
        kernel = (full.machine, full.release, full.build_id)
        if kernel in seen:
            problems.append(_argument(full.path, f"is of the same kernel as {seen[kernel]}",
                                      "remove one, or write the build id of each beside it"))  # fmt: skip
        seen[kernel] = full.path
    return problems


def read_full(path: Path) -> bytes:
    """The bytes of a kernel's whole BTF, unpacked; raises FleetError (EF_ARGUMENT) if it does not parse."""
    try:
        refuse_irregular(path)
        data = _unpack(path) if path.name.endswith(PACKED) else _read(path)
    except (OSError, lzma.LZMAError, tarfile.TarError, EOFError) as error:
        raise _argument(path, f"cannot be read ({error})", HOW) from error
    problem = btf_problem(data)
    if problem:
        raise _argument(path, problem, HOW)
    return data


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FULL_BTF + 1)


def _unpack(path: Path) -> bytes:
    """The one BTF of an archive as BTFHub has them; never more than the limit is unpacked."""
    with tarfile.open(path, "r|xz") as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() and info.name.endswith(RAW) else None
            if file is not None:
                return file.read(MAX_FULL_BTF + 1)
    raise tarfile.TarError("it holds no file that ends in .btf")


def btf_problem(data: bytes) -> str | None:
    """What is wrong with raw BTF as far as its header tells; None if it is whole."""
    if len(data) > MAX_FULL_BTF:
        return f"has more than {MAX_FULL_BTF} bytes"
    if len(data) < HEADER.size:
        return f"is not BTF: it has {len(data)} bytes only"
    magic, _version, _flags, length, types, types_length, strings, strings_length = HEADER.unpack_from(data)
    if magic != BTF_MAGIC:
        return "is not raw little-endian BTF"
    if length < HEADER.size or max(types + types_length, strings + strings_length) + length > len(data):
        return "is cut off"
    return None


def bpftool() -> str:
    """The path of bpftool, which Debian keeps where users do not look; raises FleetError (EF_NO_TOOL)."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), *TOOL_FOLDERS])
    found = shutil.which("bpftool", path=search)
    if found is None:
        raise FleetError("EF_NO_TOOL", "bpftool: is not installed here, and btf_dirs needs it; install it "
                         "(Debian's package is bpftool)")  # fmt: skip
    return found


def minimal_members(fulls: list[FullBtf], reduce: Reduce, work: Path) -> dict[str, bytes]:
    """Bundle path to bytes: the minimal BTF of each kernel and the index.

    ``reduce`` writes the minimal BTF of its first path to its second. Kernels that come to the
    same bytes share a file.
    """
    members: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    places: dict[tuple[str, str], str] = {}
    for full in fulls:
        data = _reduced(full, reduce, work)
        digest = hashlib.sha256(data).hexdigest()
        name = re.sub(r"[^A-Za-z0-9._-]", "-", full.release)
        path = places.setdefault((full.machine, digest), f"btf/{full.machine}/{name}-{digest[:12]}.btf")
        members[path] = data
        entries.append({"machine": full.machine, "release": full.release, "build_id": full.build_id, "file": path})
    doc = {"schema": btf_index.SCHEMA, "entries": entries}
    members[btf_index.PATH] = canonical_json(doc).encode("ascii")
    btf_index.parse_index(members[btf_index.PATH], members)
    return members


def _reduced(full: FullBtf, reduce: Reduce, work: Path) -> bytes:
    source, target = work / "full.btf", work / "minimal.btf"
    source.write_bytes(read_full(full.path))
    try:
        reduce(source, target)
    except FleetError as error:
        if error.code == "EF_NO_TOOL":
            raise
        raise _argument(full.path, f"bpftool cannot reduce it ({error.message})", HOW) from error
    data = target.read_bytes()
    problem = btf_problem(data)
    if problem or len(data) > MAX_OBJECT:
        raise _argument(full.path, f"its minimal BTF {problem or f'has {len(data)} bytes'}", HOW)
    return data
