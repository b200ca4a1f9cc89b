# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loader makes of types, instructions, messages and answers of a kernel; all of them are made up here."""

from __future__ import annotations

import errno
import json
import struct
import subprocess
from pathlib import Path

import pytest

from tests.loader.drivers import ask, build, run

pytestmark = pytest.mark.apart

NEEDED = ("base/*.c", *(f"kernel/{name}.c" for name in ("format", "labels", "bpflog", "proof", "hook", "require",
          "requirement", "bpfnames", "kernel", "probe")))  # fmt: skip


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("kernel"), "kernel", NEEDED, "-Wl,--wrap=syscall")


# Records.

FIELDS = [("ktime_ns", 0, 8, "uint"), ("pid", 8, 4, "uint"), ("tiny", 12, 1, "int"), ("utiny", 13, 1, "uint"),
          ("small", 14, 2, "int"), ("usmall", 16, 2, "uint"), ("pad0", 18, 2, "uint"), ("number", 20, 4, "int"),
          ("wide", 24, 8, "int"), ("comm", 32, 8, "chars"), ("raw", 40, 3, "bytes"), ("event", 43, 1, "uint"),
          ("_hidden", 44, 4, "uint"), ("", 48, 4, "uint"), ("letter", 52, 1, "int"),
          ("Z9_", 53, 1, "uint")]  # fmt: skip
VALUES = {"ktime_ns": 1, "pid": 4_000_000_000, "tiny": -2, "utiny": 254, "small": -30000, "usmall": 60000, "pad0": 7,
          "number": -5, "wide": -(2**63), "comm": 'a"b', "raw": "00abff", "event_": 9, "_hidden": 3, "at_48": 8,
          "letter": -1, "Z9_": 4}  # fmt: skip
LABELS = (
    'ktime_ns="1",pid="4000000000",tiny="-2",utiny="254",small="-30000",usmall="60000",number="-5",'
    'wide="-9223372036854775808",comm="a\\"b",raw="00abff",event="9",letter="-1",Z9_="4"'
)


def test_a_record_is_told_by_its_types_as_a_line_and_as_labels(driver: Path) -> None:
    end, event, fields, size, line, labels = ask(driver, "format", "event").splitlines()
    assert (end, event, size) == ("0", "0", "64")
    assert [tuple(one.values()) for one in json.loads(fields)] == FIELDS
    assert json.loads("{" + line + "}") == VALUES and list(json.loads("{" + line + "}")) == list(VALUES)
    assert labels == LABELS


@pytest.mark.parametrize("name", ["late", "short_time", "signed_time", "moved_time", "empty", "full", "wider"])
def test_what_can_be_a_record_and_no_event(driver: Path, name: str) -> None:
    """An event begins with a u64 ktime_ns."""
    assert ask(driver, "format", name).splitlines()[:2] == ["0", "EINVAL"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("none", "ENOENT"), ("bits", "EINVAL"), ("beyond", "EINVAL"), ("loop", "EINVAL"), ("odd_name", "EINVAL"),
     ("digit", "EINVAL")],
)  # fmt: skip
def test_what_can_be_no_record(driver: Path, name: str, told: str) -> None:
    assert ask(driver, "format", name) == told


def test_a_number_of_sixteen_bytes_is_told_as_bytes(driver: Path) -> None:
    assert json.loads(ask(driver, "format", "wider").splitlines()[2])[0]["kind"] == "bytes"


def test_fields_that_are_picked_lie_one_behind_the_other(driver: Path) -> None:
    assert ask(driver, "pick", "event", "comm", "pid", "ktime_ns") == '0 20 "comm": 0 , "pid": 8 , "ktime_ns": 12'
    assert ask(driver, "pick", "large", "a").startswith("0 65532 ")
    assert ask(driver, "pick", "large", "a", "a").startswith("E2BIG")


# libbpf's messages.


