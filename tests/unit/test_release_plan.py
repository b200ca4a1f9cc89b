# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a release: steps, what each takes back, and a diff that tells the truth."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release.apply import _Run
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import Grant, Lease
from ansible_collections.ebpf.fleet.plugins.module_utils.release.mark import UNREADABLE, Mark
from ansible_collections.ebpf.fleet.plugins.module_utils.release.plan import (
    HostState,
    Installed,
    Request,
    plan_release,
    prunable,
)

FEATURES = {"runqlat": {"enabled": True, "sample_every": 1}}


def installed(number: int, **changes: Any) -> Installed:
    release = Installed(f"{number}", f"d{number}", number, FEATURES, b"sig", None)
    return release._replace(**changes)


def state(current: str | None, previous: str | None, *releases: Installed, running: str | None = None) -> HostState:
    """A host as deployments leave it, with the mark of its current release."""
    named = {release.release: release for release in releases}
    below = (f"d{previous}",) if previous in named and previous != current else ()
    mark = Mark(named[current].sequence or 1, f"d{current}", below, 0) if current in named else None
    return HostState(current, previous, named, current is not None, running, mark=mark)


def want(number: int, **changes: Any) -> Request:
    request = Request("present", f"{number}", f"d{number}", number, FEATURES, b"sig", 3, False, None, False)
    return request._replace(**changes)


def leave(from_digest: str | None = None, **changes: Any) -> Request:
    return Request("rolled_back", None, None, None, None, None, 3, False, from_digest, False)._replace(**changes)


def acts(found: HostState, request: Request) -> list[str]:
    return [
        step.act if step.release is None else f"{step.act} {step.release}"
        for step in plan_release(found, request).steps
    ]


def test_a_first_release() -> None:
    plan = plan_release(state(None, None), want(1))
    assert [step.act for step in plan.steps] == ["install", "set_mark", "activate", "link_desired"]
    assert [step.undo for step in plan.steps] == ["remove", "restore_file", "activate_former", "restore_file"]
    assert plan.changed and plan.needs_archive
    assert plan.before["current"] is None and plan.after["current"] == "1" and plan.after["features"] == FEATURES


def test_an_upgrade_remembers_the_old_release_before_it_leaves_it() -> None:
    assert acts(state("1", None, installed(1)), want(2)) == [
        "install 2", "set_previous 1", "set_mark 2", "activate 2",
    ]  # fmt: skip


def test_nothing_to_do_is_no_step_and_no_diff() -> None:
    plan = plan_release(state("1", None, installed(1)), want(1))
    assert not plan.changed and plan.before == plan.after


def test_an_installed_release_is_not_sent_again() -> None:
    plan = plan_release(state("1", None, installed(1), installed(2)), want(2))
    assert not plan.needs_archive and plan.steps[-1].act == "activate"


def test_a_damaged_release_is_sent_again_and_brought_back_if_that_fails() -> None:
    plan = plan_release(state("1", None, installed(1, damage="broken")), want(1))
    assert plan.needs_archive and plan.steps[0].undo == "restore_installed"
    assert plan.before["damaged"] == ["1"] and plan.after["damaged"] == []


def test_changed_features_and_signature_need_no_restart() -> None:
    request = want(1, features={}, signature=b"new", manage_service=True)
    assert acts(state("1", None, installed(1), running="d1"), request) == ["write_signature 1", "write_desired 1"]


def test_the_loader_is_restarted_when_it_runs_something_else() -> None:
    managed = want(1, manage_service=True)
    for running in (None, "d0"):
        plan = plan_release(state("1", None, installed(1), running=running), managed)
        assert [step.act for step in plan.steps] == ["restart"]
        assert (plan.before["running"], plan.after["running"]) == (running, "d1")
    assert acts(state("1", None, installed(1), running="d1"), managed) == []


def test_pruning_comes_last_after_the_loader_confirmed() -> None:
    found = state("3", "2", *(installed(n) for n in (1, 2, 3)), running="d3")
    assert acts(found, want(4, manage_service=True)) == [
        "install 4", "set_previous 3", "set_mark 4", "activate 4", "restart 4", "remove 1",
    ]  # fmt: skip


@pytest.mark.parametrize(("keep", "gone"), [(9, []), (4, []), (3, ["1"]), (2, ["1", "2"]), (1, ["1", "2"])])
def test_prunable(keep: int, gone: list[str]) -> None:
    assert prunable(state("4", "3", *(installed(n) for n in (1, 2, 3, 4))), keep) == gone


def test_a_release_of_unknown_age_is_pruned_first() -> None:
    found = state("3", "2", installed(1), installed(2), installed(3), installed(9, sequence=None))
    assert prunable(found, 3) == ["9"]


