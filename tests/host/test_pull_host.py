# SPDX-License-Identifier: GPL-3.0-or-later
"""The pull channel under real systemd, brought by the roles: its timer, its sandbox, its place before the loader."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import publish

from tests.support.httpserver import respond, serving
from tests.support.play import new_key
from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost

PULL, TIMER, LOADER = "ebpf-fleet-pull.service", "ebpf-fleet-pull.timer", "ebpf-fleet-loader.service"
FOLDERS = "/run/ebpf-fleet/kill.d /etc/ebpf-fleet/kill.d"
HOUR = 3600


class Lists:
    """What a static server gives out; None: it is not there."""

    def __init__(self, folder: Path) -> None:
        self.key, line = new_key(folder / "kill-keys")
        self.line = line.strip().replace("release@", "ops@").replace("ebpf-fleet-release", "ebpf-fleet-kill")
        self.data: bytes | None = None
        self.sequence = 0
        self.url = ""

    def publish(self, *orders: dict[str, Any]) -> int:
        self.sequence += 1
        now = int(time.time())
        found = killlist.KillList(self.sequence, now, now + HOUR, killlist.parse_orders(list(orders)))
        self.data = publish.seal(found, self.key)
        return self.sequence

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        respond(request, 404) if self.data is None else respond(request, 200, self.data)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lists]:
    made = Lists(tmp_path_factory.mktemp("lists"))
    assert 'namespaces="ebpf-fleet-kill"' in made.line
    with serving(made.answer) as url:
        made.url = f"{url}/kill-list"
        yield made


def settings(fleet: SysFleet, lists: Lists, **more: Any) -> dict[str, Any]:
    return {
        "ebpf_fleet_allowed_signers": [*fleet.trust.strip().splitlines(), lists.line],
        "ebpf_fleet_pull_location": lists.url, "ebpf_fleet_pull_interval": 10, "ebpf_fleet_pull_lease": 600,
        "ebpf_fleet_pull_wait": 3, "ebpf_fleet_cell": "eu-1", **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def pulling(syshost: SysHost, sysfleet: SysFleet, first: Release, lists: Lists) -> SysHost:
    """A host with a release and the pull channel, which has had its first list."""
    lists.publish()
    sysfleet.deploy(first, **settings(sysfleet, lists))
    until(lambda: (pulled(syshost) or {}).get("sequence") == 1, "the first list is had", syshost)
    return syshost


def until(condition: Callable[[], Any], what: str, host: SysHost, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s\n{words(host)}"
        time.sleep(0.2)


def words(host: SysHost) -> str:
    return host.run(f"journalctl --no-pager -o short-monotonic -u {PULL} -u {LOADER} | tail -40").stdout


def pulled(host: SysHost) -> dict[str, Any] | None:
    said = host.run("cat /run/ebpf-fleet-pull/status.json")
    return json.loads(said.stdout) if said.rc == 0 and said.stdout else None


def attached(host: SysHost) -> list[str]:
    return sorted(name for name, one in status(host)["features"].items() if one["state"] == "attached")


def boot(host: SysHost) -> list[str]:
    """What a boot does: nothing of ours runs, memory is empty, and one transaction starts all that is enabled.

    Returns what systemd and both services have said since.
    """
    host.must(f"systemctl stop {TIMER} {PULL} {LOADER} multi-user.target timers.target")
    host.must("rm -rf /run/ebpf-fleet-pull /run/ebpf-fleet-loader; rm -f /run/ebpf-fleet/kill.d/*")
    cursor = host.must("journalctl -q -n 1 --show-cursor").splitlines()[-1].partition("cursor: ")[2]
    host.must("systemctl reset-failed; systemctl start multi-user.target timers.target", timeout=120)
    until(lambda: host.run(f"systemctl is-active {LOADER}").rc == 0, "the loader is started", host)
    said = host.must(f"journalctl --no-pager -o cat --after-cursor='{cursor}' -u {PULL} -u {LOADER}")
    return said.splitlines()


def first_of(lines: list[str], begin: str) -> int:
    """At which line something was said first."""
    return next(at for at, line in enumerate(lines) if line.startswith(begin))


def attaches(host: SysHost) -> int:
    """How often something was loaded or attached, by the audit."""
    audit = host.must("cat /var/log/ebpf-fleet/audit.jsonl")
    return audit.count('"event":"attach"') + audit.count('"event":"load"')


@pytest.mark.slow
def test_the_roles_bring_it_and_a_second_run_changes_nothing(
    pulling: SysHost, sysfleet: SysFleet, first: Release, lists: Lists
) -> None:
    for unit in (PULL, TIMER):
        assert pulling.run(f"systemctl is-enabled {unit}").rc == 0
    assert pulling.must(f"systemctl is-active {TIMER}") == "active\n"
    found = pulled(pulling)
    assert found is not None and (found["ok"], found["signer"], found["problems"]) == (True, "ops@example.org", [])
    assert pulling.must("cat /run/ebpf-fleet-pull/metrics.prom").count("# TYPE") == 6
    told = json.loads(pulling.must("cat /etc/ebpf-fleet/pull.json"))
    assert (told["host"], told["cell"], told["location"]) == (pulling.name, "eu-1", lists.url)
    played = sysfleet.try_deploy(first, **settings(sysfleet, lists))
    assert played.rc == 0 and "changed=0" in played.text, played.text


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ("touch /etc/ebpf-fleet/kill.d/.probe /run/ebpf-fleet/kill.d/.probe /var/lib/ebpf-fleet/pull/.probe", True),
        ("touch /etc/ebpf-fleet/trust/.probe", False), ("touch /etc/ebpf-fleet/pull.json", False),
        ("touch /var/lib/ebpf-fleet/current/.probe", False),
        ("touch /usr/.probe", False), ("mount -t tmpfs x /mnt", False),
        ("chown 1:1 /run/ebpf-fleet/kill.d", False), ("unshare --net true", False),
    ],
)  # fmt: skip
def test_its_sandbox_lets_through_what_it_does_and_nothing_else(pulling: SysHost, command: str, allowed: bool) -> None:
    place = f"/run/systemd/system/{PULL}.d"
    text = f"[Service]\nExecStart=\nExecStart=/bin/sh -c '{command}'\n"
    pulling.must(f"mkdir -p {place}")
    pulling.path(f"{place}/probe.conf").write_text(text)
    try:
        pulling.must("systemctl daemon-reload")
        assert (pulling.run(f"systemctl start {PULL}").rc == 0) is allowed, words(pulling)
    finally:
        pulling.must(f"rm -r {place}; systemctl daemon-reload; systemctl reset-failed; systemctl start {PULL}")


@pytest.mark.slow
def test_the_timer_brings_orders_and_takes_them_back_with_no_one_at_the_controller(
    pulling: SysHost, lists: Lists
) -> None:
    until(lambda: attached(pulling) == ["exec_events", "runqlat"], "both attached", pulling)
    lists.publish({"scope": "feature=exec_events", "cells": ["eu-1"], "reason": "INC-7"})
    until(lambda: attached(pulling) == ["runqlat"], "the feature is off", pulling)
    assert "placed the order feature.exec_events: INC-7" in words(pulling)
    ids = {int(line.split()[0]) for line in pulling.must("cat /run/ebpf-fleet-loader/programs").splitlines()}
    assert ids & {one["id"] for one in our_programs()}
    lists.publish({"scope": "global", "hosts": [pulling.name]})
    until(lambda: not ids & {one["id"] for one in our_programs()}, "nothing of it is in the kernel", pulling)
    lists.publish({"scope": "global", "hosts": ["another"]})
    until(lambda: attached(pulling) == ["exec_events", "runqlat"], "both attached again", pulling)
    assert pulling.must(f"find {FOLDERS} -type f") == ""


def test_a_host_that_boots_is_off_before_anything_attaches(pulling: SysHost, lists: Lists) -> None:
    pulling.must(f"systemctl stop {TIMER} {LOADER}")
    lists.publish({"scope": "global"})  # while this host was off
    before = attaches(pulling)
    said = boot(pulling)
    assert first_of(said, f"Finished {PULL}") < first_of(said, f"Starting {LOADER}"), said
    until(lambda: status(pulling)["state"] != "starting", "the loader has settled", pulling)
    assert attached(pulling) == [] and attaches(pulling) == before, words(pulling)
    assert {one["reason_code"] for one in status(pulling)["features"].values()} == {"EF_KILLED_GLOBAL"}
    lists.publish()
    until(lambda: attached(pulling) == ["exec_events", "runqlat"], "both attached again", pulling)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "on"), [("keep", ["exec_events", "runqlat"]), ("detach", [])])
def test_a_host_that_boots_without_a_list_does_what_its_policy_says(
    pulling: SysHost, sysfleet: SysFleet, lists: Lists, policy: str, on: list[str]
) -> None:
    played = sysfleet.play("prepare", settings(sysfleet, lists, ebpf_fleet_pull_policy=policy))
    assert played.rc == 0, played.text
    lists.publish()
    pulling.must(f"systemctl start {PULL}")
    lists.data = None
    before = attaches(pulling)
    said = boot(pulling)
    # A visit that finds no list has failed, and the loader starts all the same.
    assert first_of(said, f"Failed to start {PULL}") < first_of(said, f"Starting {LOADER}"), said
    until(lambda: attached(pulling) == on, f"attached is {on}", pulling)
    assert (attaches(pulling) == before) is (policy == "detach")
    found = pulled(pulling)
    assert found is not None and found["detached"] is (policy == "detach")
    assert found["code"] == "EF_KILL_LIST_UNREACHABLE" and "the server answered 404" in words(pulling)
    lists.publish()
    until(lambda: attached(pulling) == ["exec_events", "runqlat"], "both attached again", pulling)


def test_settings_that_cannot_be_used_are_refused_before_anything_is_written(
    pulling: SysHost, sysfleet: SysFleet, lists: Lists
) -> None:
    before = pulling.must("cat /etc/ebpf-fleet/pull.json; stat -c %Y /etc/ebpf-fleet/pull.json")
    short = {"ebpf_fleet_pull_lease": 20, "ebpf_fleet_pull_interval": 11}
    for wrong in ({"ebpf_fleet_pull_location": "ftp://h/x"}, short):
        played = sysfleet.play("prepare", settings(sysfleet, lists, **wrong))
        assert played.rc == 2 and "EF_ARGUMENT: " in played.text and "pull" in played.text, played.text
    assert pulling.must("cat /etc/ebpf-fleet/pull.json; stat -c %Y /etc/ebpf-fleet/pull.json") == before


def test_without_a_location_its_units_go_and_its_orders_stay(
    pulling: SysHost, sysfleet: SysFleet, lists: Lists
) -> None:
    lists.publish({"scope": "feature=exec_events"})
    pulling.must(f"systemctl start {PULL}")
    played = sysfleet.play("prepare", settings(sysfleet, lists, ebpf_fleet_pull_location=""))
    assert played.rc == 0, played.text
    assert pulling.run(f"systemctl cat {PULL}").rc != 0 and pulling.run(f"systemctl cat {TIMER}").rc != 0
    assert pulling.must(f"ls {FOLDERS} | grep -c feature.exec_events") == "2\n"
    again = sysfleet.play("prepare", settings(sysfleet, lists, ebpf_fleet_pull_location=""))
    assert again.rc == 0 and "changed=0" in again.text, again.text
