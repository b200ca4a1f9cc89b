# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""What this host's kernel can run, asked of the kernel itself.

Every answer is {"answer": "yes" | "no" | "unknown", "evidence": sentence}. A refusal that may
have another cause than absence (EPERM, ENOMEM) is unknown. Nothing is attached, every
descriptor is closed, and questions that would write to the kernel's log are not asked.
"""

from __future__ import annotations

import ctypes
import errno
import gzip
import os
import platform
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils import bpfsys, btf
from ansible_collections.ebpf.fleet.plugins.module_utils.bpfnames import (
    HELPERS,
    MAP_TYPES,
    PROGRAM_TYPES,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.hostfiles import (
    kernel_family,
    read_int,
    read_os_release,
    read_text,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.profile import Requirement

SCHEMA = "ebpf.fleet/capabilities/v1"

Answer = Mapping[str, str]

_ABSENT = (errno.EINVAL, errno.ENOENT, errno.ENOSYS, errno.EOPNOTSUPP, 524)

_TRACE_RAW_TP = 23
_TRACE_FENTRY = 24
_LSM_MAC = 27
_SLEEPABLE = 1 << 4
_NO_PREALLOC = 1

# A tracepoint and a hook that every kernel with the facility has, to ask for the program type itself.
_USUAL_TRACEPOINT = "sched_switch"
_USUAL_LSM_HOOK = "file_open"

_LOAD_OPTIONS: dict[str, dict[str, int]] = {
    "cgroup_sock_addr": {"attach_type": 10},
    "cgroup_sockopt": {"attach_type": 21},
    "sk_lookup": {"attach_type": 36},
    "netfilter": {"attach_type": 45},
    "syscall": {"flags": _SLEEPABLE},
}
_NOT_ASKED_TYPES = {
    "ext": "not asked: needs a program to extend",
    "struct_ops": "not asked: needs a kernel structure to implement",
}
# Resolving these makes the kernel print a warning.
_NOISY_HELPERS = ("trace_printk", "trace_vprintk", "probe_write_user")

_REFUSED_HELPER = ("invalid func ", "unknown func ", "program of this type cannot use helper ")
_KNOWN_HELPER = ("R1 ", "R2 ", "R3 ", "R4 ", "R5 ", "!read_ok")


class MapShape(NamedTuple):
    """The smallest map of a type that the kernel accepts; sizes in bytes."""

    key: int = 4
    value: int = 4
    entries: int = 1
    flags: int = 0
    typed: bool = False
    inner: bool = False


_LOCAL_STORAGE = MapShape(entries=0, flags=_NO_PREALLOC, typed=True)
_MAP_SHAPES = {
    "stack_trace": MapShape(value=8),
    "lpm_trie": MapShape(key=8, flags=_NO_PREALLOC),
    "array_of_maps": MapShape(inner=True),
    "hash_of_maps": MapShape(inner=True),
    "cgroup_storage": MapShape(key=16, value=8, entries=0),
    "percpu_cgroup_storage": MapShape(key=16, value=8, entries=0),
    "queue": MapShape(key=0),
    "stack": MapShape(key=0),
    "bloom_filter": MapShape(key=0),
    "ringbuf": MapShape(key=0, value=0, entries=resource.getpagesize()),
    "user_ringbuf": MapShape(key=0, value=0, entries=resource.getpagesize()),
    "sk_storage": _LOCAL_STORAGE,
    "inode_storage": _LOCAL_STORAGE,
    "task_storage": _LOCAL_STORAGE,
    "cgrp_storage": _LOCAL_STORAGE,
}


def said(answer: str, evidence: str) -> Answer:
    """One answer with its evidence."""
    return {"answer": answer, "evidence": evidence}


def errno_name(number: int) -> str:
    """EINVAL for 22; the kernel's own ENOTSUPP, 524, has no name in Python."""
    return "ENOTSUPP" if number == 524 else errno.errorcode.get(number, f"errno {number}")


def attempt(action: Callable[[], int], what: str) -> Answer:
    """Ask by doing: the descriptor that `action` returns is closed at once."""
    try:
        fd = action()
    except OSError as error:
        absent = error.errno in _ABSENT
        return said("no" if absent else "unknown", f"{what}: {errno_name(error.errno or 0)}")
    except bpfsys.UnsupportedMachineError as error:
        return said("unknown", str(error))
    os.close(fd)
    return said("yes", f"{what}: accepted")


