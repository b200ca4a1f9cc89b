# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kill list as it is published: one line of canonical JSON and, behind it in the same file, its SSH signature.

One file, so that a list and the signature of another can never be fetched together. The signature has a namespace of
its own, so that none of a release is good here, and the reverse.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest, signature
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist

NAMESPACE = "ebpf-fleet-kill"
KILL = signature.Purpose(NAMESPACE, "kill list's signature", "the kill list", "the kill list")
CODE = "EF_KILL_LIST"


class Judged(NamedTuple):
    """A list by a signer who may sign kill lists; ``clock_known`` is whether the host's clock can be right."""

    found: killlist.KillList
    digest: str
    signer: str
    clock_known: bool


def digest_of(signed: bytes) -> str:
    """What tells two lists of one sequence apart."""
    return hashlib.sha256(signed).hexdigest()


def split(data: bytes) -> tuple[bytes, bytes]:
    """The signed line and the signature behind it; raises FleetError (EF_KILL_LIST) for what is not of that form."""
    if len(data) > killlist.MAX_BYTES:
        problem = f"is larger than {killlist.MAX_BYTES} bytes; order less, or split the fleet"
        raise FleetError(CODE, f"{killlist.LIST}: {problem}", killlist.LIST)
    line, newline, rest = data.partition(b"\n")
    if not newline:
        problem = "is not one line and a signature behind it: it is cut short, or something else; publish it again"
        raise FleetError(CODE, f"{killlist.LIST}: {problem}", killlist.LIST)
    return line + newline, rest


def load(signed: bytes) -> killlist.KillList:
    """The list of its signed line; raises FleetError (EF_KILL_LIST)."""
    document = manifest.parse_canonical(signed, killlist.LIST, killlist.CODE, "make it with kill_list.yml")
    return killlist.parse_list(document)


def render(found: killlist.KillList) -> bytes:
    """The line that is to be signed."""
    return str(manifest.canonical_json(killlist.as_document(found))).encode("ascii")


def judge(data: bytes, trust: signature.Trust, now: float, seen: killlist.Seen | None) -> Judged:
    """A published list that may be followed; ``now`` is in seconds since 1970.

    In this order: its form, its signature, its signer, its content, its sequence, its time. A clock that stands before
    the ``issued`` of this list, or of the newest that was seen, decides nothing: then a key that is trusted for a time
    is refused, and a list may be too old without being known to be (``clock_known`` is False).

    Raises FleetError: EF_KILL_LIST, EF_KILL_LIST_REPLAY, EF_KILL_LIST_EXPIRED, EF_CLOCK_UNKNOWN, EF_TRUST_MALFORMED,
    EF_SIG_*, EF_NO_SSH_KEYGEN.
    """
    signed, seal = split(data)
    trusted = signature.parse_trust(trust)
    key = signature.open_seal(signed, seal, KILL)
    late, signer = None, ""
    try:
        signer = signature.judge_signer(key, trust, trusted, int(now), KILL)
    except FleetError as error:
        if error.code != "EF_SIG_EXPIRED":
            raise
        late = error
    found, digest = load(signed), digest_of(signed)
    # A time that has been for certain.
    floor = max(found.issued, seen.issued if seen else 0)
    known = signature.clock_known(now, floor)
    if not known:
        signer = signature.judge_signer(key, trust, trusted, None, KILL)
    elif late is not None:
        raise late
    killlist.refuse_replay(found, digest, seen)
    killlist.refuse_expired(found, max(now, floor))
    return Judged(found, digest, signer, known)