@pytest.mark.parametrize("sequence", [1, 2])
def test_an_older_or_equal_sequence_is_a_downgrade(sequence: int) -> None:
    found = state("2", None, installed(2))
    with pytest.raises(FleetError) as error:
        plan_release(found, want(5, sequence=sequence))
    assert error.value.code == "EF_SEQUENCE_DOWNGRADE" and "allow_downgrade" in error.value.message
    assert plan_release(found, want(5, sequence=sequence, allow_downgrade=True)).changed


def test_an_unknown_sequence_is_never_lower() -> None:
    for found in (state("2", None), state("2", None, installed(2, sequence=None))):
        with pytest.raises(FleetError, match="cannot be read"):
            plan_release(found, want(9))


def test_rollback_is_one_rename() -> None:
    found = state("2", "1", installed(1), installed(2))
    plan = plan_release(found, leave("d2"))
    assert [step.act for step in plan.steps] == ["swap_back"]
    assert plan.after["current"] == "1" and plan.after["previous"] is None
    assert acts(found, leave(None, manage_service=True)) == ["swap_back 1", "restart 1"]


def test_rollback_leaves_a_host_that_runs_another_release() -> None:
    assert acts(state("1", None, installed(1)), leave("d2")) == []
    assert acts(state(None, None), leave("d2")) == []


def test_rollback_of_a_first_release_needs_its_name() -> None:
    found = state("1", None, installed(1))
    assert acts(found, leave("d1", manage_service=True)) == ["deactivate 1", "stop"]
    for without in (found, state(None, None), state("1", "1", installed(1))):
        with pytest.raises(FleetError) as error:
            plan_release(without, leave())
        assert error.value.code == "EF_NO_PREVIOUS"


def test_rollback_to_what_is_not_whole_is_refused() -> None:
    for releases in ([installed(2)], [installed(2), installed(1, damage="flipped")]):
        with pytest.raises(FleetError, match="cannot be used"):
            plan_release(state("2", "1", *releases), leave("d2"))


def test_absent_stops_first_and_ends_with_nothing() -> None:
    found = state("2", "1", installed(1), installed(2))
    request = leave()._replace(state="absent", manage_service=True)
    assert acts(found, request) == [
        "stop", "deactivate 2", "forget_previous 1", "unlink_desired", "remove 1", "remove 2",
    ]  # fmt: skip
    assert acts(state(None, None), request) == []


COLLECTED = {"fallbacks": ("bcc",), "collector": True, "manage_service": True}
WITH_BCC = {"fallbacks": ("bcc",), "collector": True}


def test_the_collector_is_started_where_it_was_opted_into() -> None:
    assert acts(state(None, None), want(1, **COLLECTED))[-2:] == ["restart 1", "start_collector 1"]


def test_a_collector_that_runs_the_release_is_left_alone() -> None:
    found = state("1", None, installed(1, **WITH_BCC), running="d1")._replace(collecting="d1")
    plan = plan_release(found, want(1, **COLLECTED))
    assert plan.steps == [] and plan.before == plan.after


def test_a_collector_that_ended_or_runs_something_else_is_started() -> None:
    for collecting in (None, "d0"):
        found = state("1", None, installed(1, **WITH_BCC), running="d1")._replace(collecting=collecting)
        assert acts(found, want(1, **COLLECTED)) == ["start_collector 1"]


def test_opting_out_writes_the_wish_and_stops_the_collector() -> None:
    found = state("1", None, installed(1, **WITH_BCC), running="d1")._replace(collecting="d1")
    assert acts(found, want(1, manage_service=True)) == ["write_desired 1", "stop_collector"]


def test_a_bundle_without_collector_starts_none() -> None:
    assert "start_collector 1" not in acts(state(None, None), want(1, fallbacks=("bcc",), manage_service=True))


def test_a_way_back_takes_the_collector_along_or_stops_it() -> None:
    both = [installed(1, **WITH_BCC), installed(2)]
    assert acts(state("2", "1", *both), leave(manage_service=True))[-1] == "start_collector 1"
    found = state("1", "2", *both)._replace(collecting="d1")
    assert acts(found, leave(manage_service=True))[-1] == "stop_collector"


def test_removing_everything_stops_the_collector() -> None:
    found = state("1", None, installed(1, **WITH_BCC), running="d1")._replace(collecting="d1")
    removal = Request("absent", None, None, None, None, None, 3, False, None, True)
    assert acts(found, removal)[:2] == ["stop", "stop_collector"]


# Every step that writes can be taken back

# What systemd is told is put right once all else was taken back.
TELLS_SYSTEMD = {"restart", "stop", "start_collector", "stop_collector"}


