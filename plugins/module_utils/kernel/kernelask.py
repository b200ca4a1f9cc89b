# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the running kernel which program types, map types and helpers it has.

Most questions load a program with a deliberate mistake, that the verifier refuses after it has
taken everything else: nothing is loaded, so there is no id, no audit record and no JIT run.
A refusal that may have another cause than absence (EPERM, ENOMEM) is unknown, except that a
refusal of one thing to a process that may do the rest is the kernel's own restriction, a no.
"""

from __future__ import annotations

import os
import re
import resource
import struct
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import (
    ABSENT,
    REFUSED,
    Answer,
    answered,
    errno_name,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import (
    HELPERS,
    KERNEL_READERS,
    MAP_TYPES,
    PROGRAM_TYPES,
)

SLEEPABLE = 1 << 4
_NO_PREALLOC = 1
_E2BIG = 7

# What the verifier says of READS_UNWRITTEN once all else was taken.
_THE_MISTAKE = "!read_ok"

# Some types exist only together with an attach type or a flag; the first is asked for the type.
_CONTEXTS: Mapping[str, Sequence[Mapping[str, int]]] = {
    "cgroup_sock": ({}, {"attach_type": 12}, {"attach_type": 34}),
    "cgroup_sock_addr": tuple({"attach_type": number} for number in (10, 8, 14, 29, 19)),
    "cgroup_sockopt": ({"attach_type": 21}, {"attach_type": 22}),
    "sk_lookup": ({"attach_type": 36},),
    "netfilter": ({"attach_type": 45},),
    "syscall": ({"flags": SLEEPABLE},),
}
# These refuse our program for what it lacks. That the verifier speaks at all says the type is there.
NEEDS_MORE = ("ext", "struct_ops")

# Resolving these makes the kernel print a warning.
_NOISY_HELPERS = ("trace_printk", "trace_vprintk", "probe_write_user")

# The verifier's words on a call; the third are those of 6.9 on.
_REFUSED_HELPER = re.compile(
    "invalid func |unknown func |program of this type cannot use helper "
    "|func [^ ]+ (not supported for program type|supported only for) "
)
_KNOWN_HELPER = re.compile("R[1-5] |" + _THE_MISTAKE + "|sleep")
_DEPENDS = re.compile("helper call is not allowed in probe")
_AT_A_FUNCTION = ("tracing", "lsm", "ext")
_HELPER_NUMBERS = {name: number for number, name in enumerate(HELPERS)}


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


class Standing(NamedTuple):
    """Who asks: `trusted` is true once the kernel took a tracing program from this process up to its mistake."""

    trusted: bool
    confidential: bool

    def refusal(self, number: int, what: str) -> Answer:
        """EPERM or EACCES: to a trusted asker it is a restriction, a no; to another it says nothing."""
        evidence = f"{what}: {errno_name(number)}"
        if not self.trusted:
            return answered("unknown", evidence)
        if self.confidential:
            return answered("no", f"{evidence} under lockdown confidentiality", "EF_LOCKDOWN")
        return answered("no", f"{evidence}, though other programs may be loaded", "EF_PERMISSION")

    def judge(self, number: int, what: str, absent: Sequence[int] = ABSENT) -> Answer:
        """The answer behind an errno; 0 is a yes."""
        if number == 0:
            return answered("yes", f"{what}: accepted")
        if number in REFUSED:
            return self.refusal(number, what)
        return answered("no" if number in absent else "unknown", f"{what}: {errno_name(number)}")

    def attempt(self, action: Callable[[], int], what: str, absent: Sequence[int] = ABSENT) -> Answer:
        """Ask by doing: the descriptor that `action` returns is closed at once."""
        try:
            fd = action()
        except OSError as error:
            return self.judge(error.errno or 0, what, absent)
        except bpfsys.UnsupportedMachineError as error:
            return answered("unknown", str(error))
        os.close(fd)
        return self.judge(0, what)


def standing(confidential: bool) -> Standing:
    """Find out how far this process is trusted with BPF."""
    spec = bpfsys.ProgramSpec(type=PROGRAM_TYPES.index("raw_tracepoint"), code=bpfsys.READS_UNWRITTEN)
    try:
        trusted = _THE_MISTAKE in bpfsys.Trial(spec).run().log
    except bpfsys.UnsupportedMachineError:
        trusted = False
    return Standing(trusted, confidential)


def ask_load(who: Standing, spec: bpfsys.ProgramSpec, what: str) -> Answer:
    """Would the kernel load a program of this spec?"""
    what = f"BPF_PROG_LOAD {what}"
    try:
        verdict = bpfsys.Trial(spec._replace(code=bpfsys.READS_UNWRITTEN)).run()
    except bpfsys.UnsupportedMachineError as error:
        return answered("unknown", str(error))
    if _THE_MISTAKE in verdict.log:
        return answered("yes", f"{what}: taken up to its deliberate mistake")
    if not verdict.log:
        return who.judge(verdict.errno, what)
    # The verifier spoke of something else: only a program without mistake can tell.
    verdict = bpfsys.Trial(spec).run()
    if verdict.errno == 0:
        return answered("yes", f"{what}: accepted")
    words = _words(verdict.log)
    return answered("no", f"{what}: {errno_name(verdict.errno)}; {words}", "EF_LOAD_REJECTED")


def _words(log: str) -> str:
    """The verifier's last words before its statistics."""
    return " ".join(log.split("processed ")[0].split())[-160:]


