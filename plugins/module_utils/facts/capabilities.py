# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this host's kernel can run, asked of the kernel itself.

Every answer is {"answer": "yes" | "no" | "unknown", "evidence": sentence}, some with a reason
code. Every descriptor is closed, no setting is changed, and questions that would write to the
kernel's log are not asked.
"""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import Answer, answered, is_yes
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import Requirement
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import kernelfacts
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.hookask import (
    HookAsker,
    KernelTypes,
    wanted_types,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import kernelask, loaded
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import (
    HELPERS,
    MAP_TYPES,
    PROGRAM_TYPES,
)

SCHEMA = "ebpf.fleet/capabilities/v1"


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


def gather(
    requirements: Sequence[Requirement],
    root: Path = Path("/"),
    all_helpers: bool = False,
    btf_index: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """All capability facts of this host; format in docs/formats/capabilities.md.

    `requirements` are what the contracts ask for; `all_helpers` asks every helper of every program
    type instead of theirs only; `btf_index` are the entries of a bundle's btf/index.json.
    """
    facts = {"schema": SCHEMA, "memlock": kernelfacts.read_memlock(), **kernelfacts.read_host(root)}
    # First, as the kernel frees what the questions make a moment after it was closed.
    facts["loaded"] = loaded.read_loaded(facts["bpf_stats_enabled"] == 1)
    facts["own_programs"] = loaded.own_programs(facts["loaded"])
    hooks = [one.key for one in requirements if one.kind == "attach"]
    with unlimited_memlock():
        types = KernelTypes(root / "sys/kernel/btf/vmlinux", wanted_types(hooks))
        who = kernelask.standing(facts["lockdown"]["mode"] == "confidentiality")
        facts.update(_kernel_answers(HookAsker(root, who, types), requirements, all_helpers))
    facts["privileged"] = who.trusted and kernelfacts.has_privilege()
    facts["btf"] = _btf(root, types, kernelfacts.matching_btf(facts["kernel"], btf_index))
    facts["next_kernel"] = None
    return facts


def _btf(root: Path, types: KernelTypes, bundled: Answer) -> dict[str, Any]:
    state = "bundled" if is_yes(bundled) and types.answer["answer"] == "no" else "missing"
    return {
        **types.answer,
        "state": "vmlinux" if is_yes(types.answer) else state,
        "bundled": bundled,
        "modules": kernelfacts.read_btf_modules(root),
    }


def _kernel_answers(asker: HookAsker, requirements: Sequence[Requirement], all_helpers: bool) -> dict[str, Any]:
    who = asker.who
    attach_points = {one.key: asker.ask(one.key) for one in requirements if one.kind == "attach"}
    kinds = asker.kinds()
    return {
        "attach_points": attach_points,
        "attach_kinds": kinds,
        "bpf_links": asker.links(),
        "program_types": {name: _program_type(asker, name) for name in PROGRAM_TYPES[1:]},
        "map_types": {name: kernelask.ask_map_type(who, name) for name in MAP_TYPES[1:]},
        "helpers": _helpers(asker, _wanted_helpers(requirements, all_helpers)),
        "signed_programs": kernelask.ask_signed(who),
        "stats": kernelask.ask_stats(who),
    }


def _program_type(asker: HookAsker, name: str) -> Answer:
    if name == "tracing":
        return asker.tracing_type()
    if name == "lsm":
        return asker.lsm_type()
    return kernelask.ask_program_type(asker.who, name)


def _wanted_helpers(requirements: Sequence[Requirement], everything: bool) -> dict[str, list[str]]:
    """Helpers by program type."""
    if everything:
        return {name: list(HELPERS[1:]) for name in PROGRAM_TYPES[1:]}
    wanted: dict[str, list[str]] = {}
    for one in requirements:
        if one.kind == "helper" and one.program_type:
            wanted.setdefault(one.program_type, []).append(one.target)
    return wanted


def _helpers(asker: HookAsker, wanted: Mapping[str, Sequence[str]]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for program_type, names in wanted.items():
        loads = _program_type(asker, program_type)
        if loads["answer"] == "no":
            evidence = f"no program of type {program_type} loads: {loads['evidence']}"
            absent = answered("no", evidence, loads.get("reason_code"))
            answers.update({f"{program_type}:{name}": absent for name in names})
            continue
        one = kernelask.HelperAsker(asker.who, program_type, asker.helper_contexts(program_type))
        answers.update({f"{program_type}:{name}": one.ask(name) for name in names})
    return answers
