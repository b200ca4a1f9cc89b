# SPDX-License-Identifier: GPL-3.0-or-later
"""Other people's eBPF on this machine's kernel: by ip, tc, bpftool, and by an agent that is a process of its own.

Interfaces are in a network namespace of its own, pins in a bpffs of a mount namespace of its own, and the cgroups below
one of its own. Leave the context, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.loader.foreign import compile_bpf
from tests.support.syshost import cgroup2

SOURCE = Path(__file__).with_name("others.bpf.c")
TOOLS = ("ip", "tc", "bpftool", "clang-14", "nsenter", "unshare")

# What an agent of somebody does: it opens what is pinned, attaches it by links and by a perf event, and waits.
AGENT = """
import ctypes, json, os, struct, sys
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfqueries, bpfsys, btf

ctypes.CDLL(None).prctl(15, b"their-agent", 0, 0, 0)
pins, cgroup, made = sys.argv[1], sys.argv[2], {}


def pinned(name):
    return bpfqueries.open_pin(f"{pins}/all/{name}")


def link(program, target, attach_type):
    return bpfsys.bpf(bpfsys.LINK_CREATE, struct.pack("=IIII", program, target, attach_type, 0))


def attempt(name, action):
    try:
        made[name] = action()
    except OSError as error:
        made[name] = error.strerror


def interface(name):
    return int(open(f"/sys/class/net/{name}/ifindex").read()) if os.path.exists(f"/sys/class/net/{name}") else ids[name]


def tracepoint_event():
    number = int(open("/sys/kernel/tracing/events/sched/sched_switch/id").read())
    attr = ctypes.create_string_buffer(struct.pack("=IIQQQQQIIQ", 2, 112, number, 1, 0, 0, 0, 1, 0, 0), 112)
    table = bpfsys.PERF_NUMBERS[(os.uname().machine, 8)]
    fd = ctypes.CDLL(None, use_errno=True).syscall(table, attr, -1, 0, -1, 8)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open")
    return fd


def by_ioctl():
    fd, program = tracepoint_event(), pinned("other_switch")
    if ctypes.CDLL(None, use_errno=True).ioctl(fd, ctypes.c_ulong(0x40042408), program):
        raise OSError(ctypes.get_errno(), "PERF_EVENT_IOC_SET_BPF")
    os.close(program)
    return fd


def tp_btf():
    blob = open("/sys/kernel/btf/vmlinux", "rb").read()
    number = btf.type_ids(blob, [(btf.TYPEDEF, "btf_trace_sched_switch")])[(btf.TYPEDEF, "btf_trace_sched_switch")]
    program = bpfsys.prog_load(bpfsys.ProgramSpec(type=26, attach_type=23, attach_btf_id=number))
    return bpfsys.bpf(bpfsys.RAW_TRACEPOINT_OPEN, struct.pack("=QI", 0, program))


