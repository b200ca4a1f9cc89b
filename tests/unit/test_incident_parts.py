# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the forensics script by themselves: their functions in a real shell, and the program for python3."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.incident import script

from tests.unit.test_kill_parts import program as kill_program

PARTS = Path(script.__file__).with_name("parts")
LIMIT = 4096


def sh(root: Path, body: str, limit: int = LIMIT, total: int = 8192, check: str = "auto", path: str = "") -> str:
    """What the body prints behind the functions of the script, whose own work is left out."""
    whole = script.render(limit, total, check, str(root))
    functions, _, _ = whole.partition("\n# What is in memory comes first")
    env = {**os.environ, **({"PATH": path} if path else {})}
    done = subprocess.run(
        ["/bin/sh", "-c", f"{functions}\nchoose_sum\n{body}"], capture_output=True, env=env, check=False, timeout=30
    )
    return done.stdout.decode()


def files(printed: str) -> dict[str, dict[str, Any]]:
    """{name: head} of what file() printed; "text" is what stands behind the bar."""
    found: dict[str, dict[str, Any]] = {}
    for line in printed.splitlines():
        if line.startswith(script.MARK):
            head = json.loads(line[len(script.MARK) :])
            found[head["file"]] = {**head, "text": ""}
        elif line.startswith("|"):
            found[list(found)[-1]]["text"] += line[1:] + "\n"
    return found


def one_file(root: Path, command: str, end: str = "head", seconds: int = 5, **given: Any) -> dict[str, Any]:
    return files(sh(root, f"work() {{ {command}; }}\nfile x {end} {seconds} work", **given))["x"]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo a", ""),
        (":", "there is nothing"),
        ("exit 3", "it is not there"),
        ("exit 4", "it is not a regular file of its own name and was not read"),
        ("exit 5", "this host has no tool for it"),
        ("exit 6", "was not run: no feature was refused by the verifier, an order stands, it was not asked for, or "
                   "there is no systemd-run"),
        ("exit 7", "it ended with status 7"),
    ],
)  # fmt: skip
def test_how_a_source_ended_is_said(tmp_path: Path, command: str, why: str) -> None:
    assert one_file(tmp_path, command)["why"] == why


def test_a_source_that_hangs_is_ended_and_what_it_gave_is_kept(tmp_path: Path) -> None:
    found = one_file(tmp_path, "echo begun; exec sleep 60", seconds=1)
    assert found["why"] == "it did not end within 1 s" and found["text"] == "begun\n"


# A file of so many bytes with its last line's end fills what there is.
@pytest.mark.parametrize("end", ["head", "tail"])
@pytest.mark.parametrize(("size", "cut"), [(LIMIT - 1, False), (LIMIT, False), (LIMIT + 1, True)])
def test_the_limit_of_a_file_holds_to_the_byte(tmp_path: Path, end: str, size: int, cut: bool) -> None:
    text = "first\n" + "x" * 99 + "\n"
    text += "y" * (size - len(text) - 6) + "\nlast\n"
    assert len(text) == size
    (tmp_path / "given").write_text(text)
    found = one_file(tmp_path, f"cat {tmp_path}/given", end)
    assert found["cut"] is cut and found["bytes"] == len(found["text"]) <= LIMIT
    assert found["sha256"] == hashlib.sha256(found["text"].encode()).hexdigest()
    if not cut:
        assert found["text"] == text
    else:
        assert found["text"] in (text[: text.rindex("\nlast") + 1], text[text.index("\n") + 1 :])


def test_what_is_left_for_all_files_bounds_the_next(tmp_path: Path) -> None:
    body = 'work() { head -c 3000 /dev/zero | tr "\\000" x; }\n'
    found = files(sh(tmp_path, body + "for n in a b c d; do file $n head 5 work; done", total=8192))
    # All of the 8,192 bytes are used: a line without an end of its own is cut where it has to be.
    assert [found[name]["bytes"] for name in "abcd"] == [3001, 3001, 2190, 0]
    assert [found[name]["cut"] for name in "abcd"] == [False, False, True, True]
    told = files(sh(tmp_path, f"room=511\n{body}file a head 5 work\nroom=512\nfile b head 5 work"))
    assert told["a"]["why"] == "no room is left for it in the evidence of this host" and told["a"]["cut"]
    assert told["b"]["why"] != told["a"]["why"] and told["b"]["cut"]


