# SPDX-License-Identifier: GPL-3.0-or-later
"""Freeze windows and blocked hours: what they take, and when they are in force."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.filter import rollout
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import RefusedValueError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import freeze

WINDOW = {"from": "2026-12-20T00:00:00+01:00", "to": "2027-01-04T06:00:00+01:00", "why": "holidays"}
NIGHT = {"days": ["fri", "sun"], "from": "22:00", "to": "06:00", "zone": "Europe/Berlin", "why": "no one is on call"}
NOON = {"days": ["mon"], "from": "11:30", "to": "13:00", "zone": "UTC", "why": "peak"}


def host(name: str = "h1", **variables: Any) -> dict[str, Any]:
    return {"inventory_hostname": name, **variables}


def told(now: str, *hosts: dict[str, Any], overrule: str | None = None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = rollout.rollout_freeze(list(hosts), now, overrule)
    return found


@pytest.mark.parametrize(
    ("now", "frozen"),
    [
        ("2026-12-19T22:59:59Z", False), ("2026-12-19T23:00:00Z", True), ("2026-12-20T00:00:00+01:00", True),
        ("2027-01-04T04:59:59Z", True), ("2027-01-04T05:00:00Z", False), ("2027-01-04T05:59:59+01:00", True),
    ],
)  # fmt: skip
def test_a_window_holds_from_its_first_second_until_before_its_end_in_any_offset(now: str, frozen: bool) -> None:
    found = told(now, host(ebpf_fleet_freezes=[WINDOW]))
    assert found["sentences"] == found["notes"]
    assert found["sentences"] == (["frozen until 2027-01-04T06:00:00+01:00: holidays"] if frozen else [])


@pytest.mark.parametrize(
    ("now", "blocked"),
    [
        # A Friday in winter: one hour before UTC's.
        ("2026-12-04T20:59:59Z", False), ("2026-12-04T21:00:00Z", True), ("2026-12-05T04:59:59Z", True),
        ("2026-12-05T05:00:00Z", False), ("2026-12-05T21:00:00Z", False),
        # Sunday's night goes into Monday, though Monday is not of the days.
        ("2026-12-07T04:59:00Z", True), ("2026-12-07T21:00:00Z", False),
        # A Friday in summer: two hours before UTC's.
        ("2026-07-03T19:59:59Z", False), ("2026-07-03T20:00:00Z", True), ("2026-07-04T03:59:59Z", True),
        ("2026-07-04T04:00:00Z", False),
    ],
)  # fmt: skip
def test_blocked_hours_are_those_of_their_zone_and_go_over_midnight(now: str, blocked: bool) -> None:
    sentence = "blocked until 06:00 Europe/Berlin: no one is on call"
    assert told(now, host(ebpf_fleet_blocked_hours=[NIGHT]))["sentences"] == ([sentence] if blocked else [])


@pytest.mark.parametrize(
    ("now", "blocked"),
    [("2026-12-07T11:29:59Z", False), ("2026-12-07T11:30:00Z", True), ("2026-12-07T12:59:59Z", True),
     ("2026-12-07T13:00:00Z", False), ("2026-12-08T12:00:00Z", False)],
)  # fmt: skip
def test_blocked_hours_of_a_day(now: str, blocked: bool) -> None:
    assert bool(told(now, host(ebpf_fleet_blocked_hours=[NOON]))["sentences"]) is blocked


def test_a_whole_day() -> None:
    day = {**NOON, "days": "sat,sun", "from": "00:00", "to": "24:00"}
    hours = {"ebpf_fleet_blocked_hours": [day]}
    assert told("2026-12-05T23:59:59Z", host(**hours))["sentences"] == ["blocked until 24:00 UTC: peak"]
    assert told("2026-12-07T00:00:00Z", host(**hours))["sentences"] == []
    assert told("2026-12-04T23:59:59Z", host(**hours))["sentences"] == []


def test_hours_of_a_zone_that_is_not_known_block_at_every_hour() -> None:
    found = told("2026-12-08T12:00:00Z", host(ebpf_fleet_blocked_hours=[{**NOON, "zone": "Europe/Berlim"}]))
    unknown = "the controller does not know zone 'Europe/Berlim', so it blocks all hours; correct it"
    assert found["sentences"] == [f"ebpf_fleet_blocked_hours: {unknown}"]


def test_hosts_are_named_where_it_is_not_for_all() -> None:
    frozen = {"ebpf_fleet_freezes": [WINDOW]}
    now = "2026-12-24T12:00:00Z"
    assert told(now, host("a", **frozen), host("b", **frozen))["sentences"] == [
        "frozen until 2027-01-04T06:00:00+01:00: holidays"]  # fmt: skip
    assert told(now, host("a", **frozen), host("b"))["sentences"] == [
        "a: frozen until 2027-01-04T06:00:00+01:00: holidays"]  # fmt: skip
    many = [host(f"h{index:02}", **frozen) for index in range(21)]
    (sentence,) = told(now, *many, host("other"))["sentences"]
    assert sentence.startswith("h00, h01, ") and ", h19 and 1 more: frozen" in sentence


def test_an_overruled_freeze_is_told_and_holds_nothing() -> None:
    found = told("2026-12-24T12:00:00Z", host(ebpf_fleet_freezes=[WINDOW]), overrule="CVE-2026-1 is exploited")
    assert found == {"sentences": [], "notes": [
        "overruled (CVE-2026-1 is exploited): frozen until 2027-01-04T06:00:00+01:00: holidays"]}  # fmt: skip


def test_without_any_nothing_holds() -> None:
    for variables in ({}, {"ebpf_fleet_freezes": None}, {"ebpf_fleet_freezes": []}, {"ebpf_fleet_blocked_hours": ""}):
        assert told("2026-12-24T12:00:00Z", host(**variables)) == {"sentences": [], "notes": []}


def test_both_kinds_are_told() -> None:
    both = host(ebpf_fleet_freezes=[WINDOW], ebpf_fleet_blocked_hours=[{**NOON, "days": ["thu"]}])
    assert len(told("2026-12-24T12:00:00Z", both)["sentences"]) == 2


def test_the_clock_must_be_a_moment() -> None:
    with pytest.raises(AnsibleFilterError, match="^EF_ARGUMENT: now: is 'now'"):
        told("now", host())


def test_the_pages_example_is_taken() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/rollout.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(ebpf_fleet_freezes:.*?)^```", page, re.M | re.S)
    given = yaml.safe_load(example)
    assert [one["why"] for one in freeze.read_freezes("x", given[freeze.FREEZES])] == ["holidays"]
    assert [one["days"] for one in freeze.read_blocked_hours("x", given[freeze.BLOCKED])] == [["fri", "sat", "sun"]]


@pytest.mark.parametrize("given", ["2026-12-20T00:00:00+01:00", "2026-12-20T00:00:00Z", "2026-12-20T00:00:00-11:30"])
def test_a_moment_stays_as_it_was_written(given: str) -> None:
    assert freeze.read_moment("x", given) == given


def test_a_moment_that_yaml_made_is_taken_where_it_has_its_offset() -> None:
    utc = datetime.datetime(2026, 12, 20, 1, 2, 3, tzinfo=datetime.timezone.utc)
    assert freeze.read_moment("x", utc) == "2026-12-20T01:02:03+00:00"
    with pytest.raises(RefusedValueError, match=r"^x: is .* \(a date\); give a moment with its offset"):
        freeze.read_moment("x", utc.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("soon", "give a list"),
        (["soon"], r"x\[0\]: is 'soon' \(text\); give a mapping of from, to, why"),
        ([{"from": "2026-12-20T00:00:00Z"}], r"x\[0\]: to is missing"),
        ([{**WINDOW, "why": " "}], r"x\[0\].why: is ' ' \(text\); give the reason"),
        ([{**WINDOW, "why": None}], r"x\[0\]: why is missing"),
        ([{**WINDOW, "fron": 1}], r"x\[0\]: unknown 'fron'; did you mean 'from'"),
        ([{**WINDOW, "from": "2026-12-20T00:00:00"}], r"x\[0\].from: is .*with its offset"),
        ([{**WINDOW, "from": "2026-12-20"}], r"x\[0\].from: is .*with its offset"),
        ([{**WINDOW, "from": "2026-12-20 00:00:00Z"}], r"x\[0\].from: is .*with its offset"),
        ([{**WINDOW, "from": "2026-12-20T00:00:00.5Z"}], r"x\[0\].from: is .*with its offset"),
        ([{**WINDOW, "from": "2026-13-20T00:00:00Z"}], r"x\[0\].from: is .*with its offset"),
        ([{**WINDOW, "from": "2026-12-20T24:00:00Z"}], r"x\[0\].from: is .*with its offset"),
        ([{**WINDOW, "from": 20261220}], r"x\[0\].from: is 20261220 \(a number\)"),
        ([WINDOW, {**WINDOW, "to": WINDOW["from"]}], r"x\[1\]: ends \(2026-12-20.*\) before it begins"),
    ],
)
def test_a_freeze_that_cannot_be_read_is_refused_with_its_place(given: Any, message: str) -> None:
    with pytest.raises(RefusedValueError, match=message):
        freeze.read_freezes("x", given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"days": []}, r"x\[0\].days: is .*give some of mon, tue"),
        ({"days": ["Friday"]}, r"x\[0\].days: is 'Friday'"),
        ({"days": ["frj"]}, "did you mean 'fri'"),
        ({"from": "22"}, r"x\[0\].from: is '22' \(text\); give hours and minutes"),
        ({"from": 1320}, r"x\[0\].from: is 1320 \(a number\).*YAML makes a number of 22:00"),
        ({"from": "24:00"}, r"x\[0\]: goes from 24:00 to 06:00"),
        ({"to": "24:01"}, r"x\[0\].to: is '24:01'"),
        ({"to": "22:00"}, r"x\[0\]: goes from 22:00 to 22:00"),
        ({"to": "6:00"}, r"x\[0\].to: is '6:00'"),
        ({"zone": None}, r"x\[0\]: zone is missing"),
        ({"zone": "../etc/passwd"}, r"x\[0\].zone: is"),
        ({"zone": "+01:00"}, r"x\[0\].zone: is"),
        ({"zone": 1}, r"x\[0\].zone: is 1"),
        ({"why": True}, r"x\[0\].why: is True"),
        ({"day": "fri"}, r"x\[0\]: unknown 'day'; did you mean 'days'"),
    ],
)
def test_blocked_hours_that_cannot_be_read_are_refused_with_their_place(changed: dict[str, Any], message: str) -> None:
    assert freeze.read_blocked_hours("x", [NIGHT]) == [NIGHT]
    with pytest.raises(RefusedValueError, match=message):
        freeze.read_blocked_hours("x", [{**NIGHT, **changed}])
