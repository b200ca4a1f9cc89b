# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as people give them: every variable takes text for what it is, or says what it got."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import RefusedValueError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import variables

ROOT = Path(__file__).resolve().parents[2]

# For each variable: (what is given, what it means) pairs, and what is refused.
NUMBER = [("2", 2), (2, 2), (" 2 ", 2)], [True, "two", "2.5.1", None, [], "", "٣", "1e3", float("inf")]
PLAIN = [("words", "words"), ("12", "12"), ("no", "no")], [True, False, 12, 1.10, None, [], {}]
PLACE = [("c1", "c1"), ("12", "12"), (12, "12"), ("no", "no"), (None, None), ("", None)], [
    False, True, 1.5, " ", [], {}]  # fmt: skip
YES_NO = [("no", False), ("False", False), ("yes", True), ("1", True), (0, False), (True, True)], [
    "maybe", 2, None, "", 1.0, []]  # fmt: skip
DOCUMENT = [('{"a": {"b": "1"}}', {"a": {"b": "1"}}), ({"a": 1}, {"a": 1}), ("", {})], ["a=1", "[1]", [1], 3, None]
LIST = [('[{"a": 1}]', [{"a": 1}]), ([1], [1]), ("", [])], ["a", "{}", {"a": 1}, 3, True]
NAMES = [("a", ["a"]), ("a, b", ["a", "b"]), ('["a"]', ["a"]), (["a"], ["a"])], [3, True, [1.10], {"a": 1}, "[1.1]"]
QUOTA = [("20%", "20%")], [20, "20", "20 %", True, "%"]
SIZE = [("128M", "128M"), ("134217728", "134217728"), (134217728, "134217728"), ("infinity", "infinity")], [
    "128MB", 1.5, True, "", "lots"]  # fmt: skip
WHOLE_SECONDS = NUMBER[0], [*NUMBER[1], "1.5", 1.5, -1, "-1"]
SECONDS = [*NUMBER[0], ("1.5", 1.5), (2.5, 2.5)], [*NUMBER[1], -1, "-1", float("nan")]
SAID = [("auto", "auto"), ("6.1.0-40-amd64", "6.1.0-40-amd64"), ("false", ""), (False, ""), ("no", ""),
        ("true", "auto"), (None, None), ("", None)], [6.1, 7, []]  # fmt: skip

FREEZE = {"from": "2026-12-20T00:00:00+01:00", "to": "2027-01-04T06:00:00Z", "why": "holidays"}
HOURS = {"days": ["fri"], "from": "22:00", "to": "06:00", "zone": "Europe/Berlin", "why": "no one is on call"}

