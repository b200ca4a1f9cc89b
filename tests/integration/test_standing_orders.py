# SPDX-License-Identifier: GPL-3.0-or-later
"""Scopes and standing orders over real OpenSSH: who gets an order, who has yet to, and who gets it later."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_fan_out import Ran, command, environment, play
from tests.integration.test_playbooks import rollout_options
from tests.support import sshhosts

pytestmark = pytest.mark.skipif(bool(sshhosts.why_not()), reason=sshhosts.why_not() or "can be made")

FAMILY = ".".join(platform.release().split(".")[:2])
RELEASE = ("-e", "state=released", "-e", "confirm=release", "-e", 'reason="fixed in 1.2.1"')
CELLS = {"a1": "a", "a2": "a", "b1": "b", "web, blue": "b"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshhosts.Hosts]:
    """Four hosts in two cells, one with an odd name, all with a release of one feature."""
    made = sshhosts.Hosts(tmp_path_factory.mktemp("standing"), first=800)
    try:
        for name, cell in CELLS.items():
            made.add("good", name, ebpf_fleet_cell=cell)
        made.wait()
        for name in CELLS:
            made.inside(name, "mkdir", "-p", "/var/lib/ebpf-fleet/current/bundle/features/exec_events")
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def no_orders(request: pytest.FixtureRequest) -> None:
    """Every test begins without an order on a host."""
    if "fleet" in request.fixturenames:
        for name in CELLS:
            clean(request.getfixturevalue("fleet"), name)


def clean(fleet: sshhosts.Hosts, name: str) -> None:
    fleet.inside(name, "rm", "-rf", "/run/ebpf-fleet", "/etc/ebpf-fleet")


def order(folder: Path, fleet: sshhosts.Hosts, *options: str, playbook: str = "rollback") -> tuple[Ran, dict[str, Any]]:
    record = folder / "record.json"
    record.unlink(missing_ok=True)
    given = ("-e", "ebpf_fleet_report=record.json") if playbook == "rollback" else ()
    state = str(folder / "state")
    ran = play(folder, f"ebpf.fleet.{playbook}", fleet.inventory(), *given, *options, XDG_STATE_HOME=state)
    return ran, json.loads(record.read_text()) if record.exists() else {}


def on(fleet: sshhosts.Hosts, name: str) -> list[str]:
    """The orders on a host, in both folders alike."""
    found = [
        fleet.inside(name, "sh", "-c", f"ls /{place}/ebpf-fleet/kill.d 2>/dev/null || true").split()
        for place in ("run", "etc")
    ]
    assert found[0] == found[1], (name, found)
    return found[0]


def kept(folder: Path, taken: bool = False) -> list[dict[str, Any]]:
    place = folder / "state/ebpf-fleet/orders" / ("released" if taken else "")
    return [json.loads(path.read_text()) for path in sorted(place.glob("*.json"))]


def test_a_cell_gets_its_order_and_no_other_host_is_asked(tmp_path: Path, fleet: sshhosts.Hosts) -> None:
    ran, record = order(tmp_path, fleet, "-e", "scope=cell=a", "-e", 'reason="load of 20"')
    assert ran.rc == 0 and record["off"] == ["a1", "a2"] == sorted(record["hosts"]), ran.text
    assert [on(fleet, name) for name in CELLS] == [["global"], ["global"], [], []]
    (own,) = kept(tmp_path)
    assert (own["scope"], own["placed"], own["outstanding"]) == (["cell=a"], ["a1", "a2"], [])
    assert own["reason"] == "load of 20" and own["everywhere"] is True and own["who"]
    ran, record = order(tmp_path, fleet, "-e", "scope=cell=a", *RELEASE)
    assert ran.rc == 0 and record["concerned"] == ["a1", "a2"], ran.text
    assert [on(fleet, name) for name in CELLS] == [[], [], [], []] and kept(tmp_path) == []
    (gone,) = kept(tmp_path, taken=True)
    assert gone["release"]["reason"] == "fixed in 1.2.1" and gone["release"]["who"] and gone["placed"] == ["a1", "a2"]


def test_terms_hold_together_and_the_family_is_decided_on_the_host(tmp_path: Path, fleet: sshhosts.Hosts) -> None:
    """Of a family that the hosts are not, the feature's order is not placed, as it would turn the feature off there."""
    ran, record = order(tmp_path, fleet, "-e", f"scope=feature=exec_events,kernel_family={FAMILY},cell=b")
    assert ran.rc == 0 and record["off"] == ["b1", "web, blue"], ran.text
    assert [on(fleet, name) for name in CELLS] == [[], [], ["feature.exec_events"], ["feature.exec_events"]]
    ran, record = order(tmp_path, fleet, "-e", "scope=feature=exec_events,kernel_family=2.6,cell=a")
    assert ran.rc == 2 and record["numbers"]["placed"] == 0 and record["numbers"]["not_concerned"] == 2, ran.text
    assert "No host is of kernel family 2.6" in " ".join(record["verdict"])
    assert [on(fleet, name) for name in CELLS][:2] == [[], []]
    passed = {tuple(one["scope"]): (one["placed"], one["not_placed"]) for one in kept(tmp_path)}
    assert passed[("feature=exec_events", "kernel_family=2.6", "cell=a")] == ([], ["a1", "a2"])
    # One that is placed for another reason is another order.
    ran, _record = order(tmp_path, fleet, "-e", "scope=feature=exec_events,kernel_family=2.6,cell=b",
                         "-e", "allow_unconcerned=true", *RELEASE)  # fmt: skip
    assert ran.rc == 0 and on(fleet, "b1") == ["feature.exec_events"], ran.text


