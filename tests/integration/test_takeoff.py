# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that ip, tc, bpftool, bpftrace and an agent attached are taken off this machine's kernel, and put back.

Interfaces are in a network namespace of the tests' own; a bpffs, the records and cgroups likewise. What is not named is
compared by other tools' answers before and after.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import act, target
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import processes
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope as grammar

from tests.integration import others, scripted
from tests.integration.others import call
from tests.integration.runner import run_one, run_tasks
from tests.integration.test_capability_facts import interpreter_of
from tests.integration.test_playbooks import run
from tests.loader.foreign import compile_bpf
from tests.support.syshost import cgroup2

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("takeoff.bpf.c")
ASK = """
import json, sys
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import host, target

given = json.loads(sys.argv[1])
wish = host.Wish(target.parse(given["scope"]), "test", given["pins"], given["check"], 10)
try:
    print(json.dumps(host.release(wish) if given["state"] == "released" else host.take_off(wish)))
except FleetError as error:
    print(json.dumps({"fault": error.as_line()}))
"""
# A link of its own kind, pinned, so that no process holds it: arguments are kind, program's pin, target, path.
LINK = """
import os, struct, sys
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfchange, bpfqueries, bpfsys

kind, program, target, path = sys.argv[1], bpfqueries.open_pin(sys.argv[2]), sys.argv[3], sys.argv[4]
if kind == "raw_tp":
    fd = bpfsys.raw_tracepoint_open(target, program)
elif kind == "cgroup":
    fd = bpfchange.create_link(program, os.open(target, os.O_RDONLY), 1)
else:
    fd = bpfchange.create_link(program, int(target), {"xdp": 37, "tcx": 46}[kind], 2 if kind == "xdp" else 0)
bpfchange.pin(fd, path)
"""


class World:
    """Mounts of its own (/var/lib, a bpffs), a network namespace with a pair of interfaces, and a cgroup."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.interpreter = sys.executable
        self.obj = str(folder / "takeoff.o")
        self.netns = f"takeoff-{os.getpid()}"
        top = cgroup2()
        assert top is not None
        self.cgroup = top / self.netns
        compile_bpf(SOURCE, folder / "takeoff.o", "-Wno-unused-function")
        # First, as what is mounted later is not seen in a mount namespace of its own.
        call("ip", "netns", "add", self.netns)
        mounts = "mount -t tmpfs tmpfs /var/lib && mount -t bpf bpf /sys/fs/bpf && echo ready && exec cat"
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._keeper.stdout is not None and self._keeper.stdout.readline() == "ready\n"
        self.cgroup.mkdir()
        call("ip", "-n", self.netns, "link", "add", "va", "type", "veth", "peer", "name", "vb")
        for name in ("va", "vb"):
            call("ip", "-n", self.netns, "link", "set", name, "up")
            call("tc", "-n", self.netns, "qdisc", "add", "dev", name, "clsact")

    def stop(self) -> None:
        self._keeper.kill()
        self._keeper.communicate()
        subprocess.run(["ip", "netns", "del", self.netns], capture_output=True, check=False)
        with contextlib.suppress(OSError):
            self.cgroup.rmdir()

    @property
    def within(self) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", f"--net=/run/netns/{self.netns}", "--wd=/"]

    def inside(self, *command: str) -> str:
        return call(*self.within, *command)

    def python(self, text: str, *words: str) -> str:
        path = os.pathsep.join(sys.path)
        return self.inside("env", f"PYTHONPATH={path}", sys.executable, "-c", text, *words)

    def ask(self, scope: str, state: str = "engaged", check: bool = False, pins: bool = False) -> Any:
        """What the module would return, from this world's mounts and the machine's own network namespace."""
        given = json.dumps({"scope": scope, "state": state, "check": check, "pins": pins})
        entered = [one for one in self.within if not one.startswith("--net")]
        return json.loads(
            call(*entered, "env", f"PYTHONPATH={ROOT / 'collections'}", self.interpreter, "-c", ASK, given)
        )

    def taken_off(self, scope: str, state: str = "engaged", **more: Any) -> Any:
        found = self.ask(scope, state, **more)
        assert "takeoff" in found, found
        return found["takeoff"]

    def tag(self, name: str) -> str:
        """The scope of programs of that name of this file's."""
        tags = {one["tag"] for one in json.loads(call("bpftool", "-j", "prog", "show")) if one.get("name") == name}
        (tag,) = tags
        return f"program={tag}"

    def load(self, name: str, path: str) -> None:
        """Pin one program of this file's at that path."""
        self.inside("bpftool", "prog", "loadall", self.obj, "/sys/fs/bpf/all")
        self.inside("mv", f"/sys/fs/bpf/all/{name}", path)
        self.inside("rm", "-r", "/sys/fs/bpf/all")

    def net(self) -> tuple[Any, Any]:
        """What ip and tc tell of the programs of the interfaces, ids and all."""
        links = json.loads(call("ip", "-j", "-n", self.netns, "link", "show"))
        tc = [call("tc", "-j", "-n", self.netns, "filter", "show", "dev", dev, way)
              for dev in ("va", "vb") for way in ("ingress", "egress")]  # fmt: skip
        return [(one["ifname"], one.get("xdp")) for one in links], [json.loads(one) for one in tc]

    def at_cgroup(self) -> list[tuple[int, str, str]]:
        rows = json.loads(self.inside("bpftool", "-j", "cgroup", "show", str(self.cgroup)).strip() or "[]")
        return [(one["id"], one["attach_type"], one["attach_flags"]) for one in rows]

    def ip(self, *words: str) -> None:
        self.inside("ip", *words)

    def records(self) -> list[str]:
        return self.inside("sh", "-c", "ls /var/lib/ebpf-fleet/foreign 2>/dev/null || true").split()

    def kept(self) -> list[str]:
        return self.inside("sh", "-c", "ls /sys/fs/bpf/ebpf-fleet 2>/dev/null || true").split()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    problem = others.why_not()
    if problem is not None:
        # Of the machine, such as one that forbids namespaces: tests/holes.yml has each with its why.
        pytest.skip(problem)
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.stop()