TABLE: dict[str, tuple[list[tuple[Any, Any]], list[Any]]] = {
    **dict.fromkeys(("ebpf_fleet_cell", "ebpf_fleet_region"), PLACE),
    "ebpf_fleet_until": PLACE,
    "ebpf_fleet_stages": ([*LIST[0][:2], (None, None), ("", None)], LIST[1]),
    "ebpf_fleet_gate_checks": LIST,
    "ebpf_fleet_growth": ([("2", 2), (1.5, 1.5), ("1.5", 1.5), (1, 1), (None, None), ("", None)],
                          [True, 0, 0.9, 1001, "x", []]),
    **dict.fromkeys(("ebpf_fleet_fleet_percent", "ebpf_fleet_cell_percent"),
                    ([("10", 10), (1, 1), (100, 100), (None, None), ("", None)], [True, 0, 101, 1.5, "10%", []])),
    "ebpf_fleet_freezes": ([(json.dumps([FREEZE]), [FREEZE]), ([FREEZE], [FREEZE]), ([], []), ("", [])],
                           ["a", "{}", {"a": 1}, [3], [{**FREEZE, "why": ""}], [{**FREEZE, "to": FREEZE["from"]}]]),
    "ebpf_fleet_blocked_hours": ([(json.dumps([HOURS]), [HOURS]), ([{**HOURS, "days": "fri"}], [HOURS]), ("", [])],
                                 ["a", "{}", {"a": 1}, [3], [{**HOURS, "zone": ""}], [{**HOURS, "from": 1320}]]),
    "ebpf_fleet_overrule_freeze": ([("CVE", "CVE"), (None, None), ("", None)], [True, 1, []]),
    "ebpf_fleet_maintenance": ([(True, "set in the inventory"), ("no", ""), (False, ""), ("new disks", "new disks"),
                                (" ", ""), ("1", "set in the inventory"), (None, "")], [2, 1.5, []]),
    "ebpf_fleet_leave_out": ([("killed,disabled", ["killed", "disabled"]), ("", []), (["killed"], ["killed"])],
                             ["killd", ["x"], 3, True, {"killed": 1}]),
    "ebpf_fleet_unreachable_limit": ([(3, "3"), ("3", "3"), ("2%", "2%"), ("100%", "100%"), (0, "0")],
                                     [True, "101%", -1, 1.5, "few", None, []]),
    "ebpf_fleet_holdback": ([("5", 5), (0, 0), (50, 50), (None, None), ("", None)], [True, 51, -1, "5%", 1.5, []]),
    "ebpf_fleet_holdback_until": ([("2027-01-31", "2027-01-31"), (datetime.date(2027, 1, 31), "2027-01-31"),
                                   (None, None), ("", None)], ["2027-02-30", "soon", 20270131, True, []]),
    "ebpf_fleet_gate_error_rate": ([("0.05", 0.05), (0.5, 0.5), (1e-6, 1e-6)], [0, 0.6, "five", True, None, 1e-7]),
    "ebpf_fleet_control_hosts": ([*NUMBER[0], (0, 0), (1000, 1000)], [*WHOLE_SECONDS[1], 1001]),
    "ebpf_fleet_application_latency": (
        [({}, {}), ("", {}), ('{"source": "file", "path": "/a"}', {"source": "file", "path": "/a"})],
        ["/a", 3, None, [], "[1]"]),
    "ebpf_fleet_max_batch": ([*NUMBER[0], (None, None), ("", None)], [True, "two", 0, "0", -1, "2.5"]),
    **dict.fromkeys(("ebpf_fleet_window_before", "ebpf_fleet_window_after", "ebpf_fleet_sampling_window",
                     "ebpf_fleet_forensics_timeout", "ebpf_fleet_triage_window"), SECONDS),
    **dict.fromkeys(("ebpf_fleet_kill_timeout", "ebpf_fleet_return_timeout", "ebpf_fleet_connect_timeout"), SECONDS),
    **dict.fromkeys(("ebpf_fleet_bake", "ebpf_fleet_rollout_lease_seconds", "ebpf_fleet_activation_timeout"),
                    WHOLE_SECONDS),
    **dict.fromkeys(("ebpf_fleet_rollout_renew_seconds", "ebpf_fleet_loader_interval", "ebpf_fleet_release_sequence"),
                    (NUMBER[0], [*WHOLE_SECONDS[1], 0, "0"])),
    "ebpf_fleet_keep_releases": ([*NUMBER[0], (1, 1), ("100", 100)], [*WHOLE_SECONDS[1], 0, "101"]),
    "ebpf_fleet_bake_extensions": ([*NUMBER[0], ("0", 0), (100, 100)], [*WHOLE_SECONDS[1], 101]),
    "ebpf_fleet_hold_seconds": ([*NUMBER[0], (0, 0), ("604800", 604800)], [*WHOLE_SECONDS[1], 604801]),
    "ebpf_fleet_cell_silence": ([("30", 30), (10, 10), ("3600", 3600)], [*WHOLE_SECONDS[1], 9, 3601]),
    "ebpf_fleet_cell_controllers": (
        [({}, {}), ("", {}), ('{"a": {"ssh": "b"}}', {"a": {"ssh": "b"}})],
        [3, True, None, [], "[1]"]),
    "ebpf_fleet_abort_wait": ([*NUMBER[0], (0, 0), ("86400", 86400)], [*WHOLE_SECONDS[1], 86401]),
    "ebpf_fleet_hooks": ([([], []), ("", []), ('[{"url": "http://h"}]', [{"url": "http://h"}])],
                         [3, {"url": "http://h"}, "a", True]),
    "ebpf_fleet_forensics_file_bytes": ([("4096", 4096), (1048576, 1048576)], [True, 4095, "1048577", None, 1.5]),
    "ebpf_fleet_forensics_bytes": ([("8192", 8192), (3145728, 3145728)], [True, 8191, "3145729", None, 1.5]),
    "ebpf_fleet_forensics_check": ([(word, word) for word in ("auto", "always", "never")], ["no", "", 1, True, None]),
    "ebpf_fleet_triage_features": ([*NUMBER[0], (0, 0), (32, 32)], [*WHOLE_SECONDS[1], 33]),
    "ebpf_fleet_gameday_seconds": ([("60", 60), (30, 30), (600, 600)], [*WHOLE_SECONDS[1], 29, 601]),
    "ebpf_fleet_gameday_recovery": ([("60", 60), (1, 1), (3600, 3600)], [*WHOLE_SECONDS[1], 0, 3601]),
    "ebpf_fleet_gameday_off_ms": ([("60", 60), (1, 1), (60000, 60000)], [*WHOLE_SECONDS[1], 0, 60001]),
    "ebpf_fleet_pull_location": (
        [("https://h/x", "https://h/x"), ("file:///x", "file:///x"), ("", "")],
        ["/x", "ftp://h/x", "http://u@h/", True, 3, None, []]),
    "ebpf_fleet_pull_interval": ([("60", 60), (10, 10), (86400, 86400)], [*WHOLE_SECONDS[1], 9, 86401]),
    "ebpf_fleet_pull_policy": ([("keep", "keep"), ("detach", "detach")], ["detatch", "", True, None, 1]),
    "ebpf_fleet_pull_lease": ([("60", 60), (20, 20), (604800, 604800)], [*WHOLE_SECONDS[1], 19, 604801]),
    "ebpf_fleet_pull_timeout": ([("60", 60), (1, 1)], [*WHOLE_SECONDS[1], 0, 61]),
    "ebpf_fleet_pull_wait": ([("60", 60), (0, 0), (300, 300)], [*WHOLE_SECONDS[1], 301]),
    "ebpf_fleet_pull_python": ([("/usr/bin/python3", "/usr/bin/python3"), ("/opt/p-3.9/bin/p_3", "/opt/p-3.9/bin/p_3")],
                               ["", "python3", "/usr/bin/python3 -u", "/x\n", "/", True, None]),
    "ebpf_fleet_kill_list_orders": LIST,
    "ebpf_fleet_kill_list_sequence": ([("2", 2), (1, 1), (None, None), ("", None)], [True, "two", 0, "0", -1, "2.5"]),
    "ebpf_fleet_kill_list_lifetime": ([("60", 60), (31622400, 31622400)], [*WHOLE_SECONDS[1], 59, 31622401]),
    "ebpf_fleet_sampling_per_hour": (NUMBER[0], [*WHOLE_SECONDS[1], 0, "0"]),
    "ebpf_fleet_logins": (NUMBER[0], [*WHOLE_SECONDS[1], 4097]),
    **dict.fromkeys(("ebpf_fleet_bcc_fallback", "ebpf_fleet_bcc_install_packages", "ebpf_fleet_allow_downgrade",
                     "ebpf_fleet_trust_overrule", "ebpf_fleet_rollback_all", "ebpf_fleet_triage_yes",
                     "ebpf_fleet_gameday"),
                    YES_NO),
    **dict.fromkeys(("ebpf_fleet_features", "ebpf_fleet_policy", "ebpf_fleet_gate_limits", "ebpf_fleet_on_inconclusive",
                     "ebpf_fleet_deploy_lease"), DOCUMENT),
    **dict.fromkeys(("ebpf_fleet_fallbacks", "ebpf_fleet_gate_dry_run", "ebpf_fleet_release_features",
                     "ebpf_fleet_release_features_dirs",
                     "ebpf_fleet_release_btf_dirs", "ebpf_fleet_gameday_drills"), NAMES),
    **dict.fromkeys(("ebpf_fleet_loader_cpu_quota", "ebpf_fleet_bcc_cpu_quota"), QUOTA),
    **dict.fromkeys(("ebpf_fleet_loader_memory_max", "ebpf_fleet_loader_memlock", "ebpf_fleet_bcc_memory_max"), SIZE),
    **dict.fromkeys(("ebpf_fleet_allowed_signers", "ebpf_fleet_revoked_keys"),
                    ([("a b", "a b"), (["a", "b"], ["a", "b"]), ("", "")], [3, True, [1.10], {"a": 1}, [["a"]]])),
    "ebpf_fleet_perf_event_paranoid": ([("2", "2"), (2, "2"), (-1, "-1"), ("", "")], [3, "3", True, None, 2.0]),
    "ebpf_fleet_next_kernel": SAID,
    "ebpf_fleet_hosts": ([("web", "web"), (["web", "db"], ["web", "db"])], [True, 12, [1.10]]),
    "ebpf_fleet_expected_stratum": ([("6.1/*/*", "6.1/*/*"), (None, None)], [6.1, True]),
    **dict.fromkeys(
        ("ebpf_fleet_bundle", "ebpf_fleet_last_census",
         "ebpf_fleet_last_inventory", "ebpf_fleet_application_file", "ebpf_fleet_report_dir",
         "ebpf_fleet_textfile_directory", "ebpf_fleet_quarantine_file",
         "ebpf_fleet_ledger", "ebpf_fleet_resume", "ebpf_fleet_rollout_id",
         "ebpf_fleet_lift_quarantine",
         "ebpf_fleet_deploy_digest", "ebpf_fleet_kex_algorithms", "ebpf_fleet_report", "ebpf_fleet_release_version",
         "ebpf_fleet_kill_list", "ebpf_fleet_kill_list_signing_key",
         "ebpf_fleet_release_signing_key", "ebpf_fleet_release_matrix", "ebpf_fleet_release_output",
         "ebpf_fleet_sampling_feature", "ebpf_fleet_sampling_output", "ebpf_fleet_forensics_dir",
         "ebpf_fleet_triage_feature", "ebpf_fleet_triage_reduce"), PLAIN),
}  # fmt: skip


