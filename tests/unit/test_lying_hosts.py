# SPDX-License-Identifier: GPL-3.0-or-later
"""A real capability document of this machine, spoiled at random and on purpose: only its own host pays for it."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.filter import census as filters
from ansible_collections.ebpf.fleet.plugins.filter import rollout_plan
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities, capability_document, profile

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ("runqlat", "exec_events", "exec_policy")
PAINT = "\x1b[2J\x9b\u202eAll 500 hosts confirmed\r\x00\u200b|`<script>"


def contracts() -> list[dict[str, Any]]:
    return [yaml.safe_load((ROOT / f"bpf/features/{name}/contract.yml").read_text()) for name in FEATURES]


CONTRACTS = contracts()
TARGET = {"bundle": {"name": "x", "version": "1", "sequence": 1}, "digest": "ab" * 32, "contracts": CONTRACTS}


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    """What the module returns on this machine, as it comes over the wire."""
    facts = capabilities.gather(profile.requirements(CONTRACTS))
    facts["profiles"] = {one["feature"]: profile.predict(one, facts) for one in CONTRACTS}
    facts["release"] = {
        "version": "1.0.0", "sequence": 1, "digest": "cd" * 32, "state": "running", "status_age_ns": 5,
        "features": {"runqlat": {"state": "attached", "profile": "full", "variant": "full", "data_path": "metrics",
                                 "produced": 1000, "dropped": 0, "sampled_out": 0}},
    }  # fmt: skip
    changed = {"feature": "runqlat", "from": {"profile": "full", "variant": "full"}, "sentence": "gone",
               "to": {"profile": "disabled", "variant": None}, "reason_code": "EF_NO_BTF"}  # fmt: skip
    facts["next_kernel"] = {
        "release": "7.3.1", "chosen_by": "the link", "btf": {"answer": "yes", "evidence": "x"}, "source": None,
        "profiles": facts["profiles"], "changes": [changed], "unknown": ["members of structures"],
    }  # fmt: skip
    found: dict[str, Any] = json.loads(json.dumps({"capabilities": facts, "profiles": facts["profiles"]}))
    return found


def hostvars(answers: dict[str, Any]) -> list[dict[str, Any]]:
    base = {"ebpf_fleet_cell": "c", "ebpf_fleet_region": "r", "ebpf_fleet_features": {"exec_policy": {}}}
    return [{**base, "inventory_hostname": name, "ebpf_fleet_capability": one} for name, one in answers.items()]


def everything(answers: dict[str, Any]) -> dict[str, Any]:
    """All that the playbooks make of answers; what refuses to plan must name the hosts that it refuses for."""
    counted = filters.census.capability_census(answers, TARGET, time="2026-11-24T00:00:00Z")
    made = {
        "census": counted,
        "refused": filters.policy_refusals(hostvars(answers), CONTRACTS),
        "markdown": filters.FilterModule().filters()["census_markdown"](counted),
        "html": filters.FilterModule().filters()["census_html"](counted),
        "plan": None,
    }
    try:
        made["plan"] = rollout_plan.rollout_plan(filters.rollout_hosts(hostvars(answers)))
    except AnsibleFilterError as error:
        made["error"] = str(error)
    json.dumps(made, allow_nan=False).encode()
    return made


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a document."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(one for key, child in below for one in places(child, (*at, key)))]


def nest(depth: int) -> Any:
    value: Any = "x"
    for _turn in range(depth):
        value = [value] if depth % 2 else {"a": value}
    return value


SPOILS = [
    None, True, 0, -1, 1.5, 2**70, 10**300, float("nan"), float("inf"), "", "x" * 5000, PAINT, "\ud800", "²", "6.²",
    "9" * 5000, [], {}, [[]], {"a": 1}, nest(5000), nest(4001), list(range(300_000)), "{{ lookup('pipe', 'id') }}",
    "`[?x]`", "a/b/c/d", {PAINT: PAINT}, {"k" * 9000: 1},
]  # fmt: skip


def spoil(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value there, copied only along the path."""
    if not path:
        return value
    copied = copy.copy(document)
    copied[path[0]] = spoil(document[path[0]], path[1:], value)
    return copied


def without(document: Any, path: tuple[Any, ...]) -> Any:
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    shorter = copy.copy(parent)
    del shorter[path[-1]]
    return spoil(document, path[:-1], shorter)


def check(real: dict[str, Any], bad: Any, clean: dict[str, Any]) -> None:
    made = everything({"a": real, "evil": bad, "z": real})
    good = clean["census"]["hosts"]["a"]
    assert made["census"]["hosts"]["a"] == good and made["census"]["hosts"]["z"] == good
    assert ("evil" in made["census"]["hosts"]) is not ("evil" in made["census"]["silent"])
    assert made["plan"] or "evil" in made["error"], "the refusal does not name the host"
    for text in (*made["census"]["sentences"], *(one["sentence"] for one in made["refused"])):
        assert text.isprintable(), text
    for page in (made["markdown"], made["html"]):
        assert all(line.isprintable() for line in page.splitlines()), "a page paints"
        assert "<script" not in page
    assert made["markdown"].count("\u2028") == 0 and len(made["html"]) < 3 * len(clean["html"]) + 100_000


