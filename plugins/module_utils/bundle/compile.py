# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects and loaders: compiled, inspected, and held against their contracts. On the controller."""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.feature_folder import (
    CONTRACT,
    objects_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.request import BuildRequest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.tools import run_tool
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.objects import compare_with_objects
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import CODE, is_third_party
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfobject import (
    has_core_relocations,
    optional_sections,
    reads_kernel,
)

SECONDS_FOR_BUILD = 1800


def compile_objects(request: BuildRequest, contracts: Mapping[str, dict[str, Any]], work: Path) -> dict[str, Path]:
    """Compile every variant in a copy of the sources; returns bundle path to object."""
    stage = work / "bpf"
    stage.mkdir()
    shutil.copy2(request.source / "Makefile", stage)
    shutil.copytree(request.source / "include", stage / "include")
    for name, folder in request.features.items():
        shutil.copytree(folder, stage / "features" / name)
    out = work / "objects"
    jobs = f"-j{os.cpu_count() or 1}"
    run_tool(["make", "-C", str(stage), jobs, "features", f"BUILD={out}"], seconds=SECONDS_FOR_BUILD)
    objects: dict[str, Path] = {}
    for name, contract in contracts.items():
        for variant in objects_of(contract):
            path = f"features/{name}/{variant}"
            if not (out / path).is_file():
                raise FleetError("EF_BUILD", f"{path}: was not built; look at {request.source / 'Makefile'}", path)
            objects[path] = out / path
    return objects


def loaders_of(request: BuildRequest) -> dict[str, Path]:
    """The loader of each architecture; compiles this machine's if none was given."""
    machine = platform.machine()
    if not request.loaders:
        command = ["make", "-C", str(request.source), "loader", f"BUILD={request.build_dir}"]
        run_tool(command, seconds=SECONDS_FOR_BUILD)
        return {machine: request.build_dir / "loader" / machine / "ebpf-loader"}
    if machine not in request.loaders:
        raise FleetError(
            "EF_ARGUMENT", f"loader: has none for {machine}, which must verify the bundle here; add it to the map"
        )
    return request.loaders


def ask_loader(loader: Path, arguments: list[str]) -> dict[str, Any]:
    """What our loader prints as JSON for a command; raises FleetError (EF_BUILD) if it fails."""
    done = run_tool([str(loader), *arguments])
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise FleetError("EF_BUILD", f"{loader} {arguments[0]}: printed no JSON; build the loader again") from error
    return dict(answer)


def inspect(loader: Path, compiled: Path, contract: Mapping[str, Any]) -> dict[str, Any]:
    """What an object holds; a third party's structs have names of their own."""
    options = ["--all-structs"] if is_third_party(dict(contract)) else []
    found = ask_loader(loader, ["inspect", *options, str(compiled)])
    try:
        data = compiled.read_bytes()
        return {
            **found,
            "relocates": has_core_relocations(data),
            "optional": optional_sections(data),
            "reads_kernel": reads_kernel(data),
        }
    except ValueError as error:
        raise FleetError(CODE, f"{compiled}: {error}; compile it with clang -target bpf", str(compiled)) from error


def compare_objects(
    request: BuildRequest, contracts: Mapping[str, dict[str, Any]], objects: Mapping[str, Path], loader: Path
) -> None:
    """Hold every contract against its compiled objects; all differences at once."""
    problems: list[FleetError] = []
    for name, contract in contracts.items():
        inspected = {
            path[: -len(".bpf.o")]: inspect(loader, objects[f"features/{name}/{path}"], contract)
            for path in objects_of(contract)
        }
        problems.extend(compare_with_objects(contract, inspected, str(request.features[name] / CONTRACT)))
    raise_all(problems)


def provenance_of(source: Path, libbpf: str) -> dict[str, str]:
    """Where the bundle comes from; a tree that differs from its commit says so."""
    return {"commit": _commit(source), "compiler": _compiler(), "libbpf": libbpf}


def _commit(source: Path) -> str:
    git = ["git", "-c", "safe.directory=*", "-C", str(source)]
    try:
        commit = run_tool([*git, "rev-parse", "HEAD"]).stdout.decode("ascii").strip()
        dirty = run_tool([*git, "status", "--porcelain", "--", "."]).stdout.strip()
    except FleetError:
        return "unknown"
    return commit + ("-dirty" if dirty else "")


def _compiler() -> str:
    lines = run_tool([os.environ.get("CLANG", "clang-14"), "--version"]).stdout.decode("ascii", "replace").splitlines()
    return lines[0].strip()
