# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom patterns mean by Ansible's own reader, and the lookups that a play asks: real inventories, real loaders."""

from __future__ import annotations

import errno
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible_collections.ebpf.fleet.plugins.lookup import hosts, left_out, say_last
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts.hostnames import exact_pattern
from ansible_collections.ebpf.fleet.plugins.plugin_utils.inventory_answer import InventoryAnswer, texts_of

# Of one letter too: what stands behind a sign may be short.
TEXT = """
[web]
web1
web2
w

[db]
db1

[empty]
"""
ODD = ("db: primary", "!bang", "&and", "a,b")
NAMES = ["web1", "web2", "w", "db1", *ODD]


def variables(folder: Path, limit: str | None = None, odd: tuple[str, ...] = ODD) -> dict[str, Any]:
    """What a play knows of an inventory file, and of names that only a dynamic one may have."""
    (folder / "hosts.ini").write_text(TEXT)
    manager = InventoryManager(DataLoader(), sources=[str(folder / "hosts.ini")])
    for name in odd:
        manager.add_host(name, group="db")
    manager.reconcile_inventory()
    return {"groups": manager.get_groups_dict(), "ansible_limit": limit}


def answer(folder: Path, limit: str | None = None, odd: tuple[str, ...] = ODD) -> InventoryAnswer:
    return InventoryAnswer(DataLoader(), variables(folder, limit, odd))


@pytest.mark.parametrize(
    ("terms", "texts"),
    [
        ([], []),
        (["web1"], ["web1"]),
        (["web1", ["a", "b"], ("c", 7)], ["web1", "a", "b", "c", "7"]),
        ([["web1", "web2"]], ["web1", "web2"]),
        ([7, None], ["7", "None"]),
    ],
)
def test_a_term_is_a_text_or_a_list_of_them(terms: list[Any], texts: list[str]) -> None:
    assert texts_of(terms) == texts


@pytest.mark.parametrize(
    ("asked", "pattern"),
    [
        ("web1", "web1"),
        ("w", "w"),
        ("web*", "web*"),
        ("web1,web2", "web1,web2"),
        ("", ""),
        ("db: primary", exact_pattern("db: primary")),
        ("a,b", exact_pattern("a,b")),
        ("!bang", exact_pattern("!bang")),
        ("&and", exact_pattern("&and")),
        ("!web1", "!web1"),
        ("!w", "!w"),
        ("&db: primary", "&" + exact_pattern("db: primary")),
        ("!db: primary", "!" + exact_pattern("db: primary")),
        ("!a,b", "!" + exact_pattern("a,b")),
        ("!!bang", "!" + exact_pattern("!bang")),
        ("!other, one", "!other, one"),
        ("?db: primary", "?db: primary"),
    ],
)
def test_an_exact_name_means_that_host_and_every_other_text_is_a_pattern(
    tmp_path: Path, asked: str, pattern: str
) -> None:
    assert exact_pattern("db: primary") != "db: primary"
    assert answer(tmp_path).patterns([asked]) == [pattern]


@pytest.mark.parametrize(
    ("asked", "limit", "names"),
    [
        (["all"], None, NAMES),
        (["web"], None, ["web1", "web2", "w"]),
        (["web", "!w"], None, ["web1", "web2"]),
        (["all", "!web", "!db: primary"], None, ["db1", "!bang", "&and", "a,b"]),
        (["all", "&db: primary"], None, ["db: primary"]),
        (["a,b"], None, ["a,b"]),
        (["!bang"], None, ["!bang"]),
        (["all"], "web:!w", ["web1", "web2"]),
        (["all"], "", NAMES),
        (["db"], "web", []),
        (["empty"], None, []),
        ([], None, []),
        (["none"], None, []),
    ],
)
def test_whom_patterns_and_the_limit_mean(
    tmp_path: Path, asked: list[str], limit: str | None, names: list[str]
) -> None:
    assert answer(tmp_path, limit).names(asked) == names


def told(where: str, term: str, hint: str) -> str:
    return f"{where}: '{term}' matches no host and no group; {hint}"