@contextmanager
def unlimited_memlock() -> Iterator[None]:
    """Lift RLIMIT_MEMLOCK where permitted: before 5.11 BPF memory counts against it, even root's."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


class Asker:
    """Asks one host; `root` stands before every path that is read (the system calls know no root)."""

    def __init__(self, root: Path, requirements: Sequence[Requirement]) -> None:
        self.root = root
        self.requirements = requirements
        self.btf_path = root / "sys/kernel/btf/vmlinux"
        self.btf_ids, self.btf = self._read_btf()

    def targets(self, kind: str) -> list[str]:
        """What the contracts ask for of one kind of requirement, each once."""
        return [one.key for one in self.requirements if one.kind == kind]

    def _read_btf(self) -> tuple[dict[tuple[int, str], int], Answer]:
        try:
            blob = self.btf_path.read_bytes()
        except FileNotFoundError:
            return {}, said("no", f"{self.btf_path} is not there")
        except OSError as error:
            return {}, said("unknown", f"{self.btf_path}: {errno_name(error.errno or 0)}")
        try:
            ids = btf.type_ids(blob, self._wanted_types())
        except btf.BtfError as error:
            return {}, said("unknown", f"{self.btf_path}: {error}")
        return ids, said("yes", f"{self.btf_path}, {len(blob)} bytes")

    def _wanted_types(self) -> list[tuple[int, str]]:
        wanted = [(btf.TYPEDEF, "btf_trace_" + _USUAL_TRACEPOINT), (btf.FUNC, "bpf_lsm_" + _USUAL_LSM_HOOK)]
        for key in self.targets("attach"):
            kind, _colon, target = key.partition(":")
            if kind in ("tp_btf", "raw_tp"):
                wanted.append((btf.TYPEDEF, "btf_trace_" + target))
            if kind in ("fentry", "lsm"):
                wanted.append((btf.FUNC, ("bpf_lsm_" if kind == "lsm" else "") + target))
        return wanted

    def _load(self, program_type: str, what: str, **options: Any) -> Answer:
        spec = bpfsys.ProgramSpec(type=PROGRAM_TYPES.index(program_type), **options)
        return attempt(lambda: bpfsys.prog_load(spec), f"BPF_PROG_LOAD {what}")

    def _load_typed(self, program_type: str, what: str, attach_type: int, key: tuple[int, str]) -> Answer:
        if self.btf["answer"] != "yes":
            return said(self.btf["answer"], self.btf["evidence"])
        if key not in self.btf_ids:
            return said("no", f"{key[1]} is not in the BTF of vmlinux")
        return self._load(program_type, what, attach_type=attach_type, attach_btf_id=self.btf_ids[key])

    def program_type(self, name: str) -> Answer:
        """Does the kernel load a program of this type?"""
        if name in _NOT_ASKED_TYPES:
            return said("unknown", _NOT_ASKED_TYPES[name])
        if name == "tracing":
            return self._tp_btf(_USUAL_TRACEPOINT)
        if name == "lsm":
            return self._lsm_load(_USUAL_LSM_HOOK)
        return self._load(name, name, **_LOAD_OPTIONS.get(name, {}))

    def map_type(self, name: str) -> Answer:
        """Does the kernel create a map of this type?"""
        if name == "struct_ops":
            return said("unknown", _NOT_ASKED_TYPES["struct_ops"])
        return attempt(lambda: _create_map(name), f"BPF_MAP_CREATE {name}")

    def helper(self, key: str) -> Answer:
        """May a program of this type call this helper? `key` is PROGTYPE:NAME."""
        program_type, _colon, name = key.partition(":")
        if name in _NOISY_HELPERS:
            return said("unknown", "not asked: asking makes the kernel print a warning")
        options = dict(_LOAD_OPTIONS.get(program_type, {}))
        if program_type == "tracing":
            options = {"attach_type": _TRACE_RAW_TP, "attach_btf_id": self._usual_tracepoint_id()}
        call = b"\x85\0\0\0" + HELPERS.index(name).to_bytes(4, "little") + bpfsys.RETURN_ZERO
        spec = bpfsys.ProgramSpec(type=PROGRAM_TYPES.index(program_type), code=call, **options)
        return _ask_verifier(spec, key)

    def _usual_tracepoint_id(self) -> int:
        return self.btf_ids.get((btf.TYPEDEF, "btf_trace_" + _USUAL_TRACEPOINT), 0)

    def attach_point(self, key: str) -> Answer:
        """Is the hook there? `key` is KIND:TARGET as in a contract."""
        kind, _colon, target = key.partition(":")
        ask = {
            "tp_btf": self._tp_btf,
            "raw_tp": self._raw_tp,
            "tracepoint": self._tracepoint,
            "kprobe": self._kprobe,
            "fentry": self._fentry,
            "lsm": self._lsm,
        }[kind]
        return ask(target)

    def _tp_btf(self, name: str) -> Answer:
        key = (btf.TYPEDEF, "btf_trace_" + name)
        return self._load_typed("tracing", "tp_btf/" + name, _TRACE_RAW_TP, key)

    def _fentry(self, symbol: str) -> Answer:
        return self._load_typed("tracing", "fentry/" + symbol, _TRACE_FENTRY, (btf.FUNC, symbol))

    def _lsm_load(self, hook: str) -> Answer:
        return self._load_typed("lsm", "lsm/" + hook, _LSM_MAC, (btf.FUNC, "bpf_lsm_" + hook))

    def _lsm(self, hook: str) -> Answer:
        active = read_lsms(self.root)
        if active is None:
            return said("unknown", "sys/kernel/security/lsm cannot be read; mount securityfs")
        if "bpf" not in active:
            return said("no", "bpf is not among the active LSMs ({})".format(",".join(active)))
        return self._lsm_load(hook)

    def _raw_tp(self, name: str) -> Answer:
        if (btf.TYPEDEF, "btf_trace_" + name) in self.btf_ids:
            return said("yes", f"typedef btf_trace_{name} in the BTF of vmlinux")
        events = self._tracefs_events()
        if events is None:
            return said("unknown", "not in the BTF of vmlinux, and tracefs is not mounted")
        found = sorted(events.glob("*/" + name))
        return said("yes" if found else "no", str(found[0]) if found else f"not in {events}")

    def _tracepoint(self, name: str) -> Answer:
        events = self._tracefs_events()
        if events is None:
            return said("unknown", "tracefs is not mounted or not readable; mount it at sys/kernel/tracing")
        there = (events / name / "id").exists()
        return said(
            "yes" if there else "no", "{} {}".format(events / name, "is there" if there else "is not there")
        )

    def _tracefs_events(self) -> Path | None:
        for place in ("sys/kernel/tracing/events", "sys/kernel/debug/tracing/events"):
            events = self.root / place
            try:
                if any(events.iterdir()):
                    return events
            except OSError:
                continue
        return None

    def _kprobe(self, symbol: str) -> Answer:
        pmu = read_int(self.root / "sys/bus/event_source/devices/kprobe/type")
        if pmu is None:
            return said("no", "sys/bus/event_source/devices/kprobe/type is not there: no kprobe events")
        return attempt(lambda: bpfsys.kprobe_open(pmu, symbol), f"perf_event_open kprobe/{symbol}")


def _create_map(name: str) -> int:
    shape = _MAP_SHAPES.get(name, MapShape())
    helpers: list[int] = []
    try:
        inner_fd = btf_fd = 0
        if shape.inner:
            inner_fd = bpfsys.map_create(MAP_TYPES.index("hash"), 4, 4, 1)
            helpers.append(inner_fd)
        if shape.typed:
            btf_fd = bpfsys.btf_load_int()
            helpers.append(btf_fd)
        number = MAP_TYPES.index(name)
        fd: int = bpfsys.map_create(
            number, shape.key, shape.value, shape.entries, shape.flags, inner_fd, btf_fd
        )
        return fd
    finally:
        for fd in helpers:
            os.close(fd)


def _ask_verifier(spec: bpfsys.ProgramSpec, what: str) -> Answer:
    """Call the helper without arguments: the verifier either knows it and misses them, or does not."""
    log = ctypes.create_string_buffer(4096)
    try:
        os.close(bpfsys.prog_load(spec, log))
    except (OSError, bpfsys.UnsupportedMachineError) as error:
        return _helper_answer(error, log.value.decode("ascii", "replace"), what)
    return said("yes", f"BPF_PROG_LOAD with a call of {what}: accepted")


def _helper_answer(error: Exception, log: str, what: str) -> Answer:
    words = " ".join(log.split())[-160:]
    if any(text in log for text in _REFUSED_HELPER):
        return said("no", f"verifier on {what}: {words}")
    if any(text in log for text in _KNOWN_HELPER):
        return said("yes", f"verifier knows {what} and asks for its arguments: {words}")
    return said("unknown", f"BPF_PROG_LOAD with a call of {what}: {error}; {words}")


def read_lsms(root: Path) -> list[str] | None:
    """The active LSMs in order, or None where securityfs cannot be read."""
    text = read_text(root / "sys/kernel/security/lsm")
    return None if text is None else text.strip().split(",")


def read_lockdown(root: Path) -> dict[str, str | None]:
    """{"mode": none | integrity | confidentiality, or None where not known, "evidence"}."""
    text = read_text(root / "sys/kernel/security/lockdown")
    if text is None or "[" not in text:
        return {"mode": None, "evidence": "sys/kernel/security/lockdown cannot be read"}
    mode = text.partition("[")[2].partition("]")[0]
    return {"mode": mode, "evidence": f"sys/kernel/security/lockdown: {text.strip()}"}


_CONFIG_OPTIONS = (
    "CONFIG_BPF_SYSCALL",
    "CONFIG_BPF_JIT",
    "CONFIG_BPF_LSM",
    "CONFIG_BPF_EVENTS",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_KPROBES",
    "CONFIG_FTRACE",
    "CONFIG_FUNCTION_TRACER",
    "CONFIG_SCHEDSTATS",
    "CONFIG_SECURITY_LOCKDOWN_LSM",
)


def read_config(root: Path, release: str) -> dict[str, Any] | None:
    """Build options of the running kernel, an option that is not set as "n"; None if not readable."""
    for place in ("proc/config.gz", "boot/config-" + release):
        try:
            raw = (root / place).read_bytes()
            text = (gzip.decompress(raw) if place.endswith(".gz") else raw).decode("ascii", "replace")
        except (OSError, EOFError):
            continue
        lines = dict(line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
        return {"source": place, "options": {name: lines.get(name, "n") for name in _CONFIG_OPTIONS}}
    return None


def read_cgroup(root: Path) -> str | None:
    """v2, hybrid or v1; None where no cgroup file system is mounted at its usual place."""
    base = root / "sys/fs/cgroup"
    if (base / "cgroup.controllers").exists():
        return "v2"
    if (base / "unified/cgroup.controllers").exists():
        return "hybrid"
    return "v1" if (base / "cpu").exists() or (base / "memory").exists() else None


def read_systemd(root: Path) -> dict[str, Answer]:
    """Is systemd installed, and is it process 1?"""
    installed = next((p for p in ("usr/bin/systemctl", "bin/systemctl") if (root / p).exists()), None)
    booted = (root / "run/systemd/system").is_dir()
    return {
        "installed": said("yes" if installed else "no", installed or "no systemctl in usr/bin or bin"),
        "pid1": said(
            "yes" if booted else "no", "run/systemd/system is " + ("there" if booted else "not there")
        ),
    }


def read_memlock() -> dict[str, int | bool | None]:
    """The soft limit of this session in bytes; null when unlimited."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = soft == resource.RLIM_INFINITY
    return {"soft_bytes": None if unlimited else soft, "unlimited": unlimited}


