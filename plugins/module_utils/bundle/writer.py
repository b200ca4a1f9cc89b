# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds and signs a bundle, on the controller: contracts, objects, BTF, loaders, manifest, signature, tar.

The only part of the collection that needs PyYAML; nothing of it runs on a managed host.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Mapping, NamedTuple

import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import put_folder, remove_tree
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import btf_index
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import matrix as bundle_matrix
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import minimal_btf as bundle_btf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.compatibility import compatibility_of
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.feature_folder import (
    BCC_SOURCE,
    CONTRACT,
    folder_problems,
    objects_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import (
    KEY_TYPE,
    NAMESPACE,
    parse_signature,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.objects import compare_with_objects
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import CODE, is_third_party
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfobject import (
    has_core_relocations,
    optional_sections,
    reads_kernel,
)

SECONDS_FOR_BUILD = 1800
SECONDS_FOR_TOOL = 60
COLLECTOR = "collector/bcc.py"


class Order(NamedTuple):
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
        data: bytes = self.members[mf.SIGNATURE].data
        return data


def btf_entries(built: Built) -> list[dict[str, Any]]:
    """The kernels for which a bundle has minimal BTF."""
    index = built.members.get(btf_index.PATH)
    return list(btf_index.parse_index(index.data, built.members)) if index else []


# Contracts


class _StrictLoader(yaml.SafeLoader):
    """YAML as a contract may use it: no key twice, dates stay text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _value_node in node.value:
            key = str(key_node.value)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_contract(path: Path) -> Any:
    """Parse a contract; raises FleetError (EF_CONTRACT_MALFORMED) for anything that is not plain YAML."""
    try:
        data = path.read_bytes()
        if len(data) > mf.MAX_CONTRACT:
            raise FleetError(CODE, f"{path}: has more than {mf.MAX_CONTRACT} bytes; shorten it", str(path))
        return yaml.load(data.decode("utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise FleetError(CODE, f"{path}: cannot be read as YAML ({said}); mend it", str(path)) from error


def find_features(folders: list[Path], names: list[str] | None) -> dict[str, Path]:
    """The folders of the wanted features. Each of ``folders`` is one feature or holds several.

    ``names`` None wants all. Raises FleetError (EF_ARGUMENT).
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for feature in _feature_folders(folder):
            if feature.name in found:
                raise FleetError(
                    "EF_ARGUMENT",
                    f"features_dirs: {feature.name!r} is in {found[feature.name].parent} and in {feature.parent}; "
                    "rename one",
                )
            found[feature.name] = feature
    for name in names or []:
        if name not in found:
            raise FleetError("EF_ARGUMENT", f"features: {name!r} is not there; {did_you_mean(name, found)}")
    return {name: found[name] for name in sorted(found) if names is None or name in names}


def _feature_folders(folder: Path) -> list[Path]:
    if (folder / CONTRACT).is_file():
        return [folder.resolve()]
    inside = sorted(path.parent.resolve() for path in folder.glob(f"*/{CONTRACT}"))
    if not inside:
        raise FleetError(
            "EF_ARGUMENT", f"features_dirs: {folder} holds no feature; give a folder with NAME/{CONTRACT}", str(folder)
        )
    return inside


def read_contracts(features: Mapping[str, Path], today: str) -> dict[str, dict[str, Any]]:
    """Every contract, valid and not expired on ``today``; all errors of all of them at once."""
    contracts: dict[str, dict[str, Any]] = {}
    problems: list[FleetError] = []
    for name, folder in features.items():
        path = folder / CONTRACT
        try:
            contracts[name] = read_contract(path)
        except FleetError as error:
            problems.append(error)
            continue
        problems.extend(validate_contract(contracts[name], str(path), name, today))
        problems.extend(folder_problems(name, folder, contracts[name]))
    raise_all(problems)
    return contracts


# Compiling


def run_tool(
    command: list[str], data: bytes | None = None, seconds: int = SECONDS_FOR_TOOL, code: str = "EF_BUILD"
) -> subprocess.CompletedProcess[bytes]:
    """Run a tool without a terminal; raises FleetError with its last words if it fails."""
    environment = dict(os.environ, SSH_ASKPASS_REQUIRE="never", LC_ALL="C")
    try:
        done = subprocess.run(
            command,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            check=False,
            timeout=seconds,
            start_new_session=True,
            env=environment,
        )
    except FileNotFoundError as error:
        raise FleetError("EF_NO_TOOL", f"{command[0]}: is not installed here; install it") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(code, f"{command[0]}: does not run ({error}); mend it") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-1500:]
        shown = " ".join(command[:4])
        raise FleetError(code, f"'{shown} …' failed with exit {done.returncode}: {said}; mend what it names")
    return done


def compile_objects(order: Order, contracts: Mapping[str, dict[str, Any]], work: Path) -> dict[str, Path]:
    """Compile every variant in a copy of the sources; returns bundle path to object."""
    stage = work / "bpf"
    stage.mkdir()
    shutil.copy2(order.source / "Makefile", stage)
    shutil.copytree(order.source / "include", stage / "include")
    for name, folder in order.features.items():
        shutil.copytree(folder, stage / "features" / name)
    out = work / "objects"
    jobs = f"-j{os.cpu_count() or 1}"
    run_tool(["make", "-C", str(stage), jobs, "features", f"BUILD={out}"], seconds=SECONDS_FOR_BUILD)
    objects: dict[str, Path] = {}
    for name, contract in contracts.items():
        for variant in objects_of(contract):
            path = f"features/{name}/{variant}"
            if not (out / path).is_file():
                raise FleetError("EF_BUILD", f"{path}: was not built; look at {order.source / 'Makefile'}", path)
            objects[path] = out / path
    return objects


# What stands beside objects and loaders


def further_files(
    order: Order, contracts: Mapping[str, dict[str, Any]], objects: Mapping[str, Path], work: Path
) -> dict[str, bytes]:
    """Bundle path to bytes of what only some bundles hold: BCC sources, minimal BTF, the matrix."""
    files = bcc_files(order, contracts)
    if order.btf_dirs:
        files.update(minimal_btf(order, objects, work))
    if order.matrix is not None:
        doc = checked_matrix(order.matrix, contracts, objects)
        files[bundle_matrix.PATH] = bundle_matrix.matrix_bytes(doc, order.matrix)
    return files


def bcc_files(order: Order, contracts: Mapping[str, dict[str, Any]]) -> dict[str, bytes]:
    """The sources of the features with a BCC fallback, and the collector that compiles them on a host."""
    files = {
        f"features/{name}/{BCC_SOURCE}": (order.features[name] / BCC_SOURCE).read_bytes()
        for name, contract in contracts.items()
        if "bcc" in contract
    }
    if not files:
        return {}
    collector = order.source.parent / "collectors/bcc.py"
    if not collector.is_file():
        raise FleetError("EF_ARGUMENT", f"source: {collector} does not exist, and a contract has 'bcc'; give the bpf "
                         "folder of a whole checkout of the collection", str(collector))  # fmt: skip
    files[COLLECTOR] = collector.read_bytes()
    return files


def minimal_btf(order: Order, objects: Mapping[str, Path], work: Path) -> dict[str, bytes]:
    """What the objects ask of the kernels' types, for hosts whose kernel does not tell them."""
    relocating = [str(objects[path]) for path in sorted(objects) if has_core_relocations(objects[path].read_bytes())]
    if not relocating:
        raise FleetError("EF_ARGUMENT", "btf_dirs: no object of this bundle relocates, so none needs BTF; leave it out")
    tool = bundle_btf.bpftool()

    def reduce(full: Path, target: Path) -> None:
        run_tool([tool, "gen", "min_core_btf", str(full), str(target), *relocating])

    members: dict[str, bytes] = bundle_btf.minimal_members(bundle_btf.find_full_btf(order.btf_dirs), reduce, work)
    return members


def checked_matrix(path: Path, contracts: Mapping[str, dict[str, Any]], objects: Mapping[str, Path]) -> Any:
    """The matrix, which must have been measured on these very objects."""
    doc = bundle_matrix.read_matrix(path)
    variants = {name: [variant["name"] for variant in contract["variants"]] for name, contract in contracts.items()}
    digests = {name: hashlib.sha256(compiled.read_bytes()).hexdigest() for name, compiled in objects.items()}
    bundle_matrix.check_matrix(doc, path, variants, digests)
    return doc


def loaders_of(order: Order) -> dict[str, Path]:
    """The loader of each architecture; compiles this machine's if none was given."""
    machine = platform.machine()
    if not order.loaders:
        command = ["make", "-C", str(order.source), "loader", f"BUILD={order.build_dir}"]
        run_tool(command, seconds=SECONDS_FOR_BUILD)
        return {machine: order.build_dir / "loader" / machine / "ebpf-loader"}
    if machine not in order.loaders:
        raise FleetError(
            "EF_ARGUMENT", f"loader: has none for {machine}, which must verify the bundle here; add it to the map"
        )
    return order.loaders


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
    order: Order, contracts: Mapping[str, dict[str, Any]], objects: Mapping[str, Path], loader: Path
) -> None:
    """Hold every contract against its compiled objects; all differences at once."""
    problems: list[FleetError] = []
    for name, contract in contracts.items():
        inspected = {
            path[: -len(".bpf.o")]: inspect(loader, objects[f"features/{name}/{path}"], contract)
            for path in objects_of(contract)
        }
        problems.extend(compare_with_objects(contract, inspected, str(order.features[name] / CONTRACT)))
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


