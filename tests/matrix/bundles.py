# SPDX-License-Identifier: GPL-3.0-or-later
"""The one bundle that every host of the matrix gets: the repository's features, signed, with minimal BTF."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import load_bundle
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import build_id_of

from tests.matrix.errors import MatrixError
from tests.matrix.places import FULL_BTF, HERE, OUT, WORK, Place, read_file, release
from tests.support.play import ROOT, new_key, play

VERSION = "0.0.0+matrix"
_BTF_MAGIC = (b"\x9f\xeb", b"\xeb\x9f")


def collect_btf(chosen: list[Place], machine: str) -> list[str]:
    """Keep the full BTF of each kernel that a hidden host has, read from a host of the same kernel that shows it.

    Returns what stays without: sentences that name host and remedy.
    """
    missing = []
    for hidden in (place for place in chosen if place.hidden):
        twins = [place for place in chosen if place.twin_kernel == hidden.twin_kernel and not place.hidden]
        if twins:
            _keep_btf(twins[0], FULL_BTF / machine)
        elif not (FULL_BTF / machine / f"{release(hidden)}.btf").exists():
            missing.append(f"{hidden.name}: no host of kernel {hidden.twin_kernel} with BTF was asked: name it too")
    return missing


def _keep_btf(twin: Place, folder: Path) -> None:
    identity = build_id_of(read_file(twin, "/sys/kernel/notes"))
    file = folder / f"{release(twin)}.btf"
    beside = folder / f"{release(twin)}.build-id"
    if file.exists() and identity and beside.exists() and beside.read_text().strip() == identity:
        return
    content = read_file(twin, "/sys/kernel/btf/vmlinux")
    if content[:2] not in _BTF_MAGIC:
        raise MatrixError(f"{twin.name}: /sys/kernel/btf/vmlinux is no BTF: this kernel cannot lend it to its twin")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    if identity:
        beside.write_text(identity + "\n")


def build(features_dirs: list[Path]) -> tuple[Path, str]:
    """Build and sign the bundle with the release playbook. Returns its path and the allowed_signers text."""
    key, trust = new_key(WORK / "keys")
    output = OUT / "bundle.tar"
    output.unlink(missing_ok=True)
    variables: dict[str, Any] = {
        "ebpf_fleet_release_version": VERSION, "ebpf_fleet_release_sequence": 1,
        "ebpf_fleet_release_signing_key": str(key), "ebpf_fleet_release_output": str(output),
        "ebpf_fleet_release_features_dirs": [str(path) for path in features_dirs],
    }  # fmt: skip
    if FULL_BTF.exists():
        variables["ebpf_fleet_release_btf_dirs"] = sorted(str(path) for path in FULL_BTF.iterdir())
    played = play("release", variables, inventory=None, log=OUT / "release.log")
    if played.rc != 0:
        tail = "\n".join(played.text.splitlines()[-30:])
        raise MatrixError(f"the bundle was not built; {OUT.relative_to(ROOT)}/release.log ends with:\n{tail}")
    return output, trust


class Bundle:
    """What the matrix must know of a bundle: its identity, contracts, objects and BTF index."""

    def __init__(self, path: Path) -> None:
        found = load_bundle(str(path))
        self.path = path
        self.bundle = dict(found.manifest.doc["bundle"])
        self.digest = found.manifest.digest
        self.contracts = [found.contracts[name] for name in sorted(found.contracts)]
        files = found.manifest.doc["files"]
        self.objects = {name: files[name]["sha256"] for name in sorted(files) if name.endswith(".bpf.o")}
        with tarfile.open(path) as archive:
            self.btf_index = _index(archive, files)

    def desired(self) -> dict[str, Any]:
        """A desired state that wants every feature."""
        wanted = {contract["feature"]: {"enabled": True, "sample_every": 1} for contract in self.contracts}
        return {"schema": "ebpf.fleet/desired/v1", "bundle_digest": self.digest, "features": wanted}


def _index(archive: tarfile.TarFile, files: dict[str, Any]) -> list[dict[str, Any]]:
    if "btf/index.json" not in files:
        return []
    file = archive.extractfile("btf/index.json")
    content = file.read() if file else b""
    if hashlib.sha256(content).hexdigest() != files["btf/index.json"]["sha256"]:
        raise MatrixError("btf/index.json of the bundle is not what its manifest says: build it again")
    entries: list[dict[str, Any]] = json.loads(content)["entries"]
    return entries


def payload(bundle: Bundle, trust: str, path: Path) -> None:
    """One tar with all that a host needs: the bundle, whom to trust, what is wanted, and who asks."""
    with tarfile.open(path, "w") as made, tarfile.open(bundle.path) as archive:
        for member in archive:
            content = archive.extractfile(member)
            member.name = f"bundle/{member.name}"
            made.addfile(member, content)
        _add(made, "etc/trust/allowed_signers", trust.encode())
        _add(made, "etc/desired.json", json.dumps(bundle.desired()).encode())
        _add(made, "ask.sh", (HERE / "ask.sh").read_bytes())


def _add(made: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    made.addfile(member, io.BytesIO(content))