def many_plans() -> list[Any]:
    """Plans over the states and requests of this page."""
    hosts = [
        state(None, None),
        state("1", None, installed(1)),
        state("2", "1", installed(1), installed(2), running="d2"),
        state("3", "2", *(installed(n, damage="flipped" if n == 3 else None) for n in (1, 2, 3)), running="d3"),
    ]
    hosts += [host._replace(desired_linked=False, lease=Lease("d1", "boot", 9, "me"), former_signers="d1",
                            collecting="d2") for host in hosts]  # fmt: skip
    grant = Grant(60, "me")
    wishes = [want(n, signature=b"other", features={}, allow_downgrade=True, keep=1, manage_service=unit, lease=lease)
              for n in (1, 2, 3, 4) for unit in (False, True) for lease in (None, grant)]  # fmt: skip
    wishes += [
        want(2, allow_downgrade=True, **COLLECTED),
        leave("d2", manage_service=True),
        leave()._replace(state="absent", manage_service=True),
    ]
    return [plan_release(host, wish) for host in hosts for wish in wishes]


def test_every_step_that_writes_names_its_undo() -> None:
    seen = set()
    for plan in many_plans():
        for step in plan.steps:
            seen.add(step.act)
            assert (step.undo is None) == (step.act in TELLS_SYSTEMD), step
            assert step.undo in (None, "restore_file", "restore_files") or hasattr(_Run, f"undo_{step.undo}"), step
    acts_known = {name[len("do_") :] for name in dir(_Run) if name.startswith("do_")}
    assert seen | {"swap_back"} == acts_known


# The high-water mark


def marked(sequence: int, *below: str) -> Mark:
    return Mark(sequence, f"d{sequence}", below, 0)


def test_the_mark_survives_rollback_and_removal() -> None:
    rolled_back = state("1", None, installed(1), installed(2))._replace(mark=marked(2, "d1"))
    removed = state(None, None)._replace(mark=marked(2, "d1"))
    for host in (rolled_back, removed):
        with pytest.raises(FleetError) as error:
            plan_release(host, want(9, sequence=2))
        assert error.value.code == "EF_SEQUENCE_DOWNGRADE" and "allow_downgrade" in error.value.message
        assert plan_release(host, want(3)).mark == marked(3, *(["d1"] if host.current else []))
        assert plan_release(host, want(2)).mark.sequence == 2  # type: ignore[union-attr]
    with pytest.raises(FleetError):
        plan_release(removed, want(1))
    assert acts(rolled_back, want(1)) == []


def test_removal_and_rollback_leave_the_mark_as_it_is() -> None:
    found = state("2", "1", installed(1), installed(2))
    for request in (leave("d2"), leave()._replace(state="absent")):
        plan = plan_release(found, request)
        assert plan.mark == found.mark and "set_mark" not in [step.act for step in plan.steps]


def test_only_an_order_lowers_the_mark_and_it_is_recorded() -> None:
    found = state("5", None, installed(5))
    plan = plan_release(found, want(3, allow_downgrade=True, now=77))
    assert plan.mark == Mark(3, "d3", ("d5",), 77, {"from": 5, "to": 3, "digest": "d3", "at_unix": 77})
    after = plan_release(found._replace(mark=plan.mark, current="3", releases={"3": installed(3)}), want(4, now=78))
    assert after.mark is not None and (after.mark.sequence, after.mark.lowered) == (4, plan.mark.lowered)


def test_the_way_back_is_always_named_by_the_mark() -> None:
    for plan in many_plans():
        for name in ("current", "previous"):
            release = plan.after[name]
            if release is not None and plan.mark is not None and "activate" in [step.act for step in plan.steps]:
                assert plan.mark.allows(int(release), f"d{release}"), (plan, name)


def test_a_mark_that_cannot_be_read_refuses_until_it_is_ordered_anew() -> None:
    found = state("1", None, installed(1))._replace(mark=UNREADABLE)
    with pytest.raises(FleetError) as error:
        plan_release(found, want(9))
    assert error.value.code == "EF_MARK_MALFORMED"
    assert plan_release(found, want(9, allow_downgrade=True)).mark.sequence == 9  # type: ignore[union-attr]


# Trust


def test_a_rollback_restores_the_signers_before_it_verifies() -> None:
    found = state("2", "1", installed(1), installed(2))._replace(former_signers="d1")
    plan = plan_release(found, leave("d2"))
    assert [step.act for step in plan.steps] == ["restore_trust", "swap_back"]
    assert acts(found._replace(former_signers="d7"), leave("d2")) == ["swap_back 1"]
