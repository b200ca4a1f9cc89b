# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease's document, who may confirm it, and where a release's plan grants or ends one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import (
    UNUSABLE,
    Grant,
    Lease,
    check_grant,
    describe_lease,
    grant_lease,
    may_confirm,
    parse_lease,
    render_lease,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.release.plan import plan_release
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import judge as gate

from tests.unit.test_gate import check, judge, observation
from tests.unit.test_release_plan import acts, installed, leave, state, want

DIGEST = "d" * 64
LEASE = Lease(DIGEST, "this boot", 1000, "rollout 7")
GRANT = Grant(60, "rollout 8")


def test_a_lease_is_read_as_it_was_written() -> None:
    text = render_lease(LEASE)
    assert parse_lease(text.encode()) == LEASE
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) + "\n"
    assert json.loads(text)["schema"] == "ebpf.fleet/lease/v1"


def test_a_holder_of_any_letters_is_read_again_of_a_file_that_is_all_ascii() -> None:
    lease = LEASE._replace(holder="rollout é of \U0001f680")
    text = render_lease(lease)
    assert text.isascii() and parse_lease(text.encode("ascii")) == lease
    # What another wrote may hold the letters themselves.
    assert parse_lease(json.dumps(json.loads(text), ensure_ascii=False).encode()) == lease


def test_a_lease_of_as_many_bytes_as_the_loader_reads_is_read_and_no_longer_one() -> None:
    data = render_lease(LEASE).encode()
    assert parse_lease(data.ljust(4096)) == LEASE
    assert parse_lease(data.ljust(4097)) == UNUSABLE


def test_a_grant_counts_from_now() -> None:
    assert grant_lease(Grant(2, "me"), DIGEST, "b", 5) == Lease(DIGEST, "b", 2_000_000_005, "me")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "ebpf.fleet/lease/v2"},
        {"more": 1},
        {"bundle_digest": "short"},
        {"bundle_digest": None},
        {"boot_id": 7},
        {"holder": ""},
        {"holder": None},
        {"expires_boottime_ns": -1},
        {"expires_boottime_ns": 1.5},
        {"expires_boottime_ns": True},
        {"expires_boottime_ns": "1"},
    ],
)
def test_what_the_loader_takes_for_none_is_none_here(change: dict[str, Any]) -> None:
    document = {**json.loads(render_lease(LEASE)), **change}
    assert parse_lease(json.dumps(document).encode()) == UNUSABLE


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7"])
def test_what_is_no_document_cannot_be_used(text: bytes) -> None:
    assert parse_lease(text) == UNUSABLE
    assert "nothing runs" in str(describe_lease(parse_lease(text)))


def test_no_file_is_no_lease() -> None:
    assert parse_lease(None) is None and describe_lease(None) is None


@pytest.mark.parametrize(
    ("lease", "boot", "now", "left"),
    [
        (LEASE, "this boot", 400, 600),
        (LEASE, "this boot", 1000, 0),
        (LEASE, "this boot", 5000, 0),
        (LEASE, "another boot", 400, 0),
        (UNUSABLE, "this boot", 0, 0),
    ],
)
def test_what_is_left_and_whether_it_may_be_confirmed(lease: Lease, boot: str, now: int, left: int) -> None:
    assert lease.remaining_ns(boot, now) == left
    if left:
        may_confirm(lease, boot, now)
        return
    with pytest.raises(FleetError, match="has detached") as caught:
        may_confirm(lease, boot, now)
    assert caught.value.code == "EF_LEASE_EXPIRED"


NO_GRANTS = [
    (0, "me"),
    (-1, "me"),
    (604801, "me"),
    (1, ""),
    (1, " "),
    (1, "x" * 129),
    (1, "\u00e4" * 65),
    (1, "a\nb"),
]


@pytest.mark.parametrize(("seconds", "holder"), NO_GRANTS)
def test_a_grant_that_can_do_no_good_is_refused(seconds: int, holder: str) -> None:
    with pytest.raises(FleetError) as caught:
        check_grant(seconds, holder)
    assert caught.value.code == "EF_ARGUMENT" and "lease." in caught.value.message


# The plan of a release


def on_probation(found: Any, digest: str = "d1") -> Any:
    return found._replace(lease=Lease(digest, "b", 9, "rollout 7"))


def test_a_new_release_is_granted_a_lease_before_it_is_activated() -> None:
    plan = plan_release(state("1", None, installed(1)), want(2, lease=GRANT))
    assert [step.act for step in plan.steps] == ["install", "set_previous", "grant_lease", "set_mark", "activate"]
    assert {step.act: step.undo for step in plan.steps}["grant_lease"] == "restore_lease"
    assert (plan.before["lease"], plan.after["lease"]) == (None, "of rollout 8 for d2")


def test_a_host_that_ran_it_without_a_lease_gets_none() -> None:
    assert acts(state("1", None, installed(1)), want(1, lease=GRANT)) == []
    assert acts(state("1", None, installed(1)), want(1, lease=GRANT, features={})) == ["write_desired 1"]


def test_what_an_earlier_run_left_is_renewed_or_ended() -> None:
    left = on_probation(state("1", None, installed(1)))
    assert acts(left, want(1, lease=GRANT)) == ["grant_lease 1"]
    assert acts(left, want(1)) == ["drop_lease"]
    unusable = left._replace(lease=UNUSABLE)
    assert acts(unusable, want(1, lease=GRANT)) == ["grant_lease 1"]
    assert acts(unusable, want(1)) == ["drop_lease"]
    assert acts(on_probation(left, "d9"), want(1)) == [], "another release's lease is none of ours"


def test_the_probation_ends_with_the_release_that_was_on_it() -> None:
    both = on_probation(state("2", "1", installed(1), installed(2)), "d2")
    assert acts(both, leave("d2")) == ["swap_back 1", "drop_lease"]
    assert plan_release(both, leave("d2")).after["lease"] is None
    first = on_probation(state("1", None, installed(1)))
    assert acts(first, leave("d1")) == ["deactivate 1", "drop_lease"]
    assert acts(first, leave("d9")) == []
    assert "drop_lease" in acts(first, leave()._replace(state="absent"))


# The gate


def test_a_host_whose_lease_ran_out_fails_with_that_reason() -> None:
    after = observation()
    status = after["end"]["status"]
    status["lease"] = {"expires_boottime_ns": 1, "left_ns": 0, "holder": "rollout 7", "expired": True}
    status["reason"] = "the lease of 'rollout 7' ran out unconfirmed"
    found = [one for one in judge(after)["checks"] if one["check"] == "features_attached" and one["feature"] is None]
    assert [(one["verdict"], one["measured"]) for one in found] == [("fail", "lease expired")]
    assert "EF_LEASE_EXPIRED" in found[0]["sentence"] and "rollout 7" in found[0]["sentence"]


def test_a_lease_that_holds_is_no_finding() -> None:
    after = observation()
    after["end"]["status"]["lease"] = {"expires_boottime_ns": 9, "left_ns": 5, "holder": "x", "expired": False}
    assert judge(after)["verdict"] == "pass"
    assert check(judge(after), "features_attached")["verdict"] == gate.PASS