def public_variables() -> set[str]:
    """What roles, the page of rollouts and the playbooks say a person may set."""
    found: set[str] = set()
    for spec in ROOT.glob("roles/*/meta/argument_specs.yml"):
        found |= set(yaml.safe_load(spec.read_text())["argument_specs"]["main"]["options"])
    table = [
        line.split("|")[1] for line in (ROOT / "docs/rollout.md").read_text().splitlines() if line.startswith("| `e")
    ]
    found |= {name for cell in table for name in re.findall(r"ebpf_fleet_\w+", cell)}
    for path in ROOT.glob("playbooks/**/*.yml"):
        words = path.read_text()
        made = set(re.findall(r"^ *(ebpf_fleet_\w+):", words, re.MULTILINE)) | set(
            re.findall(r"register: (\w+)", words)
        )
        asked = re.findall(r"(ebpf_fleet_\w+) (?:\| default\(|is defined)|-e '?\{?\"?(ebpf_fleet_\w+)", words)
        found |= {name for pair in asked for name in pair if name and name not in made}
    inner = {"ebpf_fleet_release", "ebpf_fleet_before", "ebpf_fleet_answers", "ebpf_fleet_target", "ebpf_fleet_verdict",
             "ebpf_fleet_reading",
             "ebpf_fleet_begun",
             "ebpf_fleet_return", "ebpf_fleet_outcome", "ebpf_fleet_ended", "ebpf_fleet_all_returns",
             "ebpf_fleet_forensics_kept"}  # fmt: skip
    return found - inner


