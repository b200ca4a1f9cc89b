# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter of system calls: every number against the kernel's headers, every decision by running it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.confine import syscall_filter as sf

HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+) (\d+)$"),
    "aarch64": ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)$"),
}
X32 = 0x40000000
KILL, ALLOW, REFUSE = sf.KILL_PROCESS, sf.ALLOW, sf.REFUSE


def decide(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """Run classic BPF over one ``struct seccomp_data``, as the kernel does."""
    data = struct.pack("=iIQ6Q", number if number < 2**31 else number - 2**32, arch, 0,
                       *(tuple(arguments) + (0,) * 6)[:6])  # fmt: skip
    at = accumulator = 0
    while True:
        code, true, false, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == sf.LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == sf.JUMP_EQUAL:
            at += true if accumulator == value else false
        elif code == sf.JUMP_AT_LEAST:
            at += true if accumulator >= value else false
        else:
            assert code == sf.RETURN
            return int(value)


def header(machine: str) -> dict[str, int]:
    path, pattern = HEADERS[machine]
    if not Path(path).exists():
        pytest.skip(f"{path} is not on this machine (linux-libc-dev)")
    return {name: int(number) for name, number in re.findall(pattern, Path(path).read_text(), re.MULTILINE)}


@pytest.mark.parametrize("machine", sf.MACHINES)
def test_every_number_is_the_kernels(machine: str) -> None:
    known, column = header(machine), sf.MACHINES[machine].column
    if machine == "aarch64":  # the header names the call of 32-bit machines too
        known["newfstatat"] = known["fstatat"]
    numbers = {name: pair[column] for name, pair in {**sf.CALLS, "execveat": sf.EXECVEAT}.items()}
    assert {name: known.get(name) for name in numbers} == numbers


@pytest.mark.parametrize("machine", sf.MACHINES)
def test_what_is_listed_is_allowed_and_nothing_else(machine: str) -> None:
    program, (arch, column) = sf.filter_program(machine), sf.MACHINES[machine]
    allowed = {pair[column] for pair in sf.CALLS.values()}
    for number in range(1000):
        if number != sf.EXECVEAT[column]:
            assert decide(program, number, arch) == (ALLOW if number in allowed else REFUSE), number
    assert not allowed & {known for name, known in header(machine).items() if name in FORBIDDEN}


FORBIDDEN = set(
    "socket socketpair connect bind bpf ptrace kill tgkill tkill clone clone3 fork vfork execve mount umount2 unshare "  # noqa: SIM905
    "setns setuid setresuid capset keyctl add_key prctl ioctl io_uring_setup memfd_create perf_event_open dup dup2 "
    "dup3 process_vm_writev pidfd_open chroot pivot_root unlinkat renameat2 fchmodat".split()
)


@pytest.mark.parametrize("machine", sf.MACHINES)
def test_another_architecture_is_the_end(machine: str) -> None:
    program = sf.filter_program(machine)
    for arch in (0x40000003, 0x40000028, 0, *({0xC000003E, 0xC00000B7} - {sf.MACHINES[machine].arch})):
        assert decide(program, sf.CALLS["read"][sf.MACHINES[machine].column] or 0, arch) == KILL


def test_the_numbers_of_x32_are_the_end() -> None:
    program, (arch, _column) = sf.filter_program("x86_64"), sf.MACHINES["x86_64"]
    assert [decide(program, X32 | number, arch) for number in (0, 1, 39, 520)] == [KILL] * 4
    assert decide(program, 0xFFFFFFFF, arch) == KILL


@pytest.mark.parametrize("machine", sf.MACHINES)
def test_only_the_one_descriptor_may_be_executed(machine: str) -> None:
    program, (arch, column) = sf.filter_program(machine), sf.MACHINES[machine]
    number = sf.EXECVEAT[column]
    assert decide(program, number, arch, (sf.EXEC_FD,)) == ALLOW
    for fd in (0, 3, sf.EXEC_FD - 1, sf.EXEC_FD + 1, sf.EXEC_FD | 1 << 32, 2**64 - 100):
        assert decide(program, number, arch, (fd,)) == REFUSE
    assert sf.EXEC_FD > sf.OPEN_FILES, "else the program could have that descriptor again"


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    with pytest.raises(KeyError):
        sf.filter_program("riscv64")


@pytest.mark.skipif(os.uname().machine not in sf.MACHINES, reason="no filter for this machine")
def test_the_kernel_takes_it() -> None:
    code = (
        "import ctypes, struct, sys\n"
        "from ansible_collections.ebpf.fleet.plugins.module_utils.confine import syscall_filter as f\n"
        "libc = ctypes.CDLL(None); p = f.filter_program(sys.argv[1]); b = ctypes.create_string_buffer(p, len(p))\n"
        "a = ctypes.create_string_buffer(struct.pack('@HP', len(p) // 8, ctypes.addressof(b)))\n"
        "ok = libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, a, 0, 0) == 0\n"
        "print(ok, libc.getuid() >= 0, libc.dup(1))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(["python3", "-c", code, os.uname().machine], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(root / "collections")})  # fmt: skip
    assert done.stdout == "True True -1\n", done.stderr
