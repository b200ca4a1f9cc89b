# SPDX-License-Identifier: GPL-3.0-or-later
"""The module observation_info: which times it refuses, whom it asks for the latency, and how it is started."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import latency
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.observation import Places
from ansible_collections.ebpf.fleet.plugins.modules import observation_info


class FailedError(Exception):
    """What the module would have ended with."""


def module(**params: Any) -> Any:
    def fail_json(**words: Any) -> None:
        raise FailedError(words)

    return SimpleNamespace(params={"window": 10, "bake": 0, "latency": None, **params}, fail_json=fail_json)


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({}, None),
        ({"window": 0.0}, None),
        ({"window": 3600.0, "bake": 86400.0}, None),
        ({"window": -0.5}, "window: -0.5 seconds is out of range; give 0 to 3600"),
        ({"window": 3600.5}, "window: 3600.5 seconds is out of range; give 0 to 3600"),
        ({"window": float("nan")}, "window: nan seconds is out of range; give 0 to 3600"),
        ({"bake": -1.0}, "bake: -1.0 seconds is out of range; give 0 to 86400"),
        ({"bake": 86400.5}, "bake: 86400.5 seconds is out of range; give 0 to 86400"),
        ({"bake": float("inf")}, "bake: inf seconds is out of range; give 0 to 86400"),
    ],
)
def test_a_time_is_within_its_range(params: dict[str, Any], line: str | None) -> None:
    if line is None:
        observation_info.refuse_bad_times(module(**params))
        return
    with pytest.raises(FailedError) as failed:
        observation_info.refuse_bad_times(module(**params))
    (words,) = failed.value.args
    assert (words["msg"], words["reason_code"]) == (f"EF_ARGUMENT: {line}", "EF_ARGUMENT") and words["remedy"]


FILE = {"source": "file", "path": "/a"}
URL = {"source": "http", "url": "http://127.0.0.1:1/x"}


@pytest.mark.parametrize(
    ("given", "source"),
    [
        (None, None),
        ({}, None),
        (FILE, "file"),
        ({"source": "command", "argv": ["/bin/true"]}, "command"),
        (URL, "http"),
        ({**URL, "from": "host"}, "http"),
        ({**URL, "from": "controller"}, None),
        ({"source": "prometheus", "url": "http://h", "queries": {"p95": "a", "p99": "b"}, "unit": "s"}, None),
    ],
)
def test_the_latency_is_asked_here_where_it_is_the_hosts(given: Any, source: str | None) -> None:
    found = observation_info.latency_of(module(latency=given))
    assert found == (None if source is None else latency.read_source("x", given))
    assert source is None or (found.source, found.asked_from) == (source, "host")


def test_a_source_that_cannot_be_is_told_by_its_field() -> None:
    with pytest.raises(FailedError) as failed:
        observation_info.latency_of(module(latency={"source": "file"}))
    (words,) = failed.value.args
    assert words["msg"].endswith("latency.path: is missing; the source file needs it") and words["reason_code"]


def started(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    """What the real module prints."""
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")
    with pytest.raises(SystemExit):
        observation_info.main()
    return dict(json.loads(capsys.readouterr().out))


def test_the_module_as_it_is_started_asks_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"state_dir": str(tmp_path), "collector_state_dir": str(tmp_path), "unit": "ef-no-such-unit.service",
              "collector_unit": "ef-no-other-unit.service", "window": 0}  # fmt: skip
    # Where a controller's part of Ansible is loaded too, a module's warnings go to its screen.
    warned: list[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _self, text: warned.append(text))
    told = {"p95_ns": 10, "p99_ns": 20}
    asked = {"source": "command", "argv": ["/bin/echo", json.dumps(told)]}
    result = started(monkeypatch, capsys, **places, latency=asked)
    seen = result["observation"]["end"]
    assert (result["changed"], seen["application"], seen["application_error"]) == (False, told, None)
    assert (seen["status"], seen["unit"], seen["witness"]["loader"]) == (None, None, None)
    (tmp_path / "bad.json").write_text("{")
    result = started(monkeypatch, capsys, **places, application_file=str(tmp_path / "bad.json"))
    seen = result["observation"]["end"]
    assert seen["application"] is None and seen["application_error"].startswith(f"{tmp_path / 'bad.json'}: is not JSON")
    assert warned == [seen["application_error"]]
    (tmp_path / "status.json").write_text("{}")
    seen = started(monkeypatch, capsys, **places)["observation"]["end"]
    assert (seen["application"], seen["application_error"], seen["status"]) == (None, None, None)
    assert seen["status_error"].startswith(f"{tmp_path / 'status.json'}: ")
    failed = started(monkeypatch, capsys, **{**places, "window": -1})
    assert failed["failed"] is True and "window: -1.0 seconds is out of range" in failed["msg"]


def test_the_host_is_left_to_bake_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    seen: list[Any] = []

    def observe(*arguments: Any) -> dict[str, Any]:
        seen.append((list(slept), *arguments))
        return {"end": {"application_error": None}}

    monkeypatch.setattr(observation_info, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(observation_info, "observe", observe)
    named = {"state_dir": "/a", "collector_state_dir": "/b", "unit": "u", "collector_unit": "c"}
    started(monkeypatch, capsys, bake=7, window=3, application_file="/f", **named)
    ((before, places, host, window, sleep),) = seen
    assert (before, slept, host, window, sleep) == ([7.0], [7.0], platform.node(), 3.0, slept.append)
    assert places == Places(
        state_dir=Path("/a"), collector_dir=Path("/b"), application_file=Path("/f"), unit="u", collector_unit="c"
    )
    started(monkeypatch, capsys)
    assert seen[-1][1] == Places() and seen[-1][3] == 10.0


def test_only_a_linux_host_is_observed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(observation_info.platform, "system", lambda: "Darwin")
    failed = started(monkeypatch, capsys, window=0)
    assert failed["msg"] == "EF_UNSUPPORTED_HOST: Darwin: only Linux hosts can be observed; take this host out"
    assert failed["reason_code"] == "EF_UNSUPPORTED_HOST" and failed["failed"] is True