def test_every_variable_that_may_be_set_is_in_the_table_and_in_this_test() -> None:
    assert len(public_variables()) > 35
    assert public_variables() - set(variables.VARIABLES) == set()
    assert set(TABLE) == set(variables.VARIABLES)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_variable_takes_every_form_that_means_one_thing(name: str) -> None:
    for given, meant in TABLE[name][0]:
        found = variables.read(name, given)
        assert (found, type(found)) == (meant, type(meant)), given


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_is_refused_names_the_variable_the_value_and_the_remedy(name: str) -> None:
    assert TABLE[name][1]
    for given in TABLE[name][1]:
        with pytest.raises(RefusedValueError) as caught:
            variables.read(name, given)
        message = str(caught.value)
        shown = "nothing" if given is None else repr(given)
        assert message.startswith(name) and "\n" not in message and ("give " in message or "quote it" in message)
        assert isinstance(given, (list, str)) or shown in message, message


@pytest.mark.parametrize("given", [1.10, 1.0, 2, 20261127])
def test_a_version_that_yaml_made_a_number_is_refused_as_it_may_be_another(given: Any) -> None:
    with pytest.raises(
        RefusedValueError, match=r"ebpf_fleet_release_version: is .* \(a number\); .*1\.10 becomes 1\.1.*quote it"
    ):
        variables.read("ebpf_fleet_release_version", given)
    assert variables.read("ebpf_fleet_release_version", "1.10") == "1.10"