# ---- by ip and tc ----


def test_xdp_of_two_modes_goes_and_comes_back_at_the_same_places(world: World) -> None:
    world.ip("link", "set", "va", "xdpgeneric", "obj", world.obj, "sec", "xdp")
    world.ip("link", "set", "vb", "xdpdrv", "obj", world.obj, "sec", "xdp")
    # Of this world, as the programs of others come and go: one that is not meant, on the same interface.
    world.inside("tc", "filter", "add", "dev", "va", "ingress", "bpf", "da", "obj", world.obj, "sec", "tc")
    scope, before = world.tag("some_xdp"), world.net()
    assert [xdp["mode"] for _name, xdp in before[0] if xdp] == [1, 2] or sum(bool(xdp) for _name, xdp in before[0]) == 2

    planned = world.taken_off(scope, check=True)
    assert planned["status"] == "planned" and len([one for one in planned["plan"] if one.startswith("detach ")]) == 2
    assert world.net() == before and world.records() == [] and world.kept() == []

    found = world.taken_off(scope)
    assert (found["status"], found["left"]) == ("off", [])
    assert [xdp for _name, xdp in world.net()[0] if xdp] == []
    assert world.net()[1] == before[1] != [[], [], [], []], "what was not named is as it was, by its id too"
    assert world.taken_off(scope, "released")["status"] == "released"
    assert world.net() == before
    assert world.records() == ["released"] and world.kept() == []


def test_tc_filters_go_and_come_back_with_place_priority_and_handle(world: World) -> None:
    tc = ("tc", "filter", "add", "dev")
    world.inside(*tc, "va", "ingress", "prio", "7", "handle", "0x5", "bpf", "da", "obj", world.obj, "sec", "tc")
    world.inside(
        *tc, "vb", "egress", "prio", "9", "protocol", "ip", "bpf", "obj", world.obj, "sec", "tc", "classid", "1:1"
    )
    world.inside(*tc, "va", "ingress", "prio", "8", "bpf", "da", "obj", world.obj, "sec", "cgroup_skb/egress")
    scope, before = world.tag("some_tc"), world.net()
    found = world.taken_off(scope)
    assert (found["status"], found["left"]) == ("off", [])
    # The third is another's program, on the same list of filters.
    ingress, egress_va, ingress_vb, egress = world.net()[1]
    assert {one["pref"] for one in ingress} == {8} and (egress_va, ingress_vb, egress) == ([], [], [])
    assert world.taken_off(scope, "released")["status"] == "released"
    assert world.net() == before


@pytest.mark.slow
def test_what_cannot_be_kept_is_not_taken_off(world: World) -> None:
    world.ip("link", "set", "va", "xdpgeneric", "obj", world.obj, "sec", "xdp")
    scope_of, before = world.tag("some_xdp"), world.net()
    world.inside("mount", "-o", "remount,ro", "/sys/fs/bpf")
    found = world.taken_off(scope_of)
    assert found["status"] == "left" and "it could not be kept first" in " ".join(found["left"]), found
    assert world.net() == before
    world.inside("mount", "-o", "remount,rw", "/sys/fs/bpf")
    assert world.taken_off(scope_of)["status"] == "off"
    assert world.taken_off(scope_of, "released")["status"] == "released" and world.net() == before