def test_an_order_of_a_family_is_taken_back_after_the_kernel_changed(tmp_path: Path, fleet: sshhosts.Hosts) -> None:
    """What the order's file says, as the host is now of another family than it was then."""
    for place in ("run", "etc"):
        folder = f"/{place}/ebpf-fleet/kill.d"
        fleet.inside("a1", "sh", "-c", f"mkdir -p {folder}; echo family 2.6 >{folder}/feature.exec_events")
    scope = ("-e", "scope=feature=exec_events,kernel_family=2.6,host=a1")
    ran, record = order(tmp_path, fleet, *scope, *RELEASE)
    assert ran.rc == 0 and record["concerned"] == ["a1"] and on(fleet, "a1") == [], ran.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cell=aa", "cell=aa is the cell of no host; did you mean 'a'?"),
        ("host=a11", "host=: 'a11' matches no host and no group; did you mean 'a1'?"),
        ("cell=a,host=b1", "each of its terms means hosts, but all together"),
        ("cell=a,cell=b", "cell= is given twice"),
        ("host=b1 --limit a1", "all together, with --limit, mean none"),
    ],
)
@pytest.mark.sample(3)
def test_a_scope_that_means_no_host_is_refused_before_anything(
    tmp_path: Path, fleet: sshhosts.Hosts, given: str, words: str
) -> None:
    scope, *more = given.split()
    ran, record = order(tmp_path, fleet, "-e", f"scope={scope}", *more)
    assert ran.rc == 2 and words in " ".join(ran.text.split()), ran.text
    assert record == {} and kept(tmp_path) == [] and "fan-out" not in ran.text
    assert [on(fleet, name) for name in CELLS] == [[], [], [], []]


@pytest.mark.slow
def test_a_pattern_or_an_exact_name_gets_the_order_and_a_name_that_is_not_there_is_told(
    tmp_path: Path, fleet: sshhosts.Hosts
) -> None:
    ran, record = order(tmp_path, fleet, "-e", json.dumps({"scope": ["host=web, blue"]}))
    assert ran.rc == 0 and record["off"] == ["web, blue"], ran.text
    ran, record = order(tmp_path, fleet, "-e", "scope=host=a*,b1,c9")
    assert ran.rc == 2 and record["off"] == ["a1", "a2", "b1"] and "'c9' matches no host" in ran.text, ran.text
    assert [on(fleet, name) for name in CELLS] == [["global"]] * 4
    # The way that the verdict of a release names works for a name that a pattern would take apart.
    ran, record = order(tmp_path, fleet, "-e", json.dumps({"scope": ["host=web, blue"]}), *RELEASE)
    assert ran.rc == 0 and on(fleet, "web, blue") == [], ran.text


def test_an_order_is_taken_back_by_name_and_with_a_reason_alone(tmp_path: Path, fleet: sshhosts.Hosts) -> None:
    ran, _record = order(tmp_path, fleet, "-e", "scope=global")
    assert ran.rc == 0, ran.text
    exact = "ansible-playbook ebpf.fleet.rollback -e scope=global -e state=released -e confirm=release -e 'reason="
    for given in ((), ("-e", "confirm=release"), ("-e", "reason=fixed"), ("-e", "confirm=yes", "-e", "reason=fixed")):
        ran, record = order(tmp_path, fleet, "-e", "scope=global", "-e", "state=released", *given)
        assert ran.rc == 2 and exact in ran.text.replace('\\"', '"') and record == {}, ran.text
        assert on(fleet, "a1") == ["global"] and kept(tmp_path)[0]["release"] is None


