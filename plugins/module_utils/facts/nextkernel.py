# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changes when a host boots its next kernel: read from the installed image, before it runs.

From the image's BTF come the program types, map types and helpers (enums), tracepoints
(typedefs) and functions. What only a running kernel can tell stays unknown. Reads files only.
"""

from __future__ import annotations

import platform
import struct
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence, Tuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import Answer, answered
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import ATTACH
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import kernelfacts, profile
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import btf
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bootchoice import IMAGE_PREFIXES, Choice, choose
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import MAP_TYPES, PROGRAM_TYPES
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import kernel_family, read_text
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.kernelimage import ImageError, read_kernel

Json = Mapping[str, Any]
BtfType = Tuple[int, str]  # kind and name


class Source(NamedTuple):
    """Where the next kernel was read; `blob` is its BTF, None where `answer` is not yes."""

    path: Path | None
    blob: bytes | None
    build_id: str | None
    answer: Answer


# A damaged file must not cost the facts of the kernel that runs.
_UNREADABLE = (ImageError, OSError, ValueError, IndexError, OverflowError, MemoryError, struct.error)


def find_source(root: Path, release: str) -> Source:
    """An installed kernel's BTF: of its image, else of a debug vmlinux."""
    problems = []
    for place in _places(root, release):
        if not place.is_file():
            continue
        try:
            kernel = read_kernel(place)
        except _UNREADABLE as error:
            problems.append(f"{place}: {error}")
            continue
        if kernel.btf is None:
            return Source(place, None, kernel.build_id, answered("no", f"the kernel in {place} has no .BTF section"))
        answer = answered("yes", f"{place} holds {len(kernel.btf)} bytes of BTF")
        return Source(place, kernel.btf, kernel.build_id, answer)
    problem = "; ".join(problems) or f"no image of {release} is readable on this host"
    return Source(None, None, None, answered("unknown", problem))


def _places(root: Path, release: str) -> list[Path]:
    names = [f"boot/{prefix}{release}" for prefix in IMAGE_PREFIXES]
    names += [f"lib/modules/{release}/vmlinuz", f"usr/lib/modules/{release}/vmlinuz"]
    names += [f"usr/lib/debug/boot/vmlinux-{release}", f"usr/lib/debug/lib/modules/{release}/vmlinux"]
    return [root / name for name in names]


_ENUM = 6
_ENUM64 = 19
_ENUM_PREFIXES = {"bpf_prog_type": "BPF_PROG_TYPE_", "bpf_map_type": "BPF_MAP_TYPE_", "bpf_func_id": "BPF_FUNC_"}


def enumerators(blob: bytes, wanted: Sequence[str]) -> dict[str, dict[str, int]]:
    """{enum: {enumerator: value}} of the wanted enums that the BTF holds."""
    header, type_at, type_len, string_at, string_len = struct.unpack_from("<IIIII", blob, 4)
    words = memoryview(blob)[header + type_at : header + type_at + type_len].cast("I")
    strings = blob[header + string_at : header + string_at + string_len]
    names = {strings.find(b"\0" + name.encode("ascii") + b"\0") + 1: name for name in wanted}
    names.pop(0, None)
    found: dict[str, dict[str, int]] = {}
    for position, info in _positions(words):
        if words[position] in names and info >> 24 & 0x1F in (_ENUM, _ENUM64):
            step = 2 if info >> 24 & 0x1F == _ENUM else 3
            pairs = range(position + 3, position + 3 + step * (info & 0xFFFF), step)
            found[names[words[position]]] = {_text(strings, words[at]): words[at + 1] for at in pairs}
    return found


def _positions(words: memoryview) -> Iterator[tuple[int, int]]:
    """(position, info word) of each type."""
    position, end = 0, len(words)
    steps: dict[int, int] = {}
    while position < end:
        info = words[position + 1]
        if info not in steps:
            steps[info] = btf._step(info)
        yield position, info
        position += steps[info]


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode("ascii", "replace")


def read_config(root: Path, release: str) -> dict[str, str] | None:
    """Every option of an installed kernel's configuration; None where there is none."""
    for place in kernelfacts.CONFIG_PLACES:
        # proc/config.gz is that of the kernel that runs.
        text = None if place.startswith("proc/") else kernelfacts.read_config_text(root / place.format(release))
        if text is not None:
            lines = text.splitlines()
            return dict(line.split("=", 1) for line in lines if line.startswith("CONFIG_") and "=" in line)
    return None


class Condition(NamedTuple):
    """What must have been compiled in: the option, and a function that is in the kernel only then."""

    option: str
    witness: str


