# SPDX-License-Identifier: GPL-3.0-or-later
"""Every refusal of a rollout before its first host is changed, on both sides of its limit, by the real playbook."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.release_host import make_key, public_key
from tests.integration.test_playbooks import rollout_options, run

# The playbook from its first task, for each; test_rollout_refusals has the tasks alone, and more cases.
pytestmark = [pytest.mark.apart, pytest.mark.slow]

CHANGES = ("TASK [Measure before]", "TASK [ebpf.fleet.prepare", "TASK [ebpf.fleet.deploy")


def rolled(folder: Path, options: list[str], **variables: Any) -> str:
    """What the playbook says, as words with one blank between; a refusal must end it with a failure."""
    status, said = run("rollout", folder, *options, "-e", json.dumps(variables), "--check")
    assert status != 0 or "Print the plan" in said, said
    return " ".join(said.split())


def refused(said: str, sentence: str) -> None:
    assert sentence in said, said
    assert [task for task in CHANGES if task in said] == [], said
    assert "TASK [Print the plan]" not in said


# (variables, the least that a lease may be): activation, window after and bake, or a slice of it.
LEASES: list[tuple[dict[str, Any], int]] = [
    ({}, 60 + 1 + 0),
    ({"ebpf_fleet_activation_timeout": 7}, 7 + 1 + 0),
    ({"ebpf_fleet_bake": 20}, 60 + 1 + 20),
    ({"ebpf_fleet_bake": 1000}, 60 + 1 + 300),
    ({"ebpf_fleet_bake": 1000, "ebpf_fleet_rollout_renew_seconds": 100}, 60 + 1 + 100),
    ({"ebpf_fleet_window_after": 8.5}, 60 + 9 + 0),
]


@pytest.mark.parametrize(("variables", "least"), LEASES)
def test_a_lease_that_would_run_out_while_its_batch_is_watched_is_refused(
    tmp_path: Path,
    bundle: Path,
    variables: dict[str, Any],
    least: int,
) -> None:
    options = rollout_options(bundle)
    short = rolled(tmp_path, options, **variables, ebpf_fleet_rollout_lease_seconds=least - 1)
    refused(short, f"ebpf_fleet_rollout_lease_seconds is {least - 1}: a host needs {least} s for its activation, bake")
    enough = rolled(tmp_path, options, **variables, ebpf_fleet_rollout_lease_seconds=least)
    assert "a host needs" not in enough and "TASK [Print the plan]" in enough


@pytest.mark.parametrize("seconds", [0, None])
def test_no_lease_and_the_lease_that_is_reckoned_are_never_too_short(
    tmp_path: Path,
    bundle: Path,
    seconds: int | None,
) -> None:
    given = {} if seconds is None else {"ebpf_fleet_rollout_lease_seconds": seconds}
    said = rolled(tmp_path, rollout_options(bundle), **given, ebpf_fleet_bake=500)
    assert "a host needs" not in said and "TASK [Print the plan]" in said


@pytest.mark.parametrize("variable", ["ebpf_fleet_bundle", "ebpf_fleet_allowed_signers"])
def test_a_rollout_without_bundle_or_signers_is_refused(tmp_path: Path, bundle: Path, variable: str) -> None:
    refused(rolled(tmp_path, rollout_options(bundle), **{variable: ""}), "A rollout needs ebpf_fleet_bundle (a bundle")


def test_trust_that_would_not_take_the_bundle_is_refused(tmp_path: Path, bundle: Path) -> None:
    stranger = f"x@example.org {public_key(make_key('stranger'))}"
    said = rolled(tmp_path, rollout_options(bundle), ebpf_fleet_allowed_signers=stranger)
    refused(said, "Nothing was changed.")
    assert "w1" in said[said.index("Nothing was changed.") :]


@pytest.mark.parametrize(("features", "sentence"), [
    ({"nope": {}}, "ebpf_fleet_features names nope, which the bundle does not hold; it holds"),
    ({"nope": {}, "odd": {"enabled": False}}, "ebpf_fleet_features names nope, odd, which the bundle does not hold"),
])  # fmt: skip
def test_features_that_the_bundle_does_not_hold_are_refused(
    tmp_path: Path,
    bundle: Path,
    features: dict[str, Any],
    sentence: str,
) -> None:
    refused(rolled(tmp_path, rollout_options(bundle), ebpf_fleet_features=features), sentence)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ebpf_fleet_gate_limits": {"loader_cpu_millicors": 1}}, "loader_cpu_millicors"),
        ({"ebpf_fleet_on_inconclusive": {"loader_cpu": "ignore"}}, "ignore"),
        ({"ebpf_fleet_gate_checks": [{"name": "x", "expression": "a[", "min": 1}]}, "x"),
    ],
)
def test_limits_and_checks_that_the_gate_does_not_know_are_refused(
    tmp_path: Path,
    bundle: Path,
    variables: dict[str, Any],
    words: str,
) -> None:
    said = rolled(tmp_path, rollout_options(bundle), **variables)
    task = said[said.index("TASK [Refuse limits and checks that the gate does not know]") :]
    refused(task, words)


def test_a_host_that_does_not_answer_holds_the_rollout(tmp_path: Path, bundle: Path) -> None:
    place = "ebpf_fleet_cell=c ebpf_fleet_region=r"
    gone = "ansible_host=127.0.0.1 ansible_port=1 ansible_connection=ssh"
    here = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (tmp_path / "more.ini").write_text(f"[web]\nw1 {here} {place}\ngone {gone} {place}\n")
    options = rollout_options(bundle)
    options[options.index("w1")] = "w1,gone"
    said = rolled(tmp_path, ["-i", "more.ini", *options])
    refused(said, "No rollout begins while hosts do not answer: gone. Bring them back")
