# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory's pure parts: whose a program is, what is new, conflicts, the lines; and what hosts may answer."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.action import bpf_inventory_info as action
from ansible_collections.ebpf.fleet.plugins.filter import inventory as filters
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import (
    attribution,
    changes,
    conflicts,
    document,
    fleet,
    points,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.report.inventory import ROWS, inventory_lines

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/formats/bpf-inventory.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)
ID = "0123456789abcdef" * 4


def host(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLE)
    return {**found, **more}


def program(number: int, name: str, owner: str | None = None, **more: Any) -> dict[str, Any]:
    kind = "unit" if owner else "unknown"
    whose = {"kind": kind, "name": owner, "guess": False, "why": "w"}
    return {**copy.deepcopy(host()["programs"][0]), "id": number, "name": name, "tag": f"{number:016x}", "owner": whose,
            "points": [], "holders": [], "pins": [], "map_ids": [], **more}  # fmt: skip


def attachment(number: int, hook: str, target: str, **more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(host()["attachments"][0]), "program_id": number, "hook": hook, "target": target,
            "point": f"{hook}:{target}", "link_id": None, **more}  # fmt: skip


def world(programs: list[dict[str, Any]], attachments: list[dict[str, Any]]) -> dict[str, Any]:
    for one in programs:
        one["points"] = sorted({at["point"] for at in attachments if at["program_id"] == one["id"]})
    found = host(programs=programs, attachments=attachments)
    assert document.read("h", {"inventory": found}).problem is None
    return found


def answer(inventory: dict[str, Any]) -> dict[str, Any]:
    return {"changed": False, "inventory": inventory}


# ---- whose it is ----


@pytest.mark.parametrize(
    ("cgroup", "unit", "container"),
    [
        ("/system.slice/cron.service", "cron.service", None),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/trace.service", "trace.service", None),
        ("/user.slice/user-0.slice/session-3.scope", "session-3.scope", None),
        ("/system.slice/agent.service/workers", "agent.service", None),
        ("/system.slice", None, None),
        ("/", None, None),
        (None, None, None),
        (f"/system.slice/docker-{ID}.scope", f"docker-{ID}.scope", ID),
        (f"/docker/{ID}", None, ID),
        (f"/kubepods.slice/kubepods-pod7.slice/cri-containerd-{ID}.scope", f"cri-containerd-{ID}.scope", ID),
        (f"/kubepods/burstable/pod7/{ID}", None, ID),
        (f"/system.slice/containerd.service/kubepods-pod7.slice:cri-containerd:{ID}", "containerd.service", ID),
        (f"/machine.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", ID),
        (f"/machine.slice/libpod-conmon-{ID}.scope", f"libpod-conmon-{ID}.scope", None),
        ("/lxc.payload.web/system.slice/cron.service", "cron.service", "web"),
    ],
)
def test_a_cgroup_tells_unit_and_container(cgroup: str | None, unit: str | None, container: str | None) -> None:
    assert (attribution.unit_of(cgroup), attribution.container_of(cgroup)) == (unit, container)


def process(pid: int, comm: str = "agent", unit: str | None = None, container: str | None = None) -> dict[str, Any]:
    return {"pid": pid, "comm": comm, "unit": unit, "container": container}


