# SPDX-License-Identifier: GPL-3.0-or-later
"""The grammar of a scope: what each form means, and for every form that means nothing a sentence with the remedy."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from ansible.parsing.splitter import parse_kv
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope as scopes
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.orders import Scope, ScopeError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.scope import Wanted, read, refusal

MEANT: list[tuple[Any, Wanted]] = [
    ("global", Wanted()),
    ("feature=a", Wanted(feature="a")),
    ("kernel_family=debian-6.1", Wanted(family="debian-6.1")),
    ("cell=eu-1", Wanted(cell="eu-1")),
    ("cell=7", Wanted(cell="7")),
    ("host=web1", Wanted(hosts=("web1",))),
    ("host=a,b*,!c", Wanted(hosts=("a,b*,!c",))),
    ("host=web, blue", Wanted(hosts=("web, blue",))),
    ("host=a,feature=x", Wanted(feature="x", hosts=("a",))),
    ("host=a,host=b,host=a", Wanted(hosts=("a", "b"))),
    ("host=a=b", Wanted(hosts=("a=b",))),
    ("host=~web[0-9]{1,3}", Wanted(hosts=("~web[0-9]{1,3}",))),
    ("cell=a,kernel_family=6.1,feature=x", Wanted(feature="x", family="6.1", cell="a")),
    ("feature=x, cell=a", Wanted(feature="x", cell="a")),
    ("previous", Wanted(previous=True)),
    ("previous,cell=a,host=b", Wanted(previous=True, cell="a", hosts=("b",))),
    (["host=web, blue", "host=x,cell=y"], Wanted(hosts=("web, blue", "x,cell=y"))),
    (["cell=a"], Wanted(cell="a")),
    (["cell=a, b"], Wanted(cell="a, b")),
]


@pytest.mark.parametrize(("given", "wanted"), MEANT, ids=lambda one: str(one)[:40])
def test_what_a_scope_means(given: Any, wanted: Wanted) -> None:
    assert read(given) == wanted
    assert read(wanted.terms) == wanted, "as the controller keeps it"
    assert refusal(given, "engaged") == ""


REFUSED: list[tuple[Any, str]] = [
    ("globl", "scope 'globl' is not one: did you mean global?"),
    ("cel=a", "did you mean cell=a?"),
    ("cells=a", "did you mean cell=a?"),
    ("hosts=web1", "did you mean host=web1?"),
    ("hostname=web1", "did you mean host=web1?"),
    ("Cell=a", "did you mean cell=a?"),
    ("feature=A", "did you mean feature=a?"),
    ("kernel=6.1", "did you mean kernel_family=6.1?"),
    ("unit=a.service", "Write: ansible-playbook ebpf.fleet.takeoff -e scope=unit=a.service --check --diff"),
    ("feature=a,globl", "scope 'globl' is not one: did you mean global?"),
    ("host=a,cel=b", "did you mean cell=b?"),
    ("cell=a,b", "scope 'b' is not one"),
    ("feature=a,feature=b", "feature= is given twice; run it once for each feature"),
    ("kernel_family=6.1,kernel_family=6.2", "kernel_family= is given twice; run it once for each kernel family"),
    ("cell=a,cell=b", "no host is in two cells; run it once for each cell"),
    ("previous,previous", "previous is given twice; give it once"),
    ("global,cell=a", "global is everything on every host, so it stands alone: leave it out"),
    ("cell=a,global", "so it stands alone: leave it out"),
    ("global,global", "so it stands alone"),
    ("previous,feature=a", "previous goes back to a whole release: join it with cell= and host= alone"),
    ("previous,kernel_family=6.1", "join it with cell= and host= alone"),
    ("feature=a,,cell=b", "nothing before, after or between its commas; take a comma out"),
    ("feature=a,", "take a comma out"),
    (",feature=a", "take a comma out"),
    ("host=a,", "take a comma out"),
    ("feature=a ,cell=b", "is not one: did you mean feature=a?"),
    ("host=", "host= needs a pattern of hosts, or a host's exact name, behind it"),
    ("host= ", "host= needs a pattern"),
    ("cell=", "cell= needs a cell, as ebpf_fleet_cell has it, behind it"),
    ("cell=" + "x" * 201, "cell= needs a cell"),
    ("host=" + "x" * 4097, "has more than 4096 letters; name a group of the inventory with host="),
    (["feature=a,cell=b"], "scope 'feature=a,cell=b' is not one"),
    ([""], "nothing before, after or between"),
    ([7], "the list must have texts, a term each, and one at least"),
    ([], "the list must have texts, a term each, and one at least; write global or previous"),
    ("  ", "Say what to turn off"),
    (None, "Say what to turn off"),
    ({"feature": "a"}, "is not one"),
    ("cell=\x1b[2J,x", "is not one"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=lambda one: str(one)[:40])
def test_what_means_nothing_is_one_sentence_with_the_remedy(given: Any, words: str) -> None:
    said = refusal(given, "engaged")
    assert words in said and said.endswith(".") and said.isprintable() and len(said) < 320
    if given not in (None, "  "):
        with pytest.raises(ScopeError):
            read(given)


@pytest.mark.parametrize(
    ("given", "atoms", "family"),
    [
        (["cell=a"], [Scope("global", "")], ""),
        (["host=a,cell=b"], [Scope("global", "")], ""),
        (["kernel_family=6.1,cell=a"], [Scope("family", "6.1")], ""),
        (["feature=x,cell=a"], [Scope("feature", "x")], ""),
        (["feature=x,kernel_family=6.1,host=a"], [Scope("feature", "x")], "6.1"),
        (["global", "feature=x", "kernel_family=6.1", "feature=x"],
         [Scope("global", ""), Scope("feature", "x"), Scope("family", "6.1")], ""),
    ],
)  # fmt: skip
def test_what_of_it_lies_on_a_host(given: list[Any], atoms: list[Scope], family: str) -> None:
    assert scopes.on_host(given) == (atoms, family)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "give a list of at least one"),
        (["previous"], "use the filter rollback_script"),
        (["feature=x,kernel_family=6.1", "global"], "a feature within a kernel family is an order of its own"),
    ],
)
def test_what_no_script_can_do_is_refused(given: list[Any], words: str) -> None:
    with pytest.raises(ScopeError, match=words):
        scopes.on_host(given)


@pytest.mark.parametrize(
    ("confirm", "reason", "lacks"),
    [
        ("", "", "so confirm and reason must be given"),
        ("release", "", "so reason must be given"),
        ("release", " \n ", "so reason must be given"),
        ("", "fixed", "so confirm must be given"),
        ("yes", "fixed", "confirm 'yes' is not release."),
        (True, "fixed", "confirm 'True' is not release."),
        (None, None, "so confirm and reason must be given"),
    ],
)
def test_an_order_is_taken_back_by_name_and_with_a_reason_alone(confirm: Any, reason: Any, lacks: str) -> None:
    said = refusal("feature=x", "released", confirm, reason)
    exact = "ansible-playbook ebpf.fleet.rollback -e scope=feature=x -e state=released -e confirm=release"
    assert lacks in said and "no host was asked" in said and said.endswith(f"{exact} -e 'reason=\"WHY\"'")
    assert refusal("feature=x", "released", "release", "fixed") == ""


def test_states() -> None:
    assert refusal(None, "list") == refusal("globl", "list") == ""
    assert "did you mean list?" in refusal("", "lst") and "did you mean released?" in refusal("global", "release")
    assert "Write engaged, released to take an order back, or list." in refusal("global", None)
    assert "roll the release out again" in refusal("previous,cell=a", "released", "release", "x")


@pytest.mark.parametrize("wanted", [wanted for _given, wanted in MEANT], ids=lambda one: one.text)
def test_the_command_that_is_printed_gives_exactly_that_scope(wanted: Wanted) -> None:
    """As a shell takes it apart, and Ansible what -e has."""
    words = shlex.split(scopes.release_command(wanted))
    given: dict[str, Any] = {}
    for at, word in enumerate(words):
        if word == "-e":
            text = words[at + 1]
            given |= json.loads(text) if text.startswith("{") else parse_kv(text)
    assert read(given["scope"]) == wanted
    assert (given["state"], given["confirm"], given["reason"]) == ("released", "release", "WHY")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("load of 20", "load of 20"), (" a \n b ", "a b"), (None, ""), (7, "7"), ("\x1b[2J", "\\x1b[2J"),
     ("x" * 301, "x" * 299 + "…")],
)  # fmt: skip
def test_a_reason_is_kept_printable_on_one_line_and_bounded(given: Any, kept: str) -> None:
    assert scopes.cleaned(given) == kept
