# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures and trust files: what gets which name. ssh-keygen makes and judges the real ones."""

from __future__ import annotations

import base64
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import signature as sg

from tests.unit.test_manifest import make as manifest

DATA = b"the manifest\n"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def sign(key: Path, namespace: str = sg.NAMESPACE, hash_name: str = "sha512") -> bytes:
    command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-O", f"hashalg={hash_name}", "-f", str(key)]
    return subprocess.run(command, input=DATA, check=True, capture_output=True).stdout


def public(key: Path) -> str:
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def trust(line: str, revoked: bytes | None = None) -> sg.Trust:
    return sg.Trust("allowed_signers", line.encode() + b"\n", "revoked_keys", revoked)


def code(key: Path, line: str, revoked: bytes | None = None, data: bytes = DATA, now: float | None = None) -> str:
    try:
        sg.verify_signature(data, sign(key), trust(line, revoked), time.time() if now is None else now)
    except FleetError as error:
        return error.code
    return "EF_OK"


@pytest.mark.parametrize("hash_name", ["sha256", "sha512"])
def test_a_good_signature_gives_its_principal(key: Path, hash_name: str) -> None:
    found = sg.parse_signature(sign(key, hash_name=hash_name))
    assert (found.key_type, found.namespace, found.hash_name) == ("ssh-ed25519", sg.NAMESPACE, hash_name)
    lines = f"# comment\n\nother@x ssh-ed25519 AAAA\nme@x,you@x {public(key)} note"
    assert sg.verify_signature(DATA, sign(key, hash_name=hash_name), trust(lines), time.time()) == "me@x"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "EF_OK"),
        ('namespaces="ebpf-fleet-release"', "EF_OK"),
        ('namespaces="git,ebpf-*"', "EF_OK"),
        ('namespaces="git"', "EF_SIG_NAMESPACE"),
        ('valid-after="20200101",valid-before="20990101Z"', "EF_OK"),
        ('valid-before="202001010000Z"', "EF_SIG_EXPIRED"),
        ('valid-after="20990101120000"', "EF_SIG_EXPIRED"),
        ('valid-before="soon"', "EF_TRUST_MALFORMED"),
        ("cert-authority", "EF_TRUST_MALFORMED"),
        ('verify-required="x"', "EF_TRUST_MALFORMED"),
    ],
)
def test_options_of_a_signer(key: Path, options: str, expected: str) -> None:
    assert code(key, f"me@x {options} {public(key)}") == expected


def test_other_data_and_other_keys_are_bad(key: Path) -> None:
    line = f"me@x {public(key)}"
    assert code(key, line, data=DATA + b"x") == "EF_SIG_BAD"
    other = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode()
    assert code(key, f"me@x ssh-ed25519 {other}") == "EF_SIG_UNKNOWN_SIGNER"
    assert code(key, "me@x ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA") == "EF_TRUST_MALFORMED"
    assert code(key, "me@x ssh-rsa AAAAB3NzaC1yc2E=") == "EF_TRUST_MALFORMED"
    assert code(key, "") == "EF_TRUST_MALFORMED"


def test_a_revoked_key_is_named_and_ssh_keygen_agrees(key: Path) -> None:
    line = f"me@x {public(key)}"
    assert code(key, line, f"{public(key)} lost\n".encode()) == "EF_SIG_REVOKED"
    assert code(key, line, b"# nobody\n") == "EF_OK"
    fingerprint = subprocess.run(["ssh-keygen", "-l", "-f", f"{key}.pub"], check=True, capture_output=True).stdout
    by_hash = b"hash: " + fingerprint.split()[1] + b"\n"
    assert code(key, line, by_hash) == "EF_TRUST_MALFORMED"
    assert code(key, line, b"no key at all\n") == "EF_TRUST_MALFORMED"


def test_another_namespace_is_refused(key: Path) -> None:
    with pytest.raises(FleetError) as found:
        sg.verify_signature(DATA, sign(key, "git"), trust(f"me@x {public(key)}"), time.time())
    assert found.value.code == "EF_SIG_NAMESPACE" and "-n ebpf-fleet-release" in found.value.message