@pytest.mark.slow
def test_all_of_it_runs_on_the_oldest_python(world: World) -> None:
    world.interpreter = interpreter_of("3.8")
    world.ip("link", "set", "va", "xdpgeneric", "obj", world.obj, "sec", "xdp")
    world.inside("tc", "filter", "add", "dev", "va", "ingress", "bpf", "da", "obj", world.obj, "sec", "tc")
    before = world.net()
    for scope in (world.tag("some_xdp"), world.tag("some_tc")):
        assert world.taken_off(scope)["status"] == "off"
        assert world.net() != before
        assert world.taken_off(scope, "released")["status"] == "released"
        assert world.net() == before


@pytest.mark.slow
def test_what_took_the_place_meanwhile_is_neither_taken_off_nor_overwritten(world: World) -> None:
    world.load("some_xdp", "/sys/fs/bpf/one")
    world.load("some_egress", "/sys/fs/bpf/two")
    tc = ("tc", "filter", "replace", "dev", "va", "ingress", "prio", "7", "handle", "5", "bpf", "da")
    world.ip("link", "set", "va", "xdpgeneric", "pinned", "/sys/fs/bpf/one")
    world.inside(*tc, "obj", world.obj, "sec", "tc")
    scopes = world.tag("some_xdp"), world.tag("some_tc")
    for scope in scopes:
        assert world.taken_off(scope)["status"] == "off"
    world.ip("link", "set", "va", "xdpgeneric", "obj", world.obj, "sec", "xdp")
    other = ("sec", "cgroup_skb/egress")
    world.inside(*tc, "obj", world.obj, *other)
    before = world.net()
    for scope in scopes:
        found = world.taken_off(scope, "released")
        assert found["status"] == "released_in_part" and "the place is taken" in found["left"][0], found
    assert world.net() == before and len(world.records()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["interface", "pin"])
def test_what_can_never_be_put_back_is_told_once_and_ends_the_record(world: World, lost: str) -> None:
    world.ip("link", "set", "va", "xdpgeneric", "obj", world.obj, "sec", "xdp")
    scope = world.tag("some_xdp")
    assert world.taken_off(scope)["status"] == "off"
    if lost == "interface":
        world.ip("link", "del", "va")
        world.ip("link", "add", "va", "type", "veth", "peer", "name", "vb")
    else:
        world.inside("sh", "-c", "rm /sys/fs/bpf/ebpf-fleet/foreign-*/program-*")
    before = world.net()
    found = world.taken_off(scope, "released")
    words = {"interface": "its interface or network namespace has gone", "pin": "the program is kept no more"}[lost]
    assert found["status"] == "released" and words in found["told"][-1], found
    assert world.net() == before and world.records() == ["released"] and world.kept() == []


@pytest.mark.slow
def test_a_filter_whose_discipline_has_gone_waits_for_it(world: World) -> None:
    tc = ("tc", "filter", "add", "dev", "va", "ingress", "prio", "7", "handle", "5", "bpf", "da")
    world.inside(*tc, "obj", world.obj, "sec", "tc")
    scope, before = world.tag("some_tc"), world.net()
    assert world.taken_off(scope)["status"] == "off"
    world.inside("tc", "qdisc", "del", "dev", "va", "clsact")
    found = world.taken_off(scope, "released")
    assert found["status"] == "released_in_part" and "tc qdisc add dev NAME clsact" in found["left"][0], found
    world.inside("tc", "qdisc", "add", "dev", "va", "clsact")
    found = world.taken_off(scope, "released")
    assert found["status"] == "released" and world.net() == before
    assert [one["points"] for one in found["programs"]] == [["tc_ingress:va"]]