@pytest.mark.parametrize(
    ("name", "holders", "by_map", "pins", "expected"),
    [
        ("x", [process(7, unit="a.service")], [], [], ("unit", "a.service", False)),
        ("x", [process(7, unit="a.service"), process(8, unit="a.service")], [], [], ("unit", "a.service", False)),
        ("x", [process(7, unit="a.service"), process(8, unit="b.service")], [], [],
         ("several", "a.service, b.service", False)),
        ("x", [process(7, unit="docker-1.scope", container=ID)], [], [],
         ("container", "agent in container 0123456789ab", False)),
        ("x", [process(7, "bpftrace")], [], [], ("process", "bpftrace", False)),
        # Who holds it comes before what its name says.
        ("cil_from", [process(7, unit="a.service")], [], ["/sys/fs/bpf/cilium/x"], ("unit", "a.service", False)),
        ("x", [], [process(7, unit="a.service")], [], ("unit", "a.service", True)),
        ("x", [], [process(7, unit="a.service"), process(8, unit="b.service")], [], ("unknown", None, False)),
        ("x", [], [], ["/sys/fs/bpf/tc/globals/x"], ("software", "iproute2", True)),
        ("x", [], [], ["/sys/fs/bpf/cilium/x"], ("software", "Cilium", True)),
        ("x", [], [], ["/sys/fs/bpf/ciliumish"], ("unknown", None, False)),
        ("sd_devices", [], [], [], ("software", "systemd", True)),
        ("x", [], [], [], ("unknown", None, False)),
    ],
)  # fmt: skip
def test_an_owner_is_who_holds_it_else_a_guess_that_says_so(
    name: str, holders: list[Any], by_map: list[Any], pins: list[str], expected: tuple[str, str | None, bool]
) -> None:
    found = attribution.owner_of({"name": name}, holders, by_map, pins)
    assert found[:3] == expected and found.why
    if found.guess:
        assert found.why.startswith("no process holds it; ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("xdp:eth0", "xdp:eth0"),
        ("tc_ingress:veth1a2b3c4", "tc_ingress:veth*"),
        ("tc_ingress:veth0", "tc_ingress:veth0"),
        (f"cgroup_device:/docker/{ID}", "cgroup_device:/docker/*"),
        ("x:/kubepods-pod01234567_89ab_cdef_0123_456789abcdef.slice", "x:/kubepods-pod*.slice"),
        ("x:/user.slice/user-1000.slice/session-12.scope", "x:/user.slice/user-*.slice/session-*.scope"),
        ("kprobe:tcp_v4_connect", "kprobe:tcp_v4_connect"),
        ("kprobe:deadbeef", "kprobe:deadbeef"),
        ("cgroup_skb:/pod01234567-89ab-cdef-0123-456789abcdef", "cgroup_skb:/pod*"),
    ],
)  # fmt: skip
def test_what_differs_from_host_to_host_becomes_a_star(text: str, expected: str) -> None:
    assert points.collapsed(text) == expected


# ---- conflicts ----


def test_two_xdp_programs_on_one_interface_are_a_conflict() -> None:
    two = [attachment(1, "xdp", "eth0", mode="native"), attachment(2, "xdp", "eth0", mode="offloaded")]
    (found,) = conflicts.conflicts_of(world([program(1, "a", "a.service"), program(2, "b", "b.service")], two))
    assert (found.kind, found.point, found.program_ids, found.guess) == ("two_xdp", "xdp:eth0", [1, 2], False)
    assert found.sentence == "two XDP programs on eth0: a of a.service (native) and b of b.service (offloaded)"
    elsewhere = [two[0], {**two[1], "netns": 5}]
    assert conflicts.conflicts_of(world([program(1, "a", "a.service"), program(2, "b", "b.service")], elsewhere)) == []