_EVENTS = Condition("CONFIG_BPF_EVENTS", "trace_call_bpf")
_CONDITIONAL_TYPES = {
    "kprobe": _EVENTS,
    "tracepoint": _EVENTS,
    "raw_tracepoint": _EVENTS,
    "raw_tracepoint_writable": _EVENTS,
    "perf_event": _EVENTS,
    "tracing": _EVENTS,
    "lsm": Condition("CONFIG_BPF_LSM", "bpf_lsm_file_open"),
    "lirc_mode2": Condition("CONFIG_BPF_LIRC_MODE2", "lirc_prog_attach"),
    "struct_ops": Condition("CONFIG_BPF_JIT", "bpf_struct_ops_map_alloc"),
    "netfilter": Condition("CONFIG_NETFILTER_BPF_LINK", "bpf_nf_link_attach"),
}
_CONDITIONAL_MAPS = {
    "perf_event_array": Condition("CONFIG_PERF_EVENTS", "perf_event_fd_array_get_ptr"),
    "stack_trace": Condition("CONFIG_PERF_EVENTS", "stack_map_alloc"),
    "xskmap": Condition("CONFIG_XDP_SOCKETS", "xsk_map_alloc"),
    "cgroup_array": Condition("CONFIG_CGROUPS", "cgroup_fd_array_get_ptr"),
    "cgroup_storage": Condition("CONFIG_CGROUP_BPF", "cgroup_storage_map_alloc"),
    "percpu_cgroup_storage": Condition("CONFIG_CGROUP_BPF", "cgroup_storage_map_alloc"),
    "struct_ops": Condition("CONFIG_BPF_JIT", "bpf_struct_ops_map_alloc"),
    "inode_storage": Condition("CONFIG_BPF_LSM", "inode_storage_map_alloc"),
}


