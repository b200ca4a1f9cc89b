# SPDX-License-Identifier: GPL-3.0-or-later
"""The times of a batch: what a lease must cover, how long it lasts, and the slices of a long bake."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.filter import rollout
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import RefusedValueError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.timing import (
    ACTIVATION,
    BAKE,
    BAKES,
    DEFAULTS,
    LEASE,
    RENEW,
    STAGES,
    WINDOW,
    report_folder,
    timing,
)

from tests.support.collection_variables import role_options

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = (ROOT / "playbooks/rollout.yml").read_text(encoding="utf-8")
# As a batch of the last stage has it, and as an operator's word for all stages.
SHORT = {BAKE: 30}
# What -e key=value makes of a number.
FORMS = (int, str, lambda value: f" {value} ")


def test_without_any_variable_the_times_are_the_pages() -> None:
    """60 s of activation, 120 of bake and 30 of measurement; for twenty hosts 300 s and 10 for each more."""
    assert timing({}, hosts=20) == {
        "activation_seconds": 60, "window_seconds": 30, "needed_seconds": 210, "lease_seconds": 710,
        "renew_seconds": 300, "slice_seconds": 10, "bake_slices": 11, "bake_rest_seconds": 10, "fault": "",
    }  # fmt: skip


def test_a_variable_that_is_null_is_not_set() -> None:
    assert timing(dict.fromkeys([*DEFAULTS, BAKE, STAGES, LEASE]), 3) == timing({}, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("asked", "short"), [(0, False), (1, True), (118, True), (119, True), (120, False), (121, False), (90000, False)]
)
def test_a_lease_is_refused_below_what_a_host_waits_for_and_zero_is_none(form: Any, asked: int, short: bool) -> None:
    found = timing({LEASE: form(asked), **SHORT}, hosts=5)
    assert (found["lease_seconds"], found["needed_seconds"]) == (asked, 120)
    if not short:
        assert found["fault"] == ""
        return
    assert found["fault"] == (
        f"ebpf_fleet_rollout_lease_seconds is {asked}: a host needs 120 s for its activation, bake and measurement; "
        "give at least that and the time that your largest batch takes, leave it out, or set it to 0 for no lease."
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        (ACTIVATION, 0, 60), (ACTIVATION, 61, 121), (WINDOW, 0, 90), (WINDOW, 31, 121), (BAKE, 0, 90), (BAKE, 31, 121),
        (BAKE, 299, 389), (BAKE, 300, 390), (BAKE, 301, 390), (BAKE, 86400, 390),
        (RENEW, 1, 91), (RENEW, 29, 119), (RENEW, 30, 120), (RENEW, 31, 120),
    ],
)  # fmt: skip
def test_each_part_counts_and_a_bake_only_until_its_lease_is_renewed(
    form: Any, name: str, value: int, needed: int
) -> None:
    found = timing({**SHORT, name: form(value)}, hosts=2)
    assert (found["needed_seconds"], found["lease_seconds"]) == (needed, needed + 320)
    assert timing({**SHORT, name: form(value), LEASE: needed - 1})["fault"] != ""
    assert timing({**SHORT, name: form(value), LEASE: needed})["fault"] == ""


@pytest.mark.parametrize(
    ("window", "needed"),
    [(29.0, 119), (29.001, 120), ("29.5", 120), ("30.0", 120), (30, 120), (30.001, 121), ("0.1", 91)],
)
def test_a_part_of_a_second_counts_as_a_whole_one(window: Any, needed: int) -> None:
    assert timing({WINDOW: window, **SHORT})["needed_seconds"] == needed


def test_the_window_is_measured_as_it_was_given() -> None:
    assert (timing({WINDOW: "1.5"})["window_seconds"], timing({WINDOW: "2"})["window_seconds"]) == (1.5, 2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("bake", "renew", "slice_seconds", "slices", "rest"),
    [(0, 300, 10, 0, 0), (1, 300, 10, 0, 1), (10, 300, 10, 0, 10), (11, 300, 10, 1, 1), (20, 300, 10, 1, 10),
     (21, 10, 10, 2, 1), (21, 9, 9, 2, 3), (600, 300, 10, 59, 10), (601, 300, 11, 54, 7), (3600, 300, 60, 59, 60),
     (3601, 300, 61, 59, 2), (86400, 300, 300, 287, 300), (1, 1, 1, 0, 1), (2, 1, 1, 1, 1), (3, 2, 2, 1, 1),
     (86400, 1, 1, 86399, 1)],
)  # fmt: skip
def test_a_bake_goes_in_slices_of_which_the_last_is_never_empty(
    form: Any, bake: int, renew: int, slice_seconds: int, slices: int, rest: int
) -> None:
    """Of 10 s, so that what is plainly bad is seen soon; longer where it were more than 60, but never than `renew`."""
    found = timing({BAKE: form(bake), RENEW: form(renew)})
    assert (found["slice_seconds"], found["bake_slices"], found["bake_rest_seconds"]) == (slice_seconds, slices, rest)
    assert found["renew_seconds"] == renew and slices * slice_seconds + rest == bake


def test_where_the_release_is_not_new_nothing_bakes_and_the_lease_stays() -> None:
    new, old = timing({BAKE: 1000}, 4), timing({BAKE: 1000}, 4, changed=False)
    assert (old["bake_slices"], old["bake_rest_seconds"]) == (0, 0)
    assert (old["lease_seconds"], old["needed_seconds"]) == (new["lease_seconds"], new["needed_seconds"]) == (730, 390)


@pytest.mark.parametrize("hosts", [0, 1, 100])
def test_a_lease_that_is_asked_for_does_not_grow_with_the_batch(hosts: int) -> None:
    assert timing({LEASE: "500"}, hosts)["lease_seconds"] == 500
    assert timing(SHORT, hosts)["lease_seconds"] == 420 + 10 * hosts


# --- the bake of a stage -------------------------------------------------------------------------


def test_the_early_stages_bake_longer() -> None:
    assert BAKES == {"canary": 120, "cell": 60, "region": 60, "fleet": 30, "alone": 120}


@pytest.mark.parametrize(
    ("bake", "slices", "end"), [(0, 0, 0), (30, 2, 10), (300, 29, 10), (301, 30, 1), (3600, 59, 60)]
)
def test_a_batch_bakes_as_its_plan_says(bake: int, slices: int, end: int) -> None:
    found = timing({}, hosts=2, bake=bake)
    assert (found["bake_slices"], found["bake_rest_seconds"]) == (slices, end)
    assert found["needed_seconds"] == 90 + min(bake, 300) and found["lease_seconds"] == found["needed_seconds"] + 320


@pytest.mark.parametrize("given", [0, "7", 9])
def test_the_word_for_all_stages_outranks_the_plan(given: Any) -> None:
    assert timing({BAKE: given}, bake=600) == timing({BAKE: given}) == timing({BAKE: given}, bake=int(given))


@pytest.mark.parametrize(
    ("stages", "longest"),
    [
        (None, 120), ("", 120), ([], 120),
        ([{"stage": "fleet"}], 120),
        ([{"stage": "fleet", "bake": 121}], 121), ([{"stage": "fleet", "bake": 120}], 120),
        ('[{"stage":"canary","bake":"3600"},{"stage":"fleet"}]', 3600),
        # What cannot be read is for the plan to refuse, with its place.
        ([{"stage": "canary", "bake": "long"}, {"stage": "fleet", "bake": 200}, 3, {"stage": "moon"}], 200),
        ("canary", 120),
    ],
)  # fmt: skip
def test_before_there_is_a_plan_a_lease_must_cover_the_longest_bake(stages: Any, longest: int) -> None:
    assert timing({STAGES: stages, RENEW: 86400})["needed_seconds"] == 90 + longest
    assert timing({STAGES: stages, LEASE: 90 + longest, RENEW: 86400})["fault"] == ""
    assert timing({STAGES: stages, LEASE: 89 + longest, RENEW: 86400})["fault"] != ""
    assert timing({STAGES: stages}, bake=3)["needed_seconds"] == 93


@pytest.mark.parametrize(
    ("name", "value"),
    [(BAKE, -1), (BAKE, "1.5"), (BAKE, 86401), (RENEW, 0), (RENEW, "0"), (RENEW, 86401), (WINDOW, 3601), (WINDOW, "x"),
     (LEASE, -1), (LEASE, "soon"), (LEASE, True), (ACTIVATION, 3601), (ACTIVATION, "")],
)  # fmt: skip
def test_a_value_that_cannot_be_used_is_refused_by_its_variable(name: str, value: Any) -> None:
    with pytest.raises(RefusedValueError, match=f"^{name}: is "):
        timing({name: value})
    with pytest.raises(AnsibleFilterError, match=f"^EF_ARGUMENT: {name}: is "):
        rollout.rollout_timing({name: value})


def test_the_filters_are_the_functions() -> None:
    filters = rollout.FilterModule().filters()
    assert filters["rollout_timing"]({BAKE: "301"}, hosts=7, changed=True) == timing({BAKE: 301}, 7)
    assert filters["rollout_timing"]({BAKE: "301"}, 7, False) == timing({BAKE: 301}, 7, changed=False)
    assert filters["rollout_timing"]({}, 7, True, 44) == timing({}, 7, bake=44)


def test_the_timeout_of_a_rollout_is_the_roles() -> None:
    assert role_options()["deploy"][ACTIVATION]["default"] == DEFAULTS[ACTIVATION]


def test_the_playbook_hands_every_variable_over_and_computes_no_time_itself() -> None:
    # The whole batch's bake, which its controls wait for as well, takes these once more.
    twice = {"ebpf_fleet_rollout_renew_seconds", BAKE, STAGES}
    for name in (*DEFAULTS, BAKE, LEASE, STAGES):
        assert PLAYBOOK.count(f"'{name}': {name} | default(none)") == 1 + (name in twice), name
    for name in (*DEFAULTS, LEASE):
        # The head of the playbook speaks of none of them; nothing else reads them.
        assert len(re.findall(rf"\b{name}\b", PLAYBOOK)) == 2 * (1 + (name in twice)), name
    # The plan, too, says how long each stage bakes.
    planning = (ROOT / "playbooks/tasks/plan_rollout.yml").read_text(encoding="utf-8")
    assert planning.count(f"bake={BAKE} | default(none)") == 1 == len(re.findall(rf"\b{BAKE}\b", planning))
    assert len(re.findall(rf"\b{BAKE}\b", PLAYBOOK)) == 4 and "rollout_timing" not in planning
    assert (PLAYBOOK.count("ebpf.fleet.rollout_timing("), PLAYBOOK.count("ebpf.fleet.report_folder(")) == (2, 1)


@pytest.mark.parametrize(
    ("given", "folder"),
    [("records", "/here/records"), ("./a/b", "/here/./a/b"), ("/var/records", "/var/records"), ("", "/here/"),
     ("~/records", "/home/jane/records")],
)  # fmt: skip
def test_records_go_to_where_the_command_was_typed(monkeypatch: pytest.MonkeyPatch, given: str, folder: str) -> None:
    monkeypatch.setenv("HOME", "/home/jane")
    assert rollout.report_folder(given, "/here") == folder
    assert given.startswith("~") or report_folder(given, "/here") == folder
