# SPDX-License-Identifier: GPL-3.0-or-later
"""`inspect`: what a compiled object holds, and the proof that a program only ever returns 0."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.loader.objects import compile_source

HEAD = '#include "ef_kernel.h"\n#include <bpf/bpf_helpers.h>\n'


def inspect(loader: Path, path: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run([str(loader), "inspect", *options, str(path)], check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def inspect_source(loader: Path, folder: Path, text: str, *options: str) -> dict[str, Any]:
    compile_source(folder, "test", HEAD + text)
    return inspect(loader, folder / "test.bpf.o", *options)


def in_asm(text: str) -> str:
    """A program that is exactly these instructions."""
    lines = "".join(f'"{line.strip()}\\n"' for line in text.strip().splitlines())
    return f'SEC("lsm/file_open") __attribute__((naked)) int ef_test(void) {{ asm volatile({lines}); }}\n'


PATHS = """
SEC("lsm/file_open") int ef_test(__u64 *ctx) {
	__u64 pid = bpf_get_current_pid_tgid();
	if (pid == 7)
		return 0;
	if (pid > ctx[0])
		bpf_get_prandom_u32();
	return %s;
}
"""
SUBPROGRAM = """
static __attribute__((noinline)) int inner(__u64 v) {
	volatile __u64 kept = v;
	return kept == 3 ? -1 : (int)kept;
}
SEC("lsm/file_open") int ef_test(__u64 *ctx) {
	volatile int seen __attribute__((unused)) = inner(ctx[0]);
	return %s;
}
"""
TAIL_CALL = """
struct {
	__uint(type, 3); /* a table of programs */
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} table SEC(".maps");
SEC("lsm/file_open") int ef_test(__u64 *ctx) {
	bpf_tail_call(ctx, &table, 0);
	return 0;
}
"""
THROWS = """
extern void bpf_throw(__u64 cookie) __attribute__((section(".ksyms")));
SEC("lsm/file_open") int ef_test(__u64 *ctx) {
	if (ctx[0] == 7)
		bpf_throw(1);
	return 0;
}
"""


@pytest.mark.parametrize(
    ("source", "proven"),
    [
        pytest.param(PATHS % "0", True, id="every path returns 0"),
        pytest.param(PATHS % "-1", False, id="one path denies"),
        pytest.param(PATHS % "(int)ctx[1]", False, id="the return value is not a constant"),
        pytest.param(SUBPROGRAM % "0", True, id="another function returns something else"),
        pytest.param(SUBPROGRAM % "seen", False, id="what the other function returned"),
        pytest.param(TAIL_CALL, False, id="another program returns in its place"),
        pytest.param(THROWS, False, id="an exception returns in its place"),
        pytest.param(in_asm("r0 = 0\nexit"), True, id="r0 = 0"),
        pytest.param(in_asm("w0 = 0\nexit"), True, id="w0 = 0"),
        pytest.param(in_asm("r0 = 1\nexit"), False, id="r0 = 1"),
        pytest.param(in_asm("r1 = 0\nexit"), False, id="another register"),
        pytest.param(in_asm("r0 = 0\nr0 += 1\nexit"), False, id="changed after it was cleared"),
        pytest.param(in_asm("r0 = 0 ll\nexit"), False, id="not the one instruction that is known"),
        pytest.param(in_asm("r0 = 1\nif r1 == 0 goto 1f\nr0 = 0\n1: exit"), False, id="a jump lands on the exit"),
        pytest.param(in_asm("r0 = 1\nif r1 == 0 goto 1f\n1: r0 = 0\nexit"), True, id="a jump lands before"),
        pytest.param(in_asm("if w1 == 7 goto 1f\nr0 = 0\nexit\n1: r0 = -1\nexit"), False, id="the second exit denies"),
        pytest.param(in_asm("r0 = 0\n1: exit\nr0 = 1\ngoto 1b"), False, id="a jump back to the exit"),
    ],
)
def test_returns_zero_is_a_proof(loader: Path, tmp_path: Path, source: str, proven: bool) -> None:
    programs = inspect_source(loader, tmp_path, source)["programs"]
    assert [(each["name"], each["returns_zero"]) for each in programs] == [("ef_test", proven)]


def test_each_program_has_its_own_proof(loader: Path, tmp_path: Path) -> None:
    two = 'SEC("lsm/file_open") int ef_%s(__u64 *ctx) { return %s; }\n'
    found = inspect_source(loader, tmp_path, two % ("zero", "0") + two % ("one", "1"))["programs"]
    assert {each["name"]: each["returns_zero"] for each in found} == {"ef_zero": True, "ef_one": False}


STRUCTS = """
struct theirs { __u64 ktime_ns; __u32 pid; char comm[16]; };
struct ef_ours { __u32 count; };
struct theirs first;
struct ef_ours second;
SEC("raw_tp/sched_switch") int ef_test(void *ctx) { first.pid = 1; second.count = 2; return 0; }
"""


def test_structs_of_other_names_on_request(loader: Path, tmp_path: Path) -> None:
    assert set(inspect_source(loader, tmp_path, STRUCTS)["structs"]) == {"ef_ours"}
    found = inspect(loader, tmp_path / "test.bpf.o", "--all-structs")["structs"]
    command = ["bpftool", "-j", "btf", "dump", "file", str(tmp_path / "test.bpf.o")]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True)
    types = json.loads(dumped.stdout)["types"]
    assert set(found) == {each["name"] for each in types if each["kind"] == "STRUCT" and each["name"] != "(anon)"}
    assert found["theirs"] == [
        {"name": "ktime_ns", "offset": 0, "size": 8, "kind": "uint"},
        {"name": "pid", "offset": 8, "size": 4, "kind": "uint"},
        {"name": "comm", "offset": 12, "size": 16, "kind": "chars"},
    ]


GLOBALS = """
const volatile __u32 settings[3] = {1, 2, 3};
__u64 seen[5];
__u32 start = 7;
__u32 apart SEC(".data.apart") = 8;
SEC("raw_tp/sched_switch") int ef_test(void *ctx) {
	seen[0] += settings[1] + start + apart;
	return 0;
}
"""


@pytest.mark.parametrize("name", ["test", "a_name_much_longer_than_the_kernels"])
def test_maps_of_global_variables_have_short_names(loader: Path, tmp_path: Path, name: str) -> None:
    compile_source(tmp_path, name, HEAD + GLOBALS)
    found = {each["name"]: each for each in inspect(loader, tmp_path / f"{name}.bpf.o")["maps"]}
    assert set(found) == {".rodata", ".bss", ".data", ".data.apart"}
    for section, size in ((".rodata", 12), (".bss", 40), (".data", 4), (".data.apart", 4)):
        each = found[section]
        assert (each["type"], each["key_size"], each["value_size"], each["max_entries"]) == ("array", 4, size, 1)


def test_wrong_usage(loader: Path) -> None:
    for arguments in (["inspect"], ["inspect", "--structs", "x.o"], ["inspect", "x.o", "y.o"]):
        done = subprocess.run([str(loader), *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 2 and "inspect [--all-structs] OBJECT" in done.stderr