def test_a_name_that_is_no_variable_is_told_with_the_nearest() -> None:
    with pytest.raises(RefusedValueError, match="did you mean 'ebpf_fleet_max_batch'"):
        variables.read("ebpf_fleet_max_bach", 2)


def test_a_value_cannot_paint_the_terminal_nor_fill_it() -> None:
    with pytest.raises(RefusedValueError) as caught:
        variables.read("ebpf_fleet_max_batch", "\x1b[2J" + "x" * 5_000)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_all_faults_are_told_at_once_with_the_hosts_that_have_them() -> None:
    everyone = {"ebpf_fleet_max_batch": "many"}
    hosts = [{"inventory_hostname": f"h{i}", "ebpf_fleet_cell": "c", **everyone} for i in range(3)]
    hosts[1]["ebpf_fleet_region"] = False  # type: ignore[assignment]
    assert variables.faults(hosts) == [
        "ebpf_fleet_max_batch: is 'many' (text); give a whole number from 1 up",
        "h1: ebpf_fleet_region: is False (a truth value); YAML takes yes, no, on and off for true and false: quote it",
    ]
    assert variables.faults([{"inventory_hostname": "h", "ebpf_fleet_cell": "c"}]) == []
    assert variables.faults(hosts[:1]) == ["h0: ebpf_fleet_max_batch: is 'many' (text); give a whole number from 1 up"]
    # What a playbook has put together from several places is of no host.
    assert variables.faults([everyone]) == ["ebpf_fleet_max_batch: is 'many' (text); give a whole number from 1 up"]


@pytest.mark.parametrize(("bad", "named", "more"), [(20, 20, ""), (21, 20, " and 1 more"), (25, 20, " and 5 more")])
def test_twenty_hosts_are_named_and_the_others_counted(bad: int, named: int, more: str) -> None:
    hosts: list[dict[str, Any]] = [{"inventory_hostname": f"h{i}", "ebpf_fleet_cell": "c"} for i in range(30)]
    for host in hosts[:bad]:
        host["ebpf_fleet_region"] = False
    (sentence,) = variables.faults(hosts)
    assert sentence.startswith(", ".join(f"h{i}" for i in range(named)) + f"{more}: ebpf_fleet_region: is False")


def test_a_kill_is_not_kept_from_hosts_by_values_that_it_does_not_use() -> None:
    bad = {"inventory_hostname": "h", "ebpf_fleet_bake": "soon"}
    assert variables.faults([bad], variables.KILL) == [] != variables.faults([bad], variables.ROLLOUT)


def test_plain_gives_what_json_knows() -> None:
    class Lazy(dict):  # type: ignore[type-arg]
        """As a templating engine's own containers are."""

    assert json.dumps(values.plain(Lazy(a=(1, "b", None)))) == '{"a": [1, "b", null]}'
