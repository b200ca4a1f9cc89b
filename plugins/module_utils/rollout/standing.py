# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill orders that stand on hosts, and what of a rollout they would keep off. Pure.

A release that is deployed under an order comes up with programs off, and its batch goes back when
it is judged. The orders are read with the facts, so that a plan can say it before any host is changed.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.scope import RELEASE_ARGUMENTS
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import resolve_features

Json = Mapping[str, Any]
_NAMED = 20
# As the loader takes a folder of orders that it cannot read.
UNREADABLE = "unreadable"


class Standing(NamedTuple):
    """One order on one host that concerns what the rollout brings."""

    host: str
    order: str


def standing_orders(hosts: Sequence[Json], contracts: Sequence[Json]) -> list[Standing]:
    """Every order that would keep a feature of the rollout off, in the order of hosts.

    A host is its variables: `inventory_hostname`, `ebpf_fleet_features` and what `capability_facts`
    registered as `ebpf_fleet_capability`. Orders for another kernel family, or for a feature that the
    rollout does not bring, concern nothing.
    """
    return [Standing(str(host["inventory_hostname"]), order) for host in hosts for order in _orders_on(host, contracts)]


def _orders_on(host: Json, contracts: Sequence[Json]) -> list[str]:
    answer = capability_document.read(str(host["inventory_hostname"]), host.get("ebpf_fleet_capability") or {})
    facts = answer.capabilities or {}
    if "kill_orders" not in facts:
        return []
    orders = facts["kill_orders"]
    if orders is None:
        return [UNREADABLE]
    kernel = facts["kernel"]
    families = (kernel.get("family"), kernel.get("distro_family"))
    brought = wanted(host.get("ebpf_fleet_features"), contracts)
    return [order for order in orders if _concerns(order, families, brought)]


def _concerns(order: str, families: Sequence[str | None], wanted: Sequence[str]) -> bool:
    kind, _dot, name = order.partition(".")
    if kind == "feature":
        return name in wanted
    return order == "global" or (kind == "family" and name in families)


def wanted(given: Any, contracts: Sequence[Json]) -> list[str]:
    """Features that the rollout brings to a host; every one where that cannot be read."""
    by_name = {one["feature"]: dict(one) for one in contracts}
    try:
        named = values.mapping("ebpf_fleet_features", {} if given is None else given)
        found = resolve_features(named or None, by_name)
    except (values.RefusedValueError, FleetError, LookupError, TypeError):
        return sorted(by_name)
    return [name for name, one in found.items() if one["enabled"]]


def lacking(hosts: Sequence[str], refused: Mapping[str, str]) -> list[str]:
    """A sentence for each reason why one of the hosts does not have an order that the controller keeps for it."""
    why: dict[str, list[str]] = {}
    for host in hosts:
        if host in refused:
            why.setdefault(refused[host], []).append(host)
    return [f"{_named(names)}: {reason}" for reason, names in why.items()]


def _named(hosts: Sequence[str]) -> str:
    more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
    return ", ".join(hosts[:_NAMED]) + more


def sentences(found: Sequence[Standing]) -> list[str]:
    """A sentence for each order with the hosts that it stands on, and how it is taken back."""
    hosts: dict[str, list[str]] = {}
    for one in found:
        hosts.setdefault(one.order, []).append(one.host)
    return [_sentence(order, names) for order, names in hosts.items()]


def _sentence(order: str, hosts: Sequence[str]) -> str:
    named = _named(hosts)
    if order == UNREADABLE:
        return f"{named}: kill.d cannot be read, which the loader takes for a kill order: make it a folder of root's"
    kind, _dot, name = order.partition(".")
    scope = {"feature": f"feature={name}", "family": f"kernel_family={name}"}.get(kind, order)
    what = f"{name} stays off" if kind == "feature" else "everything stays off"
    return (
        f"a kill order stands on {named} ({order}), so {what} there: take it back with "
        f"ebpf.fleet.rollback -e scope={scope} {RELEASE_ARGUMENTS}, or leave these hosts out"
    )
