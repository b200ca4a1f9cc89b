# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Judge a bundle's signature with the host's trust files and OpenSSH's ssh-keygen.

ssh-keygen decides. The parsers here only make the policy stricter (ed25519
keys, our namespace) and give a refusal its name.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import fnmatch
import os
import re
import shutil
import stat
import struct
import subprocess
from typing import NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.manifest import MAX_SIGNATURE, SIGNATURE

NAMESPACE = "ebpf-fleet-release"
KEY_TYPE = "ssh-ed25519"
BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
KRL_MAGIC = b"SSHKRL\n\0"
MAX_TRUST = 1024 * 1024
SIGNER_LINE = re.compile(r'(?P<principals>"[^"]*"|\S+)\s+(?P<rest>\S.*)\Z')
OPTION = re.compile(r'(?P<name>[A-Za-z-]+)(?:="(?P<value>[^"]*)")?(?:,|\s+)')
OPTIONS = ("namespaces", "valid-after", "valid-before")
TIMES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
SECONDS_FOR_KEYGEN = 30


class SshSignature(NamedTuple):
    """What an SSHSIG says of itself."""

    key_type: str
    key: bytes
    namespace: str
    hash_name: str


class Signer(NamedTuple):
    """A usable line of ``allowed_signers``; times are seconds since 1970 or None."""

    principals: str
    key: bytes
    namespaces: list[str] | None
    valid_after: float | None
    valid_before: float | None


class Trust(NamedTuple):
    """The bytes of a host's trust files; ``revoked`` is None when there is no such file."""

    signers_path: str
    signers: bytes
    revoked_path: str
    revoked: bytes | None


def _malformed(problem: str) -> NoReturn:
    raise FleetError("EF_SIG_MALFORMED", f"{SIGNATURE}: {problem}; sign the bundle again", SIGNATURE)


def parse_signature(data: bytes) -> SshSignature:
    """Read the armored SSHSIG; raises FleetError (EF_SIG_MISSING, EF_SIG_MALFORMED)."""
    if not data.strip():
        raise FleetError("EF_SIG_MISSING", f"{SIGNATURE}: is empty; sign the bundle with ssh-keygen -Y sign", SIGNATURE)
    if len(data) > MAX_SIGNATURE:
        _malformed(f"is {len(data)} bytes; at most {MAX_SIGNATURE} are allowed")
    lines = data.decode("ascii", "replace").strip().splitlines()
    if lines[0] != BEGIN or lines[-1] != END:
        _malformed("is not an armored SSH signature")
    try:
        blob = base64.b64decode("".join(lines[1:-1]), validate=True)
        return _parse_blob(blob)
    except (binascii.Error, struct.error, UnicodeDecodeError) as error:
        _malformed(f"cannot be decoded ({error})")


def _parse_blob(blob: bytes) -> SshSignature:
    if blob[:6] != b"SSHSIG" or struct.unpack_from(">I", blob, 6)[0] != 1:
        _malformed("is not an SSHSIG of version 1")
    key, rest = _take(blob[10:])
    namespace, rest = _take(rest)
    _reserved, rest = _take(rest)
    hash_name, rest = _take(rest)
    signature, rest = _take(rest)
    if rest or not signature:
        _malformed("has bytes missing or left over")
    return SshSignature(_take(key)[0].decode("ascii"), key, namespace.decode("ascii"), hash_name.decode("ascii"))


def _take(data: bytes) -> tuple[bytes, bytes]:
    """The first length-prefixed string of ``data`` and what follows it."""
    length = struct.unpack_from(">I", data)[0]
    if len(data) < 4 + length:
        _malformed("is truncated")
    return data[4 : 4 + length], data[4 + length :]


def parse_signers(text: str) -> tuple[list[Signer], list[str]]:
    """The usable lines of ``allowed_signers`` and a note on each line that cannot be used."""
    signers: list[Signer] = []
    notes: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            signers.append(_parse_signer(stripped))
        except ValueError as error:
            notes.append(f"line {number}: {error}")
    return signers, notes


