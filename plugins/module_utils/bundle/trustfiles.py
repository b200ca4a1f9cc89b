# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trust files of a host, allowed_signers and revoked_keys: read with suspicion, of one grammar.

The grammar is docs/trust-formats.md; the loader (signers.c, sshkey.c, trust.c) has the same one, and
tests/verifiers holds the two together. A line of allowed_signers that cannot be used is left out
and told, because leaving it out trusts no one more. In a revocation list it would trust more, so
there it is a refusal of the file.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import datetime
import errno
import os
import re
import stat
import struct
import time
from typing import Iterator, NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

KEY_TYPE = "ssh-ed25519"
KEY_SIZE = 32
KRL_MAGIC = b"SSHKRL\n\0"
MAX_TRUST = 1024 * 1024
BLANKS = " \t"
BOM = "\xef\xbb\xbf"  # of a text that was decoded as Latin-1, so that no byte is lost
KEY_BEGINS = "AAAA"

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
PLAIN_TYPE = re.compile(r"[a-z0-9@.-]{1,64}\Z")
NAMES = re.compile(r"[ !#-+\--\[\]-~]+(?:,[ !#-+\--\[\]-~]+)*\Z")
OPTION = re.compile(
    r'(?P<name>namespaces|valid-after|valid-before)="(?P<value>[ !#-\[\]-~]*)"', re.IGNORECASE | re.ASCII
)
MOMENT = re.compile(r"(?P<date>[0-9]{8})(?P<clock>[0-9]{4}(?:[0-9]{2})?)?(?P<utc>Z?)\Z")


class Signer(NamedTuple):
    """A usable line of ``allowed_signers``; times are seconds since 1970 or None."""

    principal: str
    key: bytes
    namespaces: str | None
    valid_after: int | None
    valid_before: int | None


class Trust(NamedTuple):
    """The bytes of a host's trust files; ``revoked`` is None when there is no such file."""

    signers_path: str
    signers: bytes
    revoked_path: str
    revoked: bytes | None


class Trusted(NamedTuple):
    """What the trust files say; keys are the 32 bytes of ed25519, notes name each line that is left out."""

    signers: list[Signer]
    notes: list[str]
    revoked: list[bytes]


def malformed(path: str, problem: str) -> NoReturn:
    """Refuse a trust file."""
    raise FleetError("EF_TRUST_MALFORMED", f"{path}: {problem}", path)


def read_trust(signers_path: str, revoked_path: str, revoked_required: bool = False) -> Trust:
    """Read the trust files; raises FleetError (EF_TRUST_MISSING, EF_TRUST_MALFORMED).

    Each must be a regular file, not a symlink, and neither it nor its folder may be writable by others
    than root and our own user (a sticky folder is fine). A revocation list may be absent where it is not required.
    """
    signers = _read_trusted(signers_path, True)
    return Trust(signers_path, signers or b"", revoked_path, _read_trusted(revoked_path, revoked_required))


def _read_trusted(path: str, required: bool) -> bytes | None:
    try:
        return _read_safe(path)
    except FileNotFoundError:
        if not required:
            return None
        _missing(path, "does not exist, so no signer is trusted")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENOTDIR, errno.ENXIO):
            malformed(path, "is not a regular file; put the file itself there")
        _missing(path, f"cannot be opened ({error.strerror})")


def _missing(path: str, problem: str) -> NoReturn:
    remedy = "prepare the host with the role that installs the trust files"
    raise FleetError("EF_TRUST_MISSING", f"{path}: {problem}; {remedy}", path)


def _read_safe(path: str) -> bytes:
    """The file, opened beneath the folder that is judged with it, so that both are of one moment."""
    folder, name = os.path.split(path)
    folder = folder or "."
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder_fd)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            _check_writers(folder, os.fstat(folder_fd))
            _check_writers(path, info)
            with os.fdopen(os.dup(fd), "rb") as file:
                data = file.read(MAX_TRUST + 1)
        finally:
            os.close(fd)
    finally:
        os.close(folder_fd)
    if len(data) > MAX_TRUST:
        malformed(path, f"is larger than {MAX_TRUST} bytes; remove what does not belong there")
    return data