def test_the_real_document_keeps_to_the_rule(real: dict[str, Any]) -> None:
    read = capability_document.read("a", real, FEATURES)
    assert read.problem is None and read.capabilities is not None
    assert everything({"a": real})["plan"]["hosts"] == ["a"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("part", range(3))
def test_every_field_that_is_used_replaced_by_every_spoil(real: dict[str, Any], part: int) -> None:
    clean = everything({"a": real, "z": real})
    facts = real["capabilities"]
    used = [("capabilities",), ("profiles",)]
    for key in ("kernel", "distro", "btf", "release", "next_kernel", "privileged", "schema"):
        used += [("capabilities", key, *path) for path in places(facts[key])]
    used += [("profiles", *path) for path in places(real["profiles"])]
    chance = random.Random(7)
    for path in used[part::3]:
        for value in chance.sample(SPOILS, 2):
            check(real, spoil(real, path, value), clean)
        check(real, without(real, path), clean)


@pytest.mark.slow
def test_random_spoils_anywhere(real: dict[str, Any]) -> None:
    clean = everything({"a": real, "z": real})
    chance = random.Random(20261124)
    anywhere = places(real)
    for _turn in range(100):
        bad = real
        for path in chance.sample(anywhere[1:], chance.randint(1, 3)):
            try:
                bad = spoil(bad, path, chance.choice(SPOILS))
            except (KeyError, IndexError, TypeError):
                continue
        check(real, bad, clean)


@pytest.mark.parametrize(
    "bad", [None, 7, [], "text", {"capabilities": nest(9001)}, {"capabilities": nest(9000)}, {"capabilities": 7}]
)
def test_what_is_no_answer_at_all_is_named(real: dict[str, Any], bad: Any) -> None:
    counted = filters.census.capability_census({"a": real, "evil": bad}, TARGET)
    assert counted["silent"] == ["evil"] and sorted(counted["hosts"]) == ["a"]
    if bad:
        assert "no usable answer from evil: " in counted["silent_reasons"]["evil"]


def test_an_answer_of_thousands_of_levels_is_not_one(real: dict[str, Any]) -> None:
    counted = filters.census.capability_census({"a": real, "evil": nest(9000)}, TARGET)
    assert (counted["silent"], counted["silent_reasons"]) == (["evil"], {"evil": None})


def test_a_profile_that_was_not_asked_about_is_refused(real: dict[str, Any]) -> None:
    bad = spoil(real, ("profiles",), {**real["profiles"], "backdoor": real["profiles"]["runqlat"]})
    counted = filters.census.capability_census({"evil": bad}, TARGET)
    assert counted["silent_reasons"]["evil"] == "no usable answer from evil: profiles.backdoor: was not asked about"


def test_a_stored_census_that_was_spoiled_is_an_error_that_names_host_and_field(real: dict[str, Any]) -> None:
    counted = filters.census.capability_census({"a": real, "z": real}, TARGET)
    good = json.loads(json.dumps(counted))
    names = filters.FilterModule().filters()
    assert "a" in names["census_markdown"](good)
    assert filters.rollout_hosts(hostvars({"a": real}), good)[0]["before"] is None
    chance = random.Random(3)
    for path in [one for one in places(good["hosts"]["z"]) if one] * 2:
        bad = spoil(good, ("hosts", "z", *path), chance.choice(SPOILS))
        for use in (names["census_html"], names["census_markdown"], lambda doc: filters.rollout_hosts([], doc)):
            try:
                use(bad)
            except AnsibleFilterError as error:
                assert "host z: " in str(error)
    with pytest.raises(AnsibleFilterError, match="host z: stratum: is a list"):
        names["census_html"](spoil(good, ("hosts", "z", "stratum"), []))


def test_a_spoiled_matrix_is_a_page_or_an_error_that_names_the_host(real: dict[str, Any]) -> None:
    reached = real["profiles"]["runqlat"]
    programs = [{"name": "ef_x", "insns": 1, "processed_insns": 2, "stack_bytes": None}]
    tried = {"loads": True, "attaches": None, "reason_code": "EF_OK", "reason": "fine", "programs": programs}
    found = {"predicted": reached, "reached": reached, "equal": False, "variants": {"full": tried}}
    host = {"kernel": {"release": "6.1.9"}, "family": "6.1", "flavour": "cloud", "distro": "debian 12",
            "btf": "vmlinux", "features": {"runqlat": found}}  # fmt: skip
    differs = [{"host": "z", "feature": "runqlat", "predicted": reached, "reached": None}]
    good = {"bundle": TARGET["bundle"], "digest": "ab" * 32, "hosts": {"a": host, "z": host}, "differences": differs}
    names = filters.FilterModule().filters()
    chance = random.Random(5)
    assert "6.1 cloud · z" in names["matrix_html"](good)
    for path in [one for one in places(host) if one] * 3:
        bad = spoil(good, ("hosts", "z", *path), chance.choice(SPOILS))
        for render in (names["matrix_html"], names["matrix_markdown"]):
            try:
                assert all(line.isprintable() for line in render(bad).splitlines())
            except AnsibleFilterError as error:
                assert "host z: " in str(error)