def read_own_programs() -> dict[str, Any]:
    """Programs of ours in the kernel; `programs` is null when the kernel does not let us look."""
    try:
        found = bpfsys.own_programs()
    except OSError as error:
        return {"programs": None, "evidence": f"BPF_PROG_GET_NEXT_ID: {errno_name(error.errno or 0)}"}
    except bpfsys.UnsupportedMachineError as error:
        return {"programs": None, "evidence": str(error)}
    programs = [
        {"id": one.id, "name": one.name, "tag": one.tag, "type": _type_name(one.type)} for one in found
    ]
    return {"programs": programs, "evidence": "walk of all program ids, names that start with ef_"}


def _type_name(number: int) -> str:
    return PROGRAM_TYPES[number] if number < len(PROGRAM_TYPES) else f"type_{number}"


def gather(requirements: Sequence[Requirement], root: Path = Path("/")) -> dict[str, Any]:
    """All capability facts of this host; format in docs/interfaces.md."""
    memlock = read_memlock()
    with unlimited_memlock():
        asker = Asker(root, requirements)
        facts = _kernel_answers(asker)
    facts["memlock"] = memlock
    facts.update(_host_answers(root))
    return facts


def _kernel_answers(asker: Asker) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "privileged": os.geteuid() == 0,
        "btf": dict(asker.btf, state="vmlinux" if asker.btf["answer"] == "yes" else "missing"),
        "program_types": {name: asker.program_type(name) for name in PROGRAM_TYPES[1:]},
        "map_types": {name: asker.map_type(name) for name in MAP_TYPES[1:]},
        "helpers": {key: asker.helper(key) for key in asker.targets("helper")},
        "attach_points": {key: asker.attach_point(key) for key in asker.targets("attach")},
        "own_programs": read_own_programs(),
    }


def _host_answers(root: Path) -> dict[str, Any]:
    release = platform.release()
    distro = read_os_release(root)
    family = kernel_family(release)
    sysctl = root / "proc/sys"
    return {
        "kernel": {
            "release": release,
            "family": family,
            "distro_family": None
            if family is None or distro["id"] is None
            else "{}-{}".format(distro["id"], family),
            "machine": platform.machine(),
        },
        "distro": distro,
        "python": platform.python_version(),
        "systemd": read_systemd(root),
        "lockdown": read_lockdown(root),
        "lsms": read_lsms(root),
        "jit": read_int(sysctl / "net/core/bpf_jit_enable"),
        "unprivileged_bpf_disabled": read_int(sysctl / "kernel/unprivileged_bpf_disabled"),
        "bpf_stats_enabled": read_int(sysctl / "kernel/bpf_stats_enabled"),
        "cgroup": read_cgroup(root),
        "config": read_config(root, release),
    }
