# SPDX-License-Identifier: GPL-3.0-or-later
"""`check`: real loads and attaches on this machine's kernel, and the reason where one is refused."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Sequence

import pytest

from tests.loader.bundles import Trust
from tests.loader.objects import (
    HIDE_BTF,
    bundle_of,
    check,
    compile_source,
    contract,
    elsewhere,
    plain,
    say_security,
    variant,
)
from tests.loader.service import feature_of, ours_in_kernel, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads BPF: needs root")

HAS_KPROBES = os.path.exists("/sys/bus/event_source/devices/kprobe/type")
ACTIVE = say_security(lsm="lockdown,capability,bpf", lockdown="none [integrity] confidentiality")
INACTIVE = say_security(lsm="lockdown,capability,landlock")
CONFIDENTIAL = say_security(lsm="lockdown,capability,bpf", lockdown="none integrity [confidentiality]")
UNREADABLE = say_security()


def try_one(
    loader: Path,
    folder: Path,
    trust: Trust,
    source: str,
    requires: Sequence[str],
    *options: str,
    prefix: Sequence[str] = (),
    programs: Sequence[str] = ("ef_test",),
) -> dict[str, Any]:
    """Check a feature of one variant, `full`; what became of that variant."""
    data = compile_source(folder, "test", source)
    document = contract("test", [variant("full", programs, requires)])
    bundle = bundle_of(folder, trust, test=(document, {"full": data}))
    found: dict[str, Any] = check(loader, bundle, trust, *options, prefix=prefix)["features"]["test"]
    tried: dict[str, Any] = found["variants"]["full"]
    assert found["profile"] == ("full" if tried["reason_code"] == "EF_OK" else "disabled")
    assert found["reason_code"] == tried["reason_code"]
    return tried


def kernel_says(folder: Path, source: str, name: str = "oracle") -> tuple[bool, str]:
    """Does bpftool get the program into the kernel? The independent oracle; it leaves nothing."""
    compile_source(folder, name, source)
    pin = Path(f"/sys/fs/bpf/ef_test_{os.getpid()}")
    done = subprocess.run(
        ["bpftool", "prog", "load", str(folder / f"{name}.bpf.o"), str(pin)],
        check=False,
        capture_output=True,
        text=True,
    )
    pin.unlink(missing_ok=True)
    return done.returncode == 0, done.stdout + done.stderr


# ---- attaching ----


def test_attach_is_tried_for_a_moment_and_leaves_nothing(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    names = ("exec_events", "runqlat")
    bundle = bundle_of(tmp_path, trust, **{name: feature_of(feature_objects, name) for name in names})
    before = {each["id"] for each in ours_in_kernel("prog")}

    def all_gone() -> bool:
        return {each["id"] for each in ours_in_kernel("prog")} <= before

    attached, loaded = check(loader, bundle, trust, "--attach"), check(loader, bundle, trust)
    wait_for(all_gone, "the kernel frees the programs")
    for name in names:
        assert (attached["features"][name]["profile"], attached["features"][name]["reason_code"]) == ("full", "EF_OK")
        for each in attached["features"][name]["variants"].values():
            assert each["loads"] and each["attaches"] is True and "attaches" in each["reason"]
        for each in loaded["features"][name]["variants"].values():
            assert each["loads"] and each["attaches"] is None


def test_a_program_that_loads_and_has_nothing_to_attach_to(loader: Path, tmp_path: Path, trust: Trust) -> None:
    found = try_one(loader, tmp_path, trust, plain("raw_tp/ef_no_such"), ["prog_type:raw_tracepoint"], "--attach")
    assert (found["loads"], found["attaches"], found["reason_code"]) == (True, False, "EF_NO_ATTACH_POINT")
    assert found["errno_name"] == "ENOENT" and "ef_test" in found["reason"]


def test_attaching_needs_every_program(loader: Path, tmp_path: Path, trust: Trust) -> None:
    source = plain("raw_tp/sched_switch", "ef_good") + plain("raw_tp/ef_no_such", "ef_bad").split("\n", 2)[2]
    programs = ["ef_good", "ef_bad"]
    found = try_one(loader, tmp_path, trust, source, ["btf:any"], "--attach", programs=programs)
    assert (found["loads"], found["attaches"], found["reason_code"]) == (True, False, "EF_NO_ATTACH_POINT")
    assert "ef_bad" in found["reason"]

    def all_gone() -> bool:
        return not [each for each in ours_in_kernel("prog") if each["name"] in programs]

    wait_for(all_gone, "the kernel frees the program that was attached")


@pytest.mark.parametrize(
    "section", ["xdp", "tc", "cgroup_skb/ingress", "socket", "iter/task", "kprobe.multi/vfs_*", "uprobe//bin/true:main"]
)
def test_what_the_loader_does_not_attach_is_said(loader: Path, tmp_path: Path, trust: Trust, section: str) -> None:
    found = try_one(loader, tmp_path, trust, plain(section), ["btf:any"])
    assert (found["loads"], found["reason_code"]) == (False, "EF_ATTACH_FAILED")
    assert f"'{section}'" in found["reason"] and "does not attach" in found["reason"]


# ---- what the verifier counts ----

STACK = """
#include "ef_kernel.h"
#include <bpf/bpf_helpers.h>
static __attribute__((noinline)) long inner(long v) {
	volatile char buffer[64] = {};
	buffer[v & 63] = 1;
	return buffer[(v + 1) & 63];
}
SEC("raw_tp/sched_switch") int ef_test(__u64 *ctx) {
	volatile char buffer[256] = {};
	buffer[ctx[0] & 255] = 1;
	return buffer[(ctx[0] + 1) & 255] + inner(ctx[0]);
}
"""


def test_instructions_and_stack_are_the_verifiers(loader: Path, tmp_path: Path, trust: Trust) -> None:
    program = try_one(loader, tmp_path, trust, STACK, ["btf:any"])["programs"][0]
    assert 256 + 64 <= program["stack_bytes"] <= 512, "both functions' frames"
    # The kernel gives the figure a second time, by another way, since 5.16.
    assert program["processed_insns"] == program["verified_insns"] > program["insns"] / 2
    assert len(program["tag"]) == 16


def test_what_did_not_load_was_not_measured(loader: Path, tmp_path: Path, trust: Trust) -> None:
    wild = plain("raw_tp/sched_switch").replace("return 0", "return *(volatile int *)(*(__u64 *)ctx)")
    found = try_one(loader, tmp_path, trust, wild, ["btf:any"], "--attach")
    assert (found["loads"], found["attaches"], found["reason_code"]) == (False, None, "EF_LOAD_REJECTED")
    assert "invalid mem access" in found["log_tail"]
    program = found["programs"][0]
    assert [program[key] for key in ("verified_insns", "processed_insns", "stack_bytes", "tag")] == [None] * 4


# ---- requirements, asked of the kernel ----


@pytest.mark.parametrize("kind", ["kprobe", "kretprobe"])
def test_kprobes_are_asked_exactly(loader: Path, tmp_path: Path, trust: Trust, kind: str) -> None:
    found = try_one(loader, tmp_path, trust, plain(f"{kind}/vfs_unlink"), [f"attach:{kind}:vfs_unlink"], "--attach")
    if HAS_KPROBES:
        assert (found["loads"], found["attaches"], found["reason_code"]) == (True, True, "EF_OK")
    else:
        assert (found["loads"], found["attaches"], found["reason_code"]) == (False, None, "EF_NO_ATTACH_POINT")
        assert f"'{kind}:vfs_unlink'" in found["reason"] and "devices/kprobe" in found["reason"]


def test_a_kprobe_that_nobody_asked_for_fails_when_it_attaches(loader: Path, tmp_path: Path, trust: Trust) -> None:
    found = try_one(loader, tmp_path, trust, plain("kprobe/ef_no_such_symbol"), ["prog_type:kprobe"], "--attach")
    assert (found["loads"], found["attaches"]) == (True, False)
    assert found["reason_code"] in ("EF_NO_ATTACH_POINT", "EF_ATTACH_FAILED") and "ef_test" in found["reason"]


@pytest.mark.parametrize("kind", ["fentry", "fexit"])
def test_functions_are_asked_by_loading_for_them(loader: Path, tmp_path: Path, trust: Trust, kind: str) -> None:
    source = plain(f"{kind}/vfs_unlink")
    works, said = kernel_says(tmp_path, source)
    found = try_one(loader, tmp_path, trust, source, ["btf:vmlinux", f"attach:{kind}:vfs_unlink"])
    assert found["loads"] == works
    if works:
        assert found["reason_code"] == "EF_OK"
        return
    assert "Operation not permitted" in said, "the one refusal that this test knows"
    assert found["reason_code"] == "EF_PERMISSION"
    assert f"'{kind}:vfs_unlink'" in found["reason"] and "refuses" in found["reason"]


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("fentry/ef_no_such", "fentry:ef_no_such"),
        ("fexit/ef_no_such", "fexit:ef_no_such"),
        ("tp_btf/ef_no_such", "tp_btf:ef_no_such"),
        ("raw_tp/ef_no_such", "raw_tp:ef_no_such"),
        ("lsm/ef_no_such", "lsm:ef_no_such"),
    ],
)
def test_a_hook_that_is_not_there_is_named(
    loader: Path, tmp_path: Path, trust: Trust, section: str, target: str
) -> None:
    found = try_one(loader, tmp_path, trust, plain(section), [f"attach:{target}"], prefix=elsewhere(ACTIVE))
    assert (found["loads"], found["reason_code"]) == (False, "EF_NO_ATTACH_POINT")
    assert f"'{target}'" in found["reason"]


@pytest.mark.parametrize(
    ("requirement", "code"),
    [
        ("btf:any", "EF_NO_BTF"),
        ("btf:vmlinux", "EF_NO_BTF"),
        ("attach:tp_btf:sched_switch", "EF_NO_BTF"),
        ("attach:fentry:vfs_unlink", "EF_NO_BTF"),
        ("attach:lsm:bprm_check_security", "EF_NO_BTF"),
        ("attach:raw_tp:ef_no_such", "EF_NO_ATTACH_POINT"),
        ("attach:raw_tp:sched_switch", "EF_OK"),
    ],
)
def test_without_btf(loader: Path, tmp_path: Path, trust: Trust, requirement: str, code: str) -> None:
    found = try_one(
        loader, tmp_path, trust, plain("raw_tp/sched_switch"), [requirement], prefix=elsewhere(HIDE_BTF, ACTIVE)
    )
    assert found["reason_code"] == code, found["reason"]


LSM = ["attach:lsm:bprm_check_security"]


def test_lsm_that_is_not_active_is_said_and_not_loaded(loader: Path, tmp_path: Path, trust: Trust) -> None:
    found = try_one(loader, tmp_path, trust, plain("lsm/bprm_check_security"), LSM, prefix=elsewhere(INACTIVE))
    assert (found["loads"], found["reason_code"]) == (False, "EF_LSM_INACTIVE")
    assert "/sys/kernel/security/lsm" in found["reason"] and "lsm=" in found["reason"]


@pytest.mark.parametrize(
    ("security", "refused"), [(ACTIVE, "EF_PERMISSION"), (UNREADABLE, "EF_PERMISSION"), (CONFIDENTIAL, "EF_LOCKDOWN")]
)
def test_lsm_is_asked_by_loading(loader: Path, tmp_path: Path, trust: Trust, security: str, refused: str) -> None:
    source = plain("lsm/bprm_check_security")
    works, said = kernel_says(tmp_path, source)
    found = try_one(loader, tmp_path, trust, source, LSM, prefix=elsewhere(security))
    if works:
        assert found["reason_code"] == ("EF_UNKNOWN" if security == UNREADABLE else "EF_OK")
        return
    assert "Operation not permitted" in said, "the one refusal that this test knows"
    assert (found["loads"], found["reason_code"]) == (False, refused), found["reason"]


def test_lockdown_is_named_where_it_explains_a_refusal(loader: Path, tmp_path: Path, trust: Trust) -> None:
    source = plain("fentry/vfs_unlink")
    if kernel_says(tmp_path, source)[0]:
        pytest.skip("this kernel takes fentry programs, so there is no refusal that lockdown could explain")
    found = try_one(loader, tmp_path, trust, source, ["attach:fentry:vfs_unlink"], prefix=elsewhere(CONFIDENTIAL))
    assert found["reason_code"] == "EF_LOCKDOWN" and "confidentiality" in found["reason"]


def test_a_load_without_permission(loader: Path, tmp_path: Path, trust: Trust) -> None:
    tmp_path.chmod(0o755)
    prefix = ("setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    found = try_one(loader, tmp_path, trust, plain("raw_tp/sched_switch"), ["prog_type:raw_tracepoint"], prefix=prefix)
    assert (found["loads"], found["reason_code"], found["errno_name"]) == (False, "EF_PERMISSION", "EPERM")
    assert "CAP_BPF" in found["reason"]


def test_a_helper_that_the_program_type_lacks_explains_the_load(loader: Path, tmp_path: Path, trust: Trust) -> None:
    source = plain("raw_tp/sched_switch").replace("return 0", "return bpf_skb_load_bytes(ctx, 0, (void *)0, 0)")
    requires = ["prog_type:raw_tracepoint", "helper:raw_tracepoint:skb_load_bytes"]
    found = try_one(loader, tmp_path, trust, source, requires)
    assert (found["loads"], found["reason_code"]) == (False, "EF_NO_HELPER")
    assert "skb_load_bytes" in found["reason"]


def test_the_first_requirement_that_is_not_met_is_told(loader: Path, tmp_path: Path, trust: Trust) -> None:
    requires = ["helper:raw_tracepoint:skb_load_bytes", "attach:raw_tp:ef_no_such", "kernel:999.0"]
    found = try_one(loader, tmp_path, trust, plain("raw_tp/sched_switch"), requires)
    assert found["reason_code"] == "EF_NO_ATTACH_POINT", "kernel, btf and attach are asked first, in their order"


# ---- programs that would do more than look on ----


def test_an_lsm_program_that_may_deny_is_not_loaded(loader: Path, tmp_path: Path, trust: Trust) -> None:
    source = plain("lsm/bprm_check_security").replace("return 0", "return -*(__u64 *)ctx")
    found = try_one(loader, tmp_path, trust, source, ["btf:vmlinux"], prefix=elsewhere(ACTIVE))
    assert (found["loads"], found["reason_code"]) == (False, "EF_CONTRACT_MALFORMED")
    assert "ef_test" in found["reason"] and "return 0" in found["reason"]


def test_a_program_that_changes_what_a_function_returns_is_not_loaded(
    loader: Path, tmp_path: Path, trust: Trust
) -> None:
    found = try_one(loader, tmp_path, trust, plain("fmod_ret/security_bprm_check"), ["btf:vmlinux"])
    assert (found["loads"], found["reason_code"]) == (False, "EF_CONTRACT_MALFORMED")


# ---- choosing ----


def chosen(loader: Path, folder: Path, trust: Trust, variants: Sequence[Any], **more: Any) -> dict[str, Any]:
    data = compile_source(folder, "test", plain("raw_tp/sched_switch"))
    document = contract("test", variants, **more)
    bundle = bundle_of(folder, trust, test=(document, {each["name"]: data for each in variants}))
    found: dict[str, Any] = check(loader, bundle, trust)["features"]["test"]
    return found


GOOD, OLD, GONE = ["btf:any"], ["kernel:999.0"], ["attach:raw_tp:ef_no_such"]


@pytest.mark.parametrize(
    ("variants", "profile", "name", "code"),
    [
        ([("full", GOOD, {}), ("reduced", GOOD, {})], "full", "full", "EF_OK"),
        ([("full", OLD, {}), ("reduced", GOOD, {})], "reduced", "reduced", "EF_KERNEL_TOO_OLD"),
        ([("full", OLD, {}), ("perf", GONE, {}), ("least", GOOD, {})], "reduced", "least", "EF_NO_ATTACH_POINT"),
        ([("full", OLD, {}), ("kprobe", GOOD, {"profile": "full"})], "full", "kprobe", "EF_KERNEL_TOO_OLD"),
        ([("full", GOOD, {"profile": "reduced"})], "reduced", "full", "EF_OK"),
        ([("full", GONE, {}), ("reduced", OLD, {})], "disabled", None, "EF_KERNEL_TOO_OLD"),
    ],
)
def test_profile_variant_and_reason(
    loader: Path, tmp_path: Path, trust: Trust, variants: Any, profile: str, name: str | None, code: str
) -> None:
    listed = [variant(each, ["ef_test"], requires, **more) for each, requires, more in variants]
    found = chosen(loader, tmp_path, trust, listed)
    assert (found["profile"], found["variant"], found["reason_code"]) == (profile, name, code)
    assert code == "EF_OK" or found["reason"].startswith("variant ")


def test_an_expired_feature_is_disabled_though_it_loads(loader: Path, tmp_path: Path, trust: Trust) -> None:
    listed = [variant("full", ["ef_test"], GOOD)]
    found = chosen(loader, tmp_path, trust, listed, lifetime="temporary", expires="2020-01-01")
    assert (found["profile"], found["variant"], found["reason_code"]) == ("disabled", None, "EF_EXPIRED")
    assert found["variants"]["full"]["loads"]


def test_wrong_usage(loader: Path, tmp_path: Path) -> None:
    for arguments in (["check"], ["check", str(tmp_path), "--atach"], ["check", str(tmp_path), "more"]):
        done = subprocess.run([str(loader), *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 2 and "--attach" in done.stderr


def test_probe_says_where_the_types_come_from(loader: Path) -> None:
    for prefix, named in (((), "vmlinux"), (elsewhere(HIDE_BTF), "missing")):
        done = subprocess.run([*prefix, str(loader), "probe"], check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)["kernel"]["btf"] == named
