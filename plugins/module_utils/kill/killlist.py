# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill list: what it may say, which lists may follow each other, and which orders a host wants of it. Pure.

The form is docs/formats/kill-list.md. Who signed it, and where it came from, is not known here.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, NamedTuple, NoReturn, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.orders import Scope, ScopeError, parse_scope

SCHEMA = "ebpf.fleet/kill-list/v1"
CODE = "EF_KILL_LIST"
REPLAY = "EF_KILL_LIST_REPLAY"
EXPIRED = "EF_KILL_LIST_EXPIRED"
LIST = "kill list"

MAX_BYTES = 1024 * 1024
MAX_ORDERS = 1000
MAX_NAMES = 50_000
MAX_NAME = 255
MAX_REASON = 200
MAX_SEQUENCE = (1 << 63) - 1
# A list that holds for longer could be kept from its successors for as long.
MAX_LIFETIME_SECONDS = 366 * 86400
# The last second of the year 9999.
MAX_TIME = 253402300799

_KEYS = {"schema", "sequence", "issued", "expires", "orders"}
_ORDER_KEYS = {"scope", "hosts", "cells", "reason"}


class Order(NamedTuple):
    """One order; ``hosts`` and ``cells`` narrow it where they are not None, both where both are given."""

    scope: Scope
    hosts: frozenset[str] | None
    cells: frozenset[str] | None
    reason: str


class KillList(NamedTuple):
    """A list whose every field is in order; ``issued`` and ``expires`` are seconds since 1970."""

    sequence: int
    issued: int
    expires: int
    orders: tuple[Order, ...]


class Seen(NamedTuple):
    """The newest list that a host has taken: its sequence, the SHA-256 of its signed bytes, and its ``issued``."""

    sequence: int
    digest: str
    issued: int


class Host(NamedTuple):
    """What a host is called in the inventory, and its cell; None of a host that is in no cell."""

    name: str
    cell: str | None


def _refuse(problem: str) -> NoReturn:
    raise FleetError(CODE, f"{LIST}: {problem}", LIST)


def parse_list(document: object) -> KillList:
    """The list that a document says; raises FleetError (EF_KILL_LIST) that names the field and the remedy."""
    if not isinstance(document, dict) or set(document) != _KEYS:
        _refuse(f"is not an object of exactly the keys {', '.join(sorted(_KEYS))}; make it with kill_list.yml")
    if document["schema"] != SCHEMA:
        _refuse(f"schema is {printable(document['schema'], 60)}; only {SCHEMA} is known: update what reads it")
    sequence = _whole(document, "sequence", 1, MAX_SEQUENCE)
    issued = _whole(document, "issued", 0, MAX_TIME)
    expires = _whole(document, "expires", issued + 1, min(issued + MAX_LIFETIME_SECONDS, MAX_TIME))
    orders = document["orders"]
    if not isinstance(orders, list) or len(orders) > MAX_ORDERS:
        _refuse(f"orders is not a list of at most {MAX_ORDERS}; split the fleet, or order global")
    return KillList(sequence, issued, expires, tuple(_order(one, f"orders[{at}]") for at, one in enumerate(orders)))


def _whole(document: Mapping[str, Any], field: str, least: int, most: int) -> int:
    value = document[field]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _refuse(f"{field} is {printable(value, 60)}; give a whole number from {least} to {most}")
    return int(value)


def _order(value: object, field: str) -> Order:
    if not isinstance(value, dict) or "scope" not in value or not set(value) <= _ORDER_KEYS:
        _refuse(f"{field} is not an object of scope and, of these, some: cells, hosts, reason")
    if not isinstance(value["scope"], str):
        _refuse(f"{field}.scope is not a text; write global, feature=NAME or kernel_family=6.1")
    try:
        scope = parse_scope(value["scope"])
    except ScopeError as error:
        _refuse(f"{field}.scope: {error.message}")
    reason = value.get("reason", "")
    if not isinstance(reason, str) or printable(reason, MAX_REASON) != reason:
        _refuse(f"{field}.reason is not a printable text of at most {MAX_REASON} characters")
    return Order(scope, _names(value, "hosts", field), _names(value, "cells", field), reason)