@pytest.mark.parametrize(
    "data",
    [b"x", b"-----BEGIN SSH SIGNATURE-----", b"\xff" * 100, b"A" * 20000,
     b"-----BEGIN SSH SIGNATURE-----\n!!!\n-----END SSH SIGNATURE-----\n",
     b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"],
)  # fmt: skip
def test_what_is_no_signature_is_malformed(data: bytes) -> None:
    with pytest.raises(FleetError) as found:
        sg.parse_signature(data)
    assert found.value.code == "EF_SIG_MALFORMED"


def test_every_cut_of_a_signature_is_refused(key: Path) -> None:
    good = sign(key)
    for size in range(len(good.rstrip())):
        with pytest.raises(FleetError) as found:
            sg.parse_signature(good[:size])
        assert found.value.code in ("EF_SIG_MALFORMED", "EF_SIG_MISSING")


def test_trust_files_are_read_with_suspicion(tmp_path: Path) -> None:
    signers, revoked = tmp_path / "allowed_signers", tmp_path / "revoked_keys"

    def refusal() -> str:
        with pytest.raises(FleetError) as found:
            sg.read_trust(str(signers), str(revoked))
        return found.value.code

    assert refusal() == "EF_TRUST_MISSING"
    signers.mkdir()
    assert refusal() == "EF_TRUST_MALFORMED"
    signers.rmdir()
    signers.write_text("x")
    signers.chmod(0o664)
    assert refusal() == "EF_TRUST_MALFORMED"
    signers.chmod(0o644)
    assert sg.read_trust(str(signers), str(revoked)).revoked is None
    tmp_path.chmod(0o777)
    assert refusal() == "EF_TRUST_MALFORMED"
    tmp_path.chmod(0o755)
    signers.rename(tmp_path / "real")
    signers.symlink_to("real")
    assert refusal() == "EF_TRUST_MALFORMED"


def test_a_binary_krl_is_refused(key: Path) -> None:
    assert code(key, f"me@x {public(key)}", sg.KRL_MAGIC) == "EF_TRUST_MALFORMED"


CREATED = 1795629600  # 2026-11-25T18:00:00Z


def release(key: Path) -> tuple[bytes, bytes]:
    """A manifest that was made at CREATED, and its signature."""
    data = manifest(bundle={"name": "b", "version": "1", "sequence": 1, "created": "2026-11-25T18:00:00Z"}).data
    command = ["ssh-keygen", "-Y", "sign", "-n", sg.NAMESPACE, "-f", str(key)]
    return data, subprocess.run(command, input=data, check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    ("now", "seen", "known"),
    [
        (CREATED, 0, True),
        (CREATED - sg.CLOCK_SLACK_SECONDS, 0, True),
        (CREATED - sg.CLOCK_SLACK_SECONDS - 1, 0, False),
        (CREATED + 5, CREATED + 5 + sg.CLOCK_SLACK_SECONDS, True),
        (CREATED + 5, CREATED + 6 + sg.CLOCK_SLACK_SECONDS, False),
    ],
)
def test_a_clock_before_what_has_happened_decides_nothing(key: Path, now: int, seen: int, known: bool) -> None:
    """The release was made, or a deployment was seen: a key that is trusted for a time waits for a better clock."""
    data, signature = release(key)
    judged = sg.judge_release(data, signature, trust(f"me@x {public(key)}"), now, seen)
    assert (judged.signer, judged.clock_known) == ("me@x", known)
    limited = trust(f'me@x valid-after="20200101" {public(key)}')
    if known:
        assert sg.judge_release(data, signature, limited, now, seen).clock_known
    else:
        with pytest.raises(FleetError) as refused:
            sg.judge_release(data, signature, limited, now, seen)
        assert refused.value.code == "EF_CLOCK_UNKNOWN"


def test_a_key_that_has_expired_is_told_so_only_where_the_clock_can_be_right(key: Path) -> None:
    data, signature = release(key)
    late = trust(f'me@x valid-before="20261101" {public(key)}')
    for now, code_ in ((CREATED + 60, "EF_SIG_EXPIRED"), (CREATED - 10**8, "EF_CLOCK_UNKNOWN")):
        with pytest.raises(FleetError) as refused:
            sg.judge_release(data, signature, late, now)
        assert refused.value.code == code_