@pytest.mark.slow
def test_orders_that_stand_are_listed_and_nothing_is_changed(tmp_path: Path, fleet: sshhosts.Hosts) -> None:
    ran, _record = order(tmp_path, fleet, "-e", "state=list")
    assert ran.rc == 0 and "no order stands" in ran.text and not (tmp_path / "state").exists(), ran.text
    fleet.variables["gone"] = {**fleet.variables["a1"], "ansible_port": 1}
    try:
        ran, record = order(tmp_path, fleet, "-e", "scope=host=a1,gone", "-e", "ebpf_fleet_connect_timeout=5")
        assert ran.rc == 2 and record["missing"] == ["gone"], ran.text
        before = (tmp_path / "state/ebpf-fleet/orders").stat().st_mtime_ns
        ran, _record = order(tmp_path, fleet, "-e", "state=list")
    finally:
        del fleet.variables["gone"]
    (own,) = kept(tmp_path)
    said = " ".join(ran.text.replace("''", "'").split())
    assert ran.rc == 0 and f"{own['id']} scope=host=a1,gone since {own['since']} by {own['who']}" in said, ran.text
    assert "1 confirmed 1 outstanding: 'gone'" in said and "Engage or release" not in said
    assert (tmp_path / "state/ebpf-fleet/orders").stat().st_mtime_ns == before


@pytest.mark.slow
def test_what_another_order_needs_stays_where_one_is_taken_back(tmp_path: Path, fleet: sshhosts.Hosts) -> None:
    for scope in ("cell=a", "global"):
        ran, _record = order(tmp_path, fleet, "-e", f"scope={scope}")
        assert ran.rc == 0, ran.text
    ran, record = order(tmp_path, fleet, "-e", "scope=global", *RELEASE)
    assert ran.rc == 0 and record["concerned"] == ["b1", "web, blue"], ran.text
    assert [on(fleet, name) for name in CELLS] == [["global"], ["global"], [], []]
    assert "stays off: order" in " ".join(record["verdict"]) and [one["scope"] for one in kept(tmp_path)] == [
        ["cell=a"]
    ]
    # Where it would change nothing at all it is no success.
    ran, record = order(tmp_path, fleet, "-e", "scope=host=a1", *RELEASE)
    assert ran.rc == 2 and on(fleet, "a1") == ["global"], ran.text


# A host that was off when the order came.


@pytest.fixture
def missed(tmp_path: Path, fleet: sshhosts.Hosts) -> Iterator[str]:
    """A host that was off when an order came, one that proves nothing by the kernel, and is on again."""
    name = "a2"
    before = fleet.variables[name]
    fleet.variables[name] = {**before, "ansible_port": 1}
    ran, record = order(tmp_path, fleet, "-e", "scope=kernel_family=2.6")
    fleet.variables[name] = before
    assert ran.rc == 2 and record["missing"] == [name] and on(fleet, name) == [], ran.text
    (own,) = kept(tmp_path)
    assert own["outstanding"] == [name] and own["placed"] == ["a1", "b1", "web, blue"]
    yield name


SIGNERS = json.dumps({"ebpf_fleet_allowed_signers": ["me ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"]})
FILES = "test -e /etc/systemd/system/ebpf-fleet-loader.service && echo there || echo none"


@pytest.mark.slow
def test_prepare_gives_a_host_the_order_that_it_missed_before_anything_else(
    tmp_path: Path, fleet: sshhosts.Hosts, missed: str
) -> None:
    # Where it cannot have it, nothing of it is prepared: both folders are in the way of the order.
    block = "for one in /run /etc; do rm -rf $one/ebpf-fleet; mkdir $one/ebpf-fleet; : >$one/ebpf-fleet/kill.d; done"
    fleet.inside(missed, "sh", "-c", block)
    options = ("--limit", missed, "-e", SIGNERS)
    ran, _record = order(tmp_path, fleet, *options, playbook="prepare")
    assert ran.rc == 2 and "EF_ORDER_STANDS: a2: order " in ran.text, ran.text
    assert "no order can be placed" in " ".join(ran.text.split()), ran.text
    assert fleet.inside(missed, "sh", "-c", FILES) == "none\n" and kept(tmp_path)[0]["outstanding"] == [missed]
    clean(fleet, missed)
    # What prepare then makes of a host without systemd is of no interest here.
    order(tmp_path, fleet, *options, playbook="prepare")
    assert on(fleet, missed) == ["family.2.6"] and kept(tmp_path)[0]["outstanding"] == []


