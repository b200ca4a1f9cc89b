# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the running kernel where programs can be attached: named hooks, kinds of hooks, kinds of links.

A named hook is asked as the loader asks it (see `Which reason a variant has` in
docs/formats/requirements.md), so that both come to the same answer. A kind is asked at a place that is
never run in production, the kernel's own test function.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import (
    ABSENT,
    Answer,
    answered,
    errno_name,
    is_yes,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import ATTACH
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.kernelfacts import read_lsms
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfnames, bpfsys, btf, kernelask
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_int, read_text
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.kernelask import Standing, spec_of

# Hooks that every kernel with the facility has. The function is called by BPF_PROG_TEST_RUN only.
USUAL_TRACEPOINT = "sched_switch"
USUAL_LSM_HOOK = "file_open"
QUIET_FUNCTION = "bpf_fentry_test1"
_ITERATOR = "bpf_iter_task"
_DIRECT_CALLS = "register_ftrace_direct"

_DEVICES = "sys/bus/event_source/devices"
_TRACEFS = ("sys/kernel/tracing", "sys/kernel/debug/tracing")
_NO_KPROBE = (*ABSENT, errno.EADDRNOTAVAIL)
_CGROUP_INGRESS, _FLOW_DISSECTOR, _TCX_INGRESS = 0, 17, 46

# A kind of link is there if the kernel holds a function of it that is never inlined; where that one
# may be a stub, the second must be there too.
_LINK_FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "raw_tracepoint": ("bpf_raw_tp_link_release",),
    "tracing": ("bpf_tracing_link_release",),
    "cgroup": ("cgroup_bpf_link_attach",),
    "iter": ("bpf_iter_link_attach",),
    "netns": ("netns_bpf_link_create",),
    "xdp": ("bpf_xdp_link_attach",),
    "perf_event": ("bpf_perf_link_release",),
    "kprobe_multi": ("bpf_kprobe_multi_link_attach", "register_fprobe_ips"),
    "struct_ops": ("bpf_struct_ops_link_create",),
    "netfilter": ("bpf_nf_link_attach",),
    "tcx": ("tcx_link_attach",),
    "uprobe_multi": ("bpf_uprobe_multi_link_attach", "uprobe_register"),
    "netkit": ("netkit_link_attach",),
    "sockmap": ("sock_map_link_create",),
}


def wanted_types(targets: Iterable[str]) -> list[tuple[int, str]]:
    """What must be looked up in the kernel's BTF: for the kinds, and for hooks named KIND:TARGET."""
    wanted = [ATTACH["tp_btf"].btf_type(USUAL_TRACEPOINT), ATTACH["lsm"].btf_type(USUAL_LSM_HOOK)]
    wanted += [(btf.FUNC, name) for name in (QUIET_FUNCTION, _ITERATOR, _DIRECT_CALLS)]
    wanted += [(btf.FUNC, name) for names in _LINK_FUNCTIONS.values() for name in names]
    for key in targets:
        kind, _colon, target = key.partition(":")
        wanted.append(ATTACH[kind].btf_type(target))
    return wanted


class KernelTypes:
    """The kernel's own BTF: whether it is there, and the ids of the types that were looked for."""

    def __init__(self, path: Path, wanted: Iterable[tuple[int, str]]) -> None:
        self.ids: dict[tuple[int, str], int] = {}
        self.answer = self._read(path, list(wanted))

    def _read(self, path: Path, wanted: list[tuple[int, str]]) -> Answer:
        try:
            blob = path.read_bytes()
        except FileNotFoundError:
            return answered("no", f"{path} is not there")
        except OSError as error:
            return answered("unknown", f"{path}: {errno_name(error.errno)}")
        try:
            self.ids = btf.type_ids(blob, wanted)
        except btf.BtfError as error:
            # libbpf cannot use it either: it counts as missing, and the bundle's may stand in.
            return answered("no", f"{path} cannot be read as BTF: {error}", "EF_BTF_UNREADABLE")
        return answered("yes", f"{path}, {len(blob)} bytes")

    def find(self, kind: int, name: str) -> int:
        """The type's id, or 0."""
        return self.ids.get((kind, name), 0)

    def has_function(self, name: str) -> bool:
        """Is there a function of that name in the kernel?"""
        return (btf.FUNC, name) in self.ids


