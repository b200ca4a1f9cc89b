# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge a signature, of a bundle or of what else has a namespace of its own: the trust files are judged here, the
cryptography by ssh-keygen.

ssh-keygen gets one line of our own making, the key that signed and nothing else, so that no option of
allowed_signers is needed that an older OpenSSH does not have, and the key that it verifies with is
the very key that was judged. What is checked here beside it only makes the verdict stricter, to that
of the loader (sshsig.c). The grammar is docs/trust-formats.md.
"""

from __future__ import annotations

import base64
import os
import shutil
import struct
import subprocess
from typing import NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import (
    MAX_SIGNATURE,
    SIGNATURE,
    Manifest,
    load_manifest,
    seconds_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.trustfiles import (
    KEY_SIZE,
    KEY_TYPE,
    KRL_MAGIC,
    Signer,
    Trust,
    Trusted,
    decode_base64,
    parse_trust,
    read_trust,
    take_ed25519,
    take_string,
    unusable_lines,
)

__all__ = [
    "KEY_TYPE", "KRL_MAGIC", "NAMESPACE", "RELEASE", "Judged", "Purpose", "Trust", "clock_known", "judge_release",
    "judge_signer", "open_seal", "parse_signature", "parse_trust", "read_trust", "unusable_lines", "verify_signature",
]  # fmt: skip

NAMESPACE = "ebpf-fleet-release"
BEGIN, END = b"-----BEGIN SSH SIGNATURE-----\n", b"\n-----END SSH SIGNATURE-----\n"
SIGNATURE_SIZE = 64
SECONDS_FOR_KEYGEN = 30
# How far a builder's clock may be ahead of a host's; as the loader's moment.h.
CLOCK_SLACK_SECONDS = 300

# Of ed25519 (RFC 8032): the field's prime and the group's order.
PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
# The y of the points of order 1, 2, 4 and 8; a signature by such a point is good for many messages.
EIGHTH = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = (0, 1, PRIME - 1, PRIME, PRIME + 1, EIGHTH, PRIME - EIGHTH)

# A signature that is known to be good, made once by a key that was thrown away: an ssh-keygen that
# refuses it cannot be believed about another one.
KNOWN_DATA = b"ebpf.fleet: a signature that is known to be good\n"
KNOWN_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAII4F5NgVZsu+sUn93S9qpTpN/vuk/ffxAeKvl7o8t1m/"
KNOWN_SIGNATURE = b"""\
-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgjgXk2BVmy76xSf3dL2qlOk3++6
T99/EB4q+Xujy3Wb8AAAASZWJwZi1mbGVldC1yZWxlYXNlAAAAAAAAAAZzaGE1MTIAAABT
AAAAC3NzaC1lZDI1NTE5AAAAQEMe/8nQBJcDUbQ2oxDgK4dAscH4NyqI1Dfk7yRaiLK6Rw
AeK3hWeWm9MNEAmCGaQNQ9hLK98gn2NQy3s9cMDQs=
-----END SSH SIGNATURE-----
"""


class Purpose(NamedTuple):
    """What a signature is for: no signature of one namespace is good in another.

    ``file`` is how sentences call the signature, ``what`` what is to be signed again, ``signed`` the bytes it covers.
    """

    namespace: str
    file: str
    what: str
    signed: str


RELEASE = Purpose(NAMESPACE, SIGNATURE, "the bundle", "the manifest")


class SshSignature(NamedTuple):
    """What an SSHSIG says of itself; ``key`` is the public key's blob."""

    key_type: str
    key: bytes
    namespace: str
    hash_name: str
    signature: bytes


def _malformed(problem: str, of: Purpose) -> NoReturn:
    raise FleetError("EF_SIG_MALFORMED", f"{of.file}: {problem}; sign {of.what} again", of.file)


def parse_signature(data: bytes, of: Purpose = RELEASE) -> SshSignature:
    """Read the armored SSHSIG; raises FleetError (EF_SIG_MISSING, EF_SIG_MALFORMED).

    It is by an ed25519 key, over one of the two hashes that SSHSIG allows; nothing is verified yet.
    """
    if not data:
        raise FleetError("EF_SIG_MISSING", f"{of.file}: is empty; sign {of.what} with ssh-keygen -Y sign", of.file)
    if len(data) > MAX_SIGNATURE:
        _malformed(f"is {len(data)} bytes; at most {MAX_SIGNATURE} are allowed", of)
    if len(data) < len(BEGIN) + len(END) or not data.startswith(BEGIN) or not data.endswith(END):
        _malformed("is not an armored SSH signature, of its first line and its last with a newline behind each", of)
    blob = decode_base64(data[len(BEGIN) : -len(END)].replace(b"\n", b"").decode("latin-1"))
    if blob is None:
        _malformed("is not base64", of)
    try:
        return _parse_blob(blob)
    except ValueError as error:
        _malformed(str(error), of)