def ask_program_type(who: Standing, name: str) -> Answer:
    """Does the kernel know this program type? Tracing and lsm need a hook and are asked by hookask.py."""
    spec = spec_of(name, **contexts_of(name)[0])
    if name not in NEEDS_MORE:
        return ask_load(who, spec, name)
    try:
        verdict = bpfsys.Trial(spec).run()
    except bpfsys.UnsupportedMachineError as error:
        return answered("unknown", str(error))
    what = f"BPF_PROG_LOAD {name}"
    if verdict.log:
        return answered("yes", f"{what}: the verifier has it and asks for more: {_words(verdict.log)}")
    return who.judge(verdict.errno, what)


def contexts_of(program_type: str) -> Sequence[Mapping[str, int]]:
    """The attach types and flags under which a type is asked."""
    return _CONTEXTS.get(program_type, ({},))


def ask_map_type(who: Standing, name: str) -> Answer:
    """Does the kernel create a map of this type?"""
    if name == "struct_ops":
        return answered("unknown", "not asked: needs a kernel structure to implement")
    return who.attempt(lambda: _create_map(name), f"BPF_MAP_CREATE {name}")


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
        return bpfsys.map_create(number, shape.key, shape.value, shape.entries, shape.flags, inner_fd, btf_fd)
    finally:
        for fd in helpers:
            os.close(fd)


class HelperAsker:
    """Asks which helpers programs of one type may call, in any of the type's contexts."""

    def __init__(self, who: Standing, program_type: str, contexts: Sequence[Mapping[str, int]]) -> None:
        self.who = who
        self.name = program_type
        number = PROGRAM_TYPES.index(program_type)
        code = struct.pack("=BBhi", 0x85, 0, 0, 0) + bpfsys.READS_UNWRITTEN
        self.trials = [bpfsys.Trial(bpfsys.ProgramSpec(type=number, code=code, **one)) for one in contexts]

    def ask(self, helper: str) -> Answer:
        """Call the helper without arguments: the verifier either knows it and misses them, or does not."""
        if helper in _NOISY_HELPERS:
            return answered("unknown", "not asked: asking makes the kernel print a warning")
        if self.who.confidential and helper in KERNEL_READERS:
            return answered("no", "lockdown confidentiality forbids to read the kernel's memory", "EF_LOCKDOWN")
        number = _HELPER_NUMBERS[helper]
        answer = answered("unknown", "not asked: this type of program is not loaded here without more")
        for trial in self.trials:
            answer = helper_answer(trial.run(number), self.who, self.name in _AT_A_FUNCTION)
            if answer["answer"] == "yes":
                break
        return answer


def helper_answer(verdict: bpfsys.Verdict, who: Standing, at_a_function: bool = True) -> Answer:
    """What the verifier's words on a call without arguments say of the helper.

    `at_a_function`: are programs of this type bound to a function, on which the answer may depend?
    The call is followed by a read of r2, which no call leaves readable: the program never loads.
    """
    log = verdict.log
    found = _REFUSED_HELPER.search(log)
    if found:
        return answered("no", "verifier: " + _line(log, found.start()))
    found = _DEPENDS.search(log)
    if found and not at_a_function:
        return answered("no", f"verifier: {found.group()}")
    if found:
        return answered("unknown", f"verifier: {found.group()}; it depends on the function")
    found = _KNOWN_HELPER.search(log)
    if found:
        return answered("yes", "verifier knows it and asks for more: " + _line(log, found.start()))
    if not log and verdict.errno in REFUSED:
        return who.refusal(verdict.errno, "BPF_PROG_LOAD")
    return answered("unknown", f"BPF_PROG_LOAD: {errno_name(verdict.errno)}; {_words(log)}")


def _line(log: str, start: int) -> str:
    end = log.find("\n", start)
    return log[start : end if 0 <= end < start + 100 else start + 100]


def ask_signed(who: Standing) -> Answer:
    """Does BPF_PROG_LOAD know the field `signature`? Asked with bytes that are not a signature.

    A kernel that does not know the field says E2BIG, as the field lies beyond its structure. One
    that knows it either has no verification built in (EOPNOTSUPP) or refuses the bytes.
    """
    what = "BPF_PROG_LOAD with `signature`"
    if not who.trusted:
        return answered("unknown", f"{what}: not asked, this process may not load programs")
    try:
        number = bpfsys.signed_load(PROGRAM_TYPES.index("raw_tracepoint"), b"no signature at all!")
    except bpfsys.UnsupportedMachineError as error:
        return answered("unknown", str(error))
    if number == _E2BIG:
        return answered("no", f"{what}: E2BIG, the kernel does not know the field")
    if number in ABSENT[2:]:
        return answered("no", f"{what}: {errno_name(number)}")
    # EBADMSG and its kin come from the parser of signatures, which is the proof.
    if errno_name(number) in ("EBADMSG", "EKEYREJECTED", "ENOKEY", "ENOPKG", "ELIBBAD"):
        return answered("yes", f"{what}: {errno_name(number)}, the bytes were judged as a signature")
    return answered("unknown", f"{what}: {errno_name(number)}")


def ask_stats(who: Standing) -> Answer:
    """May this process have run time counted (BPF_ENABLE_STATS)? It counts until the answer is closed."""
    attr = struct.pack("=I", 0)
    return who.attempt(lambda: bpfsys.bpf(bpfsys.ENABLE_STATS, attr), "BPF_ENABLE_STATS run_time")


def spec_of(program_type: str, **options: Any) -> bpfsys.ProgramSpec:
    """A spec by the type's name."""
    return bpfsys.ProgramSpec(type=PROGRAM_TYPES.index(program_type), **options)