def test_the_sums_of_all_files_have_a_sum(tmp_path: Path) -> None:
    body = "one() { echo 1; }\ntwo() { echo 2; }\nfile a head 5 one\nfile b head 5 two\nfinish"
    printed = sh(tmp_path, body)
    found = [json.loads(line[len(script.MARK) :]) for line in printed.splitlines() if line.startswith(script.MARK)]
    sums = "".join(f"{one['sha256']}  {one['file']}\n" for one in found[:2])
    assert found[2] == {"end": 1, "files": 2, "bytes": 4, "sha256": hashlib.sha256(sums.encode()).hexdigest()}


def test_no_letter_that_paints_a_terminal_leaves_the_host(tmp_path: Path) -> None:
    assert one_file(tmp_path, "printf 'a\\033[31mb\\000\\r\\177\\303\\251\\n\\tc'")["text"] == "a?[31mb???\n\tc\n"


def test_only_lines_that_a_file_is_about_are_kept_and_its_end_is_told(tmp_path: Path) -> None:
    body = "work() { echo a BPF b; echo c; echo @7; exit 5; }\nkeep=bpf\nfile x head 5 work"
    found = files(sh(tmp_path, body))["x"]
    assert found["text"].splitlines()[0] == "a BPF b" and "\nc\n" not in found["text"]
    assert found["why"] == "this host has no tool for it"


# Sources.


def tools(folder: Path, **named: str) -> str:
    """A PATH with what the script needs and these commands as scripts; what is not named is not there."""
    place = folder / "tools"
    place.mkdir()
    for need in ("sh", "head", "tail", "cat", "grep", "sed", "tr", "readlink", "sha256sum", "sleep", "printf", "id"):
        (place / need).symlink_to(f"/bin/{need}")
    for name, text in named.items():
        (place / name.replace("_", "-")).write_text(f"#!/bin/sh\n{text}\n")
        (place / name.replace("_", "-")).chmod(0o755)
    return str(place)


@pytest.mark.parametrize(
    ("named", "text", "why"),
    [
        ({"dmesg": "echo of dmesg", "journalctl": "echo of journal"}, "of dmesg\n", ""),
        ({"journalctl": 'echo "$@"'}, "--no-pager -k -b -n 5000 -o short-monotonic\n", ""),
        ({}, "", "this host has no tool for it"),
    ],
)
def test_the_kernels_log_is_had_of_whom_there_is(tmp_path: Path, named: dict[str, str], text: str, why: str) -> None:
    found = files(sh(tmp_path, "file x tail 5 show_kernel_log", path=tools(tmp_path, **named)))["x"]
    assert (found["text"], found["why"]) == (text, why)


@pytest.mark.parametrize(("named", "why"), [({"journalctl": 'echo "$@"'}, ""), ({}, "this host has no tool for it")])
def test_the_journal_of_both_units_is_asked_for(tmp_path: Path, named: dict[str, str], why: str) -> None:
    found = files(sh(tmp_path, "file x tail 5 show_journal", path=tools(tmp_path, **named)))["x"]
    assert found["why"] == why
    if named:
        assert found["text"].startswith("--no-pager -q -o short-iso -n 2000 -u ebpf-fleet-loader.service -u ")


