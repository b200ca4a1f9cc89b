# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of this machine's kernel against bpftool's answers, value by value, with others' eBPF; the playbook."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import conflicts, document

from tests.integration import others
from tests.integration.others import Others, call
from tests.integration.runner import run_one, run_tasks
from tests.integration.test_capability_facts import interpreter_of
from tests.integration.test_playbooks import run
from tests.support.syshost import SysHost, cgroup2
from tests.support.syshost import why_not as why_no_host

ASK = """
import json
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import ask, host
print(json.dumps(host.assemble(ask.ask())))
"""
SILENT = (
    "gone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=9 ansible_ssh_common_args='-o BatchMode=yes'\n"
)


@pytest.fixture(scope="module")
def world() -> Iterator[Others]:
    problem = others.why_not()
    if problem is not None:
        # Of the machine, such as one that forbids namespaces: tests/holes.yml has each with its why.
        pytest.skip(problem)
    with Others() as made:
        yield made


def asked(*prefix: str) -> dict[str, Any]:
    """The host's document by a process of its own, as the module makes it; it must be one that is believed."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*prefix, sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    judged = document.read("h", {"inventory": found})
    assert judged.problem is None
    return found


def bpftool(*words: str, within: list[str] | None = None) -> Any:
    return json.loads(call(*(within or []), "bpftool", "-j", *words))


def by_id(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {one["id"]: one for one in rows}


def named(found: dict[str, Any], name: str, at: str) -> dict[str, Any]:
    """The one program of that name at that point."""
    (one,) = [one for one in found["programs"] if one["name"] == name and at in one["points"]]
    return one


# ---- value by value ----


def both(found: list[dict[str, Any]], theirs: list[dict[str, Any]], again: list[dict[str, Any]]) -> list[Any]:
    """(ours, bpftool's) of each object that was there before and after: this machine has others' work on it too."""
    stayed = by_id(theirs).keys() & by_id(again).keys()
    assert stayed <= by_id(found).keys(), "an object that bpftool lists is missing"
    return [(by_id(found)[number], by_id(theirs)[number]) for number in sorted(stayed)]


def test_every_program_is_as_bpftool_has_it(world: Others) -> None:
    theirs = bpftool("prog", "show")
    found = asked()
    pairs = both(found["programs"], theirs, bpftool("prog", "show"))
    assert len(pairs) >= 10
    for ours, other in pairs:
        assert {"id": ours["id"], "type": ours["type"], "name": ours["name"] or None, "tag": ours["tag"],
                "uid": ours["uid"], "jited": ours["jited"], "memory": ours["memory_bytes"],
                "maps": sorted(ours["map_ids"])} == {
            "id": other["id"], "type": other["type"], "name": other.get("name"), "tag": other["tag"],
            "uid": other["uid"], "jited": other["jited"], "memory": other["bytes_memlock"],
            "maps": sorted(other.get("map_ids", []))}  # fmt: skip
        loaded_at = datetime.datetime.strptime(ours["loaded_at"], "%Y-%m-%dT%H:%M:%S%z").timestamp()
        assert abs(loaded_at - other["loaded_at"]) <= 1


def test_every_map_is_as_bpftool_has_it(world: Others) -> None:
    theirs = bpftool("map", "show")
    found = asked()
    pairs = both(found["maps"], theirs, bpftool("map", "show"))
    assert len(pairs) >= 2
    for ours, other in pairs:
        assert [ours[name] for name in ("type", "max_entries", "memory_bytes", "key_bytes", "value_bytes")] == [
            other[name] for name in ("type", "max_entries", "bytes_memlock", "bytes_key", "bytes_value")
        ]
        assert (ours["name"] or None) == other.get("name")


def test_every_link_is_as_bpftool_has_it(world: Others) -> None:
    theirs = bpftool("link", "show")
    found = asked()
    pairs = both(found["links"], theirs, bpftool("link", "show"))
    assert len(pairs) >= 5
    for ours, other in pairs:
        # This bpftool has no names for kinds of 6.6 on.
        assert ours["program_id"] == other["prog_id"] and other["type"] in (ours["type"], 11)
        if "tp_name" in other:
            assert (ours["hook"], ours["target"]) in (("raw_tp", other["tp_name"]), ("tp_btf", other["tp_name"]))
        if "cgroup_id" in other:
            top = cgroup2()
            assert (
                ours["hook"] == other["attach_type"] and os.stat(f"{top}{ours['target']}").st_ino == other["cgroup_id"]
            )


def test_what_is_at_interfaces_is_as_bpftool_has_it_in_that_namespace(world: Others) -> None:
    (theirs,) = bpftool("net", "show", within=["ip", "netns", "exec", world.netns])
    found = asked()
    (namespace,) = [one for one in found["network_namespaces"] if one["name"] == world.netns]
    here = [one for one in found["attachments"] if one["netns"] == namespace["inode"]]
    modes = {"driver": "native", "generic": "generic"}
    assert {(one["target"], one["program_id"], one["mode"]) for one in here if one["hook"] == "xdp"} == {
        (one["devname"], one["id"], modes[one["mode"]]) for one in theirs["xdp"]
    }
    kinds = {"clsact/ingress": "tc_ingress", "clsact/egress": "tc_egress"}
    assert [(one["target"], one["program_id"], one["hook"]) for one in here if one["hook"].startswith("tc_")] == [
        (one["devname"], one["id"], kinds[one["kind"]]) for one in theirs["tc"]
    ]
    assert len(theirs["xdp"]) == 2 and len(theirs["tc"]) == 2
    assert not namespace["own"] and namespace["asked"]


def in_tree(nodes: list[dict[str, Any]], top: str) -> set[tuple[str, int, str]]:
    return {
        (one["cgroup"][len(top) :] or "/", program["id"], program["attach_type"])
        for one in nodes
        for program in one["programs"]
    }


def test_what_is_at_cgroups_is_as_bpftools_tree_has_it(world: Others) -> None:
    top = str(cgroup2())
    before = in_tree(bpftool("cgroup", "tree", top), top)
    found = asked()
    stayed = before & in_tree(bpftool("cgroup", "tree", top), top)
    ours = {(one["target"], one["program_id"], one["hook"]) for one in found["attachments"] if one["source"] == "query"}
    assert stayed <= ours and len(stayed) >= 2
    hooks = {one for one in ours if one[0].startswith(world.shown_cgroup)}
    assert hooks == {one for one in stayed if one[0].startswith(world.shown_cgroup)}


def test_what_perf_events_run_is_as_bpftool_has_it(world: Others) -> None:
    assert world.agent is not None
    theirs = [one for one in bpftool("perf", "show") if one["pid"] == world.agent.pid]
    found = asked()
    points = {(one["program_id"], one["hook"], one["target"]) for one in found["attachments"]}
    tracepoints = [one for one in theirs if one["fd_type"] == "tracepoint"]
    wanted = 0 if isinstance(world.made["perf_event"], str) and isinstance(world.made["perf_link"], str) else 1
    assert len(tracepoints) >= wanted
    for one in tracepoints:
        assert (one["prog_id"], "tracepoint", one["tracepoint"]) in points


def test_pins_are_as_bpftool_has_them_and_found_from_another_mount_namespace(world: Others) -> None:
    theirs = {
        (path, kind, one["id"])
        for kind, word in (("program", "prog"), ("map", "map"), ("link", "link"))
        for one in bpftool("-f", word, "show", within=world.inside)
        for path in one.get("pinned", [])
        if path.startswith(str(world.pins))
    }
    assert len(theirs) >= 9
    for found in (asked(*world.inside), asked()):
        pins = {
            (one["path"], one["kind"], one["id"]) for one in found["pins"] if one["path"].startswith(str(world.pins))
        }
        assert pins == theirs
        assert all(one["uid"] == 0 for one in found["pins"] if one["path"].startswith(str(world.pins)))


def test_a_pin_with_any_name_is_told_and_a_link_to_it_is_not_told_twice(world: Others) -> None:
    name = os.fsdecode(b"odd \xff\n\x1b[2J")
    one = str(world.pins / "all/their_xdp")
    call(*world.inside, "bpftool", "prog", "pin", "pinned", one, f"{world.pins}/{name}")
    call(*world.inside, "ln", "-s", one, f"{world.pins}/link")
    try:
        found = asked()
    finally:
        call(*world.inside, "rm", f"{world.pins}/{name}", f"{world.pins}/link")
    (odd,) = [pin for pin in found["pins"] if "odd" in pin["path"]]
    assert odd["path"] == f"{world.pins}/odd \ufffd\n\x1b[2J"
    assert not [pin for pin in found["pins"] if pin["path"].endswith("/link")]
    judged = document.read("h", {"inventory": found}).inventory
    assert judged is not None and "\x1b" not in json.dumps(judged["pins"])


def test_what_hides_a_bpffs_is_told_and_not_read(world: Others) -> None:
    over = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {world.pins} && exec "$@"', "sh"]
    found = asked(*world.inside, *over)
    assert f"pins below {world.pins}: something else is mounted or linked there" in found["unknown"]


def test_a_host_in_a_process_namespace_of_its_own_says_that_it_sees_no_other_holder(world: Others) -> None:
    found = asked("unshare", "--pid", "--fork", "--mount-proc")
    assert found["processes"] == {} and named(found, "their_raw_tp", "raw_tp:sys_enter")["owner"]["guess"] is False
    assert any(one.startswith("process namespace: ") for one in found["unknown"])
    # Whether one of those that it does not see has run time counted is not known either.
    assert found["stats"]["answer"] in ("unknown", "yes")


def test_a_network_namespace_that_only_a_process_keeps_is_asked_too() -> None:
    # A user may run the file; make test refuses one.
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a network namespace")
    command = ["unshare", "--net", "sh", "-c", "echo ready && exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None and keeper.stdout.readline() == "ready\n"
        inode = os.stat(f"/proc/{keeper.pid}/ns/net").st_ino
        found = asked()
        keeper.kill()
    (here,) = [one for one in found["network_namespaces"] if one["inode"] == inode]
    assert here == {"inode": inode, "name": None, "pid": keeper.pid, "own": False, "asked": True}


# ---- who and where ----


@pytest.mark.parametrize(
    ("made", "name", "point"),
    [
        ("raw_tp", "their_raw_tp", "raw_tp:sys_enter"),
        ("tcx_ingress", "their_tc", "tcx_ingress:vb"),
        ("xdp", "other_xdp", "xdp:vb"),
        ("cgroup", "other_egress", "cgroup_inet_egress:{cgroup}/links"),
        ("perf_link", "their_switch", "tracepoint:sched_switch"),
        ("perf_event", "other_switch", "tracepoint:sched_switch"),
        ("tp_btf", "probe", "tp_btf:sched_switch"),
    ],
)
def test_what_a_process_holds_is_its_units(world: Others, made: str, name: str, point: str) -> None:
    # Of the kernel: an old one, or one without the option, has no such hook for others to use.
    if isinstance(world.made[made], str):
        pytest.skip(f"this kernel does not take {made}: {world.made[made]}")
    assert world.agent is not None
    found = asked()
    program = named(found, name, point.format(cgroup=world.shown_cgroup))
    process = found["processes"][str(world.agent.pid)]
    assert process["comm"] == "their-agent" and process["unit"] == "their-agent.service"
    assert [one["pid"] for one in program["holders"]] == [world.agent.pid]
    assert (program["owner"]["kind"], program["owner"]["name"]) == ("unit", "their-agent.service")
    assert program["owner"]["guess"] is False and not program["ours"]


def test_a_link_has_the_interface_and_the_namespace_of_its_attachment(world: Others) -> None:
    # Of the kernel: links of XDP are there from Linux 5.9 on; the attachment by netlink has tests of its own.
    if isinstance(world.made["xdp"], str):
        pytest.skip(f"this kernel does not take an XDP link: {world.made['xdp']}")
    found = asked()
    (namespace,) = [one for one in found["network_namespaces"] if one["name"] == world.netns]
    (xdp,) = [one for one in found["attachments"] if one["point"] == "xdp:vb" and one["netns"] == namespace["inode"]]
    assert xdp["link_id"] is not None
    (link,) = [one for one in found["links"] if one["id"] == xdp["link_id"]]
    assert (link["type"], link["target"], link["attached"]) == ("xdp", "vb", True)


def test_a_tail_call_is_an_attachment(world: Others) -> None:
    found = asked()
    (call_of,) = [one for one in found["attachments"] if one["hook"] == "tail_call"
                  and by_id(found["programs"])[one["program_id"]]["name"] == "other_xdp"]  # fmt: skip
    (of,) = [one for one in found["maps"] if one["id"] == call_of["map_id"]]
    assert world.agent is not None
    assert (of["type"], of["pids"]) == ("prog_array", [world.agent.pid])


def test_without_a_holder_the_owner_is_not_known_or_a_guess(world: Others) -> None:
    found = asked()
    attached = named(found, "their_xdp", "xdp:va")
    assert attached["holders"] == [] and attached["pins"] == []
    assert (attached["owner"]["kind"], attached["owner"]["name"]) == ("unknown", None)
    pinned = named(found, "their_egress", f"cgroup_inet_egress:{world.shown_cgroup}")
    assert pinned["pins"] == [f"{world.pins}/all/their_egress"] and pinned["owner"]["kind"] == "unknown"
    assert pinned["owner"]["why"].endswith("which does not tell whose it is")


def test_the_programs_that_are_in_each_others_way_are_told(world: Others) -> None:
    found = conflicts.conflicts_of(asked())
    mine = [one for one in found if "their_" in one.sentence]
    tc = [one for one in mine if one.kind == "tc_order"]
    assert [(one.point, one.guess) for one in tc] == [("ingress:va", False)]
    assert "their_tc of owner unknown may decide before their_action of owner unknown is asked" in tc[0].sentence
    (overridden,) = [one for one in mine if one.kind == "overridden"]
    assert f"{world.shown_cgroup}: their_egress of owner unknown does not run for" in overridden.sentence
    (displaced,) = [one for one in mine if one.kind == "displaced_xdp"]
    assert displaced.guess


# ---- cost ----


def test_a_cost_is_not_measured_where_the_kernel_does_not_count_and_is_where_it_does(world: Others) -> None:
    found = asked()
    if found["stats"]["answer"] != "no":
        pytest.skip("this kernel counts run time for somebody else")
    program = named(found, "their_raw_tp", "raw_tp:sys_enter")
    assert (program["run_time_ns"], program["run_cnt"]) == (None, None)
    holder = (
        "import os, struct, sys\n"
        "from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys\n"
        "bpfsys.bpf(bpfsys.ENABLE_STATS, struct.pack('=I', 0))\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as counts:
        assert counts.stdout is not None and counts.stdout.readline() == "ready\n"
        measured = asked()
        theirs = by_id(bpftool("prog", "show"))
        counts.kill()
    assert measured["stats"]["answer"] == "yes" and "BPF_ENABLE_STATS" in measured["stats"]["evidence"]
    ran = named(measured, "their_raw_tp", "raw_tp:sys_enter")
    # Pinned and attached nowhere: it never ran.
    (idle,) = [one for one in measured["programs"] if one["name"] == "their_action" and not one["points"]]
    # It runs at every system call, ours among them, so it ran between the two answers too.
    assert 0 < ran["run_cnt"] <= theirs[ran["id"]]["run_cnt"]
    assert 0 < ran["run_time_ns"] <= theirs[ran["id"]]["run_time_ns"]
    assert (idle["run_cnt"], idle["run_time_ns"]) == (0, 0)


# ---- tracers ----


@contextlib.contextmanager
def running(command: list[str], folder: Path, until: str) -> Iterator[subprocess.Popen[bytes]]:
    """A tracer that has attached: bpftool lists a program of that name that was not there before."""
    before = {one["id"] for one in bpftool("prog", "show")}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            end = time.monotonic() + 60
            while not any(one["id"] not in before and until in one.get("name", "") for one in bpftool("prog", "show")):
                assert process.poll() is None and time.monotonic() < end, (folder / "out").read_text()
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def held_by(pid: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    found = asked()
    return found, [one for one in found["programs"] if pid in [holder["pid"] for holder in one["holders"]]]


def until_it_holds(pid: int, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ask until every program of the tracer is attached: it attaches one after the other."""
    end = time.monotonic() + 60
    while True:
        found, programs = held_by(pid)
        if len([one for one in programs if one["points"]]) >= count or time.monotonic() > end:
            return found, programs
        time.sleep(0.1)


def test_bpftrace_is_found_with_its_probes(tmp_path: Path) -> None:
    # It is no package that setup installs.
    if shutil.which("bpftrace") is None:
        pytest.skip("this machine has no bpftrace")
    script = "tracepoint:syscalls:sys_enter_getppid { @a = count(); } profile:hz:5 { @b = count(); }"
    with running(["bpftrace", "-e", script], tmp_path, "sys_enter_getpp") as tracer:
        found, programs = until_it_holds(tracer.pid, 2)
    points = {one["type"]: one["points"] for one in programs}
    assert points["tracepoint"] == ["tracepoint:sys_enter_getppid"] and points["perf_event"] == ["perf_event"]
    assert {(one["owner"]["guess"], one["holders"][0]["pid"]) for one in programs} == {(False, tracer.pid)}
    assert found["processes"][str(tracer.pid)]["comm"] == "bpftrace"
    # Which of its events runs the program that samples is something that the kernel does not tell.
    (sampled,) = [one for one in found["attachments"] if one["hook"] == "perf_event" and one["source"] == "guess"]
    assert sampled["program_id"] in {one["id"] for one in programs}
    assert any(one.startswith(f"perf events: process {tracer.pid} (bpftrace)") for one in found["unknown"])


def test_a_libbpf_tool_is_found_with_its_probes(tmp_path: Path) -> None:
    # It is no package that setup installs.
    if shutil.which("syscount") is None or shutil.which("execsnoop") is None:
        pytest.skip("this machine has no libbpf-tools")
    with running(["execsnoop"], tmp_path, "execve") as tracer:
        _found, programs = until_it_holds(tracer.pid, 2)
    assert {point for one in programs for point in one["points"]} == {
        "tracepoint:sys_enter_execve", "tracepoint:sys_exit_execve"
    }  # fmt: skip
    assert {one["holders"][0]["pid"] for one in programs} == {tracer.pid}


# ---- systemd's own ----


def test_what_systemd_puts_at_the_cgroup_of_a_unit_is_found() -> None:
    problem = why_no_host()
    if problem is not None:
        pytest.skip(problem)
    with SysHost.boot() as host:
        started = host.run("systemd-run --unit=walled -p IPAddressDeny=any -p DevicePolicy=closed sleep 600")
        assert started.rc == 0, started.stderr
        found = asked()
        here = [one for one in found["attachments"] if str(one["target"]).endswith("/system.slice/walled.service")
                and f"/{host.cgroup.name}/" in str(one["target"])]  # fmt: skip
        assert {"cgroup_inet_ingress", "cgroup_inet_egress"} <= {one["hook"] for one in here}
        programs = by_id(found["programs"])
        for one in here:
            program = programs[one["program_id"]]
            assert program["name"].startswith("sd_")
            # By its holder where systemd keeps it, else by the name, which is then said to be a guess.
            assert program["owner"]["guess"] is (program["holders"] == [])
            assert program["owner"]["name"] in ("systemd", "init.scope")


# ---- module and playbook ----


def test_the_module_changes_nothing_and_returns_what_is_believed(tmp_path: Path, world: Others) -> None:
    before = {one["id"] for one in bpftool("prog", "show")}
    result = run_one(tmp_path, "bpf_inventory_info", "--check")
    assert (result["failed"], result["changed"]) == (False, False), result["_said"]
    found = result["inventory"]
    assert named(found, "their_raw_tp", "raw_tp:sys_enter")["owner"]["name"] == "their-agent.service"
    assert before & {one["id"] for one in bpftool("prog", "show")} <= {one["id"] for one in found["programs"]}
    assert not any(one["comm"] == "python" for one in found["processes"].values())


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
@pytest.mark.sample(2)
def test_the_module_runs_on_the_pythons_of_the_fleet(tmp_path: Path, version: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: the kernel lists nothing")
    interpreter = {"ansible_python_interpreter": interpreter_of(version)}
    task = {"ebpf.fleet.bpf_inventory_info": {}, "register": "result", "vars": interpreter}
    _status, results, said = run_tasks(tmp_path, [task])
    assert results["result"]["inventory"]["privileged"] is True, said


def document_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "fleet.json").read_text())
    assert document.fleet_faults(found) is None
    return found