def test_a_release_is_deployed_only_behind_the_order_that_the_host_missed(
    tmp_path: Path, fleet: sshhosts.Hosts, missed: str, bundle: Path
) -> None:
    """What is taken away attaches nothing, and is not held up."""
    deploy = tmp_path / "deploy.yml"
    task = {"ebpf.fleet.release": {"bundle": str(bundle), "state": "{{ wanted }}"}}
    deploy.write_text(json.dumps([{"hosts": missed, "gather_facts": False, "tasks": [task]}]))
    block = "for one in /run /etc; do rm -rf $one/ebpf-fleet; mkdir $one/ebpf-fleet; : >$one/ebpf-fleet/kill.d; done"
    fleet.inside(missed, "sh", "-c", block)

    def run(wanted: str) -> str:
        options = ("-e", f"wanted={wanted}")
        return play(tmp_path, str(deploy), fleet.inventory(), *options, XDG_STATE_HOME=str(tmp_path / "state")).text

    assert "EF_ORDER_STANDS: a2: order " in run("present")
    assert fleet.inside(missed, "ls", "/var/lib/ebpf-fleet") == "current\n", "nothing was brought"
    assert "EF_ORDER_STANDS" not in run("absent")
    clean(fleet, missed)
    assert "EF_ORDER_STANDS" not in run("present") and on(fleet, missed) == ["family.2.6"]


@pytest.mark.slow
def test_the_way_back_gives_a_host_the_order_that_it_missed_and_goes_back_only_then(
    tmp_path: Path, fleet: sshhosts.Hosts, missed: str
) -> None:
    fleet.inside(
        missed,
        "sh",
        "-c",
        "mkdir -p /run/ebpf-fleet /etc/ebpf-fleet; : >/run/ebpf-fleet/kill.d; : >/etc/ebpf-fleet/kill.d",
    )
    back = ("-e", f"scope=previous,host={missed}")
    ran, record = order(tmp_path, fleet, *back)
    assert ran.rc == 2 and "did not go back: order " in record["hosts"][missed]["detail"], ran.text
    assert kept(tmp_path)[0]["outstanding"] == [missed] and list(record["hosts"]) == [missed]
    clean(fleet, missed)
    ran, record = order(tmp_path, fleet, *back)
    assert on(fleet, missed) == ["family.2.6"] and kept(tmp_path)[0]["outstanding"] == []
    assert "did not go back" not in record["hosts"][missed]["detail"], "it was asked"


@pytest.mark.slow
def test_a_rollout_gives_the_order_first_and_refuses_hosts_that_came_later(
    tmp_path: Path, fleet: sshhosts.Hosts, missed: str, bundle: Path
) -> None:
    place = {"ebpf_fleet_region": "r", "ebpf_fleet_fleet_percent": 100, "ebpf_fleet_cell_percent": 100}
    options = (*rollout_options(bundle)[:2], "-e", json.dumps(place))
    (own,) = kept(tmp_path)
    # As the inventory was before b1 was added to it.
    before = {**own, "scope": ["global"], "placed": ["a1", "web, blue"]}
    (tmp_path / f"state/ebpf-fleet/orders/{own['id']}.json").write_text(json.dumps(before))
    ran, _record = order(tmp_path, fleet, *options, playbook="rollout")
    said = " ".join(ran.text.split())
    assert ran.rc == 2 and "EF_ORDER_STANDS: a kill order stands on a1, a2, web, blue (global)" in said, ran.text
    assert f"b1: order {own['id']} (scope=global, by {own['who']}) stands, and this host was not there" in said
    assert "Measure before" not in ran.text and on(fleet, missed) == ["global"]
    assert kept(tmp_path)[0]["outstanding"] == []


# What becomes of the record when the controller is not well.


