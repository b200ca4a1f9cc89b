# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller's plugins share: a host's words that are kept from the terminal, and folders of evidence."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.ebpf.fleet.plugins.action import forensics
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.plugin_utils.guarded import GuardedAction

NOW = time.gmtime(1_800_000_000)
NAME = "forensics-20270115T080000Z"


class Guarded(GuardedAction):  # type: ignore[misc]  # ansible-core has no types
    """An action of no work of its own."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        raise NotImplementedError("only what a host returned is read here")


class Plain(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """ansible-core's own, which warns."""

    run = Guarded.run


def warned(kind: type, output: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[str]]:
    """What an action of that kind makes of a module's output, and what it shows on the terminal."""
    said: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, text, *_more, **_others: said.append(str(text)))
    made: Any = object.__new__(kind)
    data = made._parse_returned_data({"stdout": output, "stderr": "", "rc": 0}, "legacy")
    return dict(data), said


def test_words_behind_a_modules_answer_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    output = f"{json.dumps({'changed': False, 'text': 'kept'})}\n\x1b[2Jpainted by the host\n"
    data, said = warned(Plain, output, monkeypatch)
    assert data["text"] == "kept" and any("painted" in one for one in said), "ansible-core shows them"
    data, said = warned(Guarded, output, monkeypatch)
    assert data["text"] == "kept" and said == []


def test_keys_that_the_controller_alone_may_set_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    output = json.dumps({"changed": False, "add_host": {"host_name": "x"}, "_ansible_verbose_always": True, "text": 1})
    data, _said = warned(Guarded, output, monkeypatch)
    assert data["text"] == 1 and not {"add_host", "_ansible_verbose_always"} & set(data)


def test_each_evidence_of_one_second_gets_a_folder_of_its_own_up_to_a_bound(tmp_path: Path) -> None:
    made = [forensics.make_folder(tmp_path, NOW) for _ in range(99)]
    assert [one.name for one in made] == [NAME, *(f"{NAME}-{number}" for number in range(2, 100))]
    assert {one.stat().st_mode & 0o777 for one in made} == {0o700}
    with pytest.raises(FleetError, match="has a hundred folders of this second") as caught:
        forensics.make_folder(tmp_path, NOW)
    assert caught.value.code == "EF_ARGUMENT" and len(list(tmp_path.iterdir())) == 99


def test_evidence_needs_a_folder_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="is not a folder on the controller; make it"):
        forensics.make_folder(tmp_path / "none", NOW)
    assert list(tmp_path.iterdir()) == []
