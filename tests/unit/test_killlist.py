# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill list's rules: what it may say, which list may follow which, whom an order concerns."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist as kl

WEB = kl.Host("web1", "eu-1")
ALONE = kl.Host("web1", None)
A, B = "a" * 64, "b" * 64


def document(*orders: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"schema": kl.SCHEMA, "sequence": 7, "issued": 1000, "expires": 2000, "orders": list(orders), **fields}


def refusal(value: object) -> str:
    with pytest.raises(FleetError) as caught:
        kl.parse_list(value)
    assert caught.value.code == "EF_KILL_LIST"
    return caught.value.message


def test_a_list_says_what_it_says_and_its_document_is_it_again() -> None:
    given = document(
        {"scope": "global", "hosts": ["b", "a"], "cells": ["eu-1"], "reason": "INC-1"},
        {"scope": "feature=exec_events"}, {"scope": "kernel_family=debian-6.1"},
    )  # fmt: skip
    found = kl.parse_list(given)
    assert (found.sequence, found.issued, found.expires) == (7, 1000, 2000)
    assert [one.scope.order for one in found.orders] == ["global", "feature.exec_events", "family.debian-6.1"]
    assert kl.parse_list(kl.as_document(found)) == found
    assert kl.as_document(found)["orders"][0]["hosts"] == ["a", "b"]
    assert kl.as_document(found)["orders"][1] == {"scope": "feature=exec_events"}


@pytest.mark.parametrize("field", ["schema", "sequence", "issued", "expires", "orders"])
def test_every_field_must_be_there_and_no_other(field: str) -> None:
    given = document()
    del given[field]
    assert "exactly the keys expires, issued, orders, schema, sequence" in refusal(given)
    assert "exactly the keys" in refusal(document(more=1))


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_is_refused(value: object) -> None:
    assert "is not an object" in refusal(value)


YEAR = kl.MAX_LIFETIME_SECONDS


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"sequence": 1}, True), ({"sequence": 0}, False), ({"sequence": 2**63 - 1}, True),
        ({"sequence": 2**63}, False),
        ({"sequence": True}, False), ({"sequence": "7"}, False), ({"sequence": 7.0}, False),
        ({"issued": 0}, True), ({"issued": -1}, False), ({"issued": None}, False),
        ({"expires": 1001}, True), ({"expires": 1000}, False), ({"expires": 999}, False),
        ({"expires": 1000 + YEAR}, True), ({"expires": 1001 + YEAR}, False), ({"expires": [2000]}, False),
        ({"issued": kl.MAX_TIME - 1, "expires": kl.MAX_TIME}, True),
        ({"issued": kl.MAX_TIME, "expires": kl.MAX_TIME + 1}, False),
        ({"issued": kl.MAX_TIME + 1, "expires": kl.MAX_TIME + 2}, False),
    ],
)  # fmt: skip
def test_numbers_on_both_sides_of_each_bound(fields: dict[str, Any], good: bool) -> None:
    if good:
        kl.parse_list(document(**fields))
    else:
        assert f"{next(iter(fields))} is " in refusal(document(**fields)) or "expires is " in refusal(
            document(**fields)
        )


@pytest.mark.parametrize("schema", ["ebpf.fleet/kill-list/v2", "", None, "ebpf.fleet/manifest/v1"])
def test_another_schema_is_not_guessed_at(schema: object) -> None:
    assert "only ebpf.fleet/kill-list/v1 is known" in refusal(document(schema=schema))


def test_a_thousand_orders_and_not_one_more() -> None:
    many = [{"scope": "global"}] * kl.MAX_ORDERS
    assert len(kl.parse_list(document(*many)).orders) == 1000
    assert "at most 1000" in refusal(document(*many, {"scope": "global"}))
    assert "at most 1000" in refusal(document() | {"orders": {"scope": "global"}})


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("global", "orders[0] is not an object"),
        ({}, "orders[0] is not an object"),
        ({"scope": "global", "host": ["a"]}, "orders[0] is not an object"),
        ({"scope": 3}, "orders[0].scope is not a text"),
        ({"scope": "everything"}, "orders[0].scope: scope 'everything' is not one"),
        ({"scope": "previous"}, "orders[0].scope"),
        ({"scope": "feature=../../x"}, "orders[0].scope"),
        ({"scope": "kernel_family=6"}, "orders[0].scope"),
        ({"scope": "global", "hosts": []}, "orders[0].hosts is not a list of 1 to 50000"),
        ({"scope": "global", "hosts": "a"}, "orders[0].hosts is not a list"),
        ({"scope": "global", "hosts": None}, "orders[0].hosts is not a list"),
        ({"scope": "global", "cells": []}, "orders[0].cells is not a list"),
        ({"scope": "global", "hosts": [""]}, "orders[0].hosts holds ''"),
        ({"scope": "global", "hosts": ["x" * 256]}, "orders[0].hosts holds"),
        ({"scope": "global", "hosts": ["a\nb"]}, "orders[0].hosts holds"),
        ({"scope": "global", "hosts": [3]}, "orders[0].hosts holds"),
        ({"scope": "global", "reason": 3}, "orders[0].reason"),
        ({"scope": "global", "reason": "x" * 201}, "orders[0].reason"),
        ({"scope": "global", "reason": "a\x1b[2J"}, "orders[0].reason"),
    ],
)
def test_an_order_that_cannot_be_meant_refuses_the_whole_list(order: Any, words: str) -> None:
    said = refusal(document() | {"orders": [order]})
    assert words in said and said.isprintable()