def begun(folder: Path, fleet: sshhosts.Hosts, *options: str) -> subprocess.Popen[bytes]:
    """The playbook, in a session of its own."""
    env = {**environment(), "XDG_STATE_HOME": str(folder / "state"), "PWD": str(folder)}
    with (folder / f"said-{time.monotonic_ns()}.log").open("wb") as log:
        return subprocess.Popen(
            command("ebpf.fleet.rollback", fleet.inventory(), *options), env=env, cwd=folder, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 90
    while not (seen := found()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return seen


@pytest.mark.slow
def test_a_controller_that_dies_while_hosts_are_asked_leaves_the_order_standing(
    tmp_path: Path, fleet: sshhosts.Hosts
) -> None:
    with sshhosts.hosts(tmp_path, "silent", first=860) as hung:
        (silent,) = hung.names
        fleet.variables[silent] = hung.variables[silent]
        try:
            process = begun(tmp_path, fleet, "-e", "scope=global", "-e", "ebpf_fleet_connect_timeout=60")
            until(lambda: on(fleet, "a1") == ["global"], "a1 was not asked")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        finally:
            del fleet.variables[silent]
    (own,) = kept(tmp_path)
    assert own["outstanding"] == sorted([*CELLS, silent]) and own["placed"] == []
    # The same command again ends it; the host that the inventory no longer has goes with the release.
    ran, _record = order(tmp_path, fleet, "-e", "scope=global")
    assert ran.rc == 0 and kept(tmp_path)[0]["id"] == own["id"], ran.text
    assert (kept(tmp_path)[0]["placed"], kept(tmp_path)[0]["outstanding"]) == (sorted(CELLS), [silent])
    ran, _record = order(tmp_path, fleet, "-e", "scope=global", *RELEASE)
    assert ran.rc == 0 and kept(tmp_path) == [], ran.text


def test_a_full_disk_is_told_and_the_kill_goes_on_and_nothing_is_taken_back(
    tmp_path: Path, fleet: sshhosts.Hosts
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    full = (
        f"mount -t tmpfs -o size=16k tmpfs {state}; mkdir -p {state}/ebpf-fleet/orders/released;"
        f' cat /dev/zero >{state}/x; exec "$@"'
    )

    def run(*options: str) -> str:
        env = {**environment(), "XDG_STATE_HOME": str(state), "PWD": str(tmp_path)}
        ran = subprocess.run(
            ["unshare", "-m", "sh", "-c", full, "sh", *command("ebpf.fleet.rollback", fleet.inventory(), *options)],
            env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        return f"{ran.returncode} " + " ".join((ran.stdout + ran.stderr).split())

    said = run("-e", "scope=cell=a")
    assert said.startswith("0 ") and said.count("NOT KEPT ON THE CONTROLLER: EF_DISK_FULL") >= 2, said
    assert [on(fleet, name) for name in CELLS] == [["global"], ["global"], [], []]
    said = run("-e", "scope=cell=a", *RELEASE)
    assert said.startswith("2 ") and "EF_DISK_FULL" in said and on(fleet, "a1") == ["global"], said


@pytest.mark.slow
def test_two_operators_at_once_both_have_their_orders(tmp_path: Path, fleet: sshhosts.Hosts) -> None:
    scopes = ("cell=a", "cell=b", "feature=exec_events", "feature=exec_events")
    running = [begun(tmp_path, fleet, "-e", f"scope={one}") for one in scopes]
    assert [process.wait(200) for process in running] == [0, 0, 0, 0], [
        one.read_text() for one in tmp_path.glob("*.log")
    ]
    found = {tuple(one["scope"]): one for one in kept(tmp_path)}
    assert {scope: one["placed"] for scope, one in found.items()} == {
        ("cell=a",): ["a1", "a2"], ("cell=b",): ["b1", "web, blue"], ("feature=exec_events",): sorted(CELLS),
    }  # fmt: skip
    assert all(one["outstanding"] == [] for one in found.values()) and len(kept(tmp_path)) == 3
    assert [on(fleet, name) for name in CELLS] == [["feature.exec_events", "global"]] * 4


@pytest.mark.slow
def test_a_store_that_cannot_be_read_keeps_no_kill_from_going_on_and_lets_nothing_attach(
    tmp_path: Path, fleet: sshhosts.Hosts
) -> None:
    store = tmp_path / "state/ebpf-fleet/orders"
    store.mkdir(parents=True)
    (store / "20261128-190501-3f1c2a.json").write_text('{"schema": "x"')
    ran, _record = order(tmp_path, fleet, "-e", "scope=host=a1")
    said = " ".join(ran.text.split())
    assert ran.rc == 0 and on(fleet, "a1") == ["global"] and "NOT KEPT ON THE CONTROLLER: EF_ORDER_STORE" in said, (
        ran.text
    )
    for options, playbook in ((("-e", "state=list"), "rollback"), (("-e", "scope=previous"), "rollback"),
                              (("-e", SIGNERS), "prepare")):  # fmt: skip
        ran, _record = order(tmp_path, fleet, "--limit", "a1", *options, playbook=playbook)
        assert ran.rc == 2 and "EF_ORDER_STORE" in ran.text and "20261128-190501-3f1c2a.json" in ran.text, ran.text
        assert fleet.inside("a1", "sh", "-c", FILES) == "none\n"