def test_an_xdp_program_that_is_kept_and_runs_nowhere_may_be_replaced_and_that_is_a_guess() -> None:
    here = [attachment(2, "xdp", "eth0")]
    kept = program(1, "a", "a.service", holders=[{"pid": 7, "by": ["program"]}])
    (found,) = conflicts.conflicts_of(world([kept, program(2, "b", "b.service")], here))
    assert (found.kind, found.guess, found.program_ids) == ("displaced_xdp", True, [1, 2])
    assert "a of a.service is kept and runs on no interface, while eth0 runs b of b.service" in found.sentence
    # One of the same owner, one that nothing keeps, one that is no XDP program, and none that runs in its place.
    for other, at in (
        (program(1, "a", "b.service", holders=kept["holders"]), here),
        (program(1, "a", "a.service"), here),
        (program(1, "a", "a.service", holders=kept["holders"], type="sched_cls"), here),
        (kept, []),
    ):
        assert conflicts.conflicts_of(world([other, program(2, "b", "b.service")], at)) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("tc_ingress", "prio 10 direct-action", True), ("tc_ingress", "prio 20", False), [1, 2]),
        # By priority, not by the place in the list.
        (("tc_ingress", "prio 20", False), ("tc_ingress", "prio 10 direct-action", True), [1, 2]),
        (("tc_ingress", "prio 9 direct-action", True), ("tc_ingress", "prio 10 direct-action", True), [1, 2]),
        (("tc_ingress", "prio 10 direct-action", True), ("tcx_ingress", None, False), [1, 2]),
        (("tc_ingress", "prio 10", False), ("tc_ingress", "prio 20 direct-action", True), None),
        (("tc_ingress", "prio 10 direct-action", True), ("tc_egress", "prio 20", False), None),
    ],
)
def test_a_tc_program_that_may_decide_before_another(first: Any, second: Any, expected: list[int] | None) -> None:
    both = [attachment(number, hook, "eth0", mode=mode, decides=decides)
            for number, (hook, mode, decides) in ((1, first), (2, second))]  # fmt: skip
    found = conflicts.conflicts_of(world([program(1, "a", "a.service"), program(2, "b", "b.service")], both))
    assert [one.program_ids for one in found if one.kind == "tc_order"] == ([expected] if expected else [])
    same = conflicts.conflicts_of(world([program(1, "a", "a.service"), program(2, "b", "a.service")], both))
    assert same == []


def test_who_decides_first_is_told_in_that_order() -> None:
    both = [attachment(1, "tc_ingress", "eth0", mode="prio 20 direct-action", decides=True),
            attachment(2, "tc_ingress", "eth0", mode="prio 9 direct-action", decides=True)]  # fmt: skip
    (found,) = conflicts.conflicts_of(world([program(1, "a"), program(2, "b")], both))
    assert found.sentence == "ingress of eth0: b of owner unknown may decide before a of owner unknown is asked"


@pytest.mark.parametrize(("mode", "told"), [("override", True), ("exclusive", True), ("multi", False)])
def test_a_cgroups_program_that_does_not_run_below(mode: str, told: bool) -> None:
    here = [attachment(1, "cgroup_device", "/a", mode=mode, source="query", netns=None),
            attachment(2, "cgroup_device", "/a/b", mode=mode, source="query", netns=None),
            attachment(2, "cgroup_device", "/ab", mode=mode, source="query", netns=None)]  # fmt: skip
    found = conflicts.conflicts_of(world([program(1, "a", "a.service"), program(2, "b", "b.service")], here))
    assert [one.kind for one in found] == (["overridden"] if told else [])
    if told:
        assert "/a/b (b of b.service)" in found[0].sentence and "/ab" not in found[0].sentence


# ---- what is new ----


def a_fleet(time: str, last: dict[str, Any] | None = None, **hosts: dict[str, Any]) -> dict[str, Any]:
    found = fleet.fleet_inventory({name: answer(one) for name, one in hosts.items()}, last, time)
    assert document.fleet_faults(found) is None
    return found


T1, T2 = "2026-11-26T16:00:00Z", "2026-11-27T16:00:00Z"


