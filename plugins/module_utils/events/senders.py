# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may send events: the file of secrets, and whether a request is of one of them. Pure.

    ops-alertmanager token 5f0c…      a bearer token, as Alertmanager's `authorization` sends it
    ops-relay        hmac  9be1…      a key: the sender signs each request, so that it never crosses the network

A signature is of HMAC-SHA256 (RFC 2104) over the time in seconds, a dot, and the body. It is good for a time near the
time that it names, and once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

MAX_BYTES = 65536
MAX_SENDERS = 100
SECRET_LENGTH = (32, 512)
# Seconds that the clocks of both ends may be apart.
SIGNED_WITHIN = 300
# Signatures that are remembered until their time is over; a sender that signs more often has to wait.
MAX_SEEN = 10_000
SENDER, TIME, SIGNATURE = "x-ebpf-fleet-sender", "x-ebpf-fleet-time", "x-ebpf-fleet-signature"
AUTHORIZATION = "authorization"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SECRET = re.compile(r"[!-~]+")
_HEX = re.compile(r"[0-9a-f]{64}")
_SECONDS = re.compile(r"[0-9]{1,12}")


class Sender(NamedTuple):
    """One who may send: `kind` is token or hmac."""

    name: str
    kind: str
    secret: bytes


class Attempt(NamedTuple):
    """A request as far as its sender is asked: headers as they came, the body, and the wall clock in seconds."""

    headers: Sequence[tuple[str, str]]
    body: bytes
    now: float


def parse(data: bytes, file: str) -> tuple[Sender, ...]:
    """The senders of a file of secrets; FleetError EF_EVENT_SECRETS names the file and the line, never a secret."""
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise _fault(file, "holds letters that are not ASCII") from error
    found: dict[str, Sender] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        sender = _sender(words, f"{file}, line {number}")
        if sender.name in found:
            raise _fault(f"{file}, line {number}", f"names {sender.name} for the second time")
        if any(hmac.compare_digest(sender.secret, one.secret) for one in found.values()):
            raise _fault(
                f"{file}, line {number}", "has the secret of another sender, and the log could not tell them apart"
            )
        found[sender.name] = sender
    if not 1 <= len(found) <= MAX_SENDERS:
        raise _fault(file, f"names {len(found)} senders; name 1 to {MAX_SENDERS}")
    return tuple(found.values())


def _sender(words: Sequence[str], where: str) -> Sender:
    if len(words) != 3 or words[1] not in ("token", "hmac"):
        raise _fault(where, "is not of the form NAME token SECRET, or NAME hmac SECRET")
    name, kind, secret = words
    if not _NAME.fullmatch(name):
        raise _fault(where, "has a name with other letters than A-Z a-z 0-9 _ . -, or more than 64")
    if not _SECRET.fullmatch(secret) or not SECRET_LENGTH[0] <= len(secret) <= SECRET_LENGTH[1]:
        least, most = SECRET_LENGTH
        raise _fault(
            where, f"has a secret that is not of {least} to {most} visible letters; make one: openssl rand -hex 32"
        )
    return Sender(name, kind, secret.encode("ascii"))


def _fault(where: str, problem: str) -> FleetError:
    return FleetError("EF_EVENT_SECRETS", f"{where}: {problem}", where.partition(",")[0])


def check_place(mode: int, owner: int, reader: int, file: str) -> None:
    """Refuse a file of secrets that another than the reader's user (or root) owns, or that others may read or write.

    `mode` and `owner` are of the open file, `reader` is the user id that reads it.
    """
    if owner not in (reader, 0):
        raise _fault(file, f"belongs to the user {owner}; chown it to the user that runs ansible-rulebook")
    if mode & 0o077:
        raise _fault(file, f"has the mode {mode & 0o7777:04o}, so others may read or write it; chmod 600 it")


class Door:
    """Whom requests are of. It remembers signatures that were used, each until its time is over."""

    def __init__(self, senders: Sequence[Sender]) -> None:
        self._senders = tuple(senders)
        self._seen: dict[str, float] = {}

    def admit(self, attempt: Attempt) -> str:
        """The sender's name; FleetError EF_EVENT_SENDER for who is not one, or who was that already."""
        headers = [(name.lower(), value) for name, value in attempt.headers]
        given = [name for name, _value in headers if name in (AUTHORIZATION, SENDER, TIME, SIGNATURE)]
        if len(given) != len(set(given)):
            raise _stranger("a header of the sender is there twice")
        own = {name: value for name, value in headers if name in given}
        if AUTHORIZATION in own and len(own) > 1:
            raise _stranger("it has a token and a signature; send one of them")
        if AUTHORIZATION in own:
            return self._of_token(own[AUTHORIZATION])
        if own:
            return self._of_signature(own, attempt)
        raise _stranger("it has neither a token nor a signature")

    def _of_token(self, value: str) -> str:
        scheme, _blank, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise _stranger("its Authorization is not a Bearer token")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        # Every secret is compared, in a time that does not depend on where two differ.
        found = [
            one.name
            for one in self._senders
            if hmac.compare_digest(given, hashlib.sha256(one.secret).digest()) and one.kind == "token"
        ]
        if not found:
            raise _stranger("its token is of no sender")
        return found[0]

    def _of_signature(self, own: dict[str, str], attempt: Attempt) -> str:
        if set(own) != {SENDER, TIME, SIGNATURE}:
            raise _stranger("a signed request needs all of X-Ebpf-Fleet-Sender, -Time and -Signature")
        signature, seconds = own[SIGNATURE], own[TIME]
        if not _HEX.fullmatch(signature) or not _SECONDS.fullmatch(seconds):
            raise _stranger("its signature is not 64 hexadecimal digits, or its time not whole seconds")
        key = next((one.secret for one in self._senders if one.name == own[SENDER] and one.kind == "hmac"), None)
        # Who is not known takes as long as who is.
        wanted = sign(key or b"\0" * 32, int(seconds), attempt.body)
        if not hmac.compare_digest(wanted, signature) or key is None:
            raise _stranger("its signature is of no sender")
        if abs(attempt.now - int(seconds)) > SIGNED_WITHIN:
            raise _stranger(f"its time is more than {SIGNED_WITHIN} s from that of this machine; set both clocks")
        self._once(signature, int(seconds), attempt.now)
        return own[SENDER]

    def _once(self, signature: str, seconds: int, now: float) -> None:
        self._seen = {one: until for one, until in self._seen.items() if until >= now}
        if signature in self._seen:
            raise _stranger("its signature was used before; sign each request with the time of now")
        if len(self._seen) >= MAX_SEEN:
            raise _stranger(f"more than {MAX_SEEN} signed requests came within {2 * SIGNED_WITHIN} s; send fewer")
        self._seen[signature] = seconds + SIGNED_WITHIN


def sign(key: bytes, seconds: int, body: bytes) -> str:
    """The signature of a body at a time, as 64 hexadecimal digits."""
    return hmac.new(key, b"%d." % seconds + body, hashlib.sha256).hexdigest()


def _stranger(problem: str) -> FleetError:
    return FleetError("EF_EVENT_SENDER", f"the request was refused: {problem}")