def _names(order: Mapping[str, Any], key: str, field: str) -> frozenset[str] | None:
    """The names that narrow an order. None at all is not all: an empty list is refused."""
    if key not in order:
        return None
    names = order[key]
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_NAMES:
        _refuse(f"{field}.{key} is not a list of 1 to {MAX_NAMES} names; leave it out to mean all")
    for name in names:
        if not is_name(name):
            _refuse(
                f"{field}.{key} holds {printable(name, 60)!r}, which is not a name: printable, 1 to {MAX_NAME} letters"
            )
    return frozenset(names)


def is_name(value: object) -> bool:
    """Whether this can be the name of a host or a cell."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_NAME and printable(value, MAX_NAME) == value


def as_document(found: KillList) -> dict[str, Any]:
    """The document of a list; `parse_list` of it is the list again."""
    return {
        "schema": SCHEMA, "sequence": found.sequence, "issued": found.issued, "expires": found.expires,
        "orders": [order_document(one) for one in found.orders],
    }  # fmt: skip


def order_document(order: Order) -> dict[str, Any]:
    """The document of one order, with what it has and nothing else."""
    narrow = {"hosts": order.hosts, "cells": order.cells}
    document: dict[str, Any] = {"scope": order.scope.text}
    document.update({key: sorted(names) for key, names in narrow.items() if names is not None})
    if order.reason:
        document["reason"] = order.reason
    return document


def parse_orders(documents: object) -> tuple[Order, ...]:
    """Orders as a person writes them; raises FleetError (EF_KILL_LIST) that names the field."""
    if not isinstance(documents, (list, tuple)) or len(documents) > MAX_ORDERS:
        _refuse(f"orders is not a list of at most {MAX_ORDERS}; give [] to take every order back")
    return tuple(_order(one, f"orders[{at}]") for at, one in enumerate(documents))


def refuse_replay(found: KillList, digest: str, seen: Seen | None) -> None:
    """Raise FleetError (EF_KILL_LIST_REPLAY) for a list that may not follow the newest one that was taken.

    The same list again does not replay anything: it is what a host finds at every visit.
    """
    if seen is None or found.sequence > seen.sequence:
        return
    if found.sequence < seen.sequence:
        problem = f"its sequence is {found.sequence}, and {seen.sequence} was taken before"
    elif digest != seen.digest:
        problem = f"another list of the sequence {found.sequence} was taken before"
    else:
        return
    raise FleetError(REPLAY, f"{LIST}: {problem}; publish one with a higher sequence", LIST)


def refuse_expired(found: KillList, now: float) -> None:
    """Raise FleetError (EF_KILL_LIST_EXPIRED) for a list whose time is over; ``expires`` itself is too late."""
    if now >= found.expires:
        late = int(now) - found.expires
        raise FleetError(EXPIRED, f"{LIST}: it expired {late} s ago; publish a new one, or set this host's clock", LIST)


def concerns(order: Order, host: Host) -> bool:
    """Whether an order names this host. A host in no cell is in none that an order could name."""
    if order.hosts is not None and host.name not in order.hosts:
        return False
    return order.cells is None or host.cell in order.cells


def wanted(orders: Iterable[Order], host: Host) -> dict[str, str]:
    """{name of the order's file: why} for the orders that name this host.

    Whether a kernel family is this host's is decided by who reads the file, as with every order.
    """
    found: dict[str, str] = {}
    for order in orders:
        if concerns(order, host) and not found.get(order.scope.order):
            found[order.scope.order] = order.reason
    return found


def next_sequence(seen: int | None, asked: int | None) -> int:
    """The sequence of the list that follows; raises FleetError (EF_KILL_LIST_REPLAY) where none can.

    ``seen`` is that of the list that is published, None of none; ``asked`` what a person wants, None for the next.
    """
    least = 1 if seen is None else seen + 1
    chosen = least if asked is None else asked
    if not least <= chosen <= MAX_SEQUENCE:
        raise FleetError(REPLAY, f"sequence: {chosen} is not above {least - 1}, which is published; give a higher one")
    return chosen


def holds_already(published: KillList | None, orders: Sequence[Order], now: float, renew_before: int) -> bool:
    """Whether the published list says the same and holds for at least that many seconds more."""
    return published is not None and published.orders == tuple(orders) and now + renew_before <= published.expires
