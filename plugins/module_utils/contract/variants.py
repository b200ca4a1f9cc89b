# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of a contract's variants and of its BCC fallback: programs, and what they require of a host. Pure."""

from __future__ import annotations

import difflib
import re
from typing import Any, Collection

from ansible_collections.ebpf.fleet.plugins.module_utils.contract import rules
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import OF_VARIANTS
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import Check, Findings
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import HELPERS

# fmt: off
PROGRAM_TYPES = frozenset([
    "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event",
    "cgroup_skb", "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb",
    "cgroup_device", "sk_msg", "raw_tracepoint", "cgroup_sock_addr", "lwt_seg6local", "lirc_mode2",
    "sk_reuseport", "flow_dissector", "cgroup_sysctl", "raw_tracepoint_writable", "cgroup_sockopt",
    "tracing", "struct_ops", "ext", "lsm", "sk_lookup", "syscall", "netfilter",
])
MAP_TYPES = frozenset([
    "hash", "array", "prog_array", "perf_event_array", "percpu_hash", "percpu_array", "stack_trace",
    "cgroup_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "array_of_maps", "hash_of_maps",
    "devmap", "sockmap", "cpumap", "xskmap", "sockhash", "cgroup_storage", "reuseport_sockarray",
    "percpu_cgroup_storage", "queue", "stack", "sk_storage", "devmap_hash", "struct_ops", "ringbuf",
    "inode_storage", "task_storage", "bloom_filter", "user_ringbuf", "cgrp_storage", "arena",
])
# fmt: on
# What a hook makes certain: the program type, and whether the kernel's own BTF is needed to find it.
HOOKS = {
    "tp_btf": ("tracing", True),
    "fentry": ("tracing", True),
    "fexit": ("tracing", True),
    "lsm": ("lsm", True),
    "raw_tp": ("raw_tracepoint", False),
    "tracepoint": ("tracepoint", False),
    "kprobe": ("kprobe", False),
    "kretprobe": ("kprobe", False),
}  # fmt: skip
BCC_HOOKS = ("raw_tp", "kprobe", "kretprobe")
SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
TRACEPOINT = re.compile(r"[a-z0-9_]+/[a-z0-9_]+\Z")
KERNEL_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,4}\Z")
VARIANT: dict[str, Check] = {
    "name": rules.pattern_of(rules.NAME, "use [a-z][a-z0-9_]*, at most 32 characters"),
    "programs": rules.list_remedy,
    "profile": rules.choice(*OF_VARIANTS),
    "requires": rules.list_remedy,
}
BCC: dict[str, Check] = {"programs": rules.list_remedy, "requires": rules.list_remedy}


def check_variants(findings: Findings, doc: dict[str, Any]) -> None:
    before: list[dict[str, Any]] = []
    for field, variant in rules.check_entries(findings, doc, "variants"):
        rules.check_keys(findings, field, variant, VARIANT, optional={"profile"})
        name_check = rules.FREE_NAME_CHECK if rules.is_third_party(doc) else _program_remedy
        rules.check_words(findings, rules.at(field, "programs"), variant.get("programs"), name_check)
        rules.check_words(findings, rules.at(field, "requires"), variant.get("requires"), requirement_remedy)
        _fitting(findings, rules.at(field, "requires"), requirements_of(variant))
        _alternatives(findings, rules.at(field, "requires"), requirements_of(variant))
        _lsm_path(findings, rules.at(field, "requires"), requirements_of(variant), doc)
        _reachable(findings, field, variant, before)
        before.append(variant)


def requirements_of(entry: dict[str, Any]) -> list[str]:
    """The requirements of a variant that are of the grammar."""
    values = entry.get("requires")
    return [value for value in values if not requirement_remedy(value)] if isinstance(values, list) else []


def _fitting(findings: Findings, field: str, requires: list[str]) -> None:
    """Requirements that contradict or miss each other."""
    types = {word.partition(":")[2] for word in requires if word.startswith("prog_type:")}
    for word in requires:
        kind, _sep, rest = word.partition(":")
        name = rest.partition(":")[0]
        if kind == "attach" and HOOKS[name][0] not in types:
            findings.add(field, f"has {word!r} without 'prog_type:{HOOKS[name][0]}'", "add it")
        if kind == "attach" and HOOKS[name][1] and "btf:vmlinux" not in requires:
            findings.add(field, f"has {word!r} without 'btf:vmlinux'",
                         f"add it: {name} needs the kernel's own BTF, a bundled one does not do")  # fmt: skip
        if kind == "helper" and name not in types:
            findings.add(field, f"has {word!r}, but no program of type {name!r}",
                         f"use a type of the variant's programs: {', '.join(sorted(types))}")  # fmt: skip
    if "btf:any" in requires and "btf:vmlinux" in requires:
        findings.add(field, "has 'btf:any' and 'btf:vmlinux'", "remove 'btf:any': the other asks for more")


# Hooks at one moment of the kernel: programs of which each would see every event there.
MOMENTS = {
    "fentry": "entry", "kprobe": "entry", "fexit": "exit", "kretprobe": "exit", "tp_btf": "tracepoint",
    "raw_tp": "tracepoint", "tracepoint": "tracepoint", "lsm": "lsm",
}  # fmt: skip


def moment(hook: str, target: str) -> tuple[str, str]:
    """What a program hangs on, whichever kind of hook it uses: ``fentry:f`` and ``kprobe:f`` are one."""
    return MOMENTS[hook], target.rpartition("/")[2]


