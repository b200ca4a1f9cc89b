# SPDX-License-Identifier: GPL-3.0-or-later
"""The pull channel's documents on a host: settings, mark and last contact; and the lease's arithmetic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.killlist import Host, Seen
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import documents, metrics
from ansible_collections.ebpf.fleet.plugins.module_utils.pull.fetch import check_location

GOOD = {
    "schema": documents.SETTINGS, "location": "https://static.example.org/kill-list", "host": "web1", "cell": "eu-1",
    "policy": "keep", "interval_s": 60, "lease_s": 3600, "timeout_s": 10, "wait_s": 30,
}  # fmt: skip
DIGEST = "0123456789abcdef" * 4
S = 1_000_000_000


def settings(**fields: Any) -> documents.Settings:
    return documents.parse_settings(json.dumps({**GOOD, **fields}).encode(), "pull.json")


def test_settings_are_what_they_say() -> None:
    found = settings()
    assert (found.location, found.host, found.policy) == (GOOD["location"], Host("web1", "eu-1"), "keep")
    assert (found.interval_s, found.lease_s, found.timeout_s, found.wait_s) == (60, 3600, 10, 30)
    assert settings(cell=None).host == Host("web1", None)


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"interval_s": 10}, True), ({"interval_s": 9}, False), ({"interval_s": 86400, "lease_s": 604800}, True),
        ({"interval_s": 86401, "lease_s": 604800}, False), ({"interval_s": 60.0}, False), ({"interval_s": True}, False),
        ({"interval_s": 10, "lease_s": 20}, True), ({"interval_s": 10, "lease_s": 19}, False),
        ({"interval_s": 60, "lease_s": 119}, False), ({"interval_s": 60, "lease_s": 120}, True),
        ({"lease_s": 604800}, True), ({"lease_s": 604801}, False),
        ({"timeout_s": 1}, True), ({"timeout_s": 0}, False), ({"timeout_s": 60}, True), ({"timeout_s": 61}, False),
        ({"wait_s": 0}, True), ({"wait_s": -1}, False), ({"wait_s": 300}, True), ({"wait_s": 301}, False),
        ({"policy": "detach"}, True), ({"policy": "detatch"}, False), ({"policy": None}, False),
        ({"host": ""}, False), ({"host": None}, False), ({"host": "x" * 255}, True), ({"host": "x" * 256}, False),
        ({"cell": ""}, False), ({"cell": 3}, False), ({"schema": "ebpf.fleet/pull/v2"}, False), ({"more": 1}, False),
        ({"location": 3}, False), ({"location": ""}, False), ({"location": "ftp://h/x"}, False),
    ],
)  # fmt: skip
def test_settings_on_both_sides_of_each_bound(fields: dict[str, Any], good: bool) -> None:
    if good:
        settings(**fields)
        return
    with pytest.raises(FleetError) as caught:
        settings(**fields)
    assert caught.value.code == "EF_ARGUMENT" and "pull.json" in caught.value.message
    assert "prepare the host again" in caught.value.message


def test_a_policy_that_is_mistyped_names_the_nearest() -> None:
    with pytest.raises(FleetError, match="policy is detatch; did you mean 'detach'"):
        settings(policy="detatch")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"schema": "ebpf.fleet/pull/v1"}'])
def test_settings_that_are_no_settings_are_refused(data: bytes) -> None:
    with pytest.raises(FleetError, match=r"pull\.json: "):
        documents.parse_settings(data, "pull.json")


@pytest.mark.parametrize(
    ("location", "scheme"),
    [
        ("https://h/x", "https"), ("http://h:8080/x?y=z", "http"), ("http://[::1]:80/", "http"), ("http://h", "http"),
        ("file:///srv/kill-list", "file"), ("file:///srv/kill%20list", "file"),
    ],
)  # fmt: skip
def test_a_location_that_can_be_had(location: str, scheme: str) -> None:
    assert check_location(location) == scheme


@pytest.mark.parametrize(
    "location",
    [
        "", "/srv/kill-list", "ftp://h/x", "data:,x", "jar:file:///x", "http://", "http:///x", "http://u:p@h/x",
        "http://h:0/",
        "http://h:99999/", "http://h:x/", "http://h/a b", "http://h/\n", "http://h/ä", "http://h/#x", "file://h/x",
        "file:x",        "file:///x?y", "file:///x%00y", "HTTP:/x", "unix:///x",
    ],
)  # fmt: skip
def test_a_location_that_cannot(location: str) -> None:
    with pytest.raises(ValueError, match="."):
        check_location(location)


def test_a_mark_is_it_again_and_no_file_is_no_mark() -> None:
    seen = Seen(7, DIGEST, 1000)
    assert documents.parse_mark(documents.render_mark(seen), "mark.json") == seen
    assert documents.parse_mark(None, "mark.json") is None


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 0}, {"sequence": 2**63}, {"sequence": "7"}, {"digest": "x"}, {"digest": DIGEST.upper()},
        {"digest": DIGEST + "\n"}, {"digest": None}, {"issued": -1}, {"schema": "x"}, {"more": 1},
    ],
)  # fmt: skip
def test_a_mark_that_cannot_be_read_is_not_none(change: dict[str, Any]) -> None:
    document = {**json.loads(documents.render_mark(Seen(7, DIGEST, 1000))), **change}
    for data in (json.dumps(document).encode(), b"", b"{", b"[]"):
        with pytest.raises(FleetError, match=r"mark\.json: .*remove this file") as caught:
            documents.parse_mark(data, "mark.json")
        assert caught.value.code == "EF_PULL_STATE"


def test_a_contact_is_what_the_last_status_says() -> None:
    data = documents.render_status({"boot_id": "b", "contact_boottime_ns": 5})
    assert documents.parse_contact(data) == documents.Contact("b", 5)


@pytest.mark.parametrize(
    "data",
    [
        None, b"", b"{", b"[]", b"{}", documents.render_status({"boot_id": "b", "contact_boottime_ns": None}),
        documents.render_status({"boot_id": 3, "contact_boottime_ns": 5}),
        documents.render_status({"boot_id": "b", "contact_boottime_ns": True}),
        documents.render_status({"boot_id": "b", "contact_boottime_ns": -1}),
        b'{"schema": "x", "boot_id": "b", "contact_boottime_ns": 5}',
    ],
)  # fmt: skip
def test_a_contact_that_cannot_be_told_is_none(data: bytes | None) -> None:
    assert documents.parse_contact(data) is None


@pytest.mark.parametrize(
    ("contact", "now", "left"),
    [
        (None, 5 * S, 0),
        (documents.Contact("b", 5 * S), 5 * S, 60), (documents.Contact("b", 5 * S), 64 * S, 1),
        (documents.Contact("b", 5 * S), 65 * S - 1, 1), (documents.Contact("b", 5 * S), 65 * S, 0),
        (documents.Contact("b", 5 * S), 66 * S, 0),
        # Of another boot, and of a moment that has not been: neither is a contact.
        (documents.Contact("a", 5 * S), 6 * S, 0), (documents.Contact("b", 5 * S), 5 * S - 1, 0),
    ],
)  # fmt: skip
def test_a_lease_counts_from_the_last_contact_in_this_boot(
    contact: documents.Contact | None, now: int, left: int
) -> None:
    assert documents.lease_seconds(contact, "b", now, 60) == left


def test_metrics_have_a_sample_for_what_is_known_and_none_for_what_is_not() -> None:
    status = {
        "ok": True,
        "time_unix_ns": 1_500_000_000,
        "sequence": 7,
        "expires": None,
        "lease_left_s": 60,
        "pulled": ["a"],
    }
    page = metrics.render_metrics(status).decode()
    samples = dict(line.split(" ") for line in page.splitlines() if not line.startswith("#"))
    assert samples == {
        "ebpf_fleet_pull_ok": "1", "ebpf_fleet_pull_visit_timestamp_seconds": "1.500", "ebpf_fleet_pull_sequence": "7",
        "ebpf_fleet_pull_lease_left_seconds": "60", "ebpf_fleet_pull_orders": "1",
    }  # fmt: skip
    assert page.count("# HELP") == page.count("# TYPE") == len(samples)
    assert b"ebpf_fleet_pull_ok 0\n" in metrics.render_metrics({**status, "ok": False})