def test_no_inventory_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible may be set to fail where it reads one without a host."""
    monkeypatch.setattr(constants, "INVENTORY_UNPARSED_IS_FAILED", True)
    assert answer(tmp_path).names(["web"]) == ["web1", "web2", "w"]


@pytest.mark.parametrize(
    ("asked", "limit", "sentences"),
    [
        (["all", "web1", "web", "web*", "w", "db: primary", "!db1", "&web", "~^web", "web[0:1]"], None, []),
        (["wbe1"], None, [told("ebpf_fleet_hosts", "wbe1", "did you mean 'web1'?")]),
        (["web1,wbe2"], None, [told("ebpf_fleet_hosts", "wbe2", "did you mean 'web2'?")]),
        (["!wbe1", "&wbe2"], None, [told("ebpf_fleet_hosts", "!wbe1", "did you mean 'web1'?"),
                                    told("ebpf_fleet_hosts", "&wbe2", "did you mean 'web2'?")]),
        (["!x*", "!x?", "!x[0]", "!~x", "localhost", "127.0.0.1", "!localhost", "::1"], None, []),
        (["wbe*"], None, [told("ebpf_fleet_hosts", "wbe*", "choose one of: all, db, db1")]),
        (["~(", "x"], None, ["'~('", "'x'"]),
        (["all"], "web1,wbe2", [told("--limit", "wbe2", "did you mean 'web2'?")]),
        (["all"], "web,!wbe1", [told("--limit", "!wbe1", "did you mean 'web1'?")]),
        (["wbe1"], "wbe2", [told("ebpf_fleet_hosts", "wbe1", "did you mean 'web1'?"),
                            told("--limit", "wbe2", "did you mean 'web2'?")]),
        (["all"], "web", []),
    ],
)  # fmt: skip
def test_a_term_that_matches_nothing_is_told_with_the_nearest_name(
    tmp_path: Path, asked: list[str], limit: str | None, sentences: list[str]
) -> None:
    found = answer(tmp_path, limit, odd=("db: primary",)).unmatched(asked)
    assert len(found) == len(sentences), found
    assert all(one.startswith(start) or start in one for one, start in zip(found, sentences)), found


@pytest.mark.parametrize(
    ("term", "lost"),
    [
        ("", False),
        ("!", False),
        ("&", False),
        ("web1", False),
        ("!web1", False),
        ("&web", False),
        ("x[1]", False),
        ("&x[1]", False),
        ("&y[1]", False),
        ("&z[1]", True),
        ("y[1]", True),
        ("!x?", False),
        ("&x?", True),
        ("localhost", False),
        ("&localhost", False),
        ("~(", True),
        ("wbe1", True),
    ],
)
def test_a_part_of_a_pattern_is_lost_where_neither_it_nor_what_it_is_a_sign_of_is_there(
    tmp_path: Path, term: str, lost: bool
) -> None:
    """`x[1]` is a host here, and so is `&y[1]`; a reader of patterns takes both for a part of a group."""
    assert answer(tmp_path, odd=("x[1]", "&y[1]"))._matches_nothing(term) is lost


# --- the lookups ----------------------------------------------------------------------------------


def looked_up(plugin: Any, terms: list[Any], known: dict[str, Any]) -> list[str]:
    return list(plugin.LookupModule(loader=DataLoader(), templar=None).run(terms, known))


def test_the_hosts_of_a_play_are_patterns_of_names_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the option and the filters stood in for, which a loader has of a whole run."""
    known, given = variables(tmp_path), {"exactly": False}
    loaded: list[str] = []
    taken: list[Any] = []
    monkeypatch.setattr(hosts, "load_filters", lambda: loaded.append("filters"))
    monkeypatch.setattr(hosts.LookupModule, "set_options", lambda _self, **words: taken.append(words))
    monkeypatch.setattr(hosts.LookupModule, "get_option", lambda _self, name: given[name])
    assert looked_up(hosts, ["web1", ["a,b", "db*"]], known) == ["web1", exact_pattern("a,b"), "db*"]
    with pytest.raises(AnsibleLookupError, match=f"EF_HOSTS: {re.escape(hosts.NO_HOST)}"):
        looked_up(hosts, ["empty"], known)
    assert loaded == ["filters"] * 2 and taken == [{"var_options": known, "direct": {}}] * 2
    given["exactly"] = True
    assert looked_up(hosts, [["web2", "web1"]], known) == ["web2", "web1"]
    with pytest.raises(AnsibleLookupError, match="EF_HOSTS: 1 of 1 hosts of the inventory were not addressed: 'web'"):
        looked_up(hosts, ["web"], known)