def test_the_playbook_tells_what_is_new_who_is_silent_and_what_conflicts(tmp_path: Path, world: Others) -> None:
    report = ("-e", "ebpf_fleet_report=fleet")
    status, said = run("inventory", tmp_path, *report)
    assert status == 0, said
    first = document_of(tmp_path)
    assert sorted(first["hosts"]) == ["d1", "w1"] and first["changes"]["since"] is None
    (row,) = [one for one in first["groups"] if one["point"] == "raw_tp:sys_enter"]
    assert (row["owner"], row["hosts"], row["names"]) == ("their-agent.service", ["d1", "w1"], ["their_raw_tp"])
    assert "their-agent.service" in said and "CONFLICT ingress of va" in said

    obj = str(world.folder / "others.o")
    call("ip", "-n", world.netns, "-force", "link", "set", "va", "xdpgeneric", "off")
    pinned = f"{world.pins}/all/other_xdp"
    call(*world.inside, f"--net=/run/netns/{world.netns}", "ip", "link", "set", "va", "xdpgeneric", "pinned", pinned)
    (tmp_path / "silent.ini").write_text(SILENT)
    try:
        status, said = run("inventory", tmp_path, *report, "-i", "hosts.ini", "-i", "silent.ini")
    finally:
        call("ip", "-n", world.netns, "link", "set", "va", "xdpgeneric", "off")
        call("ip", "-n", world.netns, "link", "set", "va", "xdpgeneric", "obj", obj, "sec", "xdp")
    assert status != 0 and "No answer from gone" in said
    second = document_of(tmp_path)
    assert second["silent"] == ["gone"] and second["silent_reasons"]["gone"].startswith("unreachable: ")
    assert second["changes"]["since"] == first["time"]
    (replaced,) = [one for one in second["changes"]["replaced_xdp"] if "va" in one["sentence"]]
    assert "was their_xdp of owner unknown and is other_xdp of their-agent.service" in replaced["sentence"]
    assert replaced["hosts"] == ["d1", "w1"]
    gone = [one["name"] for one in second["changes"]["gone"] if "xdp:va" in one["points"]]
    assert gone == ["their_xdp"]
    assert "REPLACED XDP on va" in said


