# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loader's audit writes, where and what not, and its word to systemd; no kernel, no loader."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.loader.drivers import ask, build, run

pytestmark = pytest.mark.apart

LIMIT = 4 << 20


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed = ("base/*.c", "tell/audit.c", "tell/notify.c", "kernel/kernel.c")
    return build(tmp_path_factory.mktemp("audit"), "audit", needed)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log/audit.jsonl"


def audit(driver: Path, log: Path, *steps: str, lost: int = 0) -> str:
    """What is on stderr."""
    done = run(driver, "audit", str(log.parent), *steps)
    assert done.stdout == f"{lost} 0\n".encode()
    return done.stderr.decode()


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]


def test_a_record_has_all_that_it_must_and_goes_to_the_journal_too(driver: Path, log: Path) -> None:
    before = time.time_ns()
    said = audit(driver, log, "host", "bundle", "feature", "none", "host")
    assert said == log.read_text(encoding="utf-8")
    found = records(log)
    for one in found:
        moment = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z", one.pop("time"))
        assert moment
        seconds = time.mktime(time.strptime(moment[1], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        assert before <= int(seconds) * 10**9 + int(moment[2]) <= time.time_ns()
        assert 0 < one.pop("boottime_ns") <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert one.pop("pid") > 1
    common = {"schema": "ebpf.fleet/audit/v1", "boot_id": "boot", "reason_code": "EF_OK", "reason": "all is well"}
    none = {"source": "loader", "path": None, "uid": None}
    host = {**common, "event": "start", "bundle_digest": None, "feature": None, "variant": None, "programs": [],
            "links": [], "who": none}  # fmt: skip
    feature = {**common, "event": "attach", "bundle_digest": "abc", "feature": "f", "variant": "full", "programs": [5],
               "links": [6, 7], "who": {"source": "kill file", "path": "/a", "uid": 7}}  # fmt: skip
    assert found == [{**host, "seq": 1}, {**feature, "seq": 2}, {**host, "seq": 3}]
    assert log.stat().st_mode & 0o7777 == 0o640
    assert said.count("\n") == 3 and said.endswith("}\n")


def test_descriptor_0_is_one_as_any(driver: Path, log: Path) -> None:
    log.write_text("half", encoding="utf-8")
    audit(driver, log, "stdin", "host", "host")
    assert log.read_text(encoding="utf-8").startswith("half\n{") and len(records(log)) == 2


def test_half_a_line_is_ended_and_a_whole_one_is_not(driver: Path, log: Path) -> None:
    for before, after in (("half", "half\n"), ("whole\n", "whole\n"), ("", ""), ("x", "x\n")):
        log.write_text(before, encoding="utf-8")
        audit(driver, log, "host")
        assert log.read_text(encoding="utf-8").startswith(after + "{"), before
        assert len(records(log)) == 1


def test_the_file_is_rotated_just_before_it_would_pass_its_limit(driver: Path, log: Path) -> None:
    audit(driver, log, "host")
    length = log.stat().st_size
    # The numbers in it may have other lengths: a little more is always too much.
    for room, rotated in ((length + 10, False), (length - 10, True)):
        log.write_text("x" * (LIMIT - room - 1) + "\n", encoding="utf-8")
        Path(f"{log}.1").unlink(missing_ok=True)
        audit(driver, log, "host")
        assert Path(f"{log}.1").exists() == rotated, room
        assert len(records(log)) == 1


def test_four_files_are_kept_and_the_oldest_goes(driver: Path, log: Path) -> None:
    paths = [log, *(Path(f"{log}.{number}") for number in (1, 2, 3))]
    for path in paths:
        path.write_text(path.name.ljust(LIMIT - 1) + "\n", encoding="utf-8")
    audit(driver, log, "host")
    assert len(records(log)) == 1
    assert [path.read_text(encoding="utf-8").split()[0] for path in paths[1:]] == [path.name for path in paths[:3]]
    assert sorted(path.name for path in log.parent.iterdir()) == sorted(path.name for path in paths)


def test_a_file_that_cannot_be_moved_is_overwritten_by_none(driver: Path, log: Path) -> None:
    log.write_text("x" * (LIMIT - 1) + "\n", encoding="utf-8")
    (log.parent / "audit.jsonl.3/x").mkdir(parents=True)
    (log.parent / "audit.jsonl.2").write_text("two", encoding="utf-8")
    said = audit(driver, log, "host", lost=1)
    assert "cannot write" in said and log.stat().st_size == LIMIT
    assert (log.parent / "audit.jsonl.2").read_text(encoding="utf-8") == "two"


def test_an_empty_file_takes_any_line(driver: Path, log: Path) -> None:
    log.touch()
    audit(driver, log, "host")
    assert not Path(f"{log}.1").exists()


@pytest.mark.parametrize(
    "change", ["rm {}", "mv {} {}.moved", "mv {} {}.moved; touch {}", "cp {} {}.copy; mv {}.copy {}"]
)
def test_a_file_that_was_taken_away_is_made_anew(driver: Path, log: Path, change: str) -> None:
    audit(driver, log, "host", "!" + change.replace("{}", str(log)), "feature")
    assert records(log)[-1]["seq"] == 2
    moved = Path(f"{log}.moved")
    assert not moved.exists() or len(records(moved)) == 1


def test_a_file_that_is_still_there_is_not_opened_anew(driver: Path, log: Path) -> None:
    """Half a line that somebody else left meanwhile would then be ended."""
    audit(driver, log, "host", f"!printf x >>{log}", "host")
    assert log.read_text(encoding="utf-8").splitlines()[1].startswith("x{")


def test_a_failure_is_said_once_counted_each_time_and_its_end_said(driver: Path, log: Path) -> None:
    log.parent.rmdir()
    steps = ["host", "host", f"!mkdir {log.parent}", "host", "host", f"!rm -r {log.parent}", "host"]
    said = [line for line in audit(driver, log, *steps, lost=3).splitlines() if not line.startswith("{")]
    failed = (
        f"ebpf-loader: cannot write {log}: No such file or directory; records go to the journal only, and are counted, "
        "until the folder can be written"
    )
    assert said == [failed, f"ebpf-loader: {log} can be written again", failed]


@pytest.mark.parametrize("kind", ["fifo", "folder", "symlink"])
def test_what_is_no_plain_file_is_not_written_to(driver: Path, log: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(log)
    elif kind == "folder":
        log.mkdir()
    else:
        log.symlink_to(log.parent / "elsewhere")
    said = audit(driver, log, "host", "host", lost=2)
    assert said.count("cannot write") == 1
    assert not (log.parent / "elsewhere").exists()


# The word to systemd.


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A socket, and the name that NOTIFY_SOCKET has for it."""
    name = f"{tmp_path}/notify" if request.param == "path" else f"@ebpf-fleet-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(name.replace("@", "\0", 1))
        made.settimeout(5)
        yield made, name


def test_systemd_gets_the_word_as_it_is(driver: Path, systemd: tuple[socket.socket, str]) -> None:
    made, name = systemd
    assert run(driver, "notify", "READY=1\nSTATUS=x", NOTIFY_SOCKET=name).stdout == b"0\n"
    assert made.recv(100) == b"READY=1\nSTATUS=x"


def test_without_systemd_there_is_nobody_to_tell(driver: Path) -> None:
    assert run(driver, "notify", "READY=1", NOTIFY_SOCKET="").stdout == b"0\n"
    os.environ.pop("NOTIFY_SOCKET", None)
    assert ask(driver, "notify", "READY=1") == "0"


def test_a_word_that_does_not_arrive_is_an_error(driver: Path, tmp_path: Path) -> None:
    for name, told in (
        (f"{tmp_path}/none", b"ENOENT"),
        ("/" + "x" * 107, b"ENAMETOOLONG"),
        ("/" + "x" * 106, b"ENOENT"),
    ):
        assert run(driver, "notify", "x", NOTIFY_SOCKET=name).stdout == told + b"\n"


def test_the_watchdog_is_of_this_process_or_of_none(driver: Path) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)
    assert ask(driver, "watchdog") == "0"
    assert run(driver, "watchdog", WATCHDOG_USEC="3000000").stdout == b"3000000\n"
    assert run(driver, "watchdog", WATCHDOG_USEC="3000000", WATCHDOG_PID="1").stdout == b"0\n"
    own = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$0" watchdog', str(driver)]
    environment = {**os.environ, "WATCHDOG_USEC": "5"}
    assert subprocess.run(own, check=True, stdout=subprocess.PIPE, env=environment).stdout == b"5\n"