# Signing


def check_key(key: Path) -> None:
    """Refuse anything but an ed25519 key, private or, with an agent, public."""
    if not key.is_file():
        raise FleetError(
            "EF_KEY", f"signing_key: {key} does not exist; make one with ssh-keygen -t ed25519 -f {key}", str(key)
        )
    said = run_tool(["ssh-keygen", "-l", "-f", str(key)], code="EF_KEY").stdout.decode("utf-8", "replace").strip()
    if not said.endswith("(ED25519)"):
        raise FleetError(
            "EF_KEY",
            f"signing_key: {key} is not an ed25519 key ({said.rsplit(' ', 1)[-1]}); make one with "
            "ssh-keygen -t ed25519",
            str(key),
        )


def sign(manifest: bytes, key: Path) -> bytes:
    """The armored signature of the manifest. A public key asks the ssh-agent."""
    command = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", str(key)]
    try:
        signature = run_tool(command, data=manifest, code="EF_KEY").stdout
    except FleetError as error:
        remedy = "a key with a passphrase must be in the ssh-agent; then give its .pub file"
        raise FleetError("EF_KEY", f"signing_key: {key} does not sign ({error.message}); {remedy}", str(key)) from error
    parse_signature(signature)
    return signature


def verify_built(folder: Path, signature: bytes, loader: Path, digest: str, work: Path) -> None:
    """Let our loader verify the finished bundle, trusting only the key that signed it."""
    key = base64.b64encode(parse_signature(signature).key).decode("ascii")
    trust = work / "allowed_signers"
    trust.write_text(f'build namespaces="{NAMESPACE}" {KEY_TYPE} {key}\n', encoding="ascii")
    trust.chmod(0o644)
    revoked = work / "revoked_keys"
    revoked.write_bytes(b"")
    revoked.chmod(0o644)
    answer = ask_loader(loader, ["verify", str(folder), "--trust", str(trust), "--revoked", str(revoked)])
    if answer.get("ok") is not True or answer.get("digest") != digest:
        raise FleetError("EF_BUILD", f"the loader does not confirm the bundle ({answer}); build the loader again")


