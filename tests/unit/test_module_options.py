# SPDX-License-Identifier: GPL-3.0-or-later
"""What each module takes is what its page says: every option with its type, its default and its choices."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
PLUGINS = "ansible_collections.ebpf.fleet.plugins"
# Read by the plugin itself, which says more of a wrong value than Ansible does; the page says what it is to be.
RAW = {
    "fan_out": {"connect_timeout", "timeout", "logins", "stdout_bytes"},
    "gate": {"error_rate", "batches", "readings", "reading"},
}
USUAL = {"type": "str", "required": False, "default": None, "choices": None, "elements": None}


class AskedError(Exception):
    """How a module asked for its arguments."""


def asked_by(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a module, or the action plugin that stands for it, gives to Ansible's own reader of arguments."""
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")
    if hasattr(module, "main"):

        def ask(**words: Any) -> NoReturn:
            raise AskedError(words)

        monkeypatch.setattr(module, "AnsibleModule", ask)
        with pytest.raises(AskedError) as found:
            module.main()
        return dict(found.value.args[0])
    action = importlib.import_module(f"{PLUGINS}.action.{name}")
    return {"argument_spec": action.ARGUMENTS, "supports_check_mode": action.ActionModule._supports_check_mode}


def page_of(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{name}").DOCUMENTATION))


def shape(options: dict[str, Any], inner: str) -> dict[str, Any]:
    """Each option with what Ansible makes of it; `inner` is what options of an option are called."""
    return {
        name: {
            **{field: one.get(field, usual) for field, usual in USUAL.items()},
            "options": shape(one.get(inner) or {}, inner),
        }
        for name, one in options.items()
    }


def test_there_are_modules() -> None:
    assert {"release", "gate", "observation_info"} <= set(NAMES) and len(NAMES) >= 15
    assert set(RAW) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_takes_what_its_page_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_by(name, monkeypatch)
    taken, told = shape(asked["argument_spec"], "options"), shape(page_of(name)["options"], "suboptions")
    for option in RAW.get(name, ()):
        assert taken[option]["type"] == "raw" != told[option]["type"]
        told[option].update(type="raw", elements=None)
    assert taken == told
    known = {*USUAL, "options", "no_log"}
    fields = {field for one in asked["argument_spec"].values() for field in one}
    assert fields <= known, "a word that Ansible does not know is one that it does not heed"


@pytest.mark.parametrize("name", NAMES)
def test_check_mode_is_what_the_page_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    support = page_of(name)["attributes"]["check_mode"]["support"]
    assert asked_by(name, monkeypatch)["supports_check_mode"] is (support != "none")


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("observation_info", {"application_file": "/a"}, None),
        ("observation_info", {"latency": {}}, None),
        ("observation_info", {"application_file": "/a", "latency": {}}, "mutually exclusive: application_file|latency"),
        ("lease", {"state": "present", "digest": "d", "seconds": 1, "holder": "h"}, None),
        ("lease", {"state": "present", "digest": "d", "holder": "h"}, "present but all of the following are missing"),
        ("lease", {"state": "present", "digest": "d", "seconds": 1}, "present but all of the following are missing"),
        ("lease", {"state": "confirmed", "digest": "d"}, None),
    ],
)
def test_options_that_need_or_exclude_one_another(
    name: str, given: dict[str, Any], fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_by(name, monkeypatch)
    del asked["supports_check_mode"]
    faults = ArgumentSpecValidator(**asked).validate(given).error_messages
    assert (len(faults), fault is None or fault in faults[0]) == (0 if fault is None else 1, True)