def test_a_step_whose_place_is_anothers_by_now_leaves_it(world: World) -> None:
    """Between plan and step: the very calls, with the id of a program that is not there."""
    world.load("some_xdp", "/sys/fs/bpf/one")
    world.ip("link", "set", "va", "xdpgeneric", "obj", world.obj, "sec", "xdp")
    tc = ("tc", "filter", "add", "dev", "va", "ingress", "prio", "7", "handle", "5", "bpf", "da")
    world.inside(*tc, "obj", world.obj, "sec", "tc")
    before = world.net()
    said = world.python(
        "import json, os\n"
        "from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import act, target\n"
        "from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfqueries, netchange, netattach\n"
        "actor = act.Actor(target.Target('unit', 'x.service'))\n"
        "fd = bpfqueries.open_pin('/sys/fs/bpf/one')\n"
        "number = act._pinned('/sys/fs/bpf/one')[1]\n"
        "(one,) = netchange.filters()\n"
        "names = {name: at for at, name in netattach.ask_interfaces().interfaces.items()}\n"
        "base = {'do': 'detach', 'netns': None, 'program_id': number}\n"
        "xdp = {**base, 'how': 'xdp', 'ifindex': names['va'], 'mode': 'generic'}\n"
        "native = {**xdp, 'mode': 'native'}\n"
        "tc = {**base, 'how': 'tc', 'filter': {**one._asdict(), 'program_id': number}}\n"
        "gone = {**base, 'how': 'tc', 'filter': {**one._asdict(), 'handle': 9}}\n"
        "print(json.dumps([actor.do(step) for step in (xdp, native, tc, gone)]))\n"
    )
    assert [status for status, _why in json.loads(said)] == ["gone"] * 4, said
    assert world.net() == before


# ---- by bpftool ----


def test_a_program_at_a_cgroup_goes_and_comes_back_with_its_flags(world: World) -> None:
    world.load("some_egress", "/sys/fs/bpf/one")
    world.inside("bpftool", "cgroup", "attach", str(world.cgroup), "egress", "pinned", "/sys/fs/bpf/one", "multi")
    scope, before = world.tag("some_egress"), world.at_cgroup()
    assert len(before) == 1
    found = world.taken_off(scope)
    assert (found["status"], world.at_cgroup()) == ("off", [])
    assert any("is still pinned: rm /sys/fs/bpf/one" in one for one in found["told"])
    assert world.taken_off(scope, "released")["status"] == "released"
    assert world.at_cgroup() == before


def test_a_pin_goes_only_where_that_was_asked_and_comes_back(world: World) -> None:
    world.load("some_egress", "/sys/fs/bpf/one")
    scope = world.tag("some_egress")
    number = json.loads(world.inside("bpftool", "-j", "prog", "show", "pinned", "/sys/fs/bpf/one"))["id"]
    assert world.taken_off(scope, pins=True)["status"] == "off"
    assert "one" not in world.inside("ls", "/sys/fs/bpf").split()
    assert world.taken_off(scope, "released")["status"] == "released"
    assert json.loads(world.inside("bpftool", "-j", "prog", "show", "pinned", "/sys/fs/bpf/one"))["id"] == number


@pytest.mark.parametrize("kind", ["xdp", "tcx", "cgroup"])
def test_a_pinned_link_is_detached_and_made_again_at_its_pin(world: World, kind: str) -> None:
    name = {"xdp": "some_xdp", "tcx": "some_tc", "cgroup": "some_egress"}[kind]
    world.load(name, "/sys/fs/bpf/one")
    ifindex = json.loads(world.inside("ip", "-j", "link", "show", "va"))[0]["ifindex"]
    where = str(world.cgroup) if kind == "cgroup" else str(ifindex)
    try:
        world.python(LINK, kind, "/sys/fs/bpf/one", where, "/sys/fs/bpf/link")
    except AssertionError as error:
        # Of the kernel: links of XDP are there from 5.9 on, of tcx from 6.6.
        pytest.skip(f"this kernel does not take a link of {kind}: {error}")
    world.inside("rm", "/sys/fs/bpf/one")
    scope, before = world.tag(name), attached(world, name)
    assert before
    found = world.taken_off(scope)
    assert (found["status"], attached(world, name)) == ("off", []), found
    assert any("rm /sys/fs/bpf/link" in one for one in found["plan"])
    # A run that is killed before it could write down what it did does it once all the same.
    record = f"/var/lib/ebpf-fleet/foreign/program.{scope.partition('=')[2]}.json"
    world.inside("cp", record, "/var/lib/record")
    folder = world.inside("sh", "-c", "cd /sys/fs/bpf/ebpf-fleet && echo foreign-*").strip()
    number = json.loads(world.inside("bpftool", "-j", "prog", "show", "name", name))["id"]
    assert world.taken_off(scope, "released")["status"] == "released"
    world.inside("cp", "/var/lib/record", record)
    kept = f"/sys/fs/bpf/ebpf-fleet/{folder}"
    world.inside("sh", "-c", f"mkdir {kept} && bpftool prog pin id {number} {kept}/program-{number}")
    assert world.taken_off(scope, "released")["status"] == "released" and world.kept() == []
    assert attached(world, name) == before
    # It is the pin again that keeps it.
    world.inside("rm", "/sys/fs/bpf/link")
    end = time.monotonic() + 30
    while attached(world, name) and time.monotonic() < end:
        time.sleep(0.1)
    assert attached(world, name) == []