def test_a_restart_is_not_new_and_other_code_is_new_and_gone() -> None:
    at = [attachment(1, "xdp", "eth0")]
    old = world([program(1, "a", "a.service"), program(2, "b")], at)
    again = world([program(91, "a", "a.service", tag=f"{1:016x}", load_time_ns=7, run_cnt=5, run_time_ns=9)],
                  [attachment(91, "xdp", "eth0")])  # fmt: skip
    first = a_fleet(T1, h=old)
    assert first["changes"] == {
        "since": None, "new": [], "gone": [], "replaced_xdp": [], "not_compared": {}, "unsure": {}
    }  # fmt: skip
    found = a_fleet(T2, first, h=again)["changes"]
    assert (found["since"], found["new"], [one["name"] for one in found["gone"]]) == (T1, [], ["b"])
    other = world([program(1, "a", "a.service", tag="f" * 16), program(2, "b")], at)
    found = a_fleet(T2, first, h=other)["changes"]
    assert [(one["name"], one["tag"]) for one in found["new"]] == [("a", "f" * 16)]
    assert [(one["name"], one["tag"]) for one in found["gone"]] == [("a", f"{1:016x}")]
    assert [one["sentence"] for one in found["replaced_xdp"]] == [
        "XDP on eth0 was a of a.service and is a of a.service"
    ]


def test_one_more_of_the_same_is_new_once() -> None:
    one = world([program(1, "a", "a.service")], [])
    two = world([program(1, "a", "a.service"), program(2, "a", "a.service", tag=f"{1:016x}")], [])
    found = a_fleet(T2, a_fleet(T1, h=one, g=one), h=two, g=two)["changes"]
    assert [(row["programs"], row["hosts"]) for row in found["new"]] == [(2, ["g", "h"])]


def test_an_xdp_program_of_another_owner_is_a_replacement_though_its_code_is_the_same() -> None:
    at = [attachment(1, "xdp", "eth0")]
    first = a_fleet(T1, h=world([program(1, "a", "a.service")], at))
    (found,) = a_fleet(T2, first, h=world([program(1, "a", "b.service")], at))["changes"]["replaced_xdp"]
    assert found == {"sentence": "XDP on eth0 was a of a.service and is a of b.service", "hosts": ["h"]}
    assert a_fleet(T2, first, h=world([program(1, "a", "a.service")], at))["changes"]["replaced_xdp"] == []


def test_namespaces_are_compared_by_name_and_not_by_inode() -> None:
    def named(inode: int, name: str | None, code: str) -> dict[str, Any]:
        found = world([program(1, "a", tag=code * 16)], [attachment(1, "xdp", "eth0", netns=inode)])
        return {**found, "network_namespaces": [
            {"inode": inode, "name": name, "pid": 7, "own": False, "asked": True}]}  # fmt: skip

    assert a_fleet(T2, a_fleet(T1, h=named(1, "blue", "a")), h=named(2, "blue", "b"))["changes"]["replaced_xdp"]
    assert a_fleet(T2, a_fleet(T1, h=named(1, None, "a")), h=named(1, None, "b"))["changes"]["replaced_xdp"] == []


def test_a_host_that_was_not_in_the_last_document_is_not_compared() -> None:
    found = a_fleet(T2, a_fleet(T1, g=host()), h=host(), g=host())
    assert found["changes"]["not_compared"] == {"h": changes.NOT_ASKED} and found["changes"]["new"] == []
    assert any(line.startswith("Not compared") and "h" in line for line in inventory_lines(found))


@pytest.mark.parametrize(
    "words", ["programs: stopped after 7 for want of time", "processes: descriptors of 3 could not be read"]
)
def test_a_list_that_was_not_whole_makes_the_comparison_unsure(words: str) -> None:
    part = host(unknown=[words])
    for old, new in ((part, host()), (host(), part)):
        found = a_fleet(T2, a_fleet(T1, h=old), h=new)
        assert set(found["changes"]["unsure"]) == {"h"}
        assert any(line.startswith("UNSURE") for line in inventory_lines(found))
    whole = a_fleet(T2, a_fleet(T1, h=host()), h=host())
    assert whole["changes"]["unsure"] == {}


# ---- the fleet ----