def _parse_blob(blob: bytes) -> SshSignature:
    if blob[:6] != b"SSHSIG" or blob[6:10] != struct.pack(">I", 1):
        raise ValueError("is not an SSHSIG of version 1")
    key, rest = take_string(blob[10:])
    namespace, rest = take_string(rest)
    reserved, rest = take_string(rest)
    hash_name, rest = take_string(rest)
    signature, rest = take_string(rest)
    if rest or reserved:
        raise ValueError("has bytes that no signature has")
    take_ed25519(key, KEY_SIZE)
    value = take_ed25519(signature, SIGNATURE_SIZE)
    if hash_name not in (b"sha512", b"sha256"):
        raise ValueError(f"uses the hash {hash_name[:32]!r}, not sha512")
    return SshSignature(KEY_TYPE, key, namespace.decode("latin-1"), hash_name.decode("ascii"), value)


def verify_signature(manifest: bytes, signature: bytes, trust: Trust, now: float) -> str:
    """The principal that signed the manifest; ``now`` is in seconds since 1970.

    Raises FleetError: EF_TRUST_MALFORMED, then EF_SIG_* in the order of docs/trust-formats.md, or
    EF_NO_SSH_KEYGEN where this host's ssh-keygen cannot verify, whatever the bundle.
    """
    trusted = parse_trust(trust)
    return judge_signer(open_seal(manifest, signature), trust, trusted, int(now))


class Judged(NamedTuple):
    """A manifest whose signer may sign releases; ``clock_known`` is whether the host's clock can be right."""

    manifest: Manifest
    signer: str
    clock_known: bool


def clock_known(now: float, floor: int) -> bool:
    """Whether a clock that says ``now`` can be right; ``floor`` is a time that has been for certain."""
    return int(now) + CLOCK_SLACK_SECONDS >= floor


def judge_release(data: bytes, signature: bytes, trust: Trust, now: float, seen: int = 0) -> Judged:
    """The manifest of a release by a signer who may sign now; the rule is that of the loader's bundle.c.

    A clock that stands before the manifest's ``created`` or before ``seen``, the last time known of the host,
    decides nothing: a key that is trusted for a time is then refused with EF_CLOCK_UNKNOWN. Raises FleetError as
    verify_signature() and load_manifest() do.
    """
    trusted = parse_trust(trust)
    key = open_seal(data, signature)
    late, signer = None, ""
    try:
        signer = judge_signer(key, trust, trusted, int(now))
    except FleetError as error:
        if error.code != "EF_SIG_EXPIRED":
            raise
        late = error
    try:
        manifest = load_manifest(data)
    except FleetError as error:
        raise late or error from error
    known = clock_known(now, max(seconds_of(manifest.doc["bundle"]["created"]) or 0, seen))
    if not known:
        signer = judge_signer(key, trust, trusted, None)
    elif late is not None:
        raise late
    return Judged(manifest, signer, known)


def open_seal(signed: bytes, signature: bytes, of: Purpose = RELEASE) -> bytes:
    """The ed25519 key that signed these bytes for this purpose; whether it may is for the trust files to say.

    Raises FleetError (EF_SIG_MISSING, EF_SIG_MALFORMED, EF_SIG_NAMESPACE, EF_SIG_BAD, EF_NO_SSH_KEYGEN).
    """
    found = parse_signature(signature, of)
    if found.namespace != of.namespace:
        shown = found.namespace[:64]
        raise FleetError(
            "EF_SIG_NAMESPACE", f"{of.file}: is for the namespace {shown!r}; sign with -n {of.namespace}", of.file
        )
    check_sealed(signed, signature, found, of)
    return bytes(take_ed25519(found.key, KEY_SIZE))


def check_sealed(signed: bytes, signature: bytes, found: SshSignature, of: Purpose = RELEASE) -> None:
    """The bytes must be what this signature's own key signed; raises FleetError (EF_SIG_BAD, EF_NO_SSH_KEYGEN)."""
    if not _is_strict(take_ed25519(found.key, KEY_SIZE), found.signature):
        _bad("has a form that no good signature has", of)
    keygen = shutil.which("ssh-keygen")
    if keygen is None:
        raise FleetError("EF_NO_SSH_KEYGEN", "ssh-keygen is not on this host; install OpenSSH's client tools")
    said = _ask_keygen(keygen, signed, signature, base64.b64encode(found.key).decode("ascii"), of.namespace)
    if said is None:
        return
    fault = _ask_keygen(keygen, KNOWN_DATA, KNOWN_SIGNATURE, KNOWN_KEY, NAMESPACE)
    if fault is not None:
        raise FleetError(
            "EF_NO_SSH_KEYGEN",
            f"{keygen}: cannot verify a signature, not even one that is known to be good ({fault}); {of.what} was "
            "not judged: install OpenSSH 8.1 or newer",
        )
    _bad(f"is not a good signature of {of.signed} ({said})", of)