def attached(world: World, name: str) -> list[tuple[str, Any]]:
    """Where the inventory finds the program, by a process of its own."""
    text = (
        "import json, sys\n"
        "from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import ask, host\n"
        "found = host.assemble(ask.ask())\n"
        "ids = {one['id'] for one in found['programs'] if one['name'] == sys.argv[1]}\n"
        "print(json.dumps([(one['point'], one['mode']) for one in found['attachments'] if one['program_id'] in ids]))\n"
    )
    return [(point, mode) for point, mode in json.loads(world.python(text, name))]


def test_a_program_at_tcx_without_a_link_goes_and_comes_back(world: World) -> None:
    world.load("some_tc", "/sys/fs/bpf/one")
    ifindex = json.loads(world.inside("ip", "-j", "link", "show", "va"))[0]["ifindex"]
    try:
        world.python(
            "import sys\n"
            "from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfchange, bpfqueries\n"
            "bpfchange.attach(int(sys.argv[1]), bpfqueries.open_pin('/sys/fs/bpf/one'), 46)\n", str(ifindex),
        )  # fmt: skip
    except AssertionError as error:
        # Of the kernel: tcx is there from 6.6 on.
        pytest.skip(f"this kernel does not take a link of tcx: {error}")
    scope, before = world.tag("some_tc"), attached(world, "some_tc")
    assert before == [("tcx_ingress:va", None)]
    found = world.taken_off(scope)
    assert (found["status"], attached(world, "some_tc")) == ("off", []), found
    assert world.taken_off(scope, "released")["status"] == "released"
    assert attached(world, "some_tc") == before


@pytest.mark.slow
def test_a_filter_of_a_block_that_interfaces_share_goes_once_and_comes_back(world: World) -> None:
    for name in ("va", "vb"):
        world.inside("tc", "qdisc", "del", "dev", name, "clsact")
        world.inside("tc", "qdisc", "add", "dev", name, "ingress_block", "7", "clsact")
    tc = ("tc", "filter", "add", "block", "7", "prio", "3", "bpf", "da")
    world.inside(*tc, "obj", world.obj, "sec", "tc")
    shown = ("tc", "-j", "filter", "show", "block", "7")
    scope, before = world.tag("some_tc"), json.loads(world.inside(*shown))
    found = world.taken_off(scope)
    assert (found["status"], json.loads(world.inside(*shown))) == ("off", []), found
    assert len([one for one in found["done"] if "detach" in one]) == 1
    assert world.taken_off(scope, "released")["status"] == "released"
    assert json.loads(world.inside(*shown)) == before


@pytest.mark.slow
def test_a_link_that_ends_with_its_pin_alone_is_left_until_pins_may_go(world: World) -> None:
    world.load("some_raw_tp", "/sys/fs/bpf/one")
    world.python(LINK, "raw_tp", "/sys/fs/bpf/one", "sys_enter", "/sys/fs/bpf/link")
    scope = world.tag("some_raw_tp")
    found = world.taken_off(scope)
    assert found["status"] == "left" and "rm /sys/fs/bpf/link, or add -e remove_pins=true" in found["left"][0]
    assert attached(world, "some_raw_tp")
    found = world.taken_off(scope, pins=True)
    assert (found["status"], attached(world, "some_raw_tp")) == ("off", []), found
    found = world.taken_off(scope, "released")
    assert found["status"] == "released" and any("cannot be put back by this" in one for one in found["told"])


def test_a_host_without_a_bpffs_gets_one_for_what_is_kept() -> None:
    # A user may run the file; make test refuses one.
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a mount namespace")
    text = (
        "from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpffs\n"
        "print(bpffs.place(), bpffs.place(), bpffs.is_mounted(bpffs.OWN), bpffs.is_mounted(bpffs.USUAL))\n"
    )
    alone = 'umount /sys/fs/bpf 2>/dev/null; mount -t tmpfs tmpfs /run && exec "$@"'
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", alone, "sh"]
    said = call(*enter, "env", f"PYTHONPATH={ROOT / 'collections'}", sys.executable, "-c", text)
    assert said.split() == ["/run/ebpf-fleet-bpffs/ebpf-fleet"] * 2 + ["True", "False"]


# ---- processes ----


