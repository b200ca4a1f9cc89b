# SPDX-License-Identifier: GPL-3.0-or-later
"""Features whose hooks this kernel refuses, at a hook that it has: the same code, struct and loader, other events.

Only the line of the hook is another; records and counters come by the way that they come by on a kernel that takes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tests.loader.foreign import ROOT, compile_bpf
from tests.loader.service import FEATURES, contract_of

UNLINK, UNLINKAT = 87, 263
# A real OOM kill, told as the function that decides it would tell it: victim, its control group and the limit.
OOM = """enum cgroup_subsys_id___standin { memory_cgrp_id___standin = 4 };
struct css_set___standin {
	void *subsys[1];
} __attribute__((preserve_access_index));
struct page_counter___standin {
	unsigned long max;
} __attribute__((preserve_access_index));
struct mem_cgroup___standin {
	struct page_counter___standin memory;
} __attribute__((preserve_access_index));

SEC("raw_tp/mark_victim")
int ef_oom_kill(void *ctx) {
	struct task_struct *victim = ef_marked_task(ctx);
	struct css_set___standin *set = (void *)EF_READ(victim, cgroups);
	struct mem_cgroup___standin *group = NULL;
	__u64 room[16] = {}; /* the kernel's struct is larger than what is known of it here */
	struct oom_control *oc = (void *)room;

	bpf_probe_read_kernel(&group, sizeof(group), (void **)__builtin_preserve_access_index(&set->subsys) +
		bpf_core_enum_value(enum cgroup_subsys_id___standin, memory_cgrp_id___standin));
	oc->chosen = victim;
	oc->memcg = (void *)group;
	oc->totalpages = EF_READ(group, memory.max);
	oc->chosen_points = 1000;
	return on_kill(oc);
}"""


class StandIn(NamedTuple):
    """What is put in the place of the full variant's hook."""

    hook: str
    asks: str
    put: str
    program_type: str


STANDINS = {
    "exec_policy": StandIn(
        'SEC("lsm/bprm_check_security")\nint ef_epl_exec(void *ctx) {\n\ton_exec(EF_BTF_ARG(ctx, 0));',
        "attach:tp_btf:sched_process_exec",
        'SEC("tp_btf/sched_process_exec")\nint ef_epl_exec(void *ctx) {\n\ton_exec(EF_BTF_ARG(ctx, 2));',
        "tracing",
    ),
    "oom_kills": StandIn(
        'SEC("fentry/oom_kill_process")\nint ef_oom_kill(void *ctx) {\n\treturn on_kill(EF_BTF_ARG(ctx, 0));\n}',
        "attach:raw_tp:mark_victim",
        OOM,
        "raw_tracepoint",
    ),
    "file_unlinks": StandIn(
        'SEC("fentry/do_unlinkat")\n',
        "attach:tp_btf:sys_enter",
        'SEC("tp_btf/sys_enter")\n',
        "tracing",
    ),
}
ONLY_UNLINKS = f"weight = ((__u64 *)ctx)[1] == {UNLINK} || ((__u64 *)ctx)[1] == {UNLINKAT} ? ef_produce() : 0;"


def source_of(name: str) -> str:
    """The feature's own source with the other hook; fails where the source has no such hook any more."""
    text = (FEATURES / name / f"{name}.bpf.c").read_text(encoding="utf-8")
    standin = STANDINS[name]
    assert text.count(standin.hook) == 1, f"{name}: the full variant's hook is not where this stand-in puts its own"
    text = text.replace(standin.hook, standin.put)
    return text.replace("weight = ef_produce();", ONLY_UNLINKS) if name == "file_unlinks" else text


def standin_of(name: str, folder: Path) -> tuple[Any, dict[str, bytes]]:
    """The feature as make_bundle() takes it: its contract with the full variant only, and the object."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.bpf.c"
    source.write_text(source_of(name), encoding="utf-8")
    options = (f"-I{ROOT / 'bpf' / 'include'}", "-DEF_VARIANT_FULL")
    compiled = compile_bpf(source, folder / f"{name}.bpf.o", *options)
    contract = contract_of(name)
    (full,) = [each for each in contract["variants"] if each["name"] == "full"]
    contract["variants"] = [{**full, "requires": ["btf:vmlinux", f"prog_type:{STANDINS[name].program_type}",
        f"helper:{STANDINS[name].program_type}:probe_read_kernel", STANDINS[name].asks]}]  # fmt: skip
    contract["maps"] = [{key: each[key] for key in each if key != "variants"} for each in contract["maps"]]
    return contract, {"full": compiled}