# Putting together


def build(order: Order) -> Built:
    """Build, sign and verify a bundle in memory; writes only to temporary folders and ``build_dir``."""
    check_key(order.signing_key)
    contracts = read_contracts(order.features, order.created[:10])
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-build-") as temporary:
        work = Path(temporary)
        loaders = loaders_of(order)
        loader = loaders[platform.machine()]
        objects = compile_objects(order, contracts, work)
        compare_objects(order, contracts, objects, loader)
        members = _collect(contracts, objects, loaders)
        for path, data in further_files(order, contracts, objects, work).items():
            members[path] = bd.Member(path, 0o644, data)
        manifest = _make_manifest(order, contracts, loaders, members)
        members[mf.MANIFEST] = bd.Member(mf.MANIFEST, 0o644, manifest.data)
        members[mf.SIGNATURE] = bd.Member(mf.SIGNATURE, 0o644, sign(manifest.data, order.signing_key))
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
    order: Order,
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
            "name": order.name,
            "version": order.version,
            "sequence": order.sequence,
            "created": order.created,
        },
        loader_version=version["loader_version"],
        archs=sorted(loaders),
        features={name: [v["name"] for v in contract["variants"]] for name, contract in contracts.items()},
        files=files,
        provenance=provenance_of(order.source, str(version["libbpf"])),
        compatibility=_compatibility(order, members),
    )


def _compatibility(order: Order, members: Mapping[str, bd.Member]) -> dict[str, list[Any]]:
    """What a matrix tells goes before what was given by hand."""
    if bundle_matrix.PATH not in members:
        return order.compatibility
    return dict(compatibility_of(json.loads(members[bundle_matrix.PATH].data)))


def write_folder(members: Mapping[str, bd.Member], folder: Path) -> None:
    """Write the members below a new folder with exactly their modes."""
    for path in sorted(members):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(members[path].data)
        target.chmod(members[path].mode)


# The output


def existing_bundle(output: Path) -> bd.Bundle | None:
    """The bundle at ``output``, None if nothing is there; anything else there is a refusal."""
    if not output.exists():
        return None
    try:
        return bd.load_bundle(str(output))
    except FleetError as error:
        raise FleetError(
            "EF_BUNDLE_IMMUTABLE",
            f"{output}: is there and is no whole bundle ({error.message}); remove it or choose another output",
            str(output),
        ) from error


def judge_output(output: Path, existing: bd.Bundle | None, built: Built, force: bool) -> bool:
    """Whether the output has to be written; a version that is there with other content is a refusal."""
    if existing is None:
        return True
    if existing.manifest.digest == built.manifest.digest:
        return bool(existing.signature != built.signature)
    if existing.manifest.version == built.manifest.version and not force:
        raise FleetError(
            "EF_BUNDLE_IMMUTABLE",
            f"{output}: already holds version {built.manifest.version} with other content "
            f"({existing.manifest.digest[:12]}, not {built.manifest.digest[:12]}); give the new one a version of "
            "its own",
            str(output),
        )
    return True


def write_output(output: Path, built: Built) -> None:
    """Write the bundle as a tar (a name that ends in ``.tar``) or as a folder, whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        if output.suffix == ".tar":
            temporary.write_bytes(bd.tar_bytes(built.members, bd.epoch_of(built.manifest.doc["bundle"]["created"])))
            temporary.rename(output)
        else:
            write_folder(built.members, temporary)
            replaced = put_folder(temporary, output)
            if replaced is not None:
                remove_tree(replaced)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        elif temporary.exists():
            temporary.unlink()
        raise
