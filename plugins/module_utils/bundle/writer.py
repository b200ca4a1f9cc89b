# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds and signs a bundle, on the controller: contracts, objects, BTF, loaders, manifest, signature, tar.

The only part of the collection that needs PyYAML; nothing of it runs on a managed host.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import matrix as bundle_matrix
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import minimal_btf as bundle_btf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.collector_files import collector_files
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.compatibility import compatibility_of
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.compile import (
    ask_loader,
    compare_objects,
    compile_objects,
    loaders_of,
    provenance_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.contracts import read_contracts
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.feature_folder import (
    BCC_SOURCE,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.output import write_folder
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.request import BuildRequest, Built
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signing import check_key, sign, verify_built
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.tools import run_tool
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfobject import (
    has_core_relocations,
)

# What stands beside objects and loaders


def further_files(
    request: BuildRequest, contracts: Mapping[str, dict[str, Any]], objects: Mapping[str, Path], work: Path
) -> dict[str, bytes]:
    """Bundle path to bytes of what only some bundles hold: BCC sources, minimal BTF, the matrix."""
    files = bcc_files(request, contracts)
    if request.btf_dirs:
        files.update(minimal_btf(request, objects, work))
    if request.matrix is not None:
        doc = checked_matrix(request.matrix, contracts, objects)
        files[bundle_matrix.PATH] = bundle_matrix.matrix_bytes(doc, request.matrix)
    return files


def bcc_files(request: BuildRequest, contracts: Mapping[str, dict[str, Any]]) -> dict[str, bytes]:
    """The sources of the features with a BCC fallback, and the collector that compiles them on a host."""
    files = {
        f"features/{name}/{BCC_SOURCE}": (request.features[name] / BCC_SOURCE).read_bytes()
        for name, contract in contracts.items()
        if "bcc" in contract
    }
    return {**files, **collector_files(request.source.parent)} if files else {}


def minimal_btf(request: BuildRequest, objects: Mapping[str, Path], work: Path) -> dict[str, bytes]:
    """What the objects ask of the kernels' types, for hosts whose kernel does not tell them."""
    relocating = [str(objects[path]) for path in sorted(objects) if has_core_relocations(objects[path].read_bytes())]
    if not relocating:
        raise FleetError("EF_ARGUMENT", "btf_dirs: no object of this bundle relocates, so none needs BTF; leave it out")
    tool = bundle_btf.bpftool()

    def reduce(full: Path, target: Path) -> None:
        run_tool([tool, "gen", "min_core_btf", str(full), str(target), *relocating])

    return bundle_btf.minimal_members(bundle_btf.find_full_btf(request.btf_dirs), reduce, work)


def checked_matrix(path: Path, contracts: Mapping[str, dict[str, Any]], objects: Mapping[str, Path]) -> Any:
    """The matrix, which must have been measured on these very objects."""
    doc = bundle_matrix.read_matrix(path)
    variants = {name: [variant["name"] for variant in contract["variants"]] for name, contract in contracts.items()}
    digests = {name: hashlib.sha256(compiled.read_bytes()).hexdigest() for name, compiled in objects.items()}
    bundle_matrix.check_matrix(doc, path, variants, digests)
    return doc


# Putting together


def build(request: BuildRequest) -> Built:
    """Build, sign and verify a bundle in memory; writes only to temporary folders and ``build_dir``."""
    check_key(request.signing_key)
    contracts = read_contracts(request.features, request.created[:10])
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-build-") as temporary:
        work = Path(temporary)
        loaders = loaders_of(request)
        loader = loaders[platform.machine()]
        objects = compile_objects(request, contracts, work)
        compare_objects(request, contracts, objects, loader)
        members = _collect(contracts, objects, loaders)
        for path, data in further_files(request, contracts, objects, work).items():
            members[path] = bd.Member(path, 0o644, data)
        manifest = _make_manifest(request, contracts, loaders, members)
        members[mf.MANIFEST] = bd.Member(mf.MANIFEST, 0o644, manifest.data)
        members[mf.SIGNATURE] = bd.Member(mf.SIGNATURE, 0o644, sign(manifest.data, request.signing_key))
        write_folder(members, work / "bundle")
        verify_built(work / "bundle", members[mf.SIGNATURE].data, loader, manifest.digest, work)
    return Built(manifest, members)


def _collect(
    contracts: Mapping[str, dict[str, Any]], objects: Mapping[str, Path], loaders: Mapping[str, Path]
) -> dict[str, bd.Member]:
    members: dict[str, bd.Member] = {}
    for name, contract in contracts.items():
        path = f"features/{name}/contract.json"
        members[path] = bd.Member(path, 0o644, mf.canonical_json(contract).encode("ascii"))
    for path, source in objects.items():
        members[path] = bd.Member(path, 0o644, source.read_bytes())
    for arch, source in loaders.items():
        path = f"loader/{arch}/ebpf-loader"
        members[path] = bd.Member(path, 0o755, source.read_bytes())
    return members


def _make_manifest(
    request: BuildRequest,
    contracts: Mapping[str, dict[str, Any]],
    loaders: Mapping[str, Path],
    members: Mapping[str, bd.Member],
) -> mf.Manifest:
    version = ask_loader(loaders[platform.machine()], ["version"])
    files = {
        path: mf.BundleFile(path, hashlib.sha256(member.data).hexdigest(), len(member.data), member.mode)
        for path, member in members.items()
    }
    return mf.create_manifest(
        bundle={
            "name": request.name,
            "version": request.version,
            "sequence": request.sequence,
            "created": request.created,
        },
        loader_version=version["loader_version"],
        archs=sorted(loaders),
        features={name: [v["name"] for v in contract["variants"]] for name, contract in contracts.items()},
        files=files,
        provenance=provenance_of(request.source, str(version["libbpf"])),
        compatibility=_compatibility(request, members),
    )


def _compatibility(request: BuildRequest, members: Mapping[str, bd.Member]) -> dict[str, list[Any]]:
    """What a matrix tells goes before what was given by hand."""
    if bundle_matrix.PATH not in members:
        return request.compatibility
    return dict(compatibility_of(json.loads(members[bundle_matrix.PATH].data)))