def log(driver: Path, *messages: str) -> tuple[str, str]:
    first, _, tail = run(driver, "log", *messages).stdout.decode().partition("]\n[")
    return first[1:], tail[:-2]


def test_the_first_warning_says_why_and_all_are_kept(driver: Path) -> None:
    assert log(driver, "libbpf: one\nmore", "libbpf: two") == ("one", "libbpf: one\nmorelibbpf: two")
    assert log(driver, "one") == ("one", "one")
    assert log(driver, "?libbpf: chatter", "libbpf: a") == ("a", "libbpf: a")
    assert log(driver, "libbpf: one", "-", "libbpf: two") == ("two", "libbpf: two")
    assert log(driver, "libbpf: one", "-") == ("", "")
    assert log(driver, "libbpf: a\x1b\x7f\té~ b") == ("a     ~ b", "libbpf: a     ~ b")


def test_a_long_first_warning_is_cut_and_of_all_the_end_is_kept(driver: Path) -> None:
    tail = int(next(
        line.split()[2] for line in Path("bpf/loader/kernel/bpflog.h").read_text(encoding="utf-8").splitlines()
        if "define EF_BPFLOG_TAIL" in line
    ))  # fmt: skip
    text = "".join(chr(97 + at % 26) for at in range(tail + 10))
    assert log(driver, text) == (text[:255], text[10:])
    assert log(driver, text[:tail]) == (text[:255], text[:tail])
    assert log(driver, text[:5], text[5 : tail + 3]) == (text[:5], text[3 : tail + 3])
    assert log(driver, text[:5], text[5:tail]) == (text[:5], text[:tail])


# Instructions: CODE:DST:SRC:OFF:IMM.

CLEAR, CLEAR32, SET1, EXIT = "b7:0:0:0:0", "b4:0:0:0:0", "b7:0:0:0:1", "95:0:0:0:0"
JUMP, CALL = "05:0:0:{}:{}", "85:0:{}:0:{}"
IF, IF32, FAR_JUMP = "55:1:0:{}:{}", "56:1:0:{}:{}", "06:0:0:{}:{}"
WIDE, WIDE_REST = "18:1:0:0:5", "00:0:0:0:0"
TAIL_CALL, PROBE_READ, GET_PID = 12, 4, 14


@pytest.mark.parametrize(
    ("program", "zero"),
    [
        ([CLEAR, EXIT], 1),
        ([CLEAR32, EXIT], 1),
        ([SET1, EXIT], 0),
        (["b7:1:0:0:0", EXIT], 0),
        (["b7:0:0:8:0", EXIT], 0),
        (["bf:0:1:0:0", EXIT], 0),
        ([EXIT], 0),
        ([CLEAR, "b7:2:0:0:0", EXIT], 0),
        ([CLEAR], 0),
        ([], 0),
        # Jumps: past both, onto the clearing, onto the exit.
        ([IF.format(2, 7), CLEAR, EXIT, CLEAR, EXIT], 1),
        ([IF.format(1, 7), SET1, CLEAR, EXIT], 1),
        ([IF.format(1, 7), CLEAR, EXIT], 0),
        ([SET1, IF.format(1, 0), CLEAR, EXIT], 0),
        ([SET1, IF32.format(1, 0), CLEAR, EXIT], 0),
        ([SET1, IF32.format(0, 1), CLEAR, EXIT], 1),
        ([SET1, JUMP.format(1, 0), CLEAR, EXIT], 0),
        ([SET1, JUMP.format(0, 1), CLEAR, EXIT], 1),
        ([SET1, FAR_JUMP.format(0, 1), CLEAR, EXIT], 0),
        ([SET1, FAR_JUMP.format(1, 0), CLEAR, EXIT], 1),
        ([IF.format(3, 7), CLEAR, EXIT], 0),
        ([IF.format(5, 7), CLEAR, EXIT], 0),
        ([CLEAR, IF.format(-2, 7), CLEAR, EXIT], 1),
        # Calls.
        ([CALL.format(0, GET_PID), CLEAR, EXIT], 1),
        ([CALL.format(0, TAIL_CALL), CLEAR, EXIT], 0),
        ([CALL.format(1, TAIL_CALL), CLEAR, EXIT], 1),
        # An instruction of two slots, whose second is no instruction of its own.
        ([WIDE, WIDE_REST, CLEAR, EXIT], 1),
        ([WIDE, EXIT, CLEAR, EXIT], 1),
        (["throw", CLEAR, EXIT], 0),
        (["nobtf", CLEAR, EXIT], 0),
    ],
)
def test_a_program_is_proven_to_return_0_only_where_each_exit_follows_it(
    driver: Path, program: list[str], zero: int
) -> None:
    assert ask(driver, "proof", *program).split()[0] == str(zero)


