# SPDX-License-Identifier: GPL-3.0-or-later
"""Make real bundles, signed by ssh-keygen, for the tests of the loader."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

NAMESPACE = "ebpf-fleet-release"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
PRINCIPAL = "release@example.org"
CREATED = "2026-11-23T18:00:00Z"


def canonical(document: Any) -> bytes:
    """The canonical JSON of docs/formats/bundle.md."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return (text + "\n").encode("ascii")


def write(path: Path, data: bytes, mode: int = 0o644) -> Path:
    """Write a file with exactly this mode, whatever the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def make_key(folder: Path, name: str = "release", kind: str = "ed25519") -> Path:
    """A new SSH key pair without a passphrase; returns the private key's path."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / name
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return key


def public_key(key: Path) -> str:
    """`TYPE BASE64` of a key pair, without its comment."""
    return " ".join(key.with_name(key.name + ".pub").read_text().split()[:2])


def sign(manifest: Path, key: Path, namespace: str = NAMESPACE, digest: str = "sha512") -> None:
    """Write MANIFEST.sig beside a manifest."""
    signature = manifest.with_name(manifest.name + ".sig")
    signature.unlink(missing_ok=True)
    command = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", namespace, "-O", f"hashalg={digest}"]
    subprocess.run([*command, str(manifest)], check=True, capture_output=True)
    signature.chmod(0o644)


@dataclass
class Trust:
    """The trust files of a host; `arguments` are the loader's options for them."""

    folder: Path
    key: Path
    signers: Path = field(init=False)
    revoked: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.signers = self.folder / "allowed_signers"
        self.revoked = self.folder / "revoked_keys"
        self.allow(self.key)
        write(self.revoked, b"# none\n")

    def allow(self, key: Path, options: str = f'namespaces="{NAMESPACE}"', principal: str = PRINCIPAL) -> None:
        """Trust this key and no other."""
        line = " ".join(part for part in (principal, options, public_key(key)) if part)
        write(self.signers, f"# who may sign a release\n{line}\n".encode())

    def revoke(self, key: Path) -> None:
        """Revoke this key and no other."""
        write(self.revoked, f"# revoked\n{public_key(key)} compromised\n".encode())

    @property
    def arguments(self) -> list[str]:
        return ["--trust", str(self.signers), "--revoked", str(self.revoked)]


@dataclass
class Bundle:
    """A bundle in a folder, and the key that signs it."""

    root: Path
    key: Path

    @property
    def manifest_path(self) -> Path:
        return self.root / MANIFEST

    @property
    def signature_path(self) -> Path:
        return self.root / SIGNATURE

    @property
    def manifest(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.manifest_path.read_bytes())
        return document

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.manifest_path.read_bytes()).hexdigest()

    def write_manifest(self, document: Any, **signing: str) -> None:
        """Replace the manifest (a document, or bytes as they stand) and sign it."""
        data = document if isinstance(document, bytes) else canonical(document)
        write(self.manifest_path, data)
        sign(self.manifest_path, self.key, **signing)

    def replace(self, path: str, data: bytes) -> None:
        """Change one file and sign the manifest that fits it."""
        write(self.root / path, data)
        document = self.manifest
        document["files"][path] = describe(self.root / path)
        self.write_manifest(document)


def describe(path: Path) -> dict[str, Any]:
    """A file's entry in the manifest."""
    data = path.read_bytes()
    mode = f"{path.stat().st_mode & 0o777:04o}"
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "mode": mode}


def make_bundle(
    root: Path,
    key: Path,
    features: Mapping[str, tuple[Any, Mapping[str, bytes]]],
    loader: Path | None = None,
    version: str = "1.0.0",
    sequence: int = 7,
) -> Bundle:
    """Write and sign a bundle.

    `features` maps a name to its contract (a document) and its objects by
    variant, in order of preference. `loader` is the binary for this machine;
    without it a few bytes are in its place, which only `verify --self` minds.
    """
    arch = platform.machine()
    document: dict[str, Any] = {
        "schema": "ebpf.fleet/manifest/v1",
        "bundle": {"name": "ebpf-fleet", "version": version, "sequence": sequence, "created": CREATED},
        "loader": {"version": "0.1.0", "files": {}},
        "features": {},
        "files": {},
        "provenance": {"commit": "test", "compiler": "clang", "libbpf": "1.1.2"},
        "compatibility": {"summary": [], "known_disabled": []},
    }
    root.mkdir(parents=True)
    path = f"loader/{arch}/ebpf-loader"
    write(root / path, loader.read_bytes() if loader else b"no loader\n", 0o755)
    document["loader"]["files"][arch] = path
    for name, (contract, variants) in features.items():
        document["features"][name] = add_feature(root, name, contract, variants)
    files = [path for path in root.rglob("*") if path.is_file()]
    document["files"] = {str(path.relative_to(root)): describe(path) for path in files}
    bundle = Bundle(root, key)
    bundle.write_manifest(document)
    return bundle


def add_feature(root: Path, name: str, contract: Any, variants: Mapping[str, bytes]) -> dict[str, Any]:
    """Write a feature's files; returns its entry in the manifest."""
    contract_path = f"features/{name}/contract.json"
    write(root / contract_path, canonical(contract))
    entries = []
    for variant, data in variants.items():
        path = f"features/{name}/{variant}.bpf.o"
        write(root / path, data)
        entries.append({"name": variant, "object": path})
    return {"contract": contract_path, "variants": entries}