def _parse_signer(line: str) -> Signer:
    match = SIGNER_LINE.match(line)
    if not match:
        raise ValueError("is not 'PRINCIPALS [OPTIONS] KEYTYPE KEY'")
    rest: str = match.group("rest")
    options: dict[str, str] = {}
    while not re.match(r"[a-z0-9@.-]+\s+AAAA", rest):
        option = OPTION.match(rest)
        if not option:
            raise ValueError("has no public key")
        if option.group("name").lower() not in OPTIONS or option.group("value") is None:
            raise ValueError(f"has the option {option.group('name')!r}, which is not supported")
        options[option.group("name").lower()] = option.group("value")
        rest = rest[option.end() :].lstrip()
    key_type, key = rest.split()[:2]
    if key_type != KEY_TYPE:
        raise ValueError(f"has a key of type {key_type}; use {KEY_TYPE}")
    namespaces = options.get("namespaces")
    return Signer(
        match.group("principals").strip('"'),
        _decode_key(key),
        None if namespaces is None else namespaces.split(","),
        _time(options.get("valid-after")),
        _time(options.get("valid-before")),
    )


def _decode_key(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("has a key that is not base64") from error


def _time(text: str | None) -> float | None:
    """A time of ``allowed_signers``: UTC with a final Z, else the host's local time."""
    if text is None:
        return None
    digits = text[:-1] if text.endswith("Z") else text
    if len(digits) not in TIMES or not digits.isdigit():
        raise ValueError(f"has the time {text!r}, not YYYYMMDD[HHMM[SS]][Z]")
    moment = datetime.datetime.strptime(digits, TIMES[len(digits)])
    return (moment.replace(tzinfo=datetime.timezone.utc) if text.endswith("Z") else moment).timestamp()


def revoked_keys(text: str) -> list[bytes]:
    """Every public key that a text of revoked keys names."""
    found: list[bytes] = []
    for word in text.split():
        if word.startswith("AAAA"):
            try:
                found.append(base64.b64decode(word, validate=True))
            except binascii.Error:
                continue
    return found


def read_trust(signers_path: str, revoked_path: str) -> Trust:
    """Read the trust files; raises FleetError (EF_TRUST_MISSING, EF_TRUST_MALFORMED)."""
    signers = _read_trusted(signers_path)
    if signers is None:
        raise FleetError(
            "EF_TRUST_MISSING",
            f"{signers_path}: does not exist, so no signer is trusted; prepare the host with the role "
            "that installs allowed_signers",
            signers_path,
        )
    revoked = _read_trusted(revoked_path)
    if revoked is not None and revoked.startswith(KRL_MAGIC):
        _untrusted(revoked_path, "is a binary KRL; give revoked public keys as text, one a line")
    return Trust(signers_path, signers, revoked_path, revoked)


def _untrusted(path: str, problem: str) -> NoReturn:
    raise FleetError("EF_TRUST_MALFORMED", f"{path}: {problem}", path)


def _read_trusted(path: str) -> bytes | None:
    """The bytes of a file that only its owner (root or us) may write; None if it is absent."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        _untrusted(path, f"cannot be read ({error.strerror}); mend it")
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            _untrusted(path, "is not a regular file; replace it")
        if info.st_mode & 0o022 or info.st_uid not in (0, os.geteuid()):
            _untrusted(path, "can be written by others than root; run 'chown root' and 'chmod 0644' on it")
        data = os.read(fd, MAX_TRUST + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_TRUST:
        _untrusted(path, f"is larger than {MAX_TRUST} bytes; shorten it")
    return data


def classify(signature: SshSignature, trust: Trust, now: float) -> None:
    """Refuse what policy forbids, by name. ``now`` is in seconds since 1970.

    Passing means that ssh-keygen may decide, not that the signature is good.
    """
    if signature.key_type != KEY_TYPE:
        _malformed(f"was made with a key of type {signature.key_type}; use an {KEY_TYPE} key")
    if signature.hash_name not in ("sha256", "sha512"):
        _malformed(f"uses the hash {signature.hash_name!r}; use sha512")
    if signature.namespace != NAMESPACE:
        raise FleetError(
            "EF_SIG_NAMESPACE",
            f"{SIGNATURE}: is for the namespace {signature.namespace!r}; sign with -n {NAMESPACE}",
            SIGNATURE,
        )
    if trust.revoked is not None and signature.key in revoked_keys(trust.revoked.decode("utf-8", "replace")):
        raise FleetError(
            "EF_SIG_REVOKED",
            f"{SIGNATURE}: its key is revoked by {trust.revoked_path}; sign with another key",
            SIGNATURE,
        )
    _judge_signer(signature, trust, now)


def _judge_signer(signature: SshSignature, trust: Trust, now: float) -> None:
    signers, notes = parse_signers(trust.signers.decode("utf-8", "replace"))
    if not signers:
        _untrusted(trust.signers_path, "holds no usable line; " + ("; ".join(notes) or "add a signer's public key"))
    ours = [signer for signer in signers if signer.key == signature.key]
    if not ours:
        said = f" (not usable: {'; '.join(notes)})" if notes else ""
        raise FleetError(
            "EF_SIG_UNKNOWN_SIGNER",
            f"{SIGNATURE}: its key is not in {trust.signers_path}{said}; add the signer there or sign with "
            "a key that is",
            SIGNATURE,
        )
    ours = [signer for signer in ours if _allows_namespace(signer)]
    if not ours:
        raise FleetError(
            "EF_SIG_NAMESPACE",
            f"{SIGNATURE}: {trust.signers_path} does not allow its key the namespace {NAMESPACE}; add it there",
            SIGNATURE,
        )
    if not any(_valid_at(signer, now) for signer in ours):
        raise FleetError(
            "EF_SIG_EXPIRED",
            f"{SIGNATURE}: its key is outside of its time in {trust.signers_path}; sign with a valid key",
            SIGNATURE,
        )


def _allows_namespace(signer: Signer) -> bool:
    if signer.namespaces is None:
        return True
    return any(fnmatch.fnmatchcase(NAMESPACE, pattern) for pattern in signer.namespaces)


def _valid_at(signer: Signer, now: float) -> bool:
    if signer.valid_after is not None and now < signer.valid_after:
        return False
    return signer.valid_before is None or now <= signer.valid_before


def verify_signature(manifest: bytes, signature: bytes, trust: Trust, now: float) -> str:
    """The principal that signed the manifest; raises FleetError (EF_SIG_*, EF_TRUST_*, EF_NO_SSH_KEYGEN)."""
    classify(parse_signature(signature), trust, now)
    keygen = shutil.which("ssh-keygen")
    if keygen is None:
        raise FleetError("EF_NO_SSH_KEYGEN", "ssh-keygen is not on this host; install OpenSSH's client tools")
    files = _MemoryFiles()
    try:
        return _ask_keygen(keygen, files, manifest, signature, trust)
    finally:
        files.close()


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


def _ask_keygen(keygen: str, files: _MemoryFiles, manifest: bytes, signature: bytes, trust: Trust) -> str:
    signers, armored = files.add(trust.signers), files.add(signature)
    revoked = [] if trust.revoked is None else ["-r", files.add(trust.revoked)]

    def run(arguments: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [keygen, "-Y"] + arguments, input=data, capture_output=True, pass_fds=files.fds, check=False,
                timeout=SECONDS_FOR_KEYGEN,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FleetError("EF_NO_SSH_KEYGEN", f"{keygen}: does not run ({error}); mend OpenSSH") from error

    found = run(["find-principals", "-s", armored, "-f", signers], b"")
    said = found.stderr
    for principal in found.stdout.decode("utf-8", "replace").split("\n"):
        if not principal:
            continue
        checked = run(["verify", "-n", NAMESPACE, "-I", principal, "-s", armored, "-f", signers] + revoked, manifest)
        if checked.returncode == 0:
            return principal
        said = checked.stderr or checked.stdout
    detail = said.decode("utf-8", "replace").strip().replace("\n", " ")
    raise FleetError(
        "EF_SIG_BAD",
        f"{SIGNATURE}: is not a good signature of the manifest ({detail}); use the bundle as it was signed",
        SIGNATURE,
    )
