# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the collection: which a person sets, which a playbook makes for itself, and their defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator

import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import timing

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"\bebpf_fleet_[a-z0-9_]+")
PLAYBOOKS = sorted(ROOT.glob("playbooks/**/*.yml"))
# What reads variables of hosts by itself.
READERS = [*ROOT.glob("plugins/module_utils/**/*.py"), *ROOT.glob("plugins/plugin_utils/*.py"),
           *ROOT.glob("plugins/action/*.py"), *ROOT.glob("plugins/filter/*.py")]  # fmt: skip


def role_options() -> dict[str, dict[str, Any]]:
    """{role: {variable: its entry in argument_specs}}."""
    found = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[path.parts[-3]] = document["argument_specs"]["main"]["options"]
    return found


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _mappings(inner)


def made_here() -> set[str]:
    """What playbooks and roles set for themselves: registered, computed, or a group's name.

    A fact that is set from itself is a person's variable that is only kept.
    """
    found: set[str] = set()
    for path in [*PLAYBOOKS, *ROOT.glob("roles/*/tasks/*.yml")]:
        for one in _mappings(yaml.safe_load(path.read_text(encoding="utf-8"))):
            found |= {one["register"]} if isinstance(one.get("register"), str) else set()
            given = {**(one.get("vars") or {}), **(one.get("ansible.builtin.set_fact") or {})}
            found |= {name for name, value in given.items() if name not in NAME.findall(str(value))}
            groups = (one.get("ansible.builtin.add_host") or {}).get("groups", [])
            found |= set(groups)
    return {name for name in found if NAME.fullmatch(name)}


def used() -> set[str]:
    """Every variable of ours that a playbook, a role or a plugin names."""
    code = [*PLAYBOOKS, *ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/templates/*"), *READERS]
    return set(NAME.findall("\n".join(path.read_text(encoding="utf-8") for path in code)))


def for_people() -> set[str]:
    """Every variable of ours that a person may set."""
    asked = {name for options in role_options().values() for name in options}
    return asked | (used() - made_here())


def written_defaults() -> dict[str, set[str]]:
    """{variable: the plain values behind `| default(` in the playbooks, and those of a rollout's timing}."""
    found: dict[str, set[str]] = {name: {str(value)} for name, value in timing.DEFAULTS.items()}
    for path in PLAYBOOKS:
        text = path.read_text(encoding="utf-8")
        for name, value in re.findall(r"\b(ebpf_fleet_[a-z0-9_]+) \| default\((\d+|'[^']+')\)", text):
            found.setdefault(name, set()).add(value.strip("'"))
    return found