def test_programs_are_grouped_by_owner_and_attach_point_over_hosts() -> None:
    measured = {"run_cnt": 10, "run_time_ns": 500, "memory_bytes": 4096}
    one = world([program(1, "a", "a.service", **measured)], [attachment(1, "xdp", "eth0")])
    two = world([program(5, "a", "a.service", **measured), program(6, "b", "a.service", **measured)],
                [attachment(5, "xdp", "eth0"), attachment(6, "xdp", "eth0", netns=9)])  # fmt: skip
    found = a_fleet(T1, h=one, g=two)
    (row,) = found["groups"]
    assert (row["owner"], row["point"], row["hosts"], row["programs"]) == ("a.service", "xdp:eth0", ["g", "h"], 3)
    assert (row["run_cnt"], row["run_time_ns"], row["memory_bytes"], row["unmeasured"]) == (30, 1500, 12288, 0)
    assert row["names"] == ["a", "b"]


def test_a_sum_of_which_a_part_was_not_measured_is_not_a_number() -> None:
    one = world([program(1, "a", run_cnt=10, run_time_ns=500), program(2, "b", run_cnt=None, run_time_ns=None)], [])
    found = a_fleet(T1, h=one)
    (row,) = found["groups"]
    assert (row["run_cnt"], row["run_time_ns"], row["unmeasured"]) == (None, None, 1)
    assert row["point"] == points.NOWHERE
    (line,) = [line for line in inventory_lines(found) if points.NOWHERE in line]
    assert line.count("not measured") == 2 and "0" not in line.split("not measured")[1]


def test_a_measured_zero_is_a_zero_and_divides_nothing() -> None:
    found = a_fleet(T1, h=world([program(1, "a", run_cnt=0, run_time_ns=0)], []))
    (line,) = [line for line in inventory_lines(found) if points.NOWHERE in line]
    assert re.search(r"  0 +-  ", line)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"unreachable": True, "msg": "ssh:\nrefused"}, "unreachable: ssh: refused"),
        ({"failed": True, "msg": "x" * 900 + "END"}, "failed: … x"),
        ({"failed": True}, "failed"),
        ({}, None),
        ("text", "no usable answer from h: the answer: is not a mapping"),
        (answer(host(programs=7)), "no usable answer from h: inventory.programs: is a number and not a list"),
        (answer(host(programs=None, maps=None, links=None, privileged=False)), "it was not asked as root"),
    ],
)
def test_who_gives_no_answer_is_named_with_the_reason(result: Any, reason: str | None) -> None:
    found = fleet.fleet_inventory({"h": result, "g": answer(host())}, None, T1)
    assert found["silent"] == ["h"] and list(found["hosts"]) == ["g"]
    if reason is None:
        assert found["silent_reasons"]["h"] is None
    else:
        assert found["silent_reasons"]["h"].startswith(reason)
    lines = inventory_lines(found)
    assert lines[0].startswith("1 host, 1 did not answer") and lines[1].startswith("NO ANSWER h: ")


def test_where_no_host_answered_nothing_is_said_of_programs() -> None:
    lines = inventory_lines(fleet.fleet_inventory({"h": {}}, None, T1))
    assert not any("No eBPF program" in line for line in lines)
    empty = inventory_lines(a_fleet(T1, h=world([], [])))
    assert "No eBPF program is loaded on any host that answered" in empty


def test_a_large_fleet_is_told_in_a_bounded_table() -> None:
    hosts = {f"h{number}": world([program(1, f"p{number}", f"u{number}.service")], []) for number in range(200)}
    lines = inventory_lines(a_fleet(T1, **hosts))
    assert len(lines) == 2 + 1 + ROWS + 1 + 1 and lines[-2] == f"… {200 - ROWS} more rows are in the document"
    assert lines[-1].startswith("NOT KNOWN perf events: ") and lines[-1].endswith("[h0, h1, h10, h100 and 196 more]")
    assert all(len(line) < 200 for line in lines)


# ---- what a host may answer ----

