# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that load nothing: what they say, and how they end. Answers of a kernel are made up here."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.loader.drivers import ask, build, run
from tests.loader.objects import compile_source

NEEDED = ("base/*.c", "cmd/left.c", "cmd/probe.c", "kernel/bpflog.c", "kernel/kernel.c", "kernel/probe.c",
          "kernel/privilege.c")  # fmt: skip
TAG, OTHER = "0123456789abcdef", "00112233445566ff"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("commands"), "commands", NEEDED)


# left


def left(driver: Path, programs: list[str], *options: str) -> tuple[list[tuple[int, str, str]] | None, int, str]:
    """The programs, the exit, and what is on stderr."""
    done = run(driver, "left", *programs, "--", *options)
    document, _, code = done.stdout.decode().rpartition("exit ")
    found = [tuple(one.values()) for one in json.loads(document)["programs"]] if document else None
    return found, int(code), done.stderr.decode()


def test_what_is_left_is_what_has_our_name(driver: Path) -> None:
    programs = [f"3:ef_x:{TAG}", f"4:other:{OTHER}", f"7:ef_:{OTHER}", f"9:efx:{TAG}"]
    assert left(driver, programs, "left")[:2] == ([(3, "ef_x", TAG), (7, "ef_", OTHER)], 4)
    assert left(driver, [f"4:other:{OTHER}"], "left")[:2] == ([], 0)
    assert left(driver, [], "left")[:2] == ([], 0)


def test_what_others_wrote_is_known_by_tag_and_name_of_a_list(driver: Path, tmp_path: Path) -> None:
    listed = tmp_path / "programs"
    listed.write_text(f"1 {OTHER} f other\n2 {TAG} f a_name_longer_than_15\n", encoding="utf-8")
    programs = [f"4:other:{OTHER}", f"5:other:{TAG}", f"6:another:{OTHER}", f"7:a_name_longer_t:{TAG}"]
    found = left(driver, programs, "left", "--also", str(listed))
    assert found[:2] == ([(4, "other", OTHER), (7, "a_name_longer_t", TAG)], 4)
    assert left(driver, programs, "left")[:2] == ([], 0)


def test_a_program_that_goes_meanwhile_is_not_left_and_what_cannot_be_asked_is_a_failure(driver: Path) -> None:
    assert left(driver, ["gone:2", f"3:ef_x:{TAG}"], "left")[:2] == ([(3, "ef_x", TAG)], 4)
    for programs in (["denied:2", f"3:ef_x:{TAG}"], [f"3:ef_x:{TAG}", "unlisted"]):
        found, code, said = left(driver, programs, "left")
        assert (found, code) == (None, 1)
        assert "programs cannot be listed: Operation not permitted; run it as root" in said


@pytest.mark.parametrize(
    "line",
    ["", "1 0123456789abcde f n\n", "1 0123456789abcdef0 f n\n", "1 0123456789abcdeg f n\n", f"1 {TAG} f\n",
     f"x {TAG} f n\n", f"1 {TAG} f n", f"1 {TAG} f n more\n"],
)  # fmt: skip
def test_a_list_that_is_none_is_refused_with_its_line(driver: Path, tmp_path: Path, line: str) -> None:
    listed = tmp_path / "programs"
    listed.write_text(f"1 {TAG} f n\n{line}", encoding="utf-8")
    found, code, said = left(driver, [], "left", "--also", str(listed))
    if line:
        assert (found, code) == (None, 1) and f"{listed}:2: must be a line PROG_ID TAG FEATURE NAME" in said
    else:
        assert (found, code) == ([], 0)


@pytest.mark.parametrize(("n", "code"), [(4096, 0), (4097, 1)])
def test_a_list_of_4096_lines_is_read(driver: Path, tmp_path: Path, n: int, code: int) -> None:
    listed = tmp_path / "programs"
    listed.write_text(f"1 {TAG} f n\n" * n, encoding="utf-8")
    assert left(driver, [], "left", "--also", str(listed))[1] == code


def test_a_list_that_cannot_be_read_and_words_that_mean_nothing(driver: Path, tmp_path: Path) -> None:
    assert "cannot open" in left(driver, [], "left", "--also", str(tmp_path / "none"))[2]
    assert "cannot read" in left(driver, [], "left", "--also", str(tmp_path))[2]
    for words in (["left", "--also"], ["left", "x"], ["left", "--other", "x"], ["left", "--also", "x", "y"]):
        found, code, said = left(driver, [], *words)
        assert (found, code) == (None, 2) and "usage: ebpf-loader left" in said


# probe


@pytest.mark.parametrize(
    ("error", "stats"),
    [(0, {"answer": "yes", "errno": 0, "errno_name": None}),
     (errno.EPERM, {"answer": "unknown", "errno": 1, "errno_name": "EPERM"})],
)  # fmt: skip
def test_each_answer_of_a_probe_has_its_error(driver: Path, error: int, stats: dict[str, Any]) -> None:
    document, _, code = ask(driver, "probe", str(error)).rpartition("exit ")
    answer = json.loads(document)
    assert code == "0" and answer["schema"] == "ebpf.fleet/probe/v1" and answer["stats"] == stats
    types, maps = answer["program_types"], answer["map_types"]
    assert types["socket_filter"]["answer"] == types["tracing"]["answer"] == "yes"
    assert types["kprobe"] == {"answer": "no", "errno": 0, "errno_name": None}
    # Of these a no is not to be believed.
    assert {types[name]["answer"] for name in ("ext", "lsm", "struct_ops")} <= {"yes", "unknown"}
    assert maps["hash"] == {"answer": "unknown", "errno": 1, "errno_name": "EPERM"}
    assert maps["array"]["answer"] == "no" and maps["prog_array"]["answer"] == "yes"
    helpers = answer["helpers"]["raw_tracepoint"]
    assert len(helpers) == 6 and {one["answer"] for one in helpers.values()} == {"yes"}


