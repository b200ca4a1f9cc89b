# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a host on probation: its document, and what to do about one. Pure.

The loader detaches everything when the lease runs out (docs/lease.md). Times are
nanoseconds of CLOCK_BOOTTIME, so a clock that is set changes nothing.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

SCHEMA = "ebpf.fleet/lease/v1"
SECOND_NS = 1000000000
LONGEST_SECONDS = 7 * 24 * 3600
LONGEST_HOLDER = 128  # bytes; the loader's limit, as the next one is
MAX_BYTES = 4096
KEYS = {"schema", "bundle_digest", "boot_id", "expires_boottime_ns", "holder"}
DIGEST_BYTES = 64
DIGEST = re.compile(r"[0-9a-f]{%d}\Z" % DIGEST_BYTES)


class Grant(NamedTuple):
    """A lease as it is asked for."""

    seconds: int
    holder: str


class Lease(NamedTuple):
    """A lease as it lies on a host. A file that the loader takes for none has ``holder`` None."""

    bundle_digest: str | None
    boot_id: str | None
    expires_boottime_ns: int
    holder: str | None

    @property
    def usable(self) -> bool:
        return self.holder is not None

    def concerns(self, digest: str | None) -> bool:
        """Whether it keeps that bundle: its own does, and one that cannot be understood keeps every one off."""
        return not self.usable or self.bundle_digest == digest

    def remaining_ns(self, boot_id: str, now_ns: int) -> int:
        """What is left of it; 0 for one of another boot or that cannot be understood."""
        if not self.usable or self.boot_id != boot_id:
            return 0
        return max(0, self.expires_boottime_ns - now_ns)


UNUSABLE = Lease(None, None, 0, None)


def check_grant(seconds: int, holder: str) -> Grant:
    """Refuse what could be no lease."""
    if not 1 <= seconds <= LONGEST_SECONDS:
        raise FleetError("EF_ARGUMENT", f"lease.seconds: is {seconds}; give 1 to {LONGEST_SECONDS}")
    if not holder.strip() or len(holder.encode("utf-8")) > LONGEST_HOLDER or not holder.isprintable():
        raise FleetError("EF_ARGUMENT", f"lease.holder: say in 1 to {LONGEST_HOLDER} printable bytes who renews it")
    return Grant(seconds, holder)


def grant_lease(grant: Grant, digest: str, boot_id: str, now_ns: int) -> Lease:
    """The lease that begins now."""
    return Lease(digest, boot_id, now_ns + grant.seconds * SECOND_NS, grant.holder)


def render_lease(lease: Lease) -> str:
    """The text of lease.json."""
    document = {"schema": SCHEMA, **lease._asdict()}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n"


def parse_lease(data: bytes | None) -> Lease | None:
    """The lease of a file's bytes, None for no file; :data:`UNUSABLE` for what has run out to the loader."""
    if data is None:
        return None
    try:
        document = strictjson.parse(data) if len(data) <= MAX_BYTES else None
    except ValueError:
        return UNUSABLE
    if not isinstance(document, dict) or set(document) != KEYS or document["schema"] != SCHEMA:
        return UNUSABLE
    lease = Lease(**{key: document[key] for key in KEYS - {"schema"}})
    return lease if _is_sound(lease) else UNUSABLE


def _is_sound(lease: Lease) -> bool:
    # As the loader: what is not a digest counts as another bundle's.
    if not isinstance(lease.bundle_digest, str) or len(lease.bundle_digest.encode()) != DIGEST_BYTES:
        return False
    if not isinstance(lease.boot_id, str) or not isinstance(lease.holder, str):
        return False
    if not 1 <= len(lease.holder.encode()) <= LONGEST_HOLDER:
        return False
    expires = lease.expires_boottime_ns
    return isinstance(expires, int) and not isinstance(expires, bool) and expires >= 0


def describe_lease(lease: Lease | None) -> str | None:
    """A lease in words, without its time, which differs from run to run."""
    if lease is None:
        return None
    if not lease.usable:
        return "cannot be understood, so nothing runs"
    return f"of {lease.holder} for {str(lease.bundle_digest)[:12]}"


def may_confirm(lease: Lease, boot_id: str, now_ns: int) -> None:
    """Refuse to end a probation that was not passed: the host detached, and would attach again unwatched."""
    if lease.remaining_ns(boot_id, now_ns) > 0:
        return
    raise FleetError(
        "EF_LEASE_EXPIRED",
        f"the lease ({describe_lease(lease)}) ran out before it was confirmed, so this host has detached; "
        "roll out again with a longer lease, or end the probation with 'state: absent'",
    )