@pytest.mark.parametrize(
    ("program", "reads"),
    [([CALL.format(0, PROBE_READ), EXIT], 1), ([CALL.format(1, PROBE_READ), EXIT], 0), ([CALL.format(0, GET_PID)], 0),
     (["b7:0:0:0:4"], 0), ([], 0), *([[CALL.format(0, helper), EXIT], 1] for helper in (45, 113, 115)),
     *([[CALL.format(0, helper), EXIT], 0] for helper in (112, 114))],
)  # fmt: skip
def test_a_helper_that_reads_the_kernel_is_seen(driver: Path, program: list[str], reads: int) -> None:
    assert ask(driver, "proof", *program).split()[1] == str(reads)


# The kernel's notes.


def note(kind: int, name: bytes, data: bytes) -> bytes:
    """As ELF has it: sizes of name and data, the kind, both filled up to a multiple of 4."""
    return struct.pack("=III", len(name), len(data), kind) + b"".join(
        part + bytes(-len(part) % 4) for part in (name, data)
    )


BUILD_ID = bytes(range(100, 120))
GNU = note(3, b"GNU\0", BUILD_ID)


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        (GNU, True),
        (note(0x100, b"Linux\0", b"abcde") + GNU + GNU[:9], True),
        (note(3, b"Linux\0", BUILD_ID) + GNU, True),
        (b"", False),
        (GNU[:-1], False),
        (GNU[:11], False),
        (note(2, b"GNU\0", BUILD_ID), False),
        (note(3, b"GNUX", BUILD_ID), False),
        (note(3, b"GNU\0\0", BUILD_ID), False),
        (note(3, b"GNU", BUILD_ID), False),
        (note(3, b"GNU\0", BUILD_ID[:19]), False),
        (note(3, b"GNU\0", BUILD_ID + b"x"), False),
        (struct.pack("=III", 2**32 - 1, 20, 3) + GNU, False),
        (struct.pack("=III", 4, 2**32 - 1, 3) + b"GNU\0" + BUILD_ID, False),
    ],
)
def test_the_build_id_among_the_kernels_notes(driver: Path, notes: bytes, found: bool) -> None:
    assert ask(driver, "notes", notes).split() == (["1", BUILD_ID.hex()] if found else ["0"])


# What is required.


def answer(driver: Path, requirement: str, btf: str = "vmlinux", *errors: int) -> tuple[str, str]:
    """The answer with its reason, and what was asked of the kernel before."""
    asked, _, said = ("\n" + ask(driver, "ask", requirement, btf, *map(str, errors))).rpartition("\n")
    return said, asked.strip()


