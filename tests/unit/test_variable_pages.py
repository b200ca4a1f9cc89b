# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages have every variable that a person can set, no other, and the defaults that are in the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.collection_variables import NAME, for_people, role_options, used, written_defaults

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "variables.md"
TABLES = [PAGE, ROOT / "docs/rollout.md", ROOT / "docs/fan-out.md", *sorted(ROOT.glob("roles/*/README.md"))]
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]*) \| [^|]+ \|$", re.M)
# Named in code and no variable: a fact, a file's name in a template, and labels of an alert.
NO_VARIABLES = {"ebpf_fleet_rollout", "ebpf_fleet_capabilities", "ebpf_fleet_bcc", "ebpf_fleet_pull",
                "ebpf_fleet_action", "ebpf_fleet_scope"}  # fmt: skip
# Of the rulebook, and not of any playbook: {name: what stands behind its default, empty where it has no default}.
RULEBOOK = dict(
    re.findall(
        r"\{\{ (ebpf_fleet_events_\w+)(?: \| default\(([^)]*)\))? \}\}",
        (ROOT / "extensions/eda/rulebooks/alerts.yml").read_text(encoding="utf-8"),
    )
)
# Not of our prefix, as on call types them: variable and the playbook that takes it.
SHORT = {"bundle": "capabilities", "scope": "rollback", "state": "rollback", "allow_unconcerned": "rollback",
         "confirm": "rollback", "reason": "rollback", "remove_pins": "takeoff"}  # fmt: skip
# What an empty or computed default is called in a table.
EMPTY = {"none", "empty", "required", "{}", "[]", "none, required", "required, on each host"}


def rows(path: Path) -> dict[str, set[str]]:
    """{variable: what tables of a page say its default is}."""
    found: dict[str, set[str]] = {}
    for names, default in ROW.findall(path.read_text(encoding="utf-8")):
        for name in re.findall(r"`(\w+)`", names):
            found.setdefault(name, set()).add(default.strip().strip("`"))
    return found


def test_the_page_has_every_variable_and_no_other() -> None:
    known = (for_people() - NO_VARIABLES) | set(SHORT)
    assert set(rows(PAGE)) == known


@pytest.mark.parametrize(("name", "playbook"), SHORT.items())
def test_a_short_name_is_a_variable_of_its_playbook(name: str, playbook: str) -> None:
    text = (ROOT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
    assert re.search(rf"\b{name} (\| default|is defined|==)", text)


@pytest.mark.parametrize("role", role_options())
def test_a_roles_page_has_its_variables_and_no_other(role: str) -> None:
    assert set(rows(ROOT / "roles" / role / "README.md")) == set(role_options()[role])


@pytest.mark.parametrize("role", role_options())
def test_a_roles_defaults_are_those_of_its_specification(role: str) -> None:
    import yaml

    path = ROOT / "roles" / role / "defaults" / "main.yml"
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))
    options = role_options()[role]
    assert set(defaults) == set(options)
    for name, option in options.items():
        assert defaults[name] == option.get("default", ""), name


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_table_has_the_default_that_the_code_has(path: Path) -> None:
    specified = {name: option for options in role_options().values() for name, option in options.items()}
    checked = 0
    for name, said in rows(path).items():
        if name in specified:
            option = specified[name]
            true = "required" if option.get("required") else _as_text(option.get("default"))
            fine = {true} if true not in ("", "{}", "required") else EMPTY
            # Computed behind an empty default: the table says what comes of it, in words.
            words = name == "ebpf_fleet_features"
            assert words or said <= fine, f"{name}: the page says {said}, the code {true!r}"
            checked += 1
        elif name in written_defaults() and name not in ("ebpf_fleet_logins", "ebpf_fleet_release_sequence"):
            assert said == written_defaults()[name], f"{name}: the page says {said}"
            checked += 1
    assert checked


def test_the_rulebooks_variables_and_their_defaults_stand_in_its_page() -> None:
    words = {"": "required", "''": "none"}
    told = rows(ROOT / "docs/event-driven.md")
    log = {"ebpf_fleet_events_log": {"standard error"}}  # where the lines go without it
    assert told == {name: {words.get(value, value.strip("'"))} for name, value in RULEBOOK.items()} | log
    assert RULEBOOK


def test_the_default_of_features_is_said_as_it_is() -> None:
    for path in (PAGE, ROOT / "docs/rollout.md", ROOT / "roles/deploy/README.md"):
        assert rows(path)["ebpf_fleet_features"] == {"every feature but those on the policy data path, as contracted"}


def test_a_playbook_has_one_default_for_a_variable() -> None:
    assert {name: values for name, values in written_defaults().items() if len(values) > 1} == {}


def test_no_page_names_a_variable_that_is_not_there() -> None:
    metrics = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")]:
        named = set(NAME.findall(path.read_text(encoding="utf-8")))
        stray = {
            name
            for name in named - used() - for_people() - set(RULEBOOK)
            if name not in metrics and not name.endswith("_") and name not in ("ebpf_fleet_trust", "ebpf_fleet_exec")
        }
        assert stray == set(), path.name
