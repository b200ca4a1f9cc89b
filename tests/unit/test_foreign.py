# SPDX-License-Identifier: GPL-3.0-or-later
"""Others' programs: what is meant, what is done and written down, what puts it back, and the proof."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import answer, find, plan, proof, record, target, undo
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.target import Target
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.orders import ScopeError

UNIT = Target("unit", "net-agent.service")
TAG = "0123456789abcdef"
GROUP = "/system.slice/net-agent.service"
NETNS = 4026531840


def process(pid: int, comm: str = "agent", unit: str | None = UNIT.name, cgroup: str | None = GROUP) -> dict[str, Any]:
    return {"pid": pid, "comm": comm, "exe": f"/opt/{comm}", "uid": 0, "cgroup": cgroup, "unit": unit,
            "container": None}  # fmt: skip


def program(number: int, *pids: int, tag: str = TAG, kind: str = "xdp", **more: Any) -> dict[str, Any]:
    owner = {"kind": "unknown", "name": None, "guess": False, "why": "no process holds it"}
    return {"id": number, "name": f"p{number}", "tag": tag, "type": kind, "ours": False, "points": [], "pins": [],
            "holders": [{"pid": pid, "by": ["program"]} for pid in pids], "owner": owner, **more}  # fmt: skip


def attachment(number: int, hook: str = "xdp", where: str | None = "eth0", **more: Any) -> dict[str, Any]:
    point = f"{hook}:{where}" if where else hook
    return {"program_id": number, "hook": hook, "target": where, "point": point, "mode": None, "decides": False,
            "netns": NETNS, "link_id": None, "map_id": None, "source": "netlink", **more}  # fmt: skip


def inventory(
    programs: list[dict[str, Any]] | None, processes: list[dict[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    found = {str(one["pid"]): one for one in processes or ()}
    namespace = {"inode": NETNS, "name": None, "pid": None, "own": True, "asked": True}
    return {"programs": programs, "processes": found, "attachments": [], "links": [], "pins": [], "unknown": [],
            "network_namespaces": [namespace], "boot_id": "b", **more}  # fmt: skip


def facts(**more: Any) -> plan.Facts:
    unit = {"name": UNIT.name, "id": UNIT.name, "active": "active", "enabled": "enabled", "control_group": GROUP,
            "transient": False, "mask_path": f"/etc/systemd/system/{UNIT.name}"}  # fmt: skip
    known: dict[str, Any] = {"units": {UNIT.name: unit}, "started": {7: 70, 8: 80}, "filters": {},
                             "interfaces": {(NETNS, "eth0"): 2}, "own_pids": (100, 1), "own_unit": None}  # fmt: skip
    return plan.Facts(**{**known, **more})


# ---- what is meant ----


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("unit=net-agent.service", UNIT),
        (r"unit=a\x2db@1:2.scope", Target("unit", r"a\x2db@1:2.scope")),
        (f"program={TAG}", Target("program", TAG)),
        (["unit=net-agent.service"], UNIT),
    ],
)
def test_a_target_is_a_unit_or_a_tag(given: Any, meant: Target) -> None:
    assert target.parse(given) == meant
    assert target.parse(meant.text) == meant and meant.confirmation == f"takeoff-{meant.text}"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("unit=net-agent", "did you mean unit=net-agent.service?"),
        ("unit=", "unit= needs the full name of a systemd unit"),
        ("unit=../x.service", "unit= needs"),
        ("unit=a.timer", "unit= needs"),
        (f"unit={'a' * 231}.service", "unit= needs"),
        ("program=0123456789ABCDEF", f"did you mean program={TAG}?"),
        ("program=12", "a program's tag of 16 hex digits"),
        (f"program={TAG}0", "a program's tag of 16 hex digits"),
        ("unit=a.service,unit=b.service", "unit= is given twice"),
        (f"program={TAG},program={TAG}", "program= is given twice"),
        (f"unit=a.service,program={TAG}", "join unit=NAME or program=TAG with cell= and host= alone"),
        ("unit=a.service,feature=x", "with cell= and host= alone"),
        ("unit=a.service,kernel_family=6.1", "with cell= and host= alone"),
        ("unit=a.service,previous", "with cell= and host= alone"),
        ("global", "ansible-playbook ebpf.fleet.rollback -e scope=global"),
        ("feature=x,cell=a", "ansible-playbook ebpf.fleet.rollback -e scope=feature=x,cell=a"),
        ("cell=a", "names no program of others"),
    ],
)
def test_another_scope_is_refused_with_what_can_be_meant(given: str, words: str) -> None:
    with pytest.raises(ScopeError) as caught:
        scope.read_foreign(given)
    assert words in caught.value.message


def test_cell_and_host_join_and_the_command_can_be_typed_again() -> None:
    wanted = scope.read_foreign("unit=a.service,cell=c,host=web*,db,host=x")
    assert (wanted.unit, wanted.cell, wanted.hosts) == ("a.service", "c", ("web*,db", "x"))
    assert wanted.foreign == "unit=a.service" and wanted.chooses_hosts
    assert scope.argument(scope.read_foreign("unit=a.service,cell=c")) == "-e scope=unit=a.service,cell=c"
    odd = scope.read_foreign(r"unit=a\x2d.service")
    assert json.loads(scope.argument(odd)[4:-1]) == {"scope": [odd.foreign]}


@pytest.mark.parametrize("given", ["unit=a.service", f"program={TAG},cell=a"])
def test_the_kill_switch_refuses_it_with_the_command_to_type_instead(given: str) -> None:
    for call in (lambda: scope.read(given), lambda: scope.on_host([given])):
        with pytest.raises(ScopeError) as caught:
            call()
        assert f"ansible-playbook ebpf.fleet.takeoff -e scope={given} --check --diff" in caught.value.message
    assert f"ebpf.fleet.takeoff -e scope={given}" in scope.refusal(given, "engaged")


# ---- what is confirmed ----


@pytest.mark.parametrize(
    ("state", "confirm", "reason", "check", "words"),
    [
        ("engaged", "takeoff-unit=net-agent.service", "why", False, ""),
        ("engaged", "", "", True, ""),
        ("released", "release", "why", False, ""),
        ("engaged", "", "why", False, "confirm must be given"),
        ("engaged", "takeoff-unit=net-agent.service", " ", False, "reason must be given"),
        ("engaged", "yes", "", False, "confirm 'yes' is not takeoff-unit=net-agent.service. "),
        ("engaged", "release", "why", False, "confirm must be given"),
        ("released", "takeoff-unit=net-agent.service", "why", False, "is not release"),
        ("engage", "", "", True, "state 'engage' is not one"),
    ],
)
def test_nothing_is_done_without_its_confirmation_and_a_reason(
    state: str, confirm: str, reason: str, check: bool, words: str
) -> None:
    said = target.refusal(UNIT.text, state, confirm, reason, check)
    assert words in said and bool(said) is bool(words)
    if words and state != "engage":
        assert (
            "ansible-playbook ebpf.fleet.takeoff -e scope=unit=net-agent.service " in said
            and "no host was asked" in said
        )
        assert ("-e confirm=takeoff-unit=net-agent.service -e 'reason=" in said) is (state == "engaged")


def test_a_scope_that_cannot_be_meant_is_refused_in_check_mode_too() -> None:
    assert "did you mean unit=a.service?" in target.refusal("unit=a", "engaged", "", "", True)
    for given in (None, "", " "):
        assert target.refusal(given, "engaged", "", "", True).startswith(
            "Say what to take off with -e scope=: write unit="
        )


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("ebpf-fleet-loader.service", "ebpf.fleet.rollback -e scope=global"),
        ("ebpf-fleet-bcc.service", "ebpf.fleet.rollback"),
        ("init.scope", "keeps the host up or reachable"),
        ("systemd-networkd.service", "keeps the host up or reachable"),
        ("user@1000.service", "keeps the host up or reachable"),
        ("sshd.service", "keeps the host up or reachable"),
        ("ssh.service", "keeps the host up or reachable"),
        ("sshd@3-1.2.3.4.service", "keeps the host up or reachable"),
        ("dbus.service", "keeps the host up or reachable"),
        ("dbus-broker.service", "keeps the host up or reachable"),
        ("session-3.scope", "in which this very command runs"),
        ("net-agent.service", ""),
        ("my-systemd-thing.service", ""),
        ("sshguard.service", ""),
    ],
)
def test_what_keeps_a_host_up_or_reachable_is_never_stopped(unit: str, words: str) -> None:
    said = target.unit_refusal(unit, "session-3.scope")
    assert words in said and bool(said) is bool(words)


@pytest.mark.parametrize(("pid", "comm", "refused"), [(1, "x", True), (9, "systemd", True), (9, "sshd", True),
                                                      (100, "python3", True), (9, "agent", False)])  # fmt: skip
def test_such_a_process_is_never_ended(pid: int, comm: str, refused: bool) -> None:
    assert bool(target.process_refusal(pid, comm, (100, 50))) is refused


# ---- what belongs to it ----


def test_of_a_unit_is_what_its_processes_hold() -> None:
    host = inventory([program(1, 7), program(2, 8), program(3)], [process(7), process(8, unit="b.service")])
    found = find.find(host, UNIT, GROUP)
    assert ([one["id"] for one in found.programs], found.pids, found.shared) == ([1], [7], {})


def test_a_guess_is_told_and_left() -> None:
    guess = {"kind": "unit", "name": UNIT.name, "guess": True, "why": "it holds a map"}
    host = inventory([program(1, 7), program(2, owner=guess, points=["xdp:eth0"])], [process(7)])
    found = find.find(host, UNIT, GROUP)
    assert found.ids == {1}
    (said,) = found.told
    assert "p2 (id 2" in said and "is a guess (it holds a map)" in said and f"-e scope=program={TAG}" in said


def test_what_another_holds_too_is_left_but_for_init_which_keeps_descriptors_of_units() -> None:
    rows = [process(7), process(8, unit="b.service"), process(1, "systemd", "init.scope", "/init.scope")]
    found = find.find(inventory([program(1, 7, 8), program(2, 7, 1)], rows), UNIT, GROUP)
    assert (found.ids, found.shared, found.pids) == ({2}, {1: [8]}, [7])


def test_a_unit_of_that_name_in_a_container_is_not_this_hosts() -> None:
    inner = process(9, cgroup=f"/system.slice/docker-1.scope{GROUP}")
    found = find.find(inventory([program(1, 7), program(2, 9)], [process(7), inner]), UNIT, GROUP)
    assert found.ids == {1} and "of another systemd" in found.told[0]
    assert find.find(inventory([program(2, 9)], [inner]), UNIT, None).ids == {2}


def test_of_a_tag_are_all_with_it_and_all_their_holders() -> None:
    host = inventory([program(1, 7), program(2, 8), program(3, 8, tag="f" * 16)], [process(7), process(8)])
    found = find.find(host, Target("program", TAG), None)
    assert (found.ids, found.pids, found.shared) == ({1, 2}, [7, 8], {})


def test_what_was_found_earlier_in_this_boot_is_of_the_unit_still() -> None:
    host = inventory([program(1), program(2, tag="f" * 16)])
    assert find.find(host, UNIT, None, {(1, TAG), (2, TAG)}).ids == {1}
    made = record.Record(UNIT, "", "b", "", "", False, record.shown([program(1, kind="xdp")]), [])
    assert made.known("b") == {(1, TAG)} and made.known("c") == set() and made.known(None) == set()


@pytest.mark.parametrize(
    ("kind", "name", "known", "words"),
    [
        ("unit", "net-agnet.service", False, "no unit net-agnet.service, and no process of such a unit"),
        ("unit", "net-agnet.service", True, "none of its processes holds an eBPF program"),
        ("program", "0123456789abcdee", False, "no program of tag 0123456789abcdee is in this host's kernel"),
    ],
)
def test_what_is_not_there_is_told_with_near_names(kind: str, name: str, known: bool, words: str) -> None:
    host = inventory([program(1, 7), program(2, tag="e" * 16, ours=True)], [process(7)])
    problem = find.absent(host, Target(kind, name), known)
    assert problem is not None and problem.code == "EF_TAKEOFF_ABSENT" and words in problem.message
    near = UNIT.text if kind == "unit" else f"program={TAG}"
    assert problem.message.endswith(f"did you mean {near}?")


@pytest.mark.parametrize(("count", "more"), [(1, ""), (3, ""), (5, " and 2 more")])
def test_what_an_ended_unit_may_have_left_attached_is_told(count: int, more: str) -> None:
    left = [program(n, tag=f"{n:016x}", points=["xdp:eth0"]) for n in range(count)]
    quiet = [program(7, 7, points=["xdp:eth1"]), program(8), program(9, ours=True, points=["xdp:eth2"])]
    problem = find.absent(inventory([*left, *quiet], [process(7)]), UNIT, True)
    shown = ", ".join(f"program={one['tag']}" for one in left[:3])
    words = f"holds an eBPF program, but what is attached and held by no process may have been its: {shown}{more}; "
    assert problem is not None and problem.code == "EF_TAKEOFF_ABSENT" and words in problem.message


@pytest.mark.parametrize(
    ("kind", "unknown", "code"),
    [
        ("unit", "processes: stopped after 3 for want of time", "EF_TAKEOFF_UNCONFIRMED"),
        ("program", "programs: stopped after 3 for want of time", "EF_TAKEOFF_UNCONFIRMED"),
        ("program", "processes: stopped after 3 for want of time", "EF_TAKEOFF_ABSENT"),
        ("unit", "tc filters: EPERM from netlink", "EF_TAKEOFF_ABSENT"),
    ],
)
def test_where_not_all_was_asked_nothing_is_said_to_be_absent(kind: str, unknown: str, code: str) -> None:
    problem = find.absent(inventory([], unknown=[unknown]), Target(kind, "x.service"), False)
    assert problem is not None and problem.code == code


def test_a_kernel_that_lists_nothing_is_no_answer() -> None:
    with pytest.raises(FleetError) as caught:
        find.find(inventory(None), UNIT, GROUP)
    assert caught.value.code == "EF_TAKEOFF_UNCONFIRMED"


# ---- what is done ----


def planned(host: dict[str, Any], remove_pins: bool = False, wanted: Target = UNIT, **more: Any) -> plan.Plan:
    return plan.plan(host, find.find(host, wanted, GROUP), facts(**more), remove_pins)


def does(made: plan.Plan) -> list[str]:
    return [step["key"] for step in made.steps]


def test_a_unit_is_stopped_and_masked_once_and_what_outlives_it_detached() -> None:
    host = inventory([program(1, 7, 8)], [process(7), process(8)], attachments=[attachment(1, mode="generic")])
    made = planned(host)
    assert does(made) == ["keep:1", f"stop:{UNIT.name}", f"mask:{UNIT.name}", f"xdp:{NETNS}:2:generic"]
    stop, mask, detach = made.steps[1:]
    assert (stop["active"], stop["enabled"], stop["transient"]) == ("active", "enabled", False)
    assert mask["path"] == f"/etc/systemd/system/{UNIT.name}"
    assert detach["back"] == {"how": "xdp", "ifindex": 2, "mode": "generic"} and detach["netns"] == NETNS
    assert plan.lines(made)[-1].endswith("network namespace of the host, where it outlives that")


def test_a_unit_that_is_masked_is_not_masked_again_and_one_that_cannot_be_is_told() -> None:
    host = inventory([program(1, 7)], [process(7)])
    unit = facts().units[UNIT.name]
    assert does(planned(host, units={UNIT.name: {**unit, "enabled": "masked"}})) == [f"stop:{UNIT.name}"]
    made = planned(host, units={UNIT.name: {**unit, "mask_path": None}})
    assert does(made) == [f"stop:{UNIT.name}"] and "cannot be masked" in made.left[0]


@pytest.mark.parametrize(
    ("row", "more"),
    [
        (process(7, unit=None, cgroup="/"), {}),
        (process(7), {"units": {}}),
        (process(7, unit="session-1.scope", cgroup="/user.slice/session-1.scope"),
         {"units": {"session-1.scope": {"name": "session-1.scope", "control_group": "/user.slice/session-1.scope"}}}),
        # Of a user's systemd, or of another host's: this one's unit of that name is elsewhere.
        (process(7, cgroup=f"/user.slice{GROUP}"), {}),
    ],
)  # fmt: skip
def test_who_is_in_no_service_of_this_host_is_ended_by_pid_and_start(row: dict[str, Any], more: dict[str, Any]) -> None:
    host = inventory([program(1, 7)], [row])
    (step,) = planned(host, wanted=Target("program", TAG), **more).steps
    assert (step["do"], step["pid"], step["start_ticks"], step["comm"]) == ("kill", 7, 70, "agent")
    assert plan.line(step) == "end process 7 (agent, /opt/agent, began at tick 70)"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (process(1, "systemd", "init.scope", "/init.scope"), "process 1 (systemd) keeps the host up"),
        (process(100, "python3", None, "/"), "process 100 (python3) runs this very command"),
        (process(7, "sshd", "ssh.service", "/system.slice/ssh.service"), "process 7 (sshd) keeps the host up"),
    ],
)
def test_a_holder_that_is_never_ended_is_told(row: dict[str, Any], words: str) -> None:
    host = inventory([program(1, row["pid"])], [row])
    made = planned(host, wanted=Target("program", TAG))
    assert made.steps == [] and words in made.left[0]


def test_a_protected_service_is_not_stopped_for_a_program_that_it_holds() -> None:
    name, group = "systemd-networkd.service", "/system.slice/systemd-networkd.service"
    unit = {**facts().units[UNIT.name], "name": name, "control_group": group}
    host = inventory([program(1, 7)], [process(7, "networkd", name, group)])
    made = planned(host, wanted=Target("program", TAG), units={name: unit})
    assert made.steps == [] and name in made.left[0]


LINK = {"id": 5, "type": "xdp", "program_id": 1, "hook": "xdp", "target": "eth0", "mode": None, "attached": True}
PIN = {"path": "/sys/fs/bpf/l", "kind": "link", "id": 5}


@pytest.mark.parametrize(
    ("kind", "pins", "remove", "keys", "goes", "left"),
    [
        # Nothing but its holder keeps it: its end is waited for, and nothing puts it back but its holder.
        ("xdp", [], False, ["link:5"], 0, 0),
        ("xdp", [PIN], False, ["keep:1", "link:5"], 1, 0),
        ("xdp", [PIN], True, ["keep:1", "link:5", "unpin:/sys/fs/bpf/l"], 0, 0),
        ("raw_tracepoint", [], False, [], 1, 0),
        ("raw_tracepoint", [PIN], False, [], 1, 1),
        ("raw_tracepoint", [PIN], True, ["unpin:/sys/fs/bpf/l"], 1, 0),
    ],
)
def test_a_link_is_detached_where_the_kernel_can_and_else_ends_with_its_pin(
    kind: str, pins: list[Any], remove: bool, keys: list[str], goes: int, left: int
) -> None:
    host = inventory([program(1)], attachments=[attachment(1, mode="native", link_id=5, source="link")],
                     links=[{**LINK, "type": kind}], pins=pins)  # fmt: skip
    made = planned(host, remove, Target("program", TAG))
    assert (does(made), len(made.goes), len(made.left)) == (keys, goes, left)
    if left:
        assert "rm /sys/fs/bpf/l, or add -e remove_pins=true" in made.left[0]


@pytest.mark.parametrize(
    ("one", "back"),
    [
        (attachment(1, "tcx_ingress", source="query"), {"how": "hook", "ifindex": 2, "hook": "tcx_ingress"}),
        (attachment(1, "netkit_peer", source="query"), {"how": "hook", "ifindex": 2, "hook": "netkit_peer"}),
        (attachment(1, "cgroup_device", "/a", mode="multi", source="query", netns=None),
         {"how": "cgroup", "path": "/a", "hook": "cgroup_device", "flags": 2}),
        (attachment(1, "cgroup_inet_egress", "/a", mode="override", source="query", netns=None),
         {"how": "cgroup", "path": "/a", "hook": "cgroup_inet_egress", "flags": 1}),
        (attachment(1, "xdp", mode="native"), {"how": "xdp", "ifindex": 2, "mode": "native"}),
    ],
)  # fmt: skip
def test_each_kind_of_attachment_has_its_way_back(one: dict[str, Any], back: dict[str, Any]) -> None:
    made = planned(inventory([program(1)], attachments=[one]), wanted=Target("program", TAG))
    assert [step["do"] for step in made.steps] == ["keep", "detach"] and made.steps[1]["back"] == back


@pytest.mark.parametrize(
    ("one", "goes", "left"),
    [
        (attachment(1, "xdp", mode="offloaded"), 0, 1),
        (attachment(1, "xdp", "gone0", mode="native"), 0, 1),
        (attachment(1, "flow_dissector", None, source="query"), 0, 1),
        (attachment(1, "tc_ingress", mode="prio 1 action of matchall"), 0, 1),
        (attachment(1, "tracepoint", "sched_switch", source="perf_event"), 1, 0),
        (attachment(1, "tail_call", "map m", source="map", map_id=4), 1, 0),
    ],
)
def test_what_this_cannot_detach_is_told(one: dict[str, Any], goes: int, left: int) -> None:
    made = planned(inventory([program(1)], attachments=[one]), wanted=Target("program", TAG))
    assert (made.steps, len(made.goes), len(made.left)) == ([], goes, left)


FILTER = {"ifindex": 2, "parent": 0xFFFFFFF2, "info": 10 << 16 | 3, "handle": 1, "chain": 0, "program_id": 1,
          "name": "x", "flags": 1, "flags_gen": 0, "class_id": 0, "more": False}  # fmt: skip


@pytest.mark.parametrize("more", [False, True])
def test_a_filter_is_deleted_by_all_that_names_it_and_only_its_own(more: bool) -> None:
    one = {**FILTER, "more": more}
    host = inventory([program(1)], attachments=[attachment(1, "tc_ingress", mode="prio 10")])
    made = planned(host, wanted=Target("program", TAG), filters={NETNS: [one, {**FILTER, "program_id": 9}]})
    step = made.steps[-1]
    assert step["key"] == f"tc:{NETNS}:2:{0xFFFFFFF2}:{10 << 16 | 3}:1:0" and step["filter"] == one
    assert step["back"] == (None if more else {"how": "tc", "filter": one})
    assert step["at"].startswith(f"p1 (id 1, tag {TAG}) at tc filter of eth0 prio 10 handle 0x1")
    assert ("; this cannot put it back" in plan.line(step)) is more


def test_pins_of_programs_are_told_or_removed_and_ours_are_neither() -> None:
    pins = [{"path": "/sys/fs/bpf/p", "kind": "program", "id": 1}, {"path": "/sys/fs/bpf/m", "kind": "map", "id": 1},
            {"path": "/sys/fs/bpf/ebpf-fleet/foreign-0/program-1", "kind": "program", "id": 1}]  # fmt: skip
    host = inventory([program(1)], pins=pins)
    assert planned(host, wanted=Target("program", TAG)).goes == [
        f"program 1 of p1 (id 1, tag {TAG}) stays pinned: rm /sys/fs/bpf/p, or add -e remove_pins=true"
    ]
    keep, step = planned(host, True, Target("program", TAG)).steps
    assert keep["do"] == "keep" and step["back"] == {"how": "pin", "path": "/sys/fs/bpf/p"}


def test_nothing_of_a_program_that_others_hold_too_is_touched() -> None:
    rows, pin = [process(7), process(8, unit="b.service")], {**PIN, "kind": "program", "id": 1}
    host = inventory([program(1, 7, 8)], rows, attachments=[attachment(1, mode="native")], pins=[pin])
    made = planned(host, True)
    assert does(made) == [f"stop:{UNIT.name}", f"mask:{UNIT.name}"]
    assert "is held by process 8 too" in made.left[0] and f"-e scope=program={TAG}" in made.left[0]


# ---- what is written down ----


def written(*statuses: str, **more: Any) -> record.Record:
    """A record of a unit with XDP, its steps in the order of the plan and with these statuses."""
    host = inventory([program(1, 7)], [process(7)], attachments=[attachment(1, mode="native")])
    steps = [{**step, "status": status, "why": ""} for step, status in zip(planned(host).steps, statuses)]
    kept = record.shown([program(1)])
    return record.Record(UNIT, "why", "b", "t0", "t1", False, kept, steps)._replace(**more)


def test_a_record_is_read_as_it_was_written() -> None:
    one = written("done", "begun", "planned", "gone")
    assert record.parse(record.render(one), "f") == one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (b"", "is not JSON"),
        (b"[]", "is a list and not a mapping"),
        ({"schema": "x"}, "schema"),
        ({"target": "unit=x"}, "unit="),
        ({"steps": [{"do": "format"}]}, "steps[0]"),
        ({"steps": [{"do": "stop", "key": "k", "status": "maybe", "why": ""}]}, "steps[0].status"),
        ({"boot_id": 3}, "boot_id"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused(change: Any, words: str) -> None:
    data = (
        change if isinstance(change, bytes) else json.dumps({**json.loads(record.render(written())), **change}).encode()
    )
    with pytest.raises(FleetError) as caught:
        record.parse(data, "/f.json")
    assert caught.value.code in ("EF_TAKEOFF_RECORD", "EF_ARGUMENT") and words in caught.value.message


def test_a_second_run_keeps_what_the_first_did_and_plans_the_others_again() -> None:
    old = written("done", "done", "begun", "failed")
    new = written()._replace(begun="t5", steps=[dict(old.steps[3])])
    made = record.merged(old, new)
    assert [(step["do"], step["status"]) for step in made.steps] == [
        ("keep", "done"), ("stop", "done"), ("mask", "planned"), ("detach", "planned")
    ]  # fmt: skip
    assert made.begun == "t0"
    # What was planned or failed and is not there any more is nothing to be put back.
    assert [step["do"] for step in record.merged(old, new._replace(steps=[])).steps] == ["keep", "stop", "mask"]


@pytest.mark.parametrize("status", ["planned", "begun", "failed"])
def test_a_unit_whose_mask_was_interrupted_is_masked_though_it_holds_nothing_any_more(status: str) -> None:
    made = record.merged(written("done", "done", status, "begun"), written()._replace(steps=[]))
    assert [(step["do"], step["status"]) for step in made.steps] == [
        ("keep", "done"), ("stop", "done"), ("mask", "planned"), ("detach", "begun")
    ]  # fmt: skip


def test_after_a_boot_only_units_are_remembered() -> None:
    old = written("done", "done", "done", "done")
    made = record.merged(old, written()._replace(boot_id="c", programs=[], steps=[]))
    assert [step["do"] for step in made.steps] == ["stop", "mask"] and made.programs == []


def test_a_steps_outcome_is_of_that_step_alone() -> None:
    one = record.with_step(written("planned", "planned"), "keep:1", "done", "w", "t9")
    assert [(step["status"], step["why"]) for step in one.steps] == [("done", "w"), ("planned", "")]
    assert one.changed == "t9"


# ---- what puts it back ----


def test_what_was_done_is_put_back_the_last_first_and_what_was_not_is_not() -> None:
    found = undo.undo(written("done", "done", "begun", "done"), "b")
    assert [step["do"] for step in found.steps] == ["detach", "mask", "stop", "keep"] and found.told == []
    assert undo.undo(written("done", "planned", "failed", "gone"), "b").steps[0]["do"] == "keep"
    assert undo.lines(found)[0].endswith("again, if the place is free")


def test_after_a_boot_attachments_are_told_and_units_put_back() -> None:
    found = undo.undo(written("done", "done", "done", "done"), "c")
    assert [step["do"] for step in found.steps] == ["mask", "stop"]
    assert "the host has booted since" in found.told[0]
    assert undo.undo(written("done", "done", "done", "done"), None) == found


@pytest.mark.parametrize(
    ("change", "told"),
    [({"active": "inactive"}, 0), ({"active": "failed"}, 0), ({"transient": True}, 1)],
)
def test_only_a_unit_that_ran_and_still_can_is_started(change: dict[str, Any], told: int) -> None:
    one = written("done", "done")
    found = undo.undo(one._replace(steps=[one.steps[0], {**one.steps[1], **change}]), "b")
    assert [step["do"] for step in found.steps] == ["keep"] and len(found.told) == told


def test_a_process_that_was_ended_is_told_plainly() -> None:
    host = inventory([program(1, 7)], [process(7, unit=None)])
    steps = [{**step, "status": "done", "why": ""} for step in planned(host, wanted=Target("program", TAG)).steps]
    found = undo.undo(written()._replace(steps=steps), "b")
    assert found.steps == [] and found.told == [
        "process 7 (agent, /opt/agent) cannot be started by this: start it yourself"
    ]


# ---- the proof ----


def judged(host: dict[str, Any], left: tuple[str, ...] = ()) -> proof.Proof:
    return proof.judge(host, find.find(host, Target("program", TAG), None), left)


def test_off_is_only_what_the_kernel_shows_as_off() -> None:
    assert judged(inventory([])).status == "off"
    assert judged(inventory([program(1)])).status == "off"
    still = judged(inventory([program(1)], attachments=[attachment(1, link_id=5)]))
    assert (still.status, still.left) == ("left", [f"p1 (id 1, tag {TAG}) is still attached at xdp:eth0, link 5"])
    held = judged(inventory([program(1, 7)], [process(7)]))
    assert held.status == "left" and "process 7 (agent) of net-agent.service: kill 7" in held.left[0]
    assert judged(inventory([]), ("a step failed",)) == proof.Proof("left", ["a step failed"], [])


def test_a_pin_alone_is_told_with_what_removes_it_and_ours_is_not() -> None:
    pins = ["/sys/fs/bpf/a b", "/sys/fs/bpf/ebpf-fleet/foreign-0/program-1"]
    found = judged(inventory([program(1, pins=pins)]))
    assert (found.status, found.told) == ("off", [f"p1 (id 1, tag {TAG}) is still pinned: rm '/sys/fs/bpf/a b'"])


@pytest.mark.parametrize(
    ("kind", "unknown", "status"),
    [
        ("xdp", "programs: stopped after 3 for want of time", "unknown"),
        ("xdp", "processes: descriptors of 3 could not be read", "unknown"),
        ("xdp", "network namespaces: 3 more were not asked", "unknown"),
        ("sched_cls", "tc filters: EPERM from netlink", "unknown"),
        ("cgroup_skb", "cgroups: stopped after 3, there are more", "unknown"),
        ("perf_event", "perf events: process 9 (perf) has 8 whose program the kernel does not name", "unknown"),
        ("xdp", "cgroups: stopped after 3, there are more", "off"),
        ("xdp", "perf events: process 9 (perf) has 8 whose program the kernel does not name", "off"),
        ("cgroup_skb", "tc filters: EPERM from netlink", "off"),
    ],
)
def test_what_could_not_be_asked_and_matters_is_not_off(kind: str, unknown: str, status: str) -> None:
    found = judged(inventory([program(1, kind=kind)], unknown=[unknown]))
    assert found.status == status and (found.left == [f"not known: {unknown}"]) is (status == "unknown")


@pytest.mark.parametrize("bound", ["process namespace: this host is in one of its own", "cgroups: only those below it"])
def test_a_host_that_is_a_container_says_how_far_it_sees(bound: str) -> None:
    found = judged(inventory([program(1)], unknown=[bound]))
    assert (found.status, found.told) == ("off", [f"off as far as this host sees: {bound}"])
    assert judged(inventory([], unknown=[bound])).told == []


def test_a_program_that_has_left_the_kernel_is_off_whatever_else_was_not_asked() -> None:
    assert judged(inventory([], unknown=["network namespaces: 3 more were not asked"])).status == "off"
    assert judged(inventory([], unknown=["programs: stopped after 3 for want of time"])).status == "unknown"


def test_what_else_changed_is_told_and_what_systemd_replaced_by_an_equal_one_is_not() -> None:
    before = inventory(
        [program(1), program(2, tag="a" * 16), program(3, tag="b" * 16), program(4, tag="c" * 16)],
        attachments=[attachment(1), attachment(2, "cgroup_device", f"{GROUP}", netns=None),
                     attachment(3, "cgroup_device", "/x", netns=None), attachment(4)],
    )  # fmt: skip
    after = inventory(
        [program(9, name="p3", tag="b" * 16), program(4, tag="c" * 16), program(5, tag="d" * 16)],
        attachments=[attachment(9, "cgroup_device", "/x", netns=None)],
    )
    said = proof.differences(before, after, {1}, [GROUP])
    assert len(said) == 4
    assert said[0].startswith("not of this, and gone meanwhile: p2") and said[0].endswith("of the stopped unit")
    assert "gone meanwhile: p4 (id 4" in said[1] and said[1].endswith("at xdp:eth0")
    assert "new meanwhile: p4" in said[2] and "new meanwhile: p5" in said[3]
    assert proof.differences(before, before, set(), []) == []


def test_many_differences_are_counted() -> None:
    said = proof.differences(inventory([]), inventory([program(n, tag=f"{n:016x}") for n in range(25)]), set(), [])
    assert len(said) == 21 and said[-1] == "and 5 more"


# ---- one verdict over all hosts ----


def told(status: str, **more: Any) -> dict[str, Any]:
    return answer.made(UNIT, status, True, **more)


ABSENT = {"failed": True, "reason_code": "EF_TAKEOFF_ABSENT", "msg": "EF_TAKEOFF_ABSENT: this host has no unit"}


@pytest.mark.parametrize(
    ("results", "failed", "words"),
    [
        ({"a": told("off"), "b": ABSENT}, [], "off, by the kernel's own word: 1"),
        ({"a": told("left", left=["p1 is held"]), "b": told("off")}, ["a"], "NOT OFF: 1"),
        ({"a": told("unknown", left=["not known: x"])}, ["a"], "NOT KNOWN to be off"),
        ({"a": {"unreachable": True, "msg": "no route"}, "b": told("off")}, ["a"], "NO USABLE ANSWER"),
        ({"a": {}, "b": told("off")}, ["a"], "NO USABLE ANSWER"),
        ({"a": {"takeoff": {"status": "off"}}}, ["a"], "no usable answer from a: schema: is missing"),
        ({"a": {"failed": True, "reason_code": "EF_TAKEOFF_PROTECTED", "msg": "no"}}, ["a"], "REFUSED there"),
        ({"a": told("released")}, [], "put back: 1"),
        ({"a": told("released_in_part", left=["the place is taken"])}, ["a"], "PUT BACK IN PART: 1"),
        # A name that no host has is not a success.
        ({"a": ABSENT, "b": ABSENT}, ["a", "b"], "give the right name"),
    ],
)
def test_who_did_not_confirm_fails(results: dict[str, Any], failed: list[str], words: str) -> None:
    found = answer.summary(results, UNIT.text, "engaged")
    assert found["failed"] == failed and found["ok"] is (not failed)
    assert words in "\n".join(found["verdict"])
    assert sorted(found["hosts"]) == sorted(results)


def test_where_no_host_has_it_that_may_be_allowed_and_no_host_is_never_good() -> None:
    assert answer.summary({"a": ABSENT}, UNIT.text, "engaged", allow_unconcerned=True)["ok"] is True
    assert answer.summary({}, UNIT.text, "engaged")["ok"] is False


def test_the_plan_of_many_hosts_is_told_once() -> None:
    results = {f"h{n}": told("planned", plan=["stop unit x", f"end process {n}"]) for n in range(30)}
    said = answer.summary(results, UNIT.text, "engaged", check=True)["verdict"]
    assert sum("stop unit x" in line for line in said) == 1 and len(said) < 10
    assert "-e confirm=takeoff-unit=net-agent.service" in said[-1]
    one = told("planned", plan=["stop unit x"], told=["a guess is left"])
    said = answer.summary({"a": one}, UNIT.text, "engaged", check=True)["verdict"]
    assert [line.strip() for line in said[3:5]] == ["stop unit x", "a guess is left"]


def test_what_a_host_says_cannot_paint_the_screen_nor_fill_it() -> None:
    evil = told("left", left=["\x1b[2J" + "x" * 5000] * 500)
    found = answer.read("h", evil)
    assert found.document is not None and len(found.document["left"]) == answer.LINES + 1
    said = answer.summary({"h": evil}, UNIT.text, "engaged")["verdict"]
    assert all(line.isprintable() for line in said) and len(said) < 1000
    assert answer.read("h", {"takeoff": {**evil["takeoff"], "left": ["\x1b"]}}).document["left"] == ["\\x1b"]
