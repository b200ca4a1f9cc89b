# SPDX-License-Identifier: GPL-3.0-or-later
"""Values and files that people give wrongly, by the playbooks as they are run: one sentence, nothing changed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.integration.test_playbooks import rollout_options, run

pytestmark = pytest.mark.apart

# What ansible-core puts around an error that is raised while arguments are rendered.
NOISE = ("Finalization of task args", "Error while resolving value", "The filter plugin", "The lookup plugin",
         "Traceback", "<<< caused by >>>")  # fmt: skip


def refused(said: str, sentence: str, also: int = 0) -> None:
    """The sentence stands on the screen, and none of the noise; ``also`` times in a plan that is shown first."""
    words = " ".join(said.split())
    assert sentence in words, said
    bare = re.escape(re.sub(r"^EF_[A-Z_]+: ", "", sentence))
    assert re.search(rf"EF_[A-Z_]+: .{{0,300}}?{bare}", words), said
    assert [noise for noise in NOISE if noise in said] == [], said
    # Once as the error and once as the result of each host, as ansible-core prints every failure.
    assert words.count(sentence) <= also + 1 + said.count(" failed=1 ")
    assert "Prepare user, directories" not in said and "Engage or release the kill order" not in said


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("ebpf_fleet_max_batch=two", "ebpf_fleet_max_batch: is 'two' (text); give a whole number from 1 up"),
        ("ebpf_fleet_bake=1.5", "ebpf_fleet_bake: is '1.5' (text); give a whole number from 0 to 86400"),
        ('{"ebpf_fleet_region": false}', "ebpf_fleet_region: is False (a truth value); YAML takes yes, no, on and off"),
        ('{"ebpf_fleet_cell": 1.10}', "ebpf_fleet_cell: is 1.1 (a number); an unquoted number may not be what was"),
        ("ebpf_fleet_stages=canary", "ebpf_fleet_stages: is 'canary' (text); give a list, or JSON text of one"),
        ("ebpf_fleet_allow_downgrade=perhaps", "ebpf_fleet_allow_downgrade: is 'perhaps' (text); give true or false"),
        ("ebpf_fleet_features=runqlat", "ebpf_fleet_features: is 'runqlat' (text); give a mapping, or JSON text"),
        ("ebpf_fleet_bundle=none.tar", "EF_MANIFEST_MISSING: bundle none.tar: none.tar: does not exist"),
        ("ebpf_fleet_until=regoin", "until: unknown 'regoin'; did you mean region?"),
        ('ebpf_fleet_stages=[{"stage":"canari"}]', "stages[0].stage: unknown 'canari'; did you mean canary?"),
        ("ebpf_fleet_cell=", "host w1: cell is missing; set ebpf_fleet_cell in the inventory"),
        ("ebpf_fleet_last_census=none.json", "none.json: No such file or directory; write it with capabilities.yml"),
        ("ebpf_fleet_expected_stratum=6.1", "ebpf_fleet_expected_stratum '6.1' is not FAMILY/MACHINE/DISTRO"),
    ],
)
def test_a_rollout_answers_a_bad_value_with_one_sentence(tmp_path, bundle, variable, sentence):
    status, said = run("rollout", tmp_path, *rollout_options(bundle), "-e", variable)
    assert status != 0
    refused(said, sentence)


@pytest.mark.parametrize(
    ("playbook", "options", "sentence"),
    [
        ("rollback", ["scope=globl"], "scope 'globl' is not one: did you mean global? Write global, feature=NAME"),
        ("rollback", ["scope=global", "ebpf_fleet_kill_timeout=soon"],
         "ebpf_fleet_kill_timeout: is 'soon' (text); give a number from 1 to 3600"),
        ("rollback", ["scope=global", "ebpf_fleet_logins=-1"],
         "ebpf_fleet_logins: is '-1' (text); give a whole number from 0 to 4096"),
        ("rollback", ["scope=previous", "ebpf_fleet_return_timeout=4000"],
         "ebpf_fleet_return_timeout: is '4000' (text); give a number from 1 to 3600"),
        ("rollback", ["scope=feature="], "scope 'feature=' is not one: did you mean feature=NAME? Write global"),
        ("capabilities", ["bundle=none.tar"], "EF_MANIFEST_MISSING: bundle none.tar: none.tar: does not exist"),
        ("capabilities", ['{"ebpf_fleet_next_kernel": 6.1}'], "ebpf_fleet_next_kernel: is 6.1 (a number)"),
        ("prepare", ["ebpf_fleet_allowed_signers=x", '{"ebpf_fleet_policy": {"host": {"cpu_millicors": 1}}}'],
         "ebpf_fleet_policy: host.cpu_millicors: is not known here; did you mean 'cpu_millicores'?"),
        ("prepare", ["ebpf_fleet_allowed_signers=x", "ebpf_fleet_loader_interval=often"],
         "ebpf_fleet_loader_interval: is 'often' (text); give a whole number from 1 to 3600"),
        ("release", ['{"ebpf_fleet_release_version": 1.10}'],
         "ebpf_fleet_release_version: is 1.1 (a number); an unquoted number may not be what was written"),
        ("release", ["ebpf_fleet_release_sequence=last"],
         "ebpf_fleet_release_sequence: is 'last' (text); give a whole number from 1 up"),
    ],
)  # fmt: skip
@pytest.mark.sample(4)
@pytest.mark.slow
def test_each_playbook_answers_a_bad_value_with_one_sentence(tmp_path, playbook, options, sentence):
    status, said = run(playbook, tmp_path, *[word for one in options for word in ("-e", one)])
    assert status != 0
    refused(said, sentence)


@pytest.mark.slow
def test_text_for_numbers_truths_and_documents_is_taken_by_a_rollout(tmp_path, bundle):
    given = ["ebpf_fleet_max_batch=2", "ebpf_fleet_window_before=1", "ebpf_fleet_bcc_fallback=no", "ebpf_fleet_cell=12",
             "ebpf_fleet_gate_limits={}", 'ebpf_fleet_stages=[{"stage":"cell","cell":12},{"stage":"fleet"}]',
             "ebpf_fleet_keep_releases=3", "ebpf_fleet_expected_stratum=*/*/*",
             "ebpf_fleet_rollout_lease_seconds=0"]  # fmt: skip
    options = [word for one in given for word in ("-e", one)]
    status, said = run("rollout", tmp_path, *rollout_options(bundle), *options, "--check")
    # This machine need not be one that a release can be deployed to: the plan was made.
    assert "cell: 1 host in batches of 1: w1" in said, said
    assert [noise for noise in NOISE if noise in said] == [], said
    assert status == 0 or "TASK [ebpf.fleet.prepare" in said


@pytest.mark.slow
def test_check_mode_neither_measures_nor_bakes(tmp_path, bundle):
    _status, said = run("rollout", tmp_path, *rollout_options(bundle), "-e", "ebpf_fleet_bake=3600",
                        "-e", "ebpf_fleet_window_before=3600", "-e", "ebpf_fleet_window_after=3600",
                        "--check", "--diff")  # fmt: skip
    before = said[said.index("TASK [Measure before]") :].split("TASK [", 2)[1]
    assert "skipping: [w1]" in before, said


@pytest.mark.slow
def test_a_standing_kill_order_is_told_in_the_plan_before_anything_is_changed(tmp_path, bundle):
    if os.geteuid() != 0:
        pytest.skip("not root: no mount namespace, in which an order concerns only this test")
    order = "mount -t tmpfs tmpfs /run && mkdir -p /run/ebpf-fleet/kill.d && : >/run/ebpf-fleet/kill.d/global &&"
    status, said = run("rollout", tmp_path, *rollout_options(bundle), within=order)
    assert status != 0
    refused(said, "a kill order stands on w1 (global), so everything stays off there: take it back with "
                  "ebpf.fleet.rollback -e scope=global -e state=released", also=1)  # fmt: skip
    assert "1 host in batches of 1: w1" in said and "Measure before" not in said


@pytest.mark.slow
def test_capabilities_says_why_a_host_gave_no_answer(tmp_path):
    gone = "ansible_host=127.0.0.1 ansible_port=1 ansible_connection=ssh"
    (tmp_path / "gone.ini").write_text(f"[web]\ngone {gone}\n")
    status, said = run("capabilities", tmp_path, "-i", "gone.ini", "-e", "ebpf_fleet_report=fleet.json")
    assert status != 0
    words = " ".join(said.split())
    assert "No answer from gone" in words and "Why: no answer from gone: unreachable: " in words
    assert "Connection refused" in words[words.index("Why: ") :], said
    assert "Connection refused" in json.loads((tmp_path / "fleet.json").read_text())["silence"]


@pytest.mark.slow
def test_a_host_without_systemd_is_told_that_nothing_can_be_deployed_there(tmp_path, bundle):
    if Path("/run/systemd/system").is_dir():
        pytest.skip("this machine was booted with systemd")
    status, said = run("capabilities", tmp_path, "-e", f"bundle={bundle}", "-e", "ebpf_fleet_report=fleet.json")
    assert status == 0, said
    assert "no release can be deployed to this host: systemd is not process 1 here" in " ".join(said.split())
    census = json.loads((tmp_path / "fleet.json").read_text())
    assert {one["hosts"]["full"] for one in census["features"].values()} == {0}
    assert {host["deployable"]["reason_code"] for host in census["hosts"].values()} == {"EF_NO_SYSTEMD"}