def test_names_and_reasons_at_their_longest() -> None:
    found = kl.parse_list(document({"scope": "global", "hosts": ["x" * 255], "reason": "x" * 200}))
    assert found.orders[0].hosts == {"x" * 255}
    names = [f"h{number}" for number in range(50_000)]
    assert len(kl.parse_list(document({"scope": "global", "hosts": names})).orders[0].hosts or ()) == 50_000
    assert "hosts" in refusal(document({"scope": "global", "hosts": [*names, "one"]}))


@pytest.mark.parametrize(
    ("narrow", "host", "concerned"),
    [
        ({}, WEB, True), ({}, ALONE, True),
        ({"hosts": ["web1"]}, WEB, True), ({"hosts": ["web"]}, WEB, False), ({"hosts": ["WEB1"]}, WEB, False),
        ({"hosts": ["web*"]}, WEB, False), ({"hosts": ["db1", "web1"]}, WEB, True),
        ({"cells": ["eu-1"]}, WEB, True), ({"cells": ["eu-2"]}, WEB, False), ({"cells": ["eu-1"]}, ALONE, False),
        ({"cells": ["None"]}, ALONE, False),
        ({"hosts": ["web1"], "cells": ["eu-2"]}, WEB, False), ({"hosts": ["db1"], "cells": ["eu-1"]}, WEB, False),
        ({"hosts": ["web1"], "cells": ["eu-1"]}, WEB, True),
    ],
)  # fmt: skip
def test_whom_an_order_concerns(narrow: dict[str, Any], host: kl.Host, concerned: bool) -> None:
    found = kl.parse_list(document({"scope": "global", "reason": "why", **narrow}))
    assert kl.wanted(found.orders, host) == ({"global": "why"} if concerned else {})


def test_an_order_given_twice_is_one_and_keeps_the_reason_that_there_is() -> None:
    whys = ["", "x", "y"]
    orders = kl.parse_orders([*({"scope": "global", "reason": why} for why in whys), {"scope": "kernel_family=6.1"}])
    assert kl.wanted(orders, WEB) == {"global": "x", "family.6.1": ""}


@pytest.mark.parametrize("orders", [None, "global", {"scope": "global"}, [{"scope": "globl"}]])
def test_orders_of_a_person_are_refused_alike(orders: Any) -> None:
    with pytest.raises(FleetError, match="orders"):
        kl.parse_orders(orders)
    assert kl.parse_orders([]) == ()


SEEN = kl.Seen(7, A, 1000)


@pytest.mark.parametrize(
    ("sequence", "digest", "seen", "replay"),
    [
        (1, A, None, False), (7, A, SEEN, False), (8, B, SEEN, False), (8, A, SEEN, False),
        (7, B, SEEN, True), (6, A, SEEN, True), (6, B, SEEN, True), (1, B, SEEN, True),
    ],
)  # fmt: skip
def test_only_a_higher_sequence_or_the_very_same_list_follows(
    sequence: int, digest: str, seen: kl.Seen | None, replay: bool
) -> None:
    found = kl.parse_list(document(sequence=sequence))
    if not replay:
        kl.refuse_replay(found, digest, seen)
        return
    with pytest.raises(FleetError, match=f"{'another list of the' if sequence == 7 else 'its'} sequence") as caught:
        kl.refuse_replay(found, digest, seen)
    assert caught.value.code == "EF_KILL_LIST_REPLAY"


def test_a_list_holds_until_the_moment_that_it_names() -> None:
    found = kl.parse_list(document())
    kl.refuse_expired(found, 1999.999)
    for now in (2000, 2000.0, 5000):
        with pytest.raises(FleetError, match=f"it expired {int(now) - 2000} s ago") as caught:
            kl.refuse_expired(found, now)
        assert caught.value.code == "EF_KILL_LIST_EXPIRED"


@pytest.mark.parametrize(
    ("seen", "asked", "chosen"),
    [
        (None, None, 1),
        (7, None, 8),
        (None, 5, 5),
        (7, 8, 8),
        (7, 100, 100),
        (kl.MAX_SEQUENCE - 1, None, kl.MAX_SEQUENCE),
    ],
)
def test_the_next_sequence(seen: int | None, asked: int | None, chosen: int) -> None:
    assert kl.next_sequence(seen, asked) == chosen


@pytest.mark.parametrize(
    ("seen", "asked"), [(None, 0), (7, 7), (7, 6), (7, -1), (kl.MAX_SEQUENCE, None), (None, kl.MAX_SEQUENCE + 1)]
)
def test_a_sequence_that_is_not_higher_is_never_given(seen: int | None, asked: int | None) -> None:
    with pytest.raises(FleetError, match="give a higher one") as caught:
        kl.next_sequence(seen, asked)
    assert caught.value.code == "EF_KILL_LIST_REPLAY"


def test_a_list_that_says_the_same_and_holds_for_long_enough_is_left() -> None:
    found = kl.parse_list(document({"scope": "global"}))
    assert kl.holds_already(found, found.orders, 1500, 500)
    assert not kl.holds_already(found, found.orders, 1500, 501)
    assert not kl.holds_already(found, (), 1500, 0)
    assert not kl.holds_already(None, (), 1500, 0)