@contextlib.contextmanager
def bpftrace(folder: Path, group: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A tracer that has attached, in a cgroup that is named as a unit's."""
    group.mkdir()
    script = 'tracepoint:syscalls:sys_enter_getppid { @takeoff[pid] = count(); } BEGIN { printf("attached\\n"); }'
    enter = ["sh", "-c", 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"', "sh", str(group)]
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen([*enter, "bpftrace", "-e", script], stdout=out, stderr=out)
        try:
            end = time.monotonic() + 60
            while b"attached" not in (folder / "out").read_bytes():
                assert process.poll() is None and time.monotonic() < end, (folder / "out").read_text()
                time.sleep(0.1)
            yield process
        finally:
            process.kill()
            process.wait(timeout=60)
            group.rmdir()


def test_a_tracer_is_ended_and_told_as_what_cannot_be_started_again(world: World, tmp_path: Path) -> None:
    # It is no package that setup installs.
    if shutil.which("bpftrace") is None:
        pytest.skip("this machine has no bpftrace")
    with bpftrace(tmp_path, world.cgroup / "tracer.service") as tracer:
        assert "did you mean unit=tracer.service?" in world.ask("unit=tracr.service")["fault"]
        found = world.taken_off("unit=tracer.service")
        assert found["status"] == "off", found
        assert tracer.wait(timeout=30) is not None
    assert any(f"end process {tracer.pid} (bpftrace, " in one for one in found["done"])
    again = world.ask("unit=tracer.service")
    assert (again["changed"], again["takeoff"]["status"]) == (False, "off")
    released = world.taken_off("unit=tracer.service", "released")
    assert released["status"] == "released" and f"process {tracer.pid} (bpftrace" in released["told"][0]
    assert world.ask("unit=tracer.service", "released")["fault"].startswith("EF_TAKEOFF_ABSENT: ")


@pytest.mark.slow
def test_a_libbpf_tool_is_taken_off_by_the_tag_of_one_of_its_programs(world: World, tmp_path: Path) -> None:
    # It is no package that setup installs.
    if shutil.which("execsnoop") is None:
        pytest.skip("this machine has no libbpf-tools")
    with (tmp_path / "out").open("wb") as out, subprocess.Popen(["execsnoop"], stdout=out, stderr=out) as tracer:
        try:
            end = time.monotonic() + 60
            mine: list[dict[str, Any]] = []
            while len(mine) < 2 and time.monotonic() < end:
                rows = json.loads(call("bpftool", "-j", "prog", "show"))
                mine = [one for one in rows if tracer.pid in [holder["pid"] for holder in one.get("pids", [])]]
                mine = mine or [one for one in rows if "execve" in one.get("name", "")]
                time.sleep(0.1)
            found = world.taken_off(f"program={mine[0]['tag']}")
            assert found["status"] == "off", found
            assert tracer.wait(timeout=30) is not None
        finally:
            tracer.kill()
    assert {one["id"] for one in mine}.isdisjoint(
        {one["id"] for one in json.loads(call("bpftool", "-j", "prog", "show"))}
    )


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
def test_the_module_runs_on_the_pythons_of_the_fleet(tmp_path: Path, version: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: the kernel lists nothing")
    interpreter = {"ansible_python_interpreter": interpreter_of(version)}
    task = {"ebpf.fleet.bpf_takeoff": {"scope": "program=0123456789abcdef"}, "register": "result", "vars": interpreter}
    _status, results, said = run_tasks(tmp_path, [task], "--check")
    result = results["result"]
    assert (result["failed"], result["reason_code"]) == (True, "EF_TAKEOFF_ABSENT"), said
    assert result["msg"].startswith("EF_TAKEOFF_ABSENT: no program of tag 0123456789abcdef is in this host's kernel")


@pytest.mark.slow
def test_the_module_does_nothing_without_its_confirmation(tmp_path: Path) -> None:
    result = run_one(tmp_path, "bpf_takeoff", scope="unit=net-agent.service", confirm="yes", reason="why")
    assert (result["failed"], result["reason_code"]) == (True, "EF_ARGUMENT")
    assert "confirm 'yes' is not takeoff-unit=net-agent.service" in result["msg"]


def test_only_the_process_that_began_then_is_ended_and_one_that_waits_is_killed() -> None:
    """It has SIGTERM blocked, so that one that was sent stays to be seen."""
    command = [sys.executable, "-c", "import signal, time; signal.pthread_sigmask(0, {15}); print(1); time.sleep(1000)"]
    with subprocess.Popen([*command[:1], "-u", *command[1:]], stdout=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None and one.stdout.readline() == "1\n"
            started = processes.start_ticks(one.pid)
            assert started is not None
            other = {"pid": one.pid, "start_ticks": started - 1}
            assert act._kill(other).status == "gone"
            assert processes.end(one.pid, started - 1, 0, 0)
            processes._signal(one.pid, started - 1, signal.SIGTERM)
            assert pending(one.pid) == 0 and one.poll() is None
            processes._signal(one.pid, started, signal.SIGTERM)
            assert pending(one.pid) == 1 << 14
            assert processes.end(one.pid, started, 0, 30)
            assert one.wait(timeout=30) == -9
        finally:
            one.kill()


def pending(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("ShdPnd:")[2].split()[0], 16)


# ---- the playbook ----


def test_what_is_not_confirmed_asks_no_host_and_says_what_to_type(tmp_path: Path) -> None:
    status, said = run("takeoff", tmp_path, "-e", "scope=unit=net-agent.service")
    said = " ".join(said.split())
    assert status != 0 and "EF_ARGUMENT: This stops and masks units" in said and "Ask each host" not in said
    assert "-e scope=unit=net-agent.service -e confirm=takeoff-unit=net-agent.service -e 'reason=" in said.replace(
        "\\", ""
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("playbook", "options", "words"),
    [
        ("rollback", ("-e", "scope=unit=net-agent.service"),
         "ansible-playbook ebpf.fleet.takeoff -e scope=unit=net-agent.service --check --diff"),
        ("takeoff", ("-e", "scope=global"), "ansible-playbook ebpf.fleet.rollback -e scope=global"),
        ("takeoff", (), "Say what to take off with -e scope=: write unit=NAME"),
        ("takeoff", ("--check", "-e", "scope=unit=a.service,cell=x"),
         "EF_HOSTS: scope=unit=a.service,cell=x means no host"),
        ("takeoff", ("--check", "-e", "scope=unit=a.service,host=wbe1"), "host=: 'wbe1' matches no host and no group"),
        ("takeoff", ("--check", "-e", "scope=unit=a.service", "-e", "ebpf_fleet_report=no/where.json"),
         "no is not a folder on the controller; make it first"),
        ("takeoff", ("-e", "scope=unit=a.service", "-e", "state=realesed"), "state 'realesed' is not one"),
        ("takeoff", ("-i", "nowhere/hosts", "--check", "-e", "scope=unit=a.service", "--limit", "x"), ""),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_before_any_host_is_asked(
    tmp_path: Path, playbook: str, options: tuple[str, ...], words: str
) -> None:
    status, said = run(playbook, tmp_path, *options)
    assert status != 0 and words in " ".join(said.split()) and "Ask each host" not in said


def answer(status: str, **more: Any) -> dict[str, Any]:
    lines = {"plan": ["stop unit a.service"], "done": [], "left": [], "told": []}
    told = {"schema": "ebpf.fleet/takeoff/v1", "target": "unit=a.service", "status": status, "programs": []}
    return {"changed": True, "takeoff": {**told, "record": None, **lines, **more}}


ABSENT = {
    "failed": True,
    "reason_code": "EF_TAKEOFF_ABSENT",
    "msg": "EF_TAKEOFF_ABSENT: this host has no unit a.service",
}
PLAN, DO = "Ask each host what would be done there", "Take it off, or put it back, and ask the kernel"
CONFIRMED = {"scope": "unit=a.service", "confirm": "takeoff-unit=a.service", "reason": "why"}


def test_only_concerned_hosts_are_changed_and_each_that_did_not_confirm_fails(tmp_path: Path) -> None:
    script = {
        PLAN: {"*": answer("planned"), "absent": ABSENT, "away": {"unreachable": True, "msg": "no route to host"}},
        DO: {"good": answer("off"), "bad": answer("left", left=["p1 (id 7) is still held by process 9: kill 9"])},
    }
    hosts = scripted.inventory(["good", "bad", "absent", "away", "elsewhere"])
    ended = scripted.played(tmp_path, "takeoff", hosts, script, scope="unit=a.service,host=!elsewhere,host=all",
                            **{key: one for key, one in CONFIRMED.items() if key != "scope"},
                            ebpf_fleet_report="report.json")  # fmt: skip
    assert ended.status != 0, ended.said
    assert sorted(call.host for call in ended.asked(PLAN)) == ["absent", "away", "bad", "good"]
    assert all(call.check for call in ended.asked(PLAN)) and not any(call.check for call in ended.asked(DO))
    assert sorted(call.host for call in ended.asked(DO)) == ["bad", "good"]
    # A host that does not have it is not shown as one that failed.
    (asked,) = [line for line in ended.screen if line.startswith(PLAN)]
    assert asked == f"{PLAN}: UNREACHABLE away, ok absent, ok bad, ok good, skipping elsewhere", ended.screen
    assert ended.asked(DO)[0].arguments == {
        "scope": "unit=a.service", "state": "engaged", "confirm": "takeoff-unit=a.service", "reason": "why",
        "remove_pins": False,
    }  # fmt: skip
    failed = [line for line in ended.screen if line.startswith("Fail every host")]
    assert failed == ["Fail every host that has not confirmed: FAILED away, FAILED bad"], ended.screen
    assert "EF_TAKEOFF_UNCONFIRMED: p1 (id 7) is still held by process 9: kill 9" in ended.said
    report = json.loads((tmp_path / "report.json").read_text())
    assert {name: one["status"] for name, one in report["hosts"].items()} == {
        "good": "off", "bad": "left", "absent": "not_concerned", "away": "no_answer"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "more", "status", "words"),
    [
        ({PLAN: {"*": answer("planned")}, DO: {"*": answer("off")}}, {}, 0, "off, by the kernel's own word: 2"),
        ({PLAN: {"*": ABSENT}}, {}, 2, "no host has it: give the right name"),
        ({PLAN: {"*": ABSENT}}, {"allow_unconcerned": "true"}, 0, "not concerned: 2"),
        ({PLAN: {"*": answer("planned")}, DO: {"*": {}}}, {}, 2, "NO USABLE ANSWER"),
        ({PLAN: {"*": answer("planned")}, DO: {"*": answer("unknown", left=["not known: x"])}}, {}, 2, "NOT KNOWN"),
        ({PLAN: {"*": answer("planned")}, DO: {"*": answer("released")}},
         {"state": "released", "confirm": "release"}, 0, "put back: 2"),
    ],
)  # fmt: skip
def test_the_end_is_good_only_where_every_host_confirmed(
    tmp_path: Path, script: dict[str, Any], more: dict[str, Any], status: int, words: str
) -> None:
    ended = scripted.played(tmp_path, "takeoff", scripted.inventory(["a", "b"]), script, **{**CONFIRMED, **more})
    assert (ended.status, words in ended.said) == (status, True), ended.said


@pytest.mark.slow
def test_the_command_that_is_printed_can_be_typed_whatever_letters_the_unit_has(tmp_path: Path) -> None:
    """`-e key=value` takes a backslash for an escape, and systemd has backslashes in names."""
    name = r"unit=a\x2db@c:1.service"
    printed = target.command(grammar.read_foreign(name), "engaged")
    script = {PLAN: {"*": answer("planned")}, DO: {"*": answer("off")}}
    options = shlex.split(printed.partition("ebpf.fleet.takeoff ")[2])
    ended = scripted.played(tmp_path, "takeoff", scripted.inventory(["a"]), script, *options)
    assert ended.status == 0, ended.said
    assert [call.arguments["scope"] for call in ended.asked(DO)] == [name]
    assert ended.asked(DO)[0].arguments["confirm"] == f"takeoff-{name}"


@pytest.mark.slow
def test_check_mode_asks_what_would_be_done_and_does_nothing(tmp_path: Path) -> None:
    script = {PLAN: {"*": answer("planned")}}
    ended = scripted.played(tmp_path, "takeoff", scripted.inventory(["a"]), script, "--check", scope="unit=a.service")
    assert ended.status == 0 and ended.asked(DO) == [] and "stop unit a.service" in ended.said, ended.said
    assert "confirm=takeoff-unit=a.service" in ended.said


@pytest.mark.slow
def test_what_is_of_no_host_is_done_once_and_on_the_controller(tmp_path: Path) -> None:
    script = {PLAN: {"*": answer("planned")}, DO: {"*": answer("off")}}
    ended = scripted.played(tmp_path, "takeoff", scripted.inventory(["a", "b"]), script, **CONFIRMED,
                            ebpf_fleet_report="report.json")  # fmt: skip
    assert ended.screen == [
        "PLAY Take others' eBPF off",
        "Refuse what is not clear or not confirmed: skipping a",
        "Refuse a report path that cannot be written: ok a>localhost",
        "Choose the hosts: ok a>localhost",
        "Refuse a scope that means no host: skipping a",
        f"{PLAN}: ok a, ok b",
        "Put together what would be done: ok a>localhost",
        "Print what is done on which host: ok a>localhost",
        f"{DO}: changed a, changed b",
        "Judge what each host answered: ok a>localhost",
        "Write the report on the controller: ok a>localhost",
        "Remember the verdict to print last and the hosts that fail: ok a>localhost",
        "Fail when a host was left out: ok a>localhost",
        "PLAY Hosts that have not confirmed",
    ], ended.said
