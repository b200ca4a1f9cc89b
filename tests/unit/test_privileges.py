# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/privileges.md is what the sources say; the unit's sandbox is as narrow as it claims, no narrower than needed."""

from __future__ import annotations

import ctypes

import pytest

from tools import privileges

MOST_EXPOSURE = 2.0
# What the loader calls before its own filter stands, beside what that allows.
AT_START = {
    "execve", "arch_prctl", "set_tid_address", "prctl", "seccomp", "capset", "mkdir", "mkdirat", "clone3", "tgkill",
}  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    return privileges.PAGE.read_text()


@pytest.fixture(scope="module")
def calls() -> set[str]:
    """Every system call of the loader's own filter."""
    source = (privileges.LOADER / "seccomp.c").read_text()
    named = {call for _why, group in privileges.allowed_calls(source) for call in group}
    return named | {call for call, _where, _why in privileges.restricted_calls(source)}


def test_the_page_is_what_the_sources_say(page: str) -> None:
    score = privileges.documented(page)
    assert score, "the page gives no exposure; run make privileges"
    assert privileges.render(score) == page, "run make privileges"


def test_the_tables_are_read_whole(calls: set[str]) -> None:
    source = (privileges.LOADER / "seccomp.c").read_text()
    read = {"allowed": privileges.allowed_calls(source), "restricted": privileges.restricted_calls(source)}
    for name, found in read.items():
        assert len(found) == privileges.table_text(source, name).count("{") > 5
    assert {"read", "bpf", "socket", "exit_group"} <= calls
    assert not {"execve", "execveat", "ptrace", "mount", "init_module", "kexec_load", "prctl", "fork"} & calls
    types = privileges.program_types((privileges.LOADER / "privilege.c").read_text())
    assert types["lsm"] == ["CAP_BPF", "CAP_PERFMON"]


AARCH64 = 0xC00000B7  # AUDIT_ARCH_AARCH64
# What aarch64 has in the place of calls that it never had; `time` is its clock_gettime.
SUCCESSORS = {
    "open": "openat", "access": "faccessat", "stat": "newfstatat", "lstat": "newfstatat", "readlink": "readlinkat",
    "rename": "renameat", "unlink": "unlinkat", "epoll_wait": "epoll_pwait", "poll": "ppoll", "time": "clock_gettime",
}  # fmt: skip


def test_aarch64_has_each_call_or_its_successor(calls: set[str]) -> None:
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("libseccomp.so.2 is not here: names of another architecture cannot be told")
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    missing = {call for call in calls if resolve(AARCH64, call.encode()) < 0}
    assert missing == set(SUCCESSORS)
    assert set(SUCCESSORS.values()) <= calls - missing


def test_a_table_that_is_not_there_is_named() -> None:
    with pytest.raises(privileges.SourceError, match="no table nowhere"):
        privileges.table_text("int x;", "nowhere")


@pytest.mark.parametrize(
    ("requires", "family", "marks"),
    [
        (["btf:any", "prog_type:raw_tracepoint", "attach:raw_tp:x"], "6.1", "–"),
        (["btf:any", "prog_type:raw_tracepoint", "attach:raw_tp:x"], "5.10", "M"),
        (["btf:vmlinux", "prog_type:tracing", "attach:tp_btf:x"], "6.12", "B"),
        (["btf:any", "prog_type:kprobe", "attach:kprobe:x"], "6.12", "P L"),
        (["btf:vmlinux", "prog_type:lsm", "helper:lsm:probe_read_kernel", "attach:lsm:x"], "5.10", "B L S M"),
        (["btf:any", "prog_type:raw_tracepoint", "map_type:perf_event_array"], "6.1", "P"),
        (["prog_type:tracepoint", "attach:tracepoint:sched/sched_switch"], "6.1", "P L"),
        (["prog_type:kprobe", "attach:kretprobe:do_exit"], "6.1", "P L"),
        (["prog_type:tracing", "helper:tracing:probe_read_str"], "6.1", "L"),
        (["prog_type:tracing", "helper:tracing:probe_read_user"], "6.1", "–"),
        (["prog_type:lsm"], "6.1", "–"),
    ],
)
def test_what_a_variant_asks_for(requires: list[str], family: str, marks: str) -> None:
    assert privileges.marks(requires, family) == marks


def test_every_variant_has_a_line(page: str) -> None:
    for contract in privileges.contracts():
        for variant in contract["variants"]:
            assert f"\n| {contract['feature']} {variant['name']} |" in page


def test_the_exposure_is_the_documented_one(page: str) -> None:
    measured, documented = privileges.measure(), privileges.documented(page)
    if measured is None:
        pytest.skip("systemd-analyze (250 or later) is not here: the unit's exposure is not measured")
    assert float(measured[1]) <= MOST_EXPOSURE
    print(f"exposure {measured[1]} by systemd {measured[0]}")
    assert documented
    if measured[0] != documented[0]:
        pytest.skip(f"systemd {measured[0]} weighs otherwise than {documented[0]}, by which the page was written")
    assert measured == documented, "run make privileges"


def test_the_units_filter_lets_through_what_the_loader_needs(calls: set[str]) -> None:
    allowed = privileges.unit_calls()
    if allowed is None:
        pytest.skip("systemd-analyze is not here: the unit's sets of system calls cannot be told")
    assert len(allowed) > 150
    assert (calls | AT_START) - allowed == set()
    assert not {"io_uring_setup", "setuid", "chroot", "ptrace", "mount", "init_module", "keyctl"} & allowed