def tail_call():
    fd = bpfsys.map_create(3, 4, 4, 4)
    key, value = ctypes.c_uint32(2), ctypes.c_uint32(pinned("other_xdp"))
    bpfsys.bpf(2, struct.pack("=IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0))
    return fd


ids = json.loads(sys.argv[3])
folder = os.open(cgroup, os.O_RDONLY)
attempt("raw_tp", lambda: bpfsys.raw_tracepoint_open("sys_enter", pinned("their_raw_tp")))
attempt("tcx_ingress", lambda: link(pinned("their_tc"), ids["vb"], 46))
attempt("xdp", lambda: link(pinned("other_xdp"), ids["vb"], 37))
attempt("cgroup", lambda: link(pinned("other_egress"), folder, 1))
attempt("perf_link", lambda: link(pinned("their_switch"), tracepoint_event(), 41))
attempt("perf_event", by_ioctl)
attempt("tp_btf", tp_btf)
attempt("tail_call", tail_call)
print(json.dumps(made), flush=True)
sys.stdin.read()
"""


def why_not() -> str | None:
    """Why this machine cannot have them, or None if it can."""
    if os.geteuid() != 0:
        return "not root: no program can be loaded"
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if cgroup2() is None:
        return "no cgroup2 hierarchy is mounted here"
    return None


def call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


class Others:
    """The others; `made` says which of the agent's attachments the kernel took (a descriptor) or refused (why)."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="others-"))
        self.netns = f"others-{os.getpid()}"
        top = cgroup2()
        assert top is not None
        self.cgroup = top / self.netns
        self.shown_cgroup = f"/{self.netns}"
        self.pins = self.folder / "bpffs"
        self.made: dict[str, Any] = {}
        self._keeper: subprocess.Popen[str] | None = None
        self.agent: subprocess.Popen[str] | None = None

    def __enter__(self) -> Others:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def inside(self) -> list[str]:
        """The words before a command that put it into the mount namespace with the pins."""
        assert self._keeper is not None
        return ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt"]

    def _start(self) -> None:
        obj = self.folder / "others.o"
        compile_bpf(SOURCE, obj, "-Wno-unused-function")
        self._mount()
        self._interfaces(str(obj))
        call(*self.inside, "bpftool", "prog", "loadall", str(obj), str(self.pins / "all"))
        self._cgroups()
        self._start_agent()

    def _mount(self) -> None:
        self.pins.mkdir()
        script = 'mount -t bpf bpf "$1" && echo ready && exec cat'
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(self.pins)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._keeper.stdout is not None and self._keeper.stdout.readline() == "ready\n"

    def _interfaces(self, obj: str) -> None:
        call("ip", "netns", "add", self.netns)
        call("ip", "-n", self.netns, "link", "add", "va", "type", "veth", "peer", "name", "vb")
        for name in ("va", "vb"):
            call("ip", "-n", self.netns, "link", "set", name, "up")
        call("ip", "-n", self.netns, "link", "set", "va", "xdpgeneric", "obj", obj, "sec", "xdp")
        call("tc", "-n", self.netns, "qdisc", "add", "dev", "va", "clsact")
        tc = ("tc", "-n", self.netns, "filter", "add", "dev", "va")
        call(*tc, "ingress", "prio", "10", "bpf", "da", "obj", obj, "sec", "tc")
        call(*tc, "ingress", "prio", "20", "bpf", "da", "obj", obj, "sec", "action")

    def ifindex(self, name: str) -> int:
        return int(json.loads(call("ip", "-j", "-n", self.netns, "link", "show", name))[0]["ifindex"])

    def _cgroups(self) -> None:
        (self.cgroup / "below").mkdir(parents=True)
        attach = (*self.inside, "bpftool", "cgroup", "attach")
        theirs, other = (str(self.pins / "all" / name) for name in ("their_egress", "other_egress"))
        call(*attach, str(self.cgroup), "egress", "pinned", theirs, "override")
        call(*attach, str(self.cgroup / "below"), "egress", "pinned", other, "override")

    def _start_agent(self) -> None:
        group = self.cgroup / "their-agent.service"
        group.mkdir()
        ids = json.dumps({name: self.ifindex(name) for name in ("va", "vb")})
        links = self.cgroup / "links"
        links.mkdir()
        enter = [*self.inside, f"--net=/run/netns/{self.netns}", sys.executable, "-c", AGENT, str(self.pins)]
        self.agent = subprocess.Popen(
            ["sh", "-c", 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"', "sh", str(group), *enter, str(links), ids],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert self.agent.stdout is not None
        self.made = json.loads(self.agent.stdout.readline())

    def stop(self) -> None:
        for process in (self.agent, self._keeper):
            if process is not None:
                process.kill()
                process.communicate()
        subprocess.run(["ip", "netns", "del", self.netns], capture_output=True, check=False)
        for folder in ("their-agent.service", "below", "links", "."):
            with contextlib.suppress(OSError):
                (self.cgroup / folder).rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)