class Next:
    """Answers for one kernel that does not run; `now` are the running kernel's facts."""

    def __init__(
        self, root: Path, choice: Choice, now: Json, contracts: Sequence[Json], index: Sequence[Json] | None = None
    ) -> None:
        self.root = root
        self.release = str(choice.release)
        self.index = index
        self.now = now
        self.source = find_source(root, self.release)
        self.config = read_config(root, self.release)
        self.command_line = choice.command_line
        self.present_line = read_text(root / "proc/cmdline")
        self.needed = profile.requirements(contracts)
        self.enums: dict[str, dict[str, int]] = {}
        self.types: dict[tuple[int, str], int] = {}
        self._read_types()

    def _read_types(self) -> None:
        if self.source.blob is None:
            return
        try:
            self.types = btf.type_ids(self.source.blob, self._wanted())
            self.enums = enumerators(self.source.blob, list(_ENUM_PREFIXES))
        except (btf.BtfError, *_UNREADABLE) as error:
            answer = answered("unknown", f"{self.source.path}: {error}")
            self.source = self.source._replace(blob=None, answer=answer)

    def _targets(self) -> list[tuple[str, str]]:
        return [(one.attach.name, one.target) for one in self.needed if one.attach]

    def _wanted(self) -> list[tuple[int, str]]:
        conditions = [*_CONDITIONAL_TYPES.values(), *_CONDITIONAL_MAPS.values()]
        wanted = [(btf.FUNC, condition.witness) for condition in conditions]
        for kind, target in self._targets():
            wanted.append(ATTACH[kind].btf_type(target))
            if target.startswith("syscalls/"):
                wanted += [(btf.FUNC, name) for name in _syscall_functions(target)]
        return wanted

    def facts(self) -> dict[str, Any]:
        """What profile.predict asks of, for the next kernel."""
        return {
            **self.now,
            "kernel": self._kernel(),
            "btf": self._btf(),
            "config": None if self.config is None else {"source": "boot", "options": self.config},
            "program_types": {name: self.program_type(name) for name in PROGRAM_TYPES[1:]},
            "map_types": {name: self.map_type(name) for name in MAP_TYPES[1:]},
            "helpers": {one.key: self.helper(one.key) for one in self.needed if one.kind == "helper"},
            "attach_points": {f"{kind}:{target}": self.attach(kind, target) for kind, target in self._targets()},
            "bcc": self._bcc(),
            "attach_kinds": {},
            "bpf_links": {},
        }

    def runs_already(self) -> bool:
        """Is it, by its build id, the kernel that runs now?"""
        running = (self.now.get("kernel") or {}).get("build_id")
        return running is not None and running == self.source.build_id

    def _kernel(self) -> dict[str, Any]:
        family = kernel_family(self.release)
        distro = (self.now.get("distro") or {}).get("id")
        machine = (self.now.get("kernel") or {}).get("machine") or platform.machine()
        return {
            "release": self.release,
            "family": family,
            "distro_family": f"{distro}-{family}" if distro and family else None,
            "machine": machine,
            "build_id": self.source.build_id,
        }

    def _btf(self) -> dict[str, Any]:
        """The kernel's own BTF by its image, and what the bundle carries for that release and build id."""
        bundled = kernelfacts.matching_btf(self._kernel(), self.index)
        state = {"yes": "vmlinux", "unknown": None}.get(self.source.answer["answer"], "missing")
        if state == "missing" and bundled["answer"] == "yes":
            state = "bundled"
        return dict(self.source.answer, state=state, bundled=bundled, modules=None)

    def _bcc(self) -> Answer:
        """The headers must be those of the next kernel; the running one's own archive says nothing of them."""
        found: Answer = kernelfacts.read_bcc(self.root, self.release)
        if found["answer"] == "yes" and not (self.root / "lib/modules" / self.release / "build").exists():
            return answered("unknown", f"no headers of {self.release} are installed; it may carry its own")
        return found

    def in_enum(self, enum: str, name: str) -> Answer:
        """Does the next kernel's enum know the name? Compiled in is not the same as permitted."""
        if self.source.blob is None:
            return answered("unknown", f"the BTF of {self.release} was not read")
        if enum not in self.enums:
            return answered("unknown", f"{self.source.path}: its BTF has no enum {enum}")
        full = _ENUM_PREFIXES[enum] + (name if enum == "bpf_func_id" else name.upper())
        there = full in self.enums[enum]
        return answered(
            "yes" if there else "no", f"enum {enum} of {self.release}: {full} {'' if there else 'not '}there"
        )

    def _option(self, name: str) -> Answer | None:
        """A "no" where the configuration says that the option is off; None where nothing speaks against it."""
        if self.config is None or self.config.get(name) in ("y", "m"):
            return None
        return answered("no", f"config of {self.release}: {name} is not set")

    def _compiled(self, condition: Condition) -> Answer | None:
        """No or unknown where an option is off or cannot be told; None where nothing speaks against it.

        An enum holds the names of what was left out, too.
        """
        if self.config is not None:
            return self._option(condition.option)
        if self.source.blob is None or (btf.FUNC, condition.witness) in self.types:
            return None
        evidence = f"no configuration of {self.release} is readable, and its BTF has no {condition.witness}"
        return answered("unknown", f"{evidence}, by which {condition.option} would show")

    def program_type(self, name: str) -> Answer:
        """By the enum, and by the option without which the type is an empty name."""
        off = self._compiled(_CONDITIONAL_TYPES[name]) if name in _CONDITIONAL_TYPES else None
        return off or self.in_enum("bpf_prog_type", name)

    def map_type(self, name: str) -> Answer:
        """As with program types."""
        off = self._compiled(_CONDITIONAL_MAPS[name]) if name in _CONDITIONAL_MAPS else None
        return off or self.in_enum("bpf_map_type", name)

    def helper(self, key: str) -> Answer:
        """The enum has no program types: which may call it is taken from the running kernel, or unknown."""
        found = self.in_enum("bpf_func_id", key.partition(":")[2])
        if found["answer"] != "yes":
            return found
        now = (self.now.get("helpers") or {}).get(key) or {}
        if now.get("answer") == "yes":
            return answered("yes", f"{found['evidence']}; the running kernel permits it to that program type")
        return answered(
            "unknown", f"{found['evidence']}; whether that program type may call it, only a running kernel tells"
        )

    def attach(self, kind: str, target: str) -> Answer:
        """One hook of the next kernel; `kind` is one of ATTACH."""
        if self.source.blob is None:
            return answered("unknown", f"the BTF of {self.release} was not read")
        return _ATTACH[kind](self, target, ATTACH[kind].btf_type(target))

    def _tracepoint(self, target: str, wanted: BtfType) -> Answer:
        return self._syscall(target) if target.startswith("syscalls/") else self._named(wanted)

    def _syscall(self, target: str) -> Answer:
        off = self._option("CONFIG_FTRACE_SYSCALLS")
        functions = _syscall_functions(target)
        there = [name for name in functions if (btf.FUNC, name) in self.types]
        if off or there:
            return off or answered("yes", f"BTF of {self.release}: {there[0]} is there")
        return answered("unknown", f"BTF of {self.release}: none of {', '.join(functions)} is there")

    def _named(self, wanted: BtfType) -> Answer:
        there = wanted in self.types
        said_so = f"BTF of {self.release}: {wanted[1]} {'is' if there else 'is not'} there"
        return answered("yes" if there else "no", said_so)

    def _fentry(self, _target: str, wanted: BtfType) -> Answer:
        return self._option("CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS") or self._named(wanted)

    def _kprobe(self, _target: str, wanted: BtfType) -> Answer:
        off = self._option("CONFIG_KPROBE_EVENTS")
        found = off or self._named(wanted)
        if off or found["answer"] == "yes":
            return found
        return answered("unknown", f"{found['evidence']}; a function may be in a kernel and not in its BTF")

    def _lsm(self, _target: str, wanted: BtfType) -> Answer:
        found = self._option("CONFIG_BPF_LSM") or self._named(wanted)
        return found if found["answer"] != "yes" else self._lsm_active(found["evidence"])

    def _lsm_active(self, evidence: str) -> Answer:
        """The hook is there; is the BPF LSM on? The command line goes before the configuration."""
        words = (self.command_line or self.present_line or "").split()
        given = [word[4:] for word in words if word.startswith("lsm=")]
        where = "the command line" if given else f"CONFIG_LSM of {self.release}"
        listed = given[-1] if given else (self.config or {}).get("CONFIG_LSM")
        if listed is None:
            return answered("unknown", f"{evidence}; neither command line nor configuration say which LSMs are on")
        if "bpf" in listed.strip('"').split(","):
            return answered("yes", f"{evidence}; {where} has bpf")
        return answered("no", f"{evidence}; {where} has no bpf: {listed}", "EF_LSM_INACTIVE")


