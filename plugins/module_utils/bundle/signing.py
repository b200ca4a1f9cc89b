# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signature of a bundle that is being built, and our loader's word that it holds. On the controller."""

from __future__ import annotations

import base64
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.compile import ask_loader
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import (
    KEY_TYPE,
    NAMESPACE,
    RELEASE,
    Purpose,
    parse_signature,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.tools import run_tool


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


def sign(data: bytes, key: Path, of: Purpose = RELEASE) -> bytes:
    """The armored signature of a manifest, or for another purpose. A public key asks the ssh-agent."""
    command = ["ssh-keygen", "-Y", "sign", "-n", of.namespace, "-f", str(key)]
    try:
        signature = run_tool(command, data=data, code="EF_KEY").stdout
    except FleetError as error:
        remedy = "a key with a passphrase must be in the ssh-agent; then give its .pub file"
        raise FleetError("EF_KEY", f"signing_key: {key} does not sign ({error.message}); {remedy}", str(key)) from error
    parse_signature(signature, of)
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