BAD = {
    "programs.0.run_cnt": -1,
    "programs.0.tag": "xyz",
    "programs.0.owner.kind": "boss",
    "programs.0.holders.0.pid": "7",
    "attachments.0.source": "hearsay",
    "attachments.0.netns": 1.5,
    "links.0.attached": "yes",
    "pins.0.kind": "socket",
    "processes.713.comm": ["x"],
    "unknown.0": 7,
    "stats.answer": "maybe",
    "schema": "ebpf.fleet/bpf-inventory/v2",
    "time": "now",
}


@pytest.mark.parametrize("path", BAD)
def test_a_field_that_is_not_what_the_format_says_is_named(path: str) -> None:
    found: Any = host()
    *way, last = [int(part) if part.isdigit() and part != "713" else part for part in path.split(".")]
    at = found
    for part in way:
        at = at[part]
    at[last] = BAD[path]
    problem = document.read("h", answer(found)).problem
    field = "inventory." + re.sub(r"\.(\d)(?=\.|$)", r"[\1]", path)
    assert problem is not None and problem.startswith(f"no usable answer from h: {field}: ")


@pytest.mark.parametrize("attached", [True, False, None])
def test_whether_a_link_is_attached_may_be_unknown(attached: bool | None) -> None:
    found: Any = host()
    found["links"][0]["attached"] = attached
    assert document.read("h", answer(found)).problem is None


@pytest.mark.parametrize("name", sorted(host()))
def test_a_field_that_is_missing_is_named(name: str) -> None:
    found = host()
    del found[name]
    assert document.read("h", answer(found)).problem == f"no usable answer from h: inventory.{name}: is missing"


def test_names_of_processes_and_programs_cannot_paint() -> None:
    found = host()
    found["processes"]["713"]["comm"] = "\x1b[2J\u202eevil"
    read = document.read("h", answer(found)).inventory
    assert read is not None and read["processes"]["713"]["comm"] == "\\x1b[2J\\u{202e}evil"


def test_the_action_hands_on_what_the_format_knows() -> None:
    told = action.believed("h", {**answer(host()), "changed": True, "ansible_facts": {"evil": 1}, "warnings": ["evil"]})
    assert told == {"changed": False, "inventory": host()}
    blind = action.believed("h", answer(host(privileged=False, programs=None, maps=None, links=None)))
    assert blind["warnings"] == [action.UNPRIVILEGED]
    refused = action.believed("h", answer(host(pins=None)))
    assert (refused["failed"], refused["reason_code"]) == (True, "EF_NO_ANSWER") and "inventory.pins" in refused["msg"]
    assert action.believed("h", {"changed": False})["reason_code"] == "EF_NO_ANSWER"
    assert action.believed("h", {"failed": True, "msg": "a\nb"}) == {"failed": True, "changed": False, "msg": "a b"}


@pytest.mark.parametrize("last", [{"hosts": 7}, {"hosts": {"h": {}}}, {"hosts": {}}])
def test_a_last_document_that_cannot_be_used_is_refused(last: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="EF_LAST_INVENTORY: the last inventory cannot be used: "):
        filters.fleet_inventory({"h": answer(host())}, last)
    with pytest.raises(AnsibleFilterError, match="EF_UNREADABLE: inventory_lines: "):
        filters.inventory_lines(last)
    assert filters.fleet_inventory({"h": answer(host())}, {})["changes"]["since"] is None


def test_the_pages_sample_is_what_is_printed() -> None:
    page = (ROOT / "docs/bpf-inventory.md").read_text(encoding="utf-8")
    first = a_fleet(T1, h1=host(programs=host()["programs"][1:]))
    silent = {"unreachable": True, "msg": "Failed to connect to the host"}
    found = fleet.fleet_inventory({"h1": answer(host()), "h2": silent}, first, T2)
    assert "```\n" + "\n".join(inventory_lines(found)) + "\n```" in page
