# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kill order as the controller keeps it until it is taken back: who has it, and who has yet to get it. Pure.

Format: docs/formats/standing-order.md. A host that was off when the order came stays in `outstanding`; whatever
touches it later gives it the order first.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.scope import Wanted

SCHEMA = "ebpf.fleet/standing-order/v1"
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_LISTS = ("placed", "not_placed", "outstanding", "released")
_TEXTS = ("id", "who", "since", "reason")
_NAMES_IN_LINE = 10


class StoreError(OneCodeError):
    """What is kept of orders cannot be read or written; the sentence names the file and the remedy."""

    code = "EF_ORDER_STORE"


class Release(NamedTuple):
    """Who took an order back, when (RFC 3339) and why."""

    who: str
    when: str
    reason: str


class StandingOrder(NamedTuple):
    """One order. A host is in one of the four lists at most.

    `placed` confirmed and have the order's file, `not_placed` confirmed that the order is not for their kernel family,
    `outstanding` did not confirm, `released` were taken out one by one. `everywhere`: the inventory's hosts were
    addressed without a choice by name, so a host that came later is meant too. `release`: taking it back was begun.
    """

    id: str
    scope: Wanted
    who: str
    since: str
    reason: str
    everywhere: bool
    placed: tuple[str, ...] = ()
    not_placed: tuple[str, ...] = ()
    outstanding: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    release: Release | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Whom the order addressed and who was not released since."""
        return (*self.placed, *self.not_placed, *self.outstanding)


def ident(since: str, terms: Sequence[str]) -> str:
    """An id: when, to the second, and what. Two orders of one scope in a second are one order."""
    stamp = re.sub(r"[-:]", "", since)[:15].replace("T", "-")
    return f"{stamp}-{hashlib.sha256(json.dumps(list(terms)).encode()).hexdigest()[:6]}"


def render(order: StandingOrder) -> bytes:
    """The order's file."""
    document: dict[str, Any] = {"schema": SCHEMA, **order._asdict(), "scope": order.scope.terms}
    document["release"] = order.release and order.release._asdict()
    return (json.dumps(document, sort_keys=True) + "\n").encode()


def parse(data: bytes) -> StandingOrder:
    """Read an order's file; StoreError says what is wrong: what cannot be read is never no order."""
    try:
        document = strictjson.parse(data)
    except ValueError as error:
        raise StoreError(f"is not a JSON document: {error}") from error
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise StoreError(f"is not of schema {SCHEMA}")
    if set(document) != set(StandingOrder._fields):
        raise StoreError(f"has not exactly the fields {', '.join(StandingOrder._fields)}")
    for name in _TEXTS:
        if not isinstance(document[name], str):
            raise StoreError(f"{name} is not text")
    if not _ID.fullmatch(document["id"]) or not isinstance(document["everywhere"], bool):
        raise StoreError("id or everywhere is not one")
    for name in _LISTS:
        if not isinstance(document[name], list) or not all(isinstance(one, str) for one in document[name]):
            raise StoreError(f"{name} is not a list of names")
        document[name] = tuple(document[name])
    return StandingOrder(
        **{**document, "scope": scope.read(document["scope"]), "release": _release(document["release"])}
    )


def _release(given: Any) -> Release | None:
    if given is None:
        return None
    if not isinstance(given, dict) or set(given) != set(Release._fields):
        raise StoreError("release is not one")
    if not all(isinstance(one, str) for one in given.values()):
        raise StoreError("release is not one")
    return Release(**given)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def engaged(before: StandingOrder | None, new: StandingOrder) -> StandingOrder:
    """The order with the hosts of `new.outstanding` addressed, of the same scope as the one before, if there was one.

    It stays the order that it was, with its id and its first reason. A host that confirmed stays confirmed until it
    says otherwise; an unfinished taking back is over.
    """
    if before is None:
        return new._replace(outstanding=_sorted(new.outstanding))
    known = {*before.placed, *before.not_placed}
    return before._replace(
        reason=before.reason or new.reason,
        everywhere=before.everywhere or new.everywhere,
        outstanding=_sorted((*before.outstanding, *(one for one in new.outstanding if one not in known))),
        released=_sorted(set(before.released) - set(new.outstanding)),
        release=None,
    )


def answered(order: StandingOrder, answers: Mapping[str, Mapping[str, Any]]) -> StandingOrder:
    """The order after hosts answered to it: {host: its parsed answer}. Whoever did not confirm is outstanding."""
    good = {name for name, answer in answers.items() if answer["ok"]}
    absent = {name for name in good if answers[name]["placed"] is False}
    return order._replace(
        placed=_sorted((set(order.placed) - set(answers)) | (good - absent)),
        not_placed=_sorted((set(order.not_placed) - set(answers)) | absent),
        outstanding=_sorted((set(order.outstanding) - set(answers)) | (set(answers) - good)),
    )


def taken_back(order: StandingOrder, hosts: Iterable[str], inventory: Iterable[str]) -> StandingOrder:
    """The order without those hosts that confirmed its end, and without those that the inventory no longer has."""
    gone, known = set(hosts), set(inventory)
    stays = known - gone
    return order._replace(
        placed=_sorted(stays.intersection(order.placed)),
        not_placed=_sorted(stays.intersection(order.not_placed)),
        outstanding=_sorted(stays.intersection(order.outstanding)),
        released=_sorted(known & {*order.released, *(gone & set(order.hosts))}),
    )


def means(order: StandingOrder, host: str, cell: str | None) -> bool:
    """Is a host meant by the order that it never addressed: one that is new in the inventory, or in the cell?

    A host pattern means those that it matched when the order was given.
    """
    if not order.everywhere or order.scope.hosts or host in order.hosts or host in order.released:
        return False
    return not order.scope.cell or order.scope.cell == cell


def keeping(orders: Iterable[StandingOrder], wanted: Wanted, host: str) -> StandingOrder | None:
    """Another order that needs, on this host, the file that an order of scope `wanted` needs; None if there is none."""
    for other in orders:
        if other.scope != wanted and other.scope.atoms == wanted.atoms and host in (*other.placed, *other.outstanding):
            return other
    return None


def named(order: StandingOrder) -> str:
    """The order in a sentence."""
    return printable(f"order {order.id} (scope={order.scope.text}, by {order.who})", 300)


def line(order: StandingOrder) -> str:
    """The order in the list: id, scope, since, by, hosts."""
    said = [order.id, f"scope={order.scope.text}", f"since {order.since}", f"by {order.who}"]
    said.append(f"{len(order.placed) + len(order.not_placed)} confirmed")
    names = f": {hostnames.some_of(order.outstanding, _NAMES_IN_LINE)}" if order.outstanding else ""
    said.append(f"{len(order.outstanding)} outstanding{names}")
    said.append(f"reason: {order.reason or 'none was given'}")
    if order.release:
        begun = f"{order.release.who} began to take it back at {order.release.when}: {order.release.reason}"
        said.append(f"{begun}; not finished, run that again")
    return printable("  ".join(said), 2000)