# status


def state(folder: Path, **changes: Any) -> Path:
    """A state folder whose status this process wrote, as it says."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    document = {
        "pid": os.getpid(), "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip(),
        "started_boottime_ns": int(fields[19]) * (10**9 // os.sysconf("SC_CLK_TCK")), **changes,
    }  # fmt: skip
    (folder / "status.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def status(loader: Path, folder: Path) -> tuple[str, int, str]:
    done = subprocess.run(
        [loader, "status", "--state", folder], capture_output=True, text=True, check=False, timeout=20
    )
    return done.stdout, done.returncode, done.stderr


def test_a_status_is_good_while_its_very_writer_lives(loader: Path, tmp_path: Path) -> None:
    text, code, said = status(loader, state(tmp_path))
    assert (json.loads(text)["pid"], code, said) == (os.getpid(), 0, "")
    written = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    ended = subprocess.Popen(["true"])
    ended.wait()
    for changes in ({"pid": ended.pid}, {"pid": 0}, {"pid": -1}, {"pid": None}, {"pid": os.getppid()},
                    {"boot_id": "x"}, {"boot_id": None}, {"started_boottime_ns": written["started_boottime_ns"] + 1},
                    {"started_boottime_ns": None}):  # fmt: skip
        text, code, said = status(loader, state(tmp_path, **changes))
        assert code == 1 and json.loads(text), changes
        assert "the process that wrote it is gone; start the service" in said


def test_a_status_that_cannot_be_one_is_a_failure_that_says_why(loader: Path, tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    assert status(loader, tmp_path) == (
        "", 1, f"ebpf-loader: {path}: No such file or directory; is the service running?\n"
    )  # fmt: skip
    os.mkfifo(path)
    invalid = ("", 1, f"ebpf-loader: {path}: Invalid argument; is the service running?\n")
    assert status(loader, tmp_path) == invalid
    path.unlink()
    path.mkdir()
    assert status(loader, tmp_path) == invalid
    path.rmdir()
    path.write_text("{", encoding="utf-8")
    assert "restart the service" in status(loader, tmp_path)[2]


@pytest.mark.parametrize(("size", "read"), [(16 << 20, True), ((16 << 20) + 1, False)])
def test_a_status_of_16_mib_is_read(loader: Path, tmp_path: Path, size: int, read: bool) -> None:
    path = state(tmp_path) / "status.json"
    path.write_bytes(path.read_bytes().ljust(size))
    assert status(loader, tmp_path)[1] == int(not read)


# run, version and inspect


@pytest.mark.parametrize(
    ("text", "good"),
    [("1", True), ("9", True), ("90", True), ("3600", True), ("0", False), ("3601", False), ("-1", False),
     ("+1", False), ("1s", False), ("", False), (" 1", False), (":1", False), ("/1", False),
     ("18446744073709551617", False)],
)  # fmt: skip
def test_an_interval_is_seconds_up_to_an_hour(loader: Path, text: str, good: bool) -> None:
    """Without a bundle both are a wrong usage; only one is said of the interval."""
    done = subprocess.run([loader, "run", "--interval", text], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2 and "usage: ebpf-loader run" in done.stderr
    told = f"--interval {text}: must be a number of seconds from 1 to 3600"
    assert (told in done.stderr) is not good


@pytest.mark.parametrize("command", ["version", "probe"])
def test_a_command_that_takes_no_word_says_so(loader: Path, command: str) -> None:
    done = subprocess.run([loader, command, "x"], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ebpf-loader: usage: ebpf-loader {command}\n"


SOURCE = """
#include "ef_kernel.h"
#include <bpf/bpf_helpers.h>
struct ef_first { __u32 a; };
struct other { __u64 b; };
struct ef_first *first __attribute__((unused));
struct other *second __attribute__((unused));
"""


def test_inspect_tells_structs_of_ours_or_all_that_have_a_name(loader: Path, tmp_path: Path) -> None:
    """The first type of the object is one of them."""
    compile_source(tmp_path, "test", SOURCE)

    def structs(*options: str) -> dict[str, Any]:
        command = [loader, "inspect", *options, tmp_path / "test.bpf.o"]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["structs"]
        return found

    ours = {"ef_first": [{"name": "a", "offset": 0, "size": 4, "kind": "uint"}]}
    assert structs() == ours
    assert structs("--all-structs") == {**ours, "other": [{"name": "b", "offset": 0, "size": 8, "kind": "uint"}]}


def test_inspect_of_what_is_no_object_says_so(loader: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no object", encoding="utf-8")
    for words, code, said in ((["x"], 1, "cannot be read as a BPF object"), ([], 2, "usage"), (["x", "y"], 2, "usage"),
                              (["--all", "x"], 1, "cannot be read"), (["--none", "x"], 2, "usage")):  # fmt: skip
        done = subprocess.run([loader, "inspect", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code and said in done.stderr, words


def test_a_command_that_there_is_not(loader: Path) -> None:
    for words, code, said in (
        ([], 2, "usage:"),
        (["none"], 2, "none: no such command; `ebpf-loader --help` lists them"),
    ):
        done = subprocess.run([loader, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (code, "") and said in done.stderr
    done = subprocess.run([loader, "-h"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ebpf-loader verify") and done.stderr == ""