def test_check_mode_asks_and_writes_nothing(tmp_path: Path, world: Others) -> None:
    status, said = run("inventory", tmp_path, "--check", "-e", "ebpf_fleet_report=fleet")
    assert status == 0, said
    assert "their-agent.service" in said and not (tmp_path / "fleet.json").exists()


@pytest.mark.apart
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "No such file or directory"),
        ("{", "is not JSON"),
        ("[]", "is not a inventory"),
        ("{}", "it has no hosts"),
        ('{"hosts": {"h": {"schema": "x"}}}', "host h: "),
    ],
)
def test_a_last_inventory_that_cannot_be_used_is_refused_before_anyone_is_asked(
    tmp_path: Path, content: str | None, fault: str
) -> None:
    if content is not None:
        (tmp_path / "last.json").write_text(content)
    status, said = run("inventory", tmp_path, "-e", "ebpf_fleet_last_inventory=last.json")
    assert status != 0 and "EF_LAST_INVENTORY: the last inventory" in said and fault in said
    assert "Ask for programs" not in said


@pytest.mark.apart
def test_a_folder_for_the_document_that_is_none_is_refused_before_anyone_is_asked(tmp_path: Path) -> None:
    status, said = run("inventory", tmp_path, "-e", "ebpf_fleet_report=nowhere/fleet")
    assert status != 0 and f"{tmp_path}/nowhere is not a folder on the controller" in said
    assert "Ask for programs" not in said


@pytest.mark.apart
def test_a_host_that_is_not_asked_as_root_did_not_answer(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody who is not root")
    line = (
        "u1 ansible_connection=local ansible_become=true ansible_become_user=nobody ansible_remote_tmp=/tmp/.of-nobody"
    )
    (tmp_path / "user.ini").write_text(f"{line} ansible_python_interpreter=/usr/bin/python3\n")
    status, said = run("inventory", tmp_path, "-e", "ebpf_fleet_report=fleet", "-i", "hosts.ini", "-i", "user.ini")
    assert status != 0, said
    found = document_of(tmp_path)
    assert found["silent"] == ["u1"] and "root" in found["silent_reasons"]["u1"], said
    assert sorted(found["hosts"]) == ["d1", "w1"]