def with_release(root: Path, status: str | None = "EF_LOAD_REJECTED") -> None:
    for name in (
        "run/ebpf-fleet/kill.d",
        "etc/ebpf-fleet/kill.d",
        "var/lib/ebpf-fleet/current",
        "run/ebpf-fleet-loader",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    loader = root / "var/lib/ebpf-fleet/current/ebpf-loader"
    loader.write_text("")
    loader.chmod(0o755)
    if status is not None:
        (root / "run/ebpf-fleet-loader/status.json").write_text(status)


@pytest.mark.parametrize(
    ("spoil", "check", "wanted"),
    [
        ("", "auto", True),
        ("", "never", False),
        ("rm run/ebpf-fleet-loader/status.json", "auto", False),
        ("rm run/ebpf-fleet-loader/status.json", "always", True),
        ("echo fine >run/ebpf-fleet-loader/status.json", "auto", False),
        ("touch run/ebpf-fleet/kill.d/global", "always", False),
        ("touch etc/ebpf-fleet/kill.d/global", "always", False),
        ("ln -s nowhere etc/ebpf-fleet/kill.d/global", "always", False),
        ("chmod 644 var/lib/ebpf-fleet/current/ebpf-loader", "always", False),
        ("rm tools/systemd-run", "always", False),
    ],
)
def test_the_verifier_is_asked_again_only_where_it_may_be(tmp_path: Path, spoil: str, check: str, wanted: bool) -> None:
    with_release(tmp_path)
    path = tools(tmp_path, systemd_run='for one; do :; done; echo "$one"')
    subprocess.run(["/bin/sh", "-c", spoil], cwd=tmp_path, check=True)
    found = files(sh(tmp_path, "file x head 5 run_check", check=check, path=path))["x"]
    assert found["text"] == (f"{tmp_path}/var/lib/ebpf-fleet/current/bundle\n" if wanted else ""), found
    assert found["why"].startswith("was not run") is not wanted


def held(root: Path, pids: str) -> None:
    """Processes of the loader's unit."""
    unit = root / "sys/fs/cgroup/system.slice/ebpf-fleet-loader.service"
    unit.mkdir(parents=True)
    (unit / "cgroup.procs").write_text(pids)


@pytest.mark.parametrize("kind", ["prog", "map"])
def test_a_process_that_holds_nothing_is_nothing_and_no_process_is_told(tmp_path: Path, kind: str) -> None:
    assert one_file(tmp_path, f"show_held {kind}")["why"] == "it is not there"
    held(tmp_path, f"{os.getpid()}\n")
    found = one_file(tmp_path, f"show_held {kind}", limit=65536, total=131072)
    assert "pid " not in found["text"]
    assert found["why"] == ("there is nothing" if kind == "map" else "")


def test_the_host_is_shown_with_its_orders_and_releases(tmp_path: Path) -> None:
    with_release(tmp_path)
    (tmp_path / "run/ebpf-fleet/kill.d/global").write_text("")
    (tmp_path / "etc/ebpf-fleet/kill.d/feature_x").symlink_to("nowhere")
    (tmp_path / "var/lib/ebpf-fleet/previous").symlink_to("releases/1.0.0-abc")
    lines = one_file(tmp_path, "show_host", limit=65536, total=131072)["text"].splitlines()
    assert re.fullmatch(r"time: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines[0])
    at = lines.index("== orders")
    assert lines[at + 1 : at + 3] == [
        f"{tmp_path}/run/ebpf-fleet/kill.d/global",
        f"{tmp_path}/etc/ebpf-fleet/kill.d/feature_x",
    ]
    assert lines[at + 3 :] == ["== release", "current: none", "previous: releases/1.0.0-abc"]
    begin = lines.index("== /proc/loadavg")
    assert len(lines[begin + 1].split()) == 5 and lines[begin + 2] == "== /proc/meminfo"
    assert lines[begin + 3].startswith("MemTotal:") and lines[begin + 9].startswith("== ")


# The program for python3.


def listing(**replaced: Any) -> dict[str, Any]:
    """Its functions, with some names in place of others; what it does at the end is left out."""
    head = (PARTS / "list_bpf.py").read_text(encoding="utf-8").partition("\nfor one in ids(")[0]
    names: dict[str, Any] = {}
    exec(compile(head, "list_bpf.py", "exec"), names)  # noqa: S102
    names.update(replaced)
    return names


class Kernel:
    """Programs and maps as bpf(2) tells them: {id: the bytes of its info}."""

    def __init__(self, programs: dict[int, bytes], maps: dict[int, bytes]) -> None:
        self.kinds = {11: programs, 12: maps, 13: programs, 14: maps}
        self.held: list[bytes] = []
        self.closed: list[int] = []
        self.gone: set[int] = set()

    def bpf(self, command: int, attributes: Any) -> int:
        if command == 15:  # BPF_OBJ_GET_INFO_BY_FD
            fd, size, address = struct.unpack("=IIQ", attributes.raw)
            if not self.held[fd]:
                return -errno.EINVAL
            ctypes.memmove(address, self.held[fd].ljust(size, b"\0")[:size], size)
            return 0
        (one,) = struct.unpack_from("=I", attributes.raw)
        if command in (11, 12):  # BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID
            following = [other for other in sorted(self.kinds[command]) if other > one]
            if not following:
                return -errno.ENOENT
            ctypes.memmove(ctypes.addressof(attributes) + 4, struct.pack("=I", following[0]), 4)
            return 0
        if one in self.gone:
            return -errno.ENOENT
        self.held.append(self.kinds[command][one])
        return len(self.held) - 1

    def lines(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
        names = listing(bpf=self.bpf, os=SimpleNamespace(close=self.closed.append))
        end = (PARTS / "list_bpf.py").read_text(encoding="utf-8").partition("\nfor one in ids(")[2]
        exec(compile("for one in ids(" + end, "list_bpf.py", "exec"), names)  # noqa: S102
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def program_info(kind: int, tag: str, name: str, uid: int, **at: int) -> bytes:
    """Struct bpf_prog_info, include/uapi/linux/bpf.h; `at` gives what stands behind its name."""
    info = bytearray(224)
    struct.pack_into("=I", info, 0, kind)
    info[8:16] = bytes.fromhex(tag)
    struct.pack_into("=QI", info, 40, at["load_time"], uid)
    info[64:80] = name.encode().ljust(16, b"\0")
    struct.pack_into("=QQQI", info, 192, at["run_time_ns"], at["run_cnt"], at["misses"], at["insns"])
    return bytes(info)


def test_every_program_and_map_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    first = program_info(
        26, "0011223344556677", "a" * 15, 991, load_time=2**40, run_time_ns=2**41, run_cnt=2**42, misses=2**43, insns=77
    )
    maps = struct.pack("=IIIIII16s", 27, 9, 4, 8, 4096, 3, b"ef_map")
    kernel = Kernel({3: first, 70_000: program_info(1, "8899aabbccddeeff", "", 0, load_time=1, run_time_ns=0, run_cnt=0,
                                                    misses=0, insns=0)}, {9: maps})  # fmt: skip
    assert kernel.lines(capsys) == [
        {"program": 3, "type": 26, "name": "a" * 15, "tag": "0011223344556677", "uid": 991, "load_time_ns": 2**40,
         "run_time_ns": 2**41, "run_cnt": 2**42, "recursion_misses": 2**43, "verified_insns": 77},
        {"program": 70_000, "type": 1, "name": "", "tag": "8899aabbccddeeff", "uid": 0, "load_time_ns": 1,
         "run_time_ns": 0, "run_cnt": 0, "recursion_misses": 0, "verified_insns": 0},
        {"map": 9, "type": 27, "name": "ef_map", "key_bytes": 4, "value_bytes": 8, "max_entries": 4096, "flags": 3},
    ]  # fmt: skip
    assert kernel.closed == [0, 1, 2]


def test_what_went_meanwhile_and_what_tells_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    some = program_info(1, "8899aabbccddeeff", "x", 0, load_time=1, run_time_ns=0, run_cnt=0, misses=0, insns=0)
    kernel = Kernel({3: some, 4: b"", 5: some}, {})
    kernel.gone = {3}
    assert [one["program"] for one in kernel.lines(capsys)] == [5]
    assert kernel.closed == [0, 1], "a descriptor without an answer is closed too"


def test_four_thousand_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    some = program_info(1, "8899aabbccddeeff", "x", 0, load_time=1, run_time_ns=0, run_cnt=0, misses=0, insns=0)
    for count, told in ((4000, 4000), (4001, 4000)):
        assert len(Kernel({one: some for one in range(1, count + 1)}, {}).lines(capsys)) == told


def test_it_asks_the_kernel_as_the_kill_script_does() -> None:
    names = listing()
    assert names["NUMBERS"] == kill_program()["NUMBERS"]
    assert names["bpf"](9999, ctypes.create_string_buffer(16)) in (-errno.EINVAL, -errno.EPERM)
