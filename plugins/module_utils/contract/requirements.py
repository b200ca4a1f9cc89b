# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a contract can require of a host: the grammar of `requires`, and the one table of attach kinds. Pure.

bpf/loader/kernel/requirement.c is the same in C. tests/loader/test_requirements.py holds the tables of both equal,
entry by entry, and runs both over the requirements of tests/support/requirement_cases.py.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, Callable, Mapping, NamedTuple, Pattern

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfnames, btf

CODE = "EF_CONTRACT_MALFORMED"
# Number 0 of each table is the kernel's word for none: not a type that anything can be of.
PROGRAM_TYPES = bpfnames.PROGRAM_TYPES[1:]
MAP_TYPES = bpfnames.MAP_TYPES[1:]
HELPERS = bpfnames.HELPERS[1:]


class RequirementKind(NamedTuple):
    """One kind of requirement, the word before the first colon.

    `reason_code` is what a plain no gives. `before_load`: the loader asks it before it loads an object, as a load does
    not always show it; the others only explain a load that failed.
    """

    name: str
    reason_code: str
    before_load: bool


KINDS = (
    RequirementKind("btf", "EF_NO_BTF", True),
    RequirementKind("kernel", "EF_KERNEL_TOO_OLD", True),
    RequirementKind("prog_type", "EF_NO_PROG_TYPE", False),
    RequirementKind("map_type", "EF_NO_MAP_TYPE", False),
    RequirementKind("helper", "EF_NO_HELPER", False),
    RequirementKind("attach", "EF_NO_ATTACH_POINT", True),
)
KIND: Mapping[str, RequirementKind] = {kind.name: kind for kind in KINDS}

# Longest name that every kernel takes: KSYM_NAME_LEN was 128, with its zero byte, until 6.1 (b8a94bfb3395).
MAX_TARGET = 127


class Target(NamedTuple):
    """What a program is attached to, as a contract names it: how to write it, and what matches it as a whole."""

    form: str
    pattern: Pattern[str]

    def fits(self, text: str) -> bool:
        return len(text) <= MAX_TARGET and self.pattern.fullmatch(text) is not None


# The kernel appends it to a prefix of its own (btf_trace_, bpf_lsm_), so that it may begin with a digit: 9p_client_req.
NAME = Target("NAME", re.compile(r"[A-Za-z0-9_]+"))
# Compilers put a dot into the names of copies of a function: do_unlinkat.isra.0.
SYMBOL = Target("SYMBOL", re.compile(r"[A-Za-z_][A-Za-z0-9_.]*"))
# A group is free text of its subsystem (xhci-hcd, 9p), an event is a part of C names (hfi1_PIO).
GROUP_AND_NAME = Target("GROUP/NAME", re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_]+"))


class AttachKind(NamedTuple):
    """One kind of hook that the loader attaches programs to; all that differs between kinds, but how one is asked.

    sections          what stands before the slash of SEC("SECTION/TARGET"); the first is the usual one
    program_type      the type of its programs
    attach_type       their expected_attach_type, a number of bpf_attach_type; 0: they have none
    moment            with the target, what a program hangs on: two kinds of one moment see every event there twice
    btf_kind, prefix  the type by which the kernel's own BTF names a target: PREFIX + the target's name
    own_btf           it is found by the kernel's own BTF only, and a bundled one cannot stand in for that
    perf_event        attached by perf_event_open(2), which kernel.perf_event_paranoid may forbid
    lockdown          forbidden by lockdown `confidentiality`: LOCKDOWN_KPROBES, LOCKDOWN_TRACEFS of the kernel
    bcc               the BCC collector attaches it, too
    """

    name: str
    target: Target
    sections: tuple[str, ...]
    program_type: str
    attach_type: int
    moment: str
    btf_kind: int
    prefix: str
    own_btf: bool = False
    perf_event: bool = False
    lockdown: bool = False
    bcc: bool = False

    def btf_type(self, target: str) -> tuple[int, str]:
        """Kind and name of the type that stands for the target in the kernel's own BTF."""
        return self.btf_kind, self.prefix + name_of(target)

    def hook(self, target: str) -> tuple[str, str]:
        """What a program hangs on, whichever kind it uses: ``fentry:f`` and ``kprobe:f`` are one."""
        return self.moment, name_of(target)


def name_of(target: str) -> str:
    """A target without its group: the name of a tracepoint is its own, whatever group tracefs puts it in."""
    return target.rpartition("/")[2]


