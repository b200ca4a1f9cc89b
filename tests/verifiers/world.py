# SPDX-License-Identifier: GPL-3.0-or-later
"""A signed bundle and a host's trust files in a folder, for one mutant to change."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.loader.bundles import MANIFEST, NAMESPACE, SIGNATURE, canonical, make_bundle, make_key, public_key, write

PRINCIPAL = "release@example.org"
FEATURES = {"runqlat": ({"feature": "runqlat"}, {"full": bytes(range(256)) * 4, "reduced": b"\x7fELF" * 99})}
OBJECT = "features/runqlat/full.bpf.o"
CONTRACT = "features/runqlat/contract.json"


@dataclass
class Origin:
    """What every world begins as: a bundle, its key, a key that no file names."""

    root: Path
    key: Path
    other: Path
    signature: bytes
    manifest: bytes


def make_origin(folder: Path) -> Origin:
    """A good bundle, made once."""
    key, other = make_key(folder / "keys"), make_key(folder / "keys", "other")
    for kind in ("rsa", "ecdsa"):
        make_key(folder / "keys", kind, kind)
    bundle = make_bundle(folder / "bundle", key, FEATURES)
    return Origin(bundle.root, key, other, bundle.signature_path.read_bytes(), (bundle.root / MANIFEST).read_bytes())


def armored(manifest: bytes, key: Path, namespace: str = NAMESPACE, digest: str = "sha512") -> bytes:
    """ssh-keygen's signature of these bytes."""
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-O", f"hashalg={digest}", "-f", str(key)]
    return subprocess.run(command, input=manifest, check=True, capture_output=True).stdout


@dataclass
class World:
    """One mutant's own copy. `tar` is there where the bundle is to be read from a tar."""

    folder: Path
    origin: Origin

    @property
    def root(self) -> Path:
        return self.folder / "bundle"

    @property
    def tar(self) -> Path:
        return self.folder / "bundle.tar"

    @property
    def signers(self) -> Path:
        return self.folder / "trust" / "allowed_signers"

    @property
    def revoked(self) -> Path:
        return self.folder / "trust" / "revoked_keys"

    @property
    def public(self) -> str:
        return public_key(self.origin.key)

    @property
    def doc(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.origin.manifest)
        return found

    def reseal(self, manifest: Any) -> None:
        """Put this manifest (a document, or bytes as they stand) in place and sign it with the trusted key."""
        data = manifest if isinstance(manifest, bytes) else canonical(manifest)
        write(self.root / MANIFEST, data)
        write(self.root / SIGNATURE, armored(data, self.origin.key))

    def signature(self, data: bytes) -> None:
        write(self.root / SIGNATURE, data)

    def blob(self) -> bytearray:
        """The good signature without its armor."""
        return bytearray(base64.b64decode(b"".join(self.origin.signature.splitlines()[1:-1])))

    def set_blob(self, blob: bytes) -> None:
        body = base64.b64encode(blob)
        lines = [body[at : at + 70] for at in range(0, len(body), 70)] or [b""]
        text = b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""])
        self.signature(text)


def make_world(folder: Path, origin: Origin) -> World:
    """A fresh world in an own folder."""
    world = World(folder, origin)
    folder.mkdir()
    folder.chmod(0o755)
    shutil.copytree(origin.root, world.root)
    write(world.signers, f'{PRINCIPAL} namespaces="{NAMESPACE}" {world.public}\n'.encode())
    world.signers.parent.chmod(0o755)
    write(world.revoked, b"# revoked keys\n")
    return world