@pytest.mark.parametrize(
    ("requirement", "btf", "said"),
    [
        ("btf:vmlinux", "vmlinux", "yes -"), ("btf:vmlinux", "bundled", "no EF_NO_BTF own"),
        ("btf:vmlinux", "missing", "no EF_NO_BTF own"), ("btf:any", "vmlinux", "yes -"),
        ("btf:any", "bundled", "yes -"), ("btf:any", "missing", "no EF_NO_BTF any"),
        ("kernel:6.0", "vmlinux", "yes -"), ("kernel:6.1", "vmlinux", "yes -"), ("kernel:5.99", "vmlinux", "yes -"),
        ("kernel:6.2", "vmlinux", "no EF_KERNEL_TOO_OLD it needs kernel 6.2 or newer, this is 6.1.0-x"),
        ("kernel:7.0", "vmlinux", "no EF_KERNEL_TOO_OLD it needs kernel 7.0 or newer, this is 6.1.0-x"),
    ],
)  # fmt: skip
def test_btf_and_version_are_compared(driver: Path, requirement: str, btf: str, said: str) -> None:
    assert answer(driver, requirement, btf)[0].strip() == said


@pytest.fixture
def sys(tmp_path: Path, driver: Path) -> Path:
    """A driver that sees a /sys of its own, as it is before somebody writes to the folder beside it."""
    inside = tmp_path / "sys"
    for name in ("bus/event_source/devices/kprobe/format", "kernel/security", "kernel/btf"):
        (inside / name).mkdir(parents=True)
    wrapped = tmp_path / "wrapped"
    wrapped.write_text(
        f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind {inside} /sys && exec "$0" "$@"\' {driver} "$@"\n', "utf-8"
    )
    wrapped.chmod(0o755)
    (inside / "bus/event_source/devices/kprobe/type").write_text("8\n", encoding="utf-8")
    (inside / "bus/event_source/devices/kprobe/format/retprobe").write_text("config:3\n", encoding="utf-8")
    return wrapped


def put(sys: Path, name: str, text: str | None) -> None:
    path = sys.parent / "sys" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8")


def test_a_kprobe_is_asked_for_by_the_event_that_it_would_hang_on(sys: Path) -> None:
    assert answer(sys, "attach:kprobe:do_x") == ("yes - ", "perf 8 0 do_x 1 -1 0 -1")
    assert answer(sys, "attach:kretprobe:do_x") == ("yes - ", "perf 8 8 do_x 1 -1 0 -1")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        *((error, f"no EF_NO_ATTACH_POINT this kernel has no attach point 'kprobe:do_x' ({text})") for error, text in (
            (errno.ENOENT, "No such file or directory"), (errno.EINVAL, "Invalid argument"),
            (errno.EADDRNOTAVAIL, "Cannot assign requested address"), (errno.EOPNOTSUPP, "Operation not supported"))),
        (errno.EPERM, "no EF_PERMISSION the kernel refuses a program at 'kprobe:do_x' (Operation not permitted); "),
        (errno.EBUSY, "unknown - "), (errno.EMFILE, "unknown - "), (errno.ENOMEM, "unknown - "),
    ],
)  # fmt: skip
def test_what_an_error_of_a_kprobe_says(sys: Path, error: int, said: str) -> None:
    assert answer(sys, "attach:kprobe:do_x", "vmlinux", error)[0].startswith(said)


def test_a_kernel_without_kprobes_has_no_such_place(sys: Path) -> None:
    put(sys, "bus/event_source/devices/kprobe/type", "")
    told = "this kernel has no attach point 'kprobe:x' (there is no /sys/bus/event_source/devices/kprobe)"
    assert answer(sys, "attach:kprobe:x") == (f"no EF_NO_ATTACH_POINT {told}", "")
    put(sys, "bus/event_source/devices/kprobe/type", None)
    assert answer(sys, "attach:kprobe:x")[0] == f"no EF_NO_ATTACH_POINT {told}"


@pytest.mark.parametrize(
    ("text", "said"),
    [("config:0", "yes - "), ("config:63", "yes - "), ("config:64", "unknown - "), ("config:-1", "unknown - "),
     ("bit:3", "unknown - "), ("config:", "unknown - ")],
)  # fmt: skip
def test_the_bit_of_a_return_is_as_the_kernel_gives_it(sys: Path, text: str, said: str) -> None:
    put(sys, "bus/event_source/devices/kprobe/format/retprobe", text)
    assert answer(sys, "attach:kretprobe:do_x")[0] == said
    assert answer(sys, "attach:kprobe:do_x")[0] == "yes - "