class HookAsker:
    """Asks one host; `root` stands before every path that is read (the system calls know no root)."""

    def __init__(self, root: Path, who: Standing, types: KernelTypes) -> None:
        self.root = root
        self.who = who
        self.types = types
        self.lsms = read_lsms(root)
        self.tracefs = self._find_tracefs()
        self._asked: dict[str, Answer] = {}
        self._symbols: str | None = None

    def ask(self, key: str) -> Answer:
        """Is the hook there? `key` is KIND:TARGET as in a contract. Each is asked once."""
        if key not in self._asked:
            kind, _colon, target = key.partition(":")
            self._asked[key] = _HOOKS[kind](self, target)
        return self._asked[key]

    def tracing_type(self) -> Answer:
        """Does the kernel load programs of type tracing?"""
        return self.ask("tp_btf:" + USUAL_TRACEPOINT)

    def lsm_type(self) -> Answer:
        """Does the kernel load programs of type lsm, be the BPF LSM active or not?"""
        return self._load_at("lsm", USUAL_LSM_HOOK)

    def _load_at(self, kind: str, target: str) -> Answer:
        """Load a program of a kind that is bound to its target's id in the kernel's BTF."""
        hook = ATTACH[kind]
        spec = spec_of(hook.program_type, attach_type=hook.attach_type)
        return self._load_typed(spec, f"{kind}/{target}", *hook.btf_type(target))

    def _load_typed(self, spec: bpfsys.ProgramSpec, what: str, kind: int, name: str) -> Answer:
        if not is_yes(self.types.answer):
            code = self.types.answer.get("reason_code", "EF_NO_BTF") if self.types.answer["answer"] == "no" else None
            return answered(self.types.answer["answer"], self.types.answer["evidence"], code)
        number = self.types.find(kind, name)
        if not number:
            return answered("no", f"{name} is not in the BTF of vmlinux")
        return kernelask.ask_load(self.who, spec._replace(attach_btf_id=number), what)

    def _tp_btf(self, name: str) -> Answer:
        return self._load_at("tp_btf", name)

    def _with_trampoline(self, loads: Answer) -> Answer:
        """A program may load where the architecture cannot call it: that needs ftrace's direct calls."""
        if not is_yes(loads) or self.types.has_function(_DIRECT_CALLS) or self._has_symbol(_DIRECT_CALLS):
            return loads
        evidence = f"loads, but the kernel has no {_DIRECT_CALLS}: nothing would call it"
        return answered("no", evidence, "EF_ATTACH_FAILED")

    def _has_symbol(self, name: str) -> bool:
        """Is the function in kallsyms? The BTF of older kernels (5.10) does not name every function."""
        if self._symbols is None:
            self._symbols = (read_text(self.root / "proc/kallsyms") or "").replace("\t", "\n") + "\n"
        return f" {name}\n" in self._symbols

    def _fentry(self, symbol: str) -> Answer:
        return self._with_trampoline(self._load_at("fentry", symbol))

    def _fexit(self, symbol: str) -> Answer:
        return self._with_trampoline(self._load_at("fexit", symbol))

    def _lsm(self, hook: str) -> Answer:
        if self.lsms is not None and "bpf" not in self.lsms:
            evidence = "bpf is not among the active LSMs ({})".format(",".join(self.lsms))
            return answered("no", evidence, "EF_LSM_INACTIVE")
        loads = self._with_trampoline(self._load_at("lsm", hook))
        if self.lsms is None and loads["answer"] != "no":
            return answered("unknown", "sys/kernel/security/lsm cannot be read; mount securityfs")
        return loads

    def _raw_tp(self, name: str) -> Answer:
        kind, typedef = ATTACH["raw_tp"].btf_type(name)
        if self.types.find(kind, typedef):
            return answered("yes", f"typedef {typedef} in the BTF of vmlinux")
        return self._open_raw_tp(name)

    def _open_raw_tp(self, name: str) -> Answer:
        """Attach the least program for a moment: the only question where no BTF names the tracepoint."""
        what = f"BPF_RAW_TRACEPOINT_OPEN {name}"
        try:
            program = bpfsys.prog_load(spec_of(ATTACH["raw_tp"].program_type))
        except OSError as error:
            return answered("unknown", f"BPF_PROG_LOAD raw_tracepoint: {errno_name(error.errno)}")
        except bpfsys.UnsupportedMachineError as error:
            return answered("unknown", str(error))
        try:
            return self.who.attempt(lambda: bpfsys.raw_tracepoint_open(name, program), what)
        finally:
            os.close(program)

    def _find_tracefs(self) -> Path | None:
        for place in _TRACEFS:
            with contextlib.suppress(OSError):
                if any((self.root / place / "events").iterdir()):
                    return self.root / place / "events"
        return None

    def _tracepoint(self, name: str) -> Answer:
        if self.tracefs is None:
            # The loader needs its files too: to one who may look everywhere, not there is a no.
            answer = "no" if self.who.trusted and os.geteuid() == 0 else "unknown"
            return answered(answer, "tracefs is not mounted or not readable; mount it at sys/kernel/tracing")
        if self.who.confidential:
            return answered("no", "lockdown confidentiality forbids to read tracefs", "EF_LOCKDOWN")
        there = (self.tracefs / name / "id").exists()
        state = "is there" if there else "is not there"
        return answered("yes" if there else "no", f"{self.tracefs / name} {state}")

    def _kprobe(self, symbol: str) -> Answer:
        return self._probe("kprobe", symbol, on_return=False)

    def _kretprobe(self, symbol: str) -> Answer:
        return self._probe("kretprobe", symbol, on_return=True)

    def _probe(self, kind: str, symbol: str, on_return: bool) -> Answer:
        pmu = read_int(self.root / _DEVICES / "kprobe/type")
        if pmu is None:
            return answered("no", f"{_DEVICES}/kprobe/type is not there: no kprobe events")
        if self.who.confidential:
            # Asking would leave a line in the kernel's log.
            return answered("no", "lockdown confidentiality forbids kprobes", "EF_LOCKDOWN")
        with bpfsys.without_sys_admin():
            what = f"perf_event_open {kind}/{symbol}"
            answer = self.who.attempt(lambda: bpfsys.kprobe_open(pmu, symbol, on_return), what, _NO_KPROBE)
        return self._with_paranoia(answer)

    def _with_paranoia(self, answer: Answer) -> Answer:
        """Debian's kernels have a level 3, at which CAP_PERFMON, all that the loader keeps, is not enough."""
        level = read_int(self.root / "proc/sys/kernel/perf_event_paranoid")
        if answer.get("reason_code") != "EF_PERMISSION" or level is None or level < 3:
            return answer
        evidence = f"kernel.perf_event_paranoid is {level}; with 2, the kernel's own default, CAP_PERFMON is enough"
        return {**answer, "evidence": "{}: {}".format(answer["evidence"], evidence)}

    def kinds(self) -> dict[str, Answer]:
        """Each kind of hook, asked once at a quiet place."""
        return {
            "tracepoint": self._tracepoint_kind(),
            "raw_tp": self._raw_tp(USUAL_TRACEPOINT),
            "tp_btf": self.tracing_type(),
            "kprobe": self._probe_kind("kprobe"),
            "kretprobe": self._probe_kind("kretprobe"),
            "uprobe": self._uprobe_kind(),
            "fentry": self.ask("fentry:" + QUIET_FUNCTION),
            "fexit": self.ask("fexit:" + QUIET_FUNCTION),
            "lsm": self._lsm(USUAL_LSM_HOOK),
            "iter": self._iterator_kind(),
            "xdp": kernelask.ask_program_type(self.who, "xdp"),
            "tc": self._tc_kind(),
            "cgroup": self._cgroup_kind(),
            "netns": self._netns_kind(),
        }

    def _tracepoint_kind(self) -> Answer:
        return self._tracepoint("sched/" + USUAL_TRACEPOINT)

    def _probe_kind(self, kind: str) -> Answer:
        """A named hook that works has answered it; each probe that is armed costs a grace period."""
        for key, answer in self._asked.items():
            if key.startswith(kind + ":") and is_yes(answer):
                return answer
        return self.ask(f"{kind}:{QUIET_FUNCTION}")

    def _uprobe_kind(self) -> Answer:
        """Asked on what can hold no instruction: to arm a probe costs a grace period."""
        pmu = read_int(self.root / _DEVICES / "uprobe/type")
        if pmu is None:
            return answered("no", f"{_DEVICES}/uprobe/type is not there: no uprobe events")
        if self.who.confidential:
            return answered("no", "lockdown confidentiality forbids uprobes", "EF_LOCKDOWN")
        what = "perf_event_open uprobe on a folder"
        try:
            os.close(bpfsys.uprobe_open(pmu, "/", 0))
        except OSError as error:
            # The kernel has gone as far as to see that this is not a file; an unknown PMU is ENOENT.
            return self.who.judge(0 if error.errno == errno.EINVAL else error.errno or 0, what)
        except bpfsys.UnsupportedMachineError as error:
            return answered("unknown", str(error))
        return answered("unknown", f"{what} was accepted")

    def _iterator_kind(self) -> Answer:
        spec = spec_of("tracing", attach_type=bpfnames.TRACE_ITER)
        return self._load_typed(spec, "iter/task", btf.FUNC, _ITERATOR)

    def _tc_kind(self) -> Answer:
        """Is there tcx? The older clsact is not asked for, as asking would load kernel modules."""
        loads = kernelask.ask_program_type(self.who, "sched_cls")
        if not is_yes(loads):
            return loads
        tcx = self._count(_TCX_INGRESS, 1, "tcx ingress of interface 1")
        if tcx["answer"] != "no":
            return tcx
        if all((self.root / "sys/module" / name).is_dir() for name in ("sch_ingress", "cls_bpf")):
            return answered("yes", "sched_cls loads, and sch_ingress and cls_bpf are loaded; no tcx")
        return answered("unknown", "{}; clsact is not asked, which would load kernel modules".format(tcx["evidence"]))

    def _cgroup_kind(self) -> Answer:
        for place in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
            if (self.root / place / "cgroup.controllers").exists():
                return self._count_at(self.root / place, _CGROUP_INGRESS, f"cgroup ingress of {place}")
        return answered("unknown", "no cgroup v2 is mounted at sys/fs/cgroup")

    def _netns_kind(self) -> Answer:
        place = self.root / "proc/self/ns/net"
        return self._count_at(place, _FLOW_DISSECTOR, "flow dissector of this network namespace")

    def _count_at(self, path: Path, attach_type: int, what: str) -> Answer:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return answered("unknown", f"{path}: {errno_name(error.errno)}")
        try:
            return self._count(attach_type, fd, what)
        finally:
            os.close(fd)

    def _count(self, attach_type: int, target: int, what: str) -> Answer:
        """Ask what is attached there: a kernel that can answer can attach."""
        try:
            found = bpfsys.attached_count(attach_type, target)
        except OSError as error:
            return self.who.judge(error.errno or 0, f"BPF_PROG_QUERY {what}")
        except bpfsys.UnsupportedMachineError as error:
            return answered("unknown", str(error))
        return answered("yes", f"BPF_PROG_QUERY {what}: {found} attached")

    def links(self) -> dict[str, Answer]:
        """Each kind of BPF link: is BPF_LINK_CREATE there, and the kernel's own code for the kind?"""
        command = self._link_command()
        return {kind: self._link(names, command) for kind, names in _LINK_FUNCTIONS.items()}

    def _link_command(self) -> Answer:
        """A descriptor that is not open: EBADF comes from a kernel that went to look for the program."""
        try:
            bpfsys.bpf(bpfsys.LINK_CREATE, struct.pack("=iiII", -1, -1, 0, 0))
        except OSError as error:
            if error.errno == errno.EBADF:
                return answered("yes", "BPF_LINK_CREATE without program: EBADF")
            return self.who.judge(error.errno or 0, "BPF_LINK_CREATE without program", (errno.EINVAL, errno.ENOSYS))
        except bpfsys.UnsupportedMachineError as error:
            return answered("unknown", str(error))
        return answered("unknown", "BPF_LINK_CREATE without program was accepted")

    def _link(self, functions: Sequence[str], command: Answer) -> Answer:
        if not is_yes(command):
            return command
        if not is_yes(self.types.answer):
            return answered("unknown", "without the kernel's BTF its functions are not known")
        missing = [name for name in functions if not self.types.has_function(name)]
        if missing:
            return answered("no", f"function {missing[0]} is not in the BTF of vmlinux")
        return answered("yes", "{} in the BTF of vmlinux; {}".format(" and ".join(functions), command["evidence"]))

    def helper_contexts(self, program_type: str) -> list[dict[str, int]]:
        """Under which attach types and ids a program type's helpers are asked; empty where it cannot load."""
        if program_type == "tracing":
            return self._tracing_contexts()
        if program_type == "lsm":
            number = self.types.find(*ATTACH["lsm"].btf_type(USUAL_LSM_HOOK))
            place = {"attach_type": bpfnames.LSM_MAC, "attach_btf_id": number}
            return [place, {**place, "flags": kernelask.SLEEPABLE}] if number else []
        if program_type in kernelask.NEEDS_MORE:
            return []
        return [dict(one) for one in kernelask.contexts_of(program_type)]

    def _tracing_contexts(self) -> list[dict[str, int]]:
        tracepoint = self.types.find(*ATTACH["tp_btf"].btf_type(USUAL_TRACEPOINT))
        quiet = self.types.find(btf.FUNC, QUIET_FUNCTION)
        iterator = self.types.find(btf.FUNC, _ITERATOR)
        places: list[dict[str, Any]] = [
            {"attach_type": bpfnames.TRACE_RAW_TP, "attach_btf_id": tracepoint},
            {"attach_type": bpfnames.TRACE_FEXIT, "attach_btf_id": quiet},
            {"attach_type": bpfnames.TRACE_ITER, "attach_btf_id": iterator},
        ]
        return [one for one in places if one["attach_btf_id"]]


_HOOKS: Mapping[str, Callable[[HookAsker, str], Answer]] = {
    "tp_btf": HookAsker._tp_btf,
    "raw_tp": HookAsker._raw_tp,
    "tracepoint": HookAsker._tracepoint,
    "kprobe": HookAsker._kprobe,
    "kretprobe": HookAsker._kretprobe,
    "fentry": HookAsker._fentry,
    "fexit": HookAsker._fexit,
    "lsm": HookAsker._lsm,
}