def _check_writers(path: str, info: os.stat_result) -> None:
    if info.st_uid not in (0, os.geteuid()):
        malformed(path, f"belongs to user {info.st_uid}, neither root nor ours; run 'chown root' on it")
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    if info.st_mode & 0o022 and not sticky:
        malformed(path, "can be written by others than root; run 'chmod go-w' on it")


def parse_trust(trust: Trust) -> Trusted:
    """What the files say; raises FleetError (EF_TRUST_MALFORMED)."""
    signers, notes = parse_signers(trust.signers, trust.signers_path)
    if not signers:
        said = "; ".join(notes[:10]) or "add a signer's public key"
        malformed(trust.signers_path, f"holds no usable line (not usable: {len(notes)}); {said}")
    revoked = [] if trust.revoked is None else parse_revoked(trust.revoked, trust.revoked_path)
    return Trusted(signers, notes, revoked)


def unusable_lines(trust: Trust) -> list[str]:
    """A sentence for each line of ``allowed_signers`` that is left out, with file and line number."""
    return parse_signers(trust.signers, trust.signers_path)[1]


def _lines(data: bytes, path: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers, without line end and leading blanks."""
    if data.startswith(KRL_MAGIC):
        malformed(path, "is a binary KRL, which cannot be read; list the revoked public keys, one a line")
    if b"\0" in data:
        malformed(path, "holds a NUL byte; write it as plain text")
    for number, line in enumerate(data.decode("latin-1").split("\n"), 1):
        whole = line[:-1] if line.endswith("\r") else line
        text = whole.lstrip(BLANKS)
        if text:
            yield number, text


def parse_signers(data: bytes, path: str = "allowed_signers") -> tuple[list[Signer], list[str]]:
    """The usable lines of ``allowed_signers`` and a note on each line that is left out.

    Raises FleetError (EF_TRUST_MALFORMED) for what is not a text.
    """
    signers: list[Signer] = []
    notes: list[str] = []
    for number, line in _lines(data, path):
        try:
            if CONTROL.search(line):
                raise ValueError("it holds a control character")
            if not line.startswith("#"):
                signers.append(_parse_signer(line))
        except ValueError as error:
            notes.append(f"{path}:{number}: this line is not used: {error}")
    return signers, notes


def _parse_signer(line: str) -> Signer:
    """PRINCIPALS [OPTIONS] TYPE BASE64 [COMMENT]; raises ValueError with the fault."""
    end, rest = _skip_field(line)
    if not rest:
        raise ValueError("it is not PRINCIPALS [OPTIONS] KEY")
    options: dict[str, str] = {}
    found = _parse_key(rest)
    if found is None:
        found = _parse_key(_skip_field(rest)[1])
        if found is None:
            raise ValueError("it holds no readable public key")
        options = _parse_options(rest)
    key_type, key = found
    after, before = (_parse_time(options.get(name)) for name in ("valid-after", "valid-before"))
    if before is not None and after is not None and before <= after:
        raise ValueError("valid-before is not later than valid-after")
    if key_type != KEY_TYPE:
        raise ValueError(f"its key is of type {key_type}; use {KEY_TYPE}")
    return Signer(_parse_principal(line[:end]), key, options.get("namespaces"), after, before)


def _skip_field(text: str) -> tuple[int, str]:
    """Where the first field ends, whose quotes may hold blanks, and what follows; '' where a quote is left open."""
    quoted, at = False, 0
    while at < len(text) and (quoted or text[at] not in BLANKS):
        if text[at : at + 2] == '\\"':
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        at += 1
    return at, "" if quoted else text[at:].lstrip(BLANKS)


def _parse_options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    at = 0
    while True:
        option = OPTION.match(text, at)
        if not option:
            word = re.split(f"[{BLANKS}]", text[at:], maxsplit=1)[0]
            raise ValueError(f'its option {word[:40]!a} is not namespaces="", valid-after="" or valid-before=""')
        name = option.group("name").lower()
        if name in options:
            raise ValueError("an option is given twice")
        options[name] = option.group("value")
        at = option.end()
        if at == len(text) or text[at] in BLANKS:
            return options
        if text[at] != ",":
            raise ValueError("its options are not comma-separated")
        at += 1


def _parse_principal(field: str) -> str:
    """The first of the names: the signer goes into reports by it, so a pattern is of no use there."""
    if len(field) >= 2 and field[0] == field[-1] == '"':
        field = field[1:-1]
    if not NAMES.match(field):
        raise ValueError("its principals cannot be read")
    if re.search(r"[*?!]", field):
        raise ValueError("its principals hold a pattern; name the signer in full")
    return field.split(",")[0]


def _parse_time(text: str | None) -> int | None:
    """A time: UTC with a final Z, else this host's local time."""
    if text is None:
        return None
    seconds = _seconds_of(text)
    if seconds is None or seconds <= 0:
        raise ValueError('a time is not "YYYYMMDD[HHMM[SS]][Z]" of a moment after the beginning of 1970')
    return seconds


def _seconds_of(text: str) -> int | None:
    match = MOMENT.match(text)
    if not match:
        return None
    digits = (match.group("date") + (match.group("clock") or "")).ljust(14, "0")
    try:
        moment = datetime.datetime(
            int(digits[:4]), int(digits[4:6]), int(digits[6:8]), int(digits[8:10]), int(digits[10:12]), int(digits[12:])
        )
        if match.group("utc"):
            return calendar.timegm(moment.timetuple())
        seconds = time.mktime((*moment.timetuple()[:6], 0, 0, -1))
        # A change of clocks leaves an hour out: what lies in it was never a time of this host.
        there = time.localtime(seconds)[:6] == moment.timetuple()[:6]
    except (ValueError, OverflowError, OSError):
        return None
    return int(seconds) if there else None


def decode_base64(text: str) -> bytes | None:
    """The bytes of strict base64 (padded, canonical, no other character), else None."""
    try:
        raw = text.encode("ascii")
        data = base64.b64decode(raw, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data) == raw else None


def take_string(data: bytes) -> tuple[bytes, bytes]:
    """The first length-prefixed string of SSH's wire format and what follows it; raises ValueError."""
    if len(data) < 4:
        raise ValueError("ends too early")
    length = struct.unpack_from(">I", data)[0]
    if len(data) < 4 + length:
        raise ValueError("ends too early")
    return data[4 : 4 + length], data[4 + length :]


def take_ed25519(blob: bytes, size: int) -> bytes:
    """The ``size`` bytes of an ed25519 key or signature, with nothing behind them; raises ValueError."""
    kind, rest = take_string(blob)
    body, behind = take_string(rest)
    if kind != KEY_TYPE.encode("ascii") or len(body) != size or behind:
        raise ValueError(f"is not of the type {KEY_TYPE}")
    return body


def _parse_key(text: str) -> tuple[str, bytes] | None:
    """The type and, of an ed25519 key, the bytes of ``TYPE BASE64 [COMMENT]``; None if it is not one."""
    words = re.split(f"[{BLANKS}]+", text, maxsplit=2)
    if len(words) < 2 or not PLAIN_TYPE.match(words[0]) or "-cert-" in words[0]:
        return None
    blob = decode_base64(words[1])
    try:
        kind, rest = take_string(blob or b"")
        if kind != words[0].encode("ascii") or not rest:
            return None
        return words[0], take_ed25519(blob or b"", KEY_SIZE) if words[0] == KEY_TYPE else b""
    except ValueError:
        return None


def parse_revoked(data: bytes, path: str = "revoked_keys") -> list[bytes]:
    """The ed25519 keys that a revocation list names; keys of other types sign nothing here.

    Raises FleetError (EF_TRUST_MALFORMED) for a line that is not exactly one public key.
    """
    found: list[bytes] = []
    for number, line in _lines(data, path):
        text = line[len(BOM) :].lstrip(BLANKS) if number == 1 and line.startswith(BOM) else line
        if not text or (text.startswith("#") and not CONTROL.search(text)):
            continue
        key = _parse_revoked_line(text)
        if key is None:
            malformed(f"{path}:{number}", "is not one public key; write TYPE BASE64 on each line, with LF at its end")
        if key[0] == KEY_TYPE:
            found.append(key[1])
    return found


def _parse_revoked_line(line: str) -> tuple[str, bytes] | None:
    """A key, which may have options before it. Of two on a line one would be read as a comment."""
    keys = [word for word in re.split(f"[{BLANKS}]+", line) if word.startswith(KEY_BEGINS)]
    if CONTROL.search(line) or len(keys) != 1:
        return None
    return _parse_key(line) or _parse_key(_skip_field(line)[1])