def _alternatives(findings: Findings, field: str, requires: list[str]) -> None:
    """Every program of a variant is attached: two for one hook would count each event twice."""
    first: dict[tuple[str, str], str] = {}
    for word in requires:
        kind, _sep, rest = word.partition(":")
        if kind != "attach":
            continue
        hook, _sep, target = rest.partition(":")
        other = first.setdefault(moment(hook, target), word)
        if other != word:
            findings.add(field, f"has {other!r} and {word!r}, which are one hook, and both programs would attach",
                         "keep one, and make a variant of the other")  # fmt: skip


def _lsm_path(findings: Findings, field: str, requires: list[str], doc: dict[str, Any]) -> None:
    words = [word for word in requires if word == "prog_type:lsm" or word.startswith("attach:lsm:")]
    if words and doc.get("data_path") in ("metrics", "events"):
        findings.add(field, f"has {words[0]!r} on the {doc['data_path']} path",
                     "an LSM program belongs to 'data_path: policy' with 'mode: observe'")  # fmt: skip


def _reachable(findings: Findings, field: str, variant: dict[str, Any], before: list[dict[str, Any]]) -> None:
    """A variant that asks for all that an earlier one asks for is never the first that works."""
    requires = requirements_of(variant)
    for earlier in before:
        wanted = requirements_of(earlier)
        if wanted and all(_implied(word, requires) for word in wanted):
            findings.add(f"{field}.requires", f"holds all that {earlier.get('name')!r} requires, which comes before "
                         f"it: {variant.get('name')!r} can never be chosen",
                         f"put it before {earlier.get('name')!r}, or say what that one needs beyond it")  # fmt: skip
            return


def _implied(word: str, requires: Collection[str]) -> bool:
    """Whether a host that meets ``requires`` meets ``word`` too."""
    if word in requires or (word == "btf:any" and "btf:vmlinux" in requires):
        return True
    kind, _sep, version = word.partition(":")
    newer = [other.partition(":")[2] for other in requires if other.startswith("kernel:")]
    return kind == "kernel" and any(_version(other) >= _version(version) for other in newer)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def check_bcc(findings: Findings, doc: dict[str, Any]) -> None:
    fallback = doc.get("bcc")
    if not isinstance(fallback, dict):
        return
    rules.check_keys(findings, "bcc", fallback, BCC)
    rules.check_words(findings, "bcc.programs", fallback.get("programs"), _program_remedy)
    rules.check_words(findings, "bcc.requires", fallback.get("requires"), requirement_remedy)
    _fitting(findings, "bcc.requires", [word for word in requirements_of(fallback) if not word.startswith("btf:")])
    _lsm_path(findings, "bcc.requires", requirements_of(fallback), doc)
    _alternatives(findings, "bcc.requires", requirements_of(fallback))
    for word in requirements_of(fallback):
        if word.startswith("btf:"):
            findings.add("bcc.requires", f"has {word!r}", "remove it: BCC compiles with the kernel's headers")
    _bcc_hooks(findings, fallback)


def _bcc_hooks(findings: Findings, fallback: dict[str, Any]) -> None:
    """BCC's sources name no hooks: the n-th program belongs to the n-th ``attach:``."""
    hooks = [word.split(":")[1] for word in requirements_of(fallback) if word.startswith("attach:")]
    programs = fallback.get("programs")
    for hook in hooks:
        if hook not in BCC_HOOKS:
            findings.add(
                "bcc.requires", f"has 'attach:{hook}:…'", f"the collector attaches {', '.join(BCC_HOOKS)} only"
            )
    if isinstance(programs, list) and len(programs) != len(hooks):
        findings.add("bcc.requires", f"has {len(hooks)} hooks for {len(programs)} programs",
                     "give one attach: for each program, in their order")  # fmt: skip


_program_remedy = rules.pattern_of(rules.KERNEL_NAME, rules.KERNEL_NAME_REMEDY)


def _one_of(word: object, known: Collection[str]) -> str | None:
    return rules.one_of(word, known)


def requirement_remedy(requirement: Any) -> str | None:
    """None for a requirement of the grammar, else what to write instead."""
    if not isinstance(requirement, str):
        return "give a requirement as text, such as 'btf:vmlinux'"
    kind, _sep, rest = requirement.partition(":")
    if kind == "btf":
        return None if rest in ("vmlinux", "any") else "write 'btf:vmlinux' or 'btf:any'"
    if kind == "kernel":
        return None if KERNEL_VERSION.match(rest) else "write 'kernel:MAJOR.MINOR'"
    if kind == "prog_type":
        return _one_of(rest, PROGRAM_TYPES)
    if kind == "map_type":
        return _one_of(rest, MAP_TYPES)
    if kind == "helper":
        return _helper_remedy(rest)
    if kind == "attach":
        return _attach_remedy(rest)
    return _one_of(kind, ("btf", "kernel", "prog_type", "map_type", "helper", "attach"))


def _helper_remedy(rest: str) -> str | None:
    program_type, _sep, helper = rest.partition(":")
    if program_type not in PROGRAM_TYPES:
        return _one_of(program_type, PROGRAM_TYPES)
    if helper in HELPERS:
        return None
    near = difflib.get_close_matches(helper[4:] if helper.startswith("bpf_") else helper, HELPERS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "names are those of bpf-helpers(7)"
    return f"write 'helper:PROGTYPE:NAME' without 'bpf_'; {hint}"


def _attach_remedy(rest: str) -> str | None:
    hook, _sep, target = rest.partition(":")
    if hook not in HOOKS:
        return _one_of(hook, HOOKS)
    if hook == "tracepoint":
        return None if TRACEPOINT.match(target) else "write 'attach:tracepoint:GROUP/NAME'"
    return None if SYMBOL.match(target) else f"write 'attach:{hook}:NAME'"