@pytest.mark.parametrize(
    ("asked", "limit", "exactly", "fault"),
    [
        (["web"], None, False, None),
        (["web1", "web2"], None, True, None),
        (["web2", "web1"], None, True, None),
        (["wbe1", "web1"], None, False, None),
        (["empty"], None, False, hosts.NO_HOST),
        (["web"], "db", False, hosts.NO_HOST),
        (["wbe1"], None, False, f"{hosts.NO_HOST}; ebpf_fleet_hosts: 'wbe1' matches no host and no group; "
                                "did you mean 'web1'?"),
        (["all"], "@/none/such", False, f"{hosts.NO_HOST}; Unable to find limit file b'/none/such'"),
        (["all"], "@/none/such", True, f"{hosts.NO_HOST}; Unable to find limit file b'/none/such'"),
        (["empty"], None, True, "1 of 1 hosts of the inventory were not addressed: 'empty'."),
        (["web1", "web2"], "web1", True, "1 of 2 hosts of the inventory were not addressed: 'web2'."),
        (["web1,w"], None, True, "1 of 1 hosts of the inventory were not addressed: 'web1,w'. "
                                 "Hosts were addressed that the inventory does not name so: 'web1', 'w'."),
        ([], None, True, hosts.NO_HOST),
    ],
)  # fmt: skip
def test_a_play_that_would_address_others_is_refused(
    tmp_path: Path, asked: list[str], limit: str | None, exactly: bool, fault: str | None
) -> None:
    known = answer(tmp_path, limit)
    if fault is None:
        hosts.refuse(known, asked, exactly)
        return
    with pytest.raises(FleetError) as refused:
        hosts.refuse(known, asked, exactly)
    assert refused.value.as_line() == f"EF_HOSTS: {fault}"


def test_whom_a_play_left_out(tmp_path: Path) -> None:
    known = variables(tmp_path)
    web = {**known, "ansible_play_hosts_all": ["web1", "web2", "w"]}
    assert looked_up(left_out, ["web"], web) == looked_up(left_out, [["web1", "web2"], "w"], web) == []
    assert looked_up(left_out, ["web", "db1", "wbe1"], web) == [
        "1 of 4 hosts of the inventory were not addressed: 'db1'.",
        told("ebpf_fleet_hosts", "wbe1", "did you mean 'web1'?"),
    ]
    assert looked_up(left_out, ["web1,web2"], web) == ["Hosts were addressed that the inventory does not name so: 'w'."]


# --- what is said last ----------------------------------------------------------------------------


SAYING = """
import sys
sys.path[:0] = {path!r}
from ansible_collections.ebpf.fleet.plugins.lookup import say_last
say = say_last.LookupModule().run
assert say(["first", ["second"]]) == []
{then}
sys.stderr.write("the recap\\n")
sys.stderr.flush()
"""


@pytest.mark.parametrize(
    ("then", "lines"),
    [
        ("", ["first", "second"]),
        ("say(['a', ['b', 'c\\x1b'], 7, []])", ["a", "b", "c\\x1b", "7"]),
        ("say(['x' * 500, 'y' * 501])", ["x" * 500, "y" * 499 + "…"]),
        ("say([])", []),
        ("import multiprocessing as m\np = m.get_context('fork').Process(target=say, args=(['of a worker'],))\n"
         "p.start()\np.join()\nassert p.exitcode == 0", ["first", "second"]),
    ],
)  # fmt: skip
def test_lines_are_said_once_when_all_else_was(then: str, lines: list[str]) -> None:
    script = SAYING.format(path=sys.path, then=then)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr.splitlines()) == ("", ["the recap", *lines])


def test_lines_are_kept_and_those_that_are_given_again_replace_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(say_last.atexit, "register", registered.append)
    monkeypatch.setattr(say_last.atexit, "unregister", registered.remove)
    registered.append(say_last.say)
    monkeypatch.setattr(say_last, "KEPT", [])
    lookup = say_last.LookupModule()
    assert lookup.run(["a", ["b"]]) == [] and say_last.KEPT == ["a", "b"]
    assert lookup.run(["c"]) == [] and say_last.KEPT == ["c"] and registered == [say_last.say]
    say_last.say()
    assert capsys.readouterr() == ("", "c\n")


class Full(io.StringIO):
    """A file on a disk without room."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_standard_error_that_takes_no_more_is_not_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(say_last, "KEPT", ["a"])
    with (tmp_path / "closed").open("w") as closed:
        pass
    for stream in (closed, Full()):
        monkeypatch.setattr(sys, "stderr", stream)
        say_last.say()
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        say_last.say()
        monkeypatch.undo()
        assert (tmp_path / "file").read_text() == "a\n", "it is on its way at once"
