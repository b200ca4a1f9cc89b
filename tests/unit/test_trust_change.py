# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of trust: what it takes away, and from whom."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import trust_change as tc
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.trustfiles import Trust

NOW = 1_800_000_000
KEYS = {name: bytes([number]) * 32 for number, name in enumerate("abc", 1)}
SPELLED = {name: tc.spell_key(key) for name, key in KEYS.items()}


def line(name: str, options: str = 'namespaces="ebpf-fleet-release"') -> str:
    return " ".join(f"{name}@x {options} {SPELLED[name]}".split())


def trust(*signers: str, revoked: str = "") -> Trust:
    return Trust("signers", "".join(one + "\n" for one in signers).encode(), "revoked",
                 "".join(SPELLED[name] + "\n" for name in revoked).encode())  # fmt: skip


def judge(before: Trust | None, after: Trust, running: str | None = None) -> tc.Change:
    sealed = tc.Sealed("1.0.0-aaaa", KEYS[running]) if running else None
    return tc.judge_change(before, after, sealed, NOW)


def test_a_key_is_spelled_and_read_again() -> None:
    assert tc.read_key(SPELLED["a"]) == KEYS["a"] and base64.b64decode(SPELLED["a"].split()[1])[4:15] == b"ssh-ed25519"


def test_more_trust_is_no_problem() -> None:
    assert judge(trust(line("a")), trust(line("a"), line("b")), "a") == tc.Change(None, [], [])
    assert judge(None, trust(line("a")), None) == tc.Change(None, [], [])


@pytest.mark.parametrize(
    "after",
    [
        trust(line("b")),
        trust(line("b"), line("a", 'namespaces="git"')),
        trust(line("b"), line("a", 'valid-before="20200101Z"')),
        trust(line("b"), line("a", "cert-authority")),
        trust(line("b"), "# " + line("a")),
        trust(line("b") + " " + line("a")),
    ],
    ids=["dropped", "another namespace", "expired", "certificate", "commented out", "joined to one line"],
)
def test_a_signer_that_disappears_is_named(after: Trust) -> None:
    change = judge(trust(line("a"), line("b")), after, "b")
    assert change.fault is None
    assert [problem for problem in change.problems if f"a@x ({SPELLED['a']})" in problem] == change.problems != []


def test_several_are_each_named() -> None:
    change = judge(trust(line("a"), line("b"), line("c")), trust(line("c")), "c")
    assert len(change.problems) == 2 and "a@x" in change.problems[0] and "b@x" in change.problems[1]


def test_who_could_not_sign_any_more_is_no_loss() -> None:
    old = trust(line("a"), line("b", 'valid-before="20200101Z"'), line("c", 'namespaces="git"'))
    assert judge(old, trust(line("a")), "a").problems == []
    assert judge(trust(line("a"), line("b"), revoked="b"), trust(line("a"), revoked="b"), "a").problems == []


def test_a_revocation_is_on_purpose_unless_the_release_runs_by_it() -> None:
    old = trust(line("a"), line("b"))
    assert judge(old, trust(line("a"), line("b"), revoked="b"), "a").problems == []
    (problem,) = judge(old, trust(line("a"), line("b"), revoked="a"), "a").problems
    assert "1.0.0-aaaa that runs would be refused" in problem and "EF_SIG_REVOKED" in problem


def test_a_revocation_that_is_taken_back_is_named() -> None:
    (problem,) = judge(trust(line("a"), revoked="bc"), trust(line("a"), revoked="c"), "a").problems
    assert problem == f"the key {SPELLED['b']} is no longer revoked"
    gone = trust(line("a"))._replace(revoked=None)
    assert len(judge(trust(line("a"), revoked="bc"), gone, "a").problems) == 2


def test_what_would_refuse_the_running_release_says_so_where_nothing_is_known_of_before() -> None:
    assert judge(trust("garbage"), trust(line("b")), "a").problems == []
    found = judge(trust("garbage"), trust(line("b")), "a").notes
    assert "cannot be read" in found[0] and "before and after" in found[1]


def test_trust_that_trusts_nobody_cannot_be_ordered() -> None:
    for after in (trust("garbage"), trust(), trust(line("a"))._replace(revoked=b"two words\n"),
                  trust(line("a"))._replace(signers=b"SSHKRL\n\0")):  # fmt: skip
        assert judge(trust(line("a")), after, "a").fault


# The variable


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb\n", "a\nb\n"),
        ("\n a \n", "a\n"),
        ("", ""),
        ([], ""),
        (["a", "b"], "a\nb\n"),
        (["a\n", "", " b"], "a\nb\n"),
        (("a",), "a\n"),
    ],
)
def test_a_list_or_a_text_becomes_the_file(value: Any, text: str) -> None:
    assert tc.trust_text(value, "x") == text


@pytest.mark.parametrize(
    ("value", "word"),
    [({"a": 1}, "neither"), (None, "neither"), (7, "neither"), (["a", 7], "x[1]"), (["a", ["b"]], "x[1]"),
     (["a\nb"], "x[0]: holds several lines")],
)  # fmt: skip
def test_another_value_is_refused_by_name(value: Any, word: str) -> None:
    with pytest.raises(FleetError) as error:
        tc.trust_text(value, "x")
    assert word in error.value.message and error.value.code == "EF_ARGUMENT"


def test_hosts_whose_variables_refuse_the_bundle_are_named_together() -> None:
    good, lost = [line("a")], line("b")
    hosts = [{"inventory_hostname": f"h{n}", "ebpf_fleet_allowed_signers": lost if n > 1 else good} for n in range(9)]
    hosts.append({"inventory_hostname": "odd"})
    hosts.append({"inventory_hostname": "off", "ebpf_fleet_allowed_signers": good,
                  "ebpf_fleet_revoked_keys": [SPELLED["a"]]})  # fmt: skip
    found = tc.host_refusals(hosts, SPELLED["a"], NOW)
    assert [one.split(":")[0] for one in found] == ["h2, h3, h4, h5, h6 and 2 more", "odd", "off"]
    assert "EF_SIG_UNKNOWN_SIGNER" in found[0] and "EF_TRUST_MALFORMED" in found[1] and "EF_SIG_REVOKED" in found[2]