# fmt: off
ATTACH_KINDS = (
    AttachKind("tp_btf", NAME, ("tp_btf",), "tracing", bpfnames.TRACE_RAW_TP, "tracepoint", btf.TYPEDEF, "btf_trace_",
               own_btf=True),
    AttachKind("fentry", SYMBOL, ("fentry", "fentry.s"), "tracing", bpfnames.TRACE_FENTRY, "entry", btf.FUNC, "",
               own_btf=True),
    AttachKind("fexit", SYMBOL, ("fexit", "fexit.s"), "tracing", bpfnames.TRACE_FEXIT, "exit", btf.FUNC, "",
               own_btf=True),
    AttachKind("lsm", NAME, ("lsm", "lsm.s"), "lsm", bpfnames.LSM_MAC, "lsm", btf.FUNC, "bpf_lsm_", own_btf=True),
    AttachKind("raw_tp", NAME, ("raw_tp", "raw_tracepoint"), "raw_tracepoint", 0, "tracepoint", btf.TYPEDEF,
               "btf_trace_", bcc=True),
    AttachKind("tracepoint", GROUP_AND_NAME, ("tracepoint", "tp"), "tracepoint", 0, "tracepoint", btf.TYPEDEF,
               "btf_trace_", perf_event=True, lockdown=True),
    AttachKind("kprobe", SYMBOL, ("kprobe",), "kprobe", 0, "entry", btf.FUNC, "",
               perf_event=True, lockdown=True, bcc=True),
    AttachKind("kretprobe", SYMBOL, ("kretprobe",), "kprobe", 0, "exit", btf.FUNC, "",
               perf_event=True, lockdown=True, bcc=True),
)
# fmt: on
ATTACH: Mapping[str, AttachKind] = {kind.name: kind for kind in ATTACH_KINDS}
OF_SECTION: Mapping[str, AttachKind] = {section: kind for kind in ATTACH_KINDS for section in kind.sections}


class Requirement(NamedTuple):
    """One requirement of the grammar: its kind, what follows the kind's colon, and all of it as it was written."""

    kind: str
    key: str
    text: str

    @property
    def attach(self) -> AttachKind | None:
        """Of ``attach:KIND:TARGET`` the kind; None for another requirement."""
        return ATTACH[self.key.partition(":")[0]] if self.kind == "attach" else None

    @property
    def target(self) -> str:
        """Of ``attach:KIND:TARGET`` the target, of ``helper:PROGTYPE:NAME`` the name; else empty."""
        return self.key.partition(":")[2]

    @property
    def program_type(self) -> str | None:
        """The type of program that it is about, where it is about one."""
        if self.attach:
            return self.attach.program_type
        return self.key.partition(":")[0] if self.kind in ("prog_type", "helper") else None


def parse(text: Any) -> Requirement:
    """Read one requirement; raises FleetError (EF_CONTRACT_MALFORMED) with what to write instead."""
    wrong = remedy(text)
    if wrong:
        raise FleetError(CODE, f"requirement {text!r}: {wrong}")
    kind, _colon, key = text.partition(":")
    return Requirement(kind, key, text)


def remedy(value: Any) -> str | None:
    """None for a requirement of the grammar, else what to write instead."""
    if not isinstance(value, str):
        return "give a requirement as text, such as 'btf:vmlinux'"
    kind, _colon, key = value.partition(":")
    check = _KEYS.get(kind)
    return check(key) if check else did_you_mean(kind, KIND)


def _btf_remedy(key: str) -> str | None:
    return None if key in ("vmlinux", "any") else "write 'btf:vmlinux' or 'btf:any'"


_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,4}")


def version_of(text: str) -> tuple[int, int] | None:
    """MAJOR.MINOR as numbers, so that they compare; None for anything else."""
    if _VERSION.fullmatch(text) is None:
        return None
    major, _dot, minor = text.partition(".")
    return int(major), int(minor)


def _kernel_remedy(key: str) -> str | None:
    return None if version_of(key) else "write 'kernel:MAJOR.MINOR'"


def _prog_type_remedy(key: str) -> str | None:
    return None if key in PROGRAM_TYPES else did_you_mean(key, PROGRAM_TYPES)


def _map_type_remedy(key: str) -> str | None:
    return None if key in MAP_TYPES else did_you_mean(key, MAP_TYPES)


def _helper_remedy(key: str) -> str | None:
    program_type, _colon, name = key.partition(":")
    if program_type not in PROGRAM_TYPES:
        return did_you_mean(program_type, PROGRAM_TYPES)
    if name in HELPERS:
        return None
    near = difflib.get_close_matches(name[4:] if name.startswith("bpf_") else name, HELPERS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "names are those of bpf-helpers(7)"
    return f"write 'helper:PROGTYPE:NAME' without 'bpf_'; {hint}"


def _attach_remedy(key: str) -> str | None:
    name, _colon, target = key.partition(":")
    kind = ATTACH.get(name)
    if kind is None:
        return did_you_mean(name, ATTACH)
    return None if kind.target.fits(target) else f"write 'attach:{name}:{kind.target.form}'"


_KEYS: Mapping[str, Callable[[str], str | None]] = {
    "btf": _btf_remedy,
    "kernel": _kernel_remedy,
    "prog_type": _prog_type_remedy,
    "map_type": _map_type_remedy,
    "helper": _helper_remedy,
    "attach": _attach_remedy,
}


def of_program(section: str, program_type: str) -> list[str]:
    """The requirements that a program's section and type make certain."""
    needed = ["prog_type:" + program_type]
    prefix, _slash, target = section.partition("/")
    kind = OF_SECTION.get(prefix)
    if kind and target:
        needed.append(f"attach:{kind.name}:{target}")
    if kind and kind.own_btf:
        needed.append("btf:vmlinux")
    return needed