def _bad(problem: str, of: Purpose) -> NoReturn:
    raise FleetError("EF_SIG_BAD", f"{of.file}: {problem}; use {of.what} as it was signed", of.file)


def _is_strict(key: bytes, signature: bytes) -> bool:
    """Whether the numbers have the one form that the loader's library takes; OpenSSH takes some others."""
    sign = (1 << 255) - 1
    point = int.from_bytes(key, "little") & sign
    nonce = int.from_bytes(signature[:32], "little") & sign
    if point >= PRIME or point in SMALL_ORDER or nonce in SMALL_ORDER:
        return False
    return int.from_bytes(signature[32:], "little") < ORDER


def judge_signer(key: bytes, trust: Trust, trusted: Trusted, now: int | None, of: Purpose = RELEASE) -> str:
    """The principal of a key that may sign for this purpose now; raises FleetError (EF_SIG_*).

    ``now`` is None where the time is not known: then only a line without a limit in time allows (EF_CLOCK_UNKNOWN).
    """
    if key in trusted.revoked:
        raise FleetError(
            "EF_SIG_REVOKED",
            f"{of.file}: its key is revoked by {trust.revoked_path}; sign with another key",
            of.file,
        )
    ours = [signer for signer in trusted.signers if signer.key == key]
    if not ours:
        notes = "; ".join(trusted.notes[:10])
        raise FleetError(
            "EF_SIG_UNKNOWN_SIGNER",
            f"{of.file}: its key is not in {trust.signers_path}{f' ({notes})' if notes else ''}; add the signer "
            "there or sign with a key that is",
            of.file,
        )
    ours = [signer for signer in ours if signer.namespaces is None or matches(signer.namespaces, of.namespace)]
    if not ours:
        raise FleetError(
            "EF_SIG_NAMESPACE",
            f"{of.file}: {trust.signers_path} does not allow its key the namespace {of.namespace}; add it there",
            of.file,
        )
    for signer in ours:
        if _valid_at(signer, now):
            return str(signer.principal)
    if now is None:
        raise FleetError(
            "EF_CLOCK_UNKNOWN",
            f"{of.file}: its key is trusted for a time in {trust.signers_path}, and this host's clock stands before "
            "what has happened already; set the clock",
            of.file,
        )
    raise FleetError(
        "EF_SIG_EXPIRED",
        f"{of.file}: its key is outside of its time in {trust.signers_path}; sign with a valid key, or correct "
        "this host's clock",
        of.file,
    )


def matches(patterns: str, text: str) -> bool:
    """Whether a text matches one of OpenSSH's comma-separated patterns and none of those behind a ``!``."""
    found = False
    for pattern in patterns.split(","):
        negated = pattern.startswith("!")
        if _pattern_matches(pattern[1:] if negated else pattern, text):
            if negated:
                return False
            found = True
    return found


def _pattern_matches(pattern: str, text: str) -> bool:
    """Only the last ``*`` is ever tried again, so that no pattern takes longer than its length by the text's."""
    at, here, star, behind = 0, 0, -1, 0
    while here < len(text):
        letter = pattern[at : at + 1]
        if letter == "*":
            at += 1
            star, behind = at, here
        elif letter and letter in ("?", text[here]):
            at += 1
            here += 1
        elif star >= 0:
            behind += 1
            at, here = star, behind
        else:
            return False
    return not pattern[at:].strip("*")


def _valid_at(signer: Signer, now: int | None) -> bool:
    if now is None:
        return signer.valid_after is None and signer.valid_before is None
    if signer.valid_after is not None and now < signer.valid_after:
        return False
    return signer.valid_before is None or now <= signer.valid_before


class _MemoryFiles:
    """Files in memory for ssh-keygen: the very bytes that were judged, and no disk that could be full."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self, data: bytes) -> str:
        fd = os.memfd_create("ebpf-fleet")
        self.fds.append(fd)
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        return f"/proc/self/fd/{fd}"

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def _ask_keygen(keygen: str, data: bytes, signature: bytes, key: str, namespace: str) -> str | None:
    """None if ssh-keygen confirms that this key signed the data in this namespace, else what it said."""
    files = _MemoryFiles()
    try:
        command = [keygen, "-Y", "verify", "-n", namespace, "-I", "signer", "-s", files.add(signature)]
        command += ["-f", files.add(f"signer {KEY_TYPE} {key}\n".encode("ascii"))]
        done = subprocess.run(
            command, input=data, capture_output=True, pass_fds=files.fds, check=False, timeout=SECONDS_FOR_KEYGEN
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError("EF_NO_SSH_KEYGEN", f"{keygen}: does not run ({error}); repair OpenSSH") from error
    finally:
        files.close()
    if done.returncode == 0:
        return None
    words = (done.stderr + b" " + done.stdout).decode("utf-8", "replace").split()
    return " ".join(words)[:200] or f"exit {done.returncode}"
