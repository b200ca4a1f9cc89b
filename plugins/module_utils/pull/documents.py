# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The small documents of the pull channel on a host: its settings, its mark, its status; and the lease. Pure.

The forms are docs/formats/pull.md.
"""

from __future__ import annotations

import json
import re
from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.killlist import (
    MAX_SEQUENCE,
    MAX_TIME,
    Host,
    Seen,
    is_name,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.pull.fetch import check_location

SETTINGS, MARK, STATUS = "ebpf.fleet/pull/v1", "ebpf.fleet/pull-mark/v1", "ebpf.fleet/pull-status/v1"
KEEP, DETACH = "keep", "detach"
BAD_STATE = "EF_PULL_STATE"
MAX_BYTES = 1024 * 1024
# {field: (least, most)}, in seconds.
SECONDS = {"interval_s": (10, 86400), "lease_s": (20, 604800), "timeout_s": (1, 60), "wait_s": (0, 300)}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAMES = {"schema", "location", "host", "cell", "policy", *SECONDS}


class Settings(NamedTuple):
    """What prepare wrote: where the list is, who this host is, and what holds when the list cannot be had."""

    location: str
    host: Host
    policy: str
    interval_s: int
    lease_s: int
    timeout_s: int
    wait_s: int


class Contact(NamedTuple):
    """When a fresh list was last had: nanoseconds of CLOCK_BOOTTIME, which count in that boot only."""

    boot_id: str
    boottime_ns: int


def parse_settings(data: bytes, file: str) -> Settings:
    """The settings; raises FleetError (EF_ARGUMENT) that names the field and the remedy."""
    try:
        document = strictjson.parse(data)
        return _settings(document)
    except ValueError as error:
        problem = f"{file}: {error}; correct the pull channel's variables in the inventory and prepare the host again"
        raise FleetError("EF_ARGUMENT", problem, file) from error


def _settings(document: object) -> Settings:
    if not isinstance(document, dict) or set(document) != _NAMES or document["schema"] != SETTINGS:
        raise ValueError(f"is not an object of {SETTINGS} with exactly the keys {', '.join(sorted(_NAMES))}")
    location, cell, policy = document["location"], document["cell"], document["policy"]
    if not isinstance(location, str):
        raise ValueError("location is not a text")
    try:
        check_location(location)
    except ValueError as error:
        raise ValueError(f"location {error}") from error
    if not is_name(document["host"]) or not (cell is None or is_name(cell)):
        raise ValueError("host, or cell, is not a name; cell is null for a host that is in none")
    if policy not in (KEEP, DETACH):
        raise ValueError(f"policy is {printable(policy, 60)}; {did_you_mean(policy, (KEEP, DETACH))}")
    seconds = {field: _within(document, field, *bounds) for field, bounds in SECONDS.items()}
    if seconds["lease_s"] < 2 * seconds["interval_s"]:
        raise ValueError("lease_s is less than two intervals: one list that is missed would detach")
    return Settings(location, Host(document["host"], cell), policy, **seconds)


def _within(document: Mapping[str, Any], field: str, least: int, most: int) -> int:
    value = document[field]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{field} is {printable(value, 60)}; give a whole number from {least} to {most}")
    return int(value)


def parse_mark(data: bytes | None, file: str) -> Seen | None:
    """The newest list that this host took, None where it never took one; raises FleetError (EF_PULL_STATE).

    A mark that cannot be read is not "none": then an old list could be taken for a new one.
    """
    if data is None:
        return None
    try:
        document = strictjson.parse(data)
        if not isinstance(document, dict) or set(document) != {"schema", "sequence", "digest", "issued"}:
            raise ValueError("is not an object of exactly the keys digest, issued, schema, sequence")
        if document["schema"] != MARK or not isinstance(document["digest"], str):
            raise ValueError(f"is not of {MARK}")
        if not _DIGEST.fullmatch(document["digest"]):
            raise ValueError("digest is not 64 hex digits")
        sequence = _within(document, "sequence", 1, MAX_SEQUENCE)
        return Seen(sequence, document["digest"], _within(document, "issued", 0, MAX_TIME))
    except ValueError as error:
        problem = f"{file}: {error}; no list is taken until it is: publish a list, remove this file, and run it again"
        raise FleetError(BAD_STATE, problem, file) from error


def render_mark(seen: Seen) -> bytes:
    """The bytes of a mark; `parse_mark` of them is the mark again."""
    return _render({"schema": MARK, "sequence": seen.sequence, "digest": seen.digest, "issued": seen.issued})


def parse_contact(data: bytes | None) -> Contact | None:
    """The last contact that a status tells; None where there was none, and where that cannot be told."""
    try:
        document = strictjson.parse(data or b"")
        if not isinstance(document, dict) or document.get("schema") != STATUS:
            return None
        moment, boot = document.get("contact_boottime_ns"), document.get("boot_id")
        if isinstance(moment, bool) or not isinstance(moment, int) or moment < 0 or not isinstance(boot, str):
            return None
        return Contact(boot, moment)
    except ValueError:
        return None


def lease_seconds(contact: Contact | None, boot_id: str, boottime_ns: int, lease_s: int) -> int:
    """Seconds until the lease is over, 0 where it is. A contact of another boot, or of the future, does not count."""
    if contact is None or contact.boot_id != boot_id or contact.boottime_ns > boottime_ns:
        return 0
    left_ns = contact.boottime_ns + lease_s * 1_000_000_000 - boottime_ns
    return max(0, -(-left_ns // 1_000_000_000))


def render_status(fields: Mapping[str, Any]) -> bytes:
    """The bytes of a status."""
    return _render({"schema": STATUS, **fields})


def _render(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, sort_keys=True, indent=1) + "\n").encode("ascii")