@pytest.mark.parametrize(
    ("level", "error", "said"),
    [(3, errno.EACCES, "asks for CAP_SYS_ADMIN"), (2, errno.EACCES, "give this"), (3, errno.EPERM, "give this")],
)
def test_a_kernel_that_is_more_paranoid_than_it_can_be_is_said(
    sys: Path, tmp_path: Path, level: int, error: int, said: str
) -> None:
    """Debian's has a level 3; here a file takes the setting's place."""
    (tmp_path / "level").write_text(f"{level}\n", encoding="utf-8")
    over = "/proc/sys/kernel/perf_event_paranoid"
    inside = f"mount --bind {tmp_path}/level {over} && exec {sys} ask attach:kprobe:do_x vmlinux {error}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], capture_output=True, text=True, check=True, timeout=30)
    assert "no EF_PERMISSION" in done.stdout and said in done.stdout


def test_a_tracepoint_is_looked_for_in_tracefs(sys: Path) -> None:
    assert answer(sys, "attach:tracepoint:a/b")[0] == "unknown - "
    put(sys, "kernel/debug/tracing/events/a/b", "")
    assert answer(sys, "attach:tracepoint:a/b")[0] == "yes - "
    put(sys, "kernel/tracing/events/a/c", "")
    told = "no EF_NO_ATTACH_POINT this kernel has no attach point 'tracepoint:a/b' (tracefs has none)"
    assert answer(sys, "attach:tracepoint:a/b")[0] == told
    assert answer(sys, "attach:tracepoint:a/c")[0] == "yes - "


@pytest.mark.parametrize(
    ("error", "said"),
    [(0, "yes -"), (errno.ENOENT, "no EF_NO_ATTACH_POINT"), (errno.EINVAL, "no EF_NO_ATTACH_POINT"),
     (errno.EPERM, "unknown -")],
)  # fmt: skip
def test_a_raw_tracepoint_is_attached_to_for_a_moment(driver: Path, error: int, said: str) -> None:
    found = answer(driver, "attach:raw_tp:sys_x", "missing", error)
    assert found[0].startswith(said) and found[1] == "load 17 0 0\nopen sys_x"
    assert answer(driver, "attach:raw_tp:sys_x", "missing", 0, errno.EPERM)[0] == "unknown - "


def test_kinds_that_need_the_kernels_own_types_are_refused_without_them(driver: Path) -> None:
    for kind in ("tp_btf:sched_switch", "fentry:do_x", "fexit:do_x"):
        said, asked = answer(driver, f"attach:{kind}", "bundled")
        assert said == (
            f"no EF_NO_BTF '{kind}' needs the kernel's own types, and no other BTF can stand in for them: own"
        )
        assert asked == ""


@pytest.mark.parametrize(
    ("modules", "said"),
    [("lockdown,bpf,yama\n", "unknown -"), ("bpf", "unknown -"), ("lockdown,bpfx\n", "no EF_LSM_INACTIVE"),
     (None, "no EF_UNKNOWN whether the BPF LSM is active cannot be read")],
)  # fmt: skip
def test_the_bpf_lsm_must_be_active(sys: Path, modules: str | None, said: str) -> None:
    """There are no types in this /sys: the function itself stays unknown."""
    if modules:
        put(sys, "kernel/security/lsm", modules)
    assert answer(sys, "attach:lsm:bprm_check_security")[0].startswith(said)


def test_a_kernel_holds_the_types_that_it_was_given_and_lets_go_of_nothing_else(driver: Path) -> None:
    with open("/dev/null", "rb") as given:
        done = subprocess.run([driver, "holds"], stdin=given, capture_output=True, text=True, check=True)
    assert done.stdout == "1 1 types.btf 1 0 1\n"
