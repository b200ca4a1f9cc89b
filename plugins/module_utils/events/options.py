# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rulebook sets of the event source: read, with a default each, or refused. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.events.rates import Limits

# What ansible-rulebook itself puts beside a source's own options.
NOT_OURS = ("eda_feedback_queue",)
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Options(NamedTuple):
    """Where the source listens, whom it believes, and how much it lets happen. Paths are as given; empty: not given."""

    host: str
    port: int
    secrets: str
    log: str
    certfile: str
    keyfile: str
    allow_everything: bool
    limits: Limits


def read(given: Mapping[str, Any]) -> Options:
    """The options; FleetError EF_ARGUMENT names the one that cannot be used."""
    known = (*Options._fields[:-1], *Limits._fields)
    for name in given:
        if name not in known and name not in NOT_OURS:
            raise _fault(str(name), f"is not an option of this source; {did_you_mean(name, known)}")
    defaults = Limits()
    found = Options(
        host=_text(given, "host", "127.0.0.1"),
        port=_whole(given, "port", 5001, 0, 65535),
        secrets=_text(given, "secrets", ""),
        log=_text(given, "log", ""),
        certfile=_text(given, "certfile", ""),
        keyfile=_text(given, "keyfile", ""),
        allow_everything=_truth(given, "allow_everything"),
        limits=Limits(
            _whole(given, "actions", defaults.actions, 1, 10_000),
            _whole(given, "per_scope", defaults.per_scope, 1, 10_000),
            _whole(given, "window", int(defaults.window), 1, 86_400),
        ),
    )
    if not found.secrets:
        raise _fault("secrets", "is not given; name the file of those who may send events")
    if bool(found.certfile) != bool(found.keyfile):
        raise _fault("certfile", "and keyfile belong together; give both or none")
    if not found.certfile and not _is_loopback(found.host):
        why = "is not a loopback address, and without TLS tokens would cross the network as they are"
        raise _fault("host", f"{found.host} {why}; give certfile and keyfile, or put a proxy that has TLS in front")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise _fault("host", f"{host} is not an IP address") from error


def _text(given: Mapping[str, Any], name: str, default: str) -> str:
    value = given.get(name, default)
    if not isinstance(value, str) or len(value) > 4096 or not value.isprintable():
        raise _fault(name, "is not a printable text")
    return value


def _whole(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name, default)
    try:
        number = (
            int(value) if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)) else None
        )
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise _fault(name, f"is not a whole number from {least} to {most}")
    return number


def _truth(given: Mapping[str, Any], name: str) -> bool:
    value = str(given.get(name, False)).lower()
    if value not in (*TRUE, *FALSE):
        raise _fault(name, "is neither true nor false")
    return value in TRUE


def _fault(name: str, problem: str) -> FleetError:
    return FleetError("EF_ARGUMENT", f"{name}: {problem}")