_ATTACH: dict[str, Callable[[Next, str, BtfType], Answer]] = {
    "tp_btf": Next._tracepoint,
    "raw_tp": Next._tracepoint,
    "tracepoint": Next._tracepoint,
    "fentry": Next._fentry,
    "fexit": Next._fentry,
    "kprobe": Next._kprobe,
    "kretprobe": Next._kprobe,
    "lsm": Next._lsm,
}


def _syscall_functions(target: str) -> list[str]:
    name = target.rpartition("/")[2]
    for prefix in ("sys_enter_", "sys_exit_"):
        if name.startswith(prefix):
            call = name[len(prefix) :]
            return [f"__x64_sys_{call}", f"__arm64_sys_{call}", f"__se_sys_{call}", f"sys_{call}"]
    return []


def preflight(
    root: Path,
    want: str,
    facts: Json,
    contracts: Sequence[Json],
    today: str | None,
    fallbacks: Sequence[str] = (),
    btf_index: Sequence[Json] | None = None,
) -> dict[str, Any]:
    """The fact `next_kernel`.

    `want` is `auto` or a release, `facts` are the running kernel's, `today`, `fallbacks` and
    `btf_index` are what the predictions for the running kernel were made with.
    """
    choice = choose(root, want)
    if choice.release is None:
        return _unknown(choice)
    coming = Next(root, choice, facts, contracts, btf_index)
    # The very kernel that runs was asked itself, which is more than its image tells.
    later = facts if coming.runs_already() else coming.facts()
    present = {one["feature"]: profile.predict(one, facts, today, fallbacks) for one in contracts}
    profiles = {one["feature"]: profile.predict(one, later, today, fallbacks) for one in contracts}
    changed = [name for name in sorted(profiles) if _reached(present[name]) != _reached(profiles[name])]
    return {
        "release": choice.release,
        "chosen_by": choice.chosen_by + (", and it runs already" if coming.runs_already() else ""),
        "btf": dict(coming.source.answer),
        "source": None if coming.source.path is None else str(coming.source.path),
        "profiles": profiles,
        "changes": [_change(name, present[name], profiles[name]) for name in changed],
        "unknown": _NOT_TOLD,
    }


_NOT_TOLD = [
    "members of kernel structures: whether the objects relocate is known when they load",
    "what the verifier of that kernel accepts",
]


def _unknown(choice: Choice) -> dict[str, Any]:
    answer = answered("unknown", choice.chosen_by)
    return {
        "release": None, "chosen_by": choice.chosen_by, "btf": answer, "source": None,
        "profiles": {}, "changes": [], "unknown": _NOT_TOLD,
    }  # fmt: skip


def _reached(prediction: Json) -> dict[str, Any]:
    return {"profile": prediction["profile"], "variant": prediction["variant"]}


def _change(feature: str, before: Json, after: Json) -> dict[str, Any]:
    """One change; the sentence is that of the prediction for the next kernel."""
    return {
        "feature": feature,
        "from": _reached(before),
        "to": _reached(after),
        "reason_code": after["reason_code"],
        "sentence": after["sentence"],
    }
