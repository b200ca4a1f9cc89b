# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's folder on a real disk: writers that are killed or run at once, a full disk, the lock, hooks."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import hooks, ledger, ledger_lock
from ansible_collections.ebpf.fleet.plugins.plugin_utils import ledger_folder, ledger_hooks
from ansible_collections.ebpf.fleet.plugins.plugin_utils.ledger_folder import Folder

from tests.support.httpserver import serving

WHO = {"who": "jane"}
# Appends until it is killed; the lines are long enough that a kill may come within a write.
WRITER = """
import sys
from ansible_collections.ebpf.fleet.plugins.plugin_utils.ledger_folder import Folder
folder = Folder(sys.argv[1])
for number in range(int(sys.argv[2])):
    with folder:
        folder.append("r", "aborted", {"who": sys.argv[3] * 20000, "number": number})
"""


def writer(path: Path, count: int, word: str = "x") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(count), word])


def append(path: Path, **data: Any) -> ledger.Entry:
    with Folder(path) as folder:
        entry: ledger.Entry = folder.append("r", "aborted", {**WHO, **data})
        return entry


def test_two_who_write_at_once_make_one_chain(tmp_path: Path) -> None:
    writers = [writer(tmp_path, 40, word) for word in "ab"]
    assert [one.wait(120) for one in writers] == [0, 0]
    found = Folder(tmp_path, writes=False).read()
    assert found.broken_line is None and len(found.entries) == 80 and found.torn == b""
    assert {str(one.data["who"])[0] for one in found.entries} == {"a", "b"}


def test_a_writer_that_is_killed_leaves_a_chain_that_goes_on(tmp_path: Path) -> None:
    for turn in range(8):
        process = writer(tmp_path, 10**6)
        before = len(Folder(tmp_path, writes=False).read().entries) if turn else 0
        end = time.monotonic() + 60
        while not (tmp_path / "head.json").exists() or before == len(Folder(tmp_path, writes=False).read().entries):
            assert time.monotonic() < end
        time.sleep(0.013 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = Folder(tmp_path, writes=False).read()
        assert found.broken_line is None and len(found.entries) > before
        append(tmp_path)
        assert Folder(tmp_path, writes=False).read().torn == b""


def test_what_a_crash_tore_is_kept_aside_and_said(tmp_path: Path) -> None:
    append(tmp_path)
    line = (tmp_path / "ledger.jsonl").read_bytes()
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(line[:-1])
    entry = append(tmp_path)
    found = Folder(tmp_path, writes=False).read()
    assert (found.broken_line, found.torn, entry.sequence) == (None, b"", 3)
    assert found.entries[1].kind == "repaired" and found.entries[1].data["bytes"] == len(line) - 1
    assert found.entries[1].data["digest"] == ledger.digest_of(line)
    assert (tmp_path / "torn.log").read_bytes() == line
    append(tmp_path)
    assert len(Folder(tmp_path, writes=False).read().entries) == 4


def test_a_crash_between_line_and_head_is_no_fault(tmp_path: Path) -> None:
    append(tmp_path)
    head = (tmp_path / "head.json").read_bytes()
    append(tmp_path)
    (tmp_path / "head.json").write_bytes(head)
    assert append(tmp_path).sequence == 3
    assert Folder(tmp_path, writes=False).read().broken_line is None


@pytest.mark.parametrize("spoil", ["cut", "emptied", "gone", "changed", "head"])
def test_nothing_is_appended_to_a_ledger_that_was_changed(tmp_path: Path, spoil: str) -> None:
    for _time in range(3):
        append(tmp_path)
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if spoil == "cut":
        path.write_bytes(b"".join(lines[:2]))
    elif spoil == "emptied":
        path.write_bytes(b"")
    elif spoil == "gone":
        path.unlink()
    elif spoil == "changed":
        path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"jane", b"joan")]))
    else:
        (tmp_path / "head.json").write_text("{}")
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(FleetError) as caught:
        append(tmp_path)
    assert caught.value.code == "EF_LEDGER_BROKEN"
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    append(tmp_path)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, old[1]))
    try:
        with pytest.raises(FleetError) as caught:
            append(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.code == "EF_DISK_FULL" and str(tmp_path) in caught.value.message
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    assert append(tmp_path).sequence == 2


def test_a_folder_that_cannot_be_made_is_told_with_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FleetError, match="name another folder with ebpf_fleet_ledger") as caught:
        append(tmp_path / "file/ledger")
    assert caught.value.code == "EF_LEDGER"


def test_who_only_reads_makes_nothing(tmp_path: Path) -> None:
    found = Folder(tmp_path / "none", writes=False).read()
    assert found.entries == [] and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("given", "environment", "path"),
    [
        ("", {"XDG_STATE_HOME": "/s"}, "/s/ebpf-fleet"),
        ("", {}, "HOME/.local/state/ebpf-fleet"),
        ("", {"XDG_STATE_HOME": "not/absolute"}, "HOME/.local/state/ebpf-fleet"),
        ("here", {"PWD": "/typed"}, "/typed/here"),
        ("~/l", {"PWD": "/typed"}, "HOME/l"),
        ("/srv/l", {"PWD": "/typed"}, "/srv/l"),
    ],
)
def test_where_the_ledger_is(given: str, environment: dict[str, str], path: str) -> None:
    assert str(ledger_folder.folder_of(given, environment)) == path.replace("HOME", os.path.expanduser("~"))


# --- the lock ------------------------------------------------------------------------------------


def owner(pid: int) -> ledger_lock.Owner:
    found: ledger_lock.Owner = ledger_folder.owner_of(pid, {}, ledger_folder.now())
    return found


def test_the_lock_is_one_living_processs_and_a_dead_ones_is_taken_over(tmp_path: Path) -> None:
    first = subprocess.Popen(["/bin/sleep", "600"])
    own, here = owner(first.pid), owner(os.getpid())
    with Folder(tmp_path) as folder:
        assert folder.take(own) is None and folder.take(own) is None
        folder.name(own, "r1")
        assert folder.runs(here, "r1") and not folder.runs(here, "r2")
        with pytest.raises(FleetError, match=f"rollout r1 of .*process {first.pid}") as caught:
            folder.take(here)
        assert caught.value.code == "EF_ROLLOUT_RUNNING"
        folder.release(here)
        assert folder.owner() is not None, "another's lock stays"
        first.kill()
        # Dead, and not yet waited for, as after kill -9 of a runner's child.
        while ledger_folder.ticks_of(first.pid) is not None:
            time.sleep(0.01)
        assert not folder.runs(here, "r1")
        stale = folder.take(here)
        assert stale is not None and (stale.pid, stale.rollout) == (first.pid, "r1")
        folder.release(here)
        assert folder.owner() is None
    first.wait()


def test_a_file_that_is_no_lock_counts_as_held_and_one_of_another_machine_says_what_to_do(tmp_path: Path) -> None:
    here = owner(os.getpid())
    with Folder(tmp_path) as folder:
        folder.lock.write_text("{}")
        with pytest.raises(FleetError, match="is not a lock"):
            folder.take(here)
        folder.lock.write_bytes(ledger_lock.render(here._replace(host="elsewhere")))
        with pytest.raises(FleetError, match="Whether it lives cannot be seen from here: if it does not, remove "):
            folder.take(here)


def test_a_request_is_left_read_and_forgotten(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        assert folder.asked("r1", "pause") is None
        folder.ask("r1", "pause", WHO)
        (folder.requests / "r1.abort").write_text("by hand")
        assert folder.asked("r1", "pause") == WHO and folder.asked("r1", "abort") == {}
        assert folder.asked("r2", "pause") is None
        folder.forget("r1", "pause")
        assert folder.asked("r1", "pause") is None and folder.asked("r1", "abort") == {}
        folder.forget("r1")
        assert list(folder.requests.iterdir()) == []


# --- hooks ---------------------------------------------------------------------------------------

ENTRY = ledger.next_entry(None, "2026-11-28T00:17:33.000001Z", "r1", "aborted", WHO)


def tell(**hook: Any) -> str:
    (one,) = hooks.read("x", [{"timeout": 5, **hook}])
    return str(ledger_hooks.tell(one, ENTRY))


def test_a_command_gets_the_line_and_its_failure_is_its_status_and_words(tmp_path: Path) -> None:
    assert tell(command=["/bin/sh", "-c", f"cat > {tmp_path}/got"]) == ""
    assert (tmp_path / "got").read_bytes() == ledger.line_of(ENTRY)
    assert tell(command=["/bin/true"]) == "", "it need not read"
    assert tell(command=["/bin/sh", "-c", "printf 'no\\033[2J' >&2; exit 7"]) == "ended with 7: no\\x1b[2J"
    assert tell(command=["/bin/sh", "-c", "kill -9 $$"]) == "ended with -9"
    assert tell(command=["/nowhere"]) == "cannot be run: No such file or directory"


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    begun = time.monotonic()
    script = f"sleep 300 & echo $! > {tmp_path}/child; wait"
    assert tell(command=["/bin/sh", "-c", script], timeout=1) == "was ended after 1 s"
    assert time.monotonic() - begun < 20
    child = int((tmp_path / "child").read_text())
    while ledger_folder.ticks_of(child) is not None:
        assert time.monotonic() - begun < 30
        time.sleep(0.05)


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    got: list[Any] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        got.append((request.path, request.headers["Content-Type"], body))
        if request.path == "/drip":
            for _second in range(40):
                request.wfile.write(b"H")
                time.sleep(0.1)
            return
        if request.path == "/odd":
            request.wfile.write(b"odd\r\n\r\n")
            return
        request.send_response({"/moved": 302, "/bad": 500}.get(request.path, 200))
        if request.path == "/moved":
            request.send_header("Location", "/elsewhere")
        request.end_headers()

    with serving(answer) as url:
        yield url, got


def test_an_address_gets_the_line_as_a_post(server: tuple[str, list[Any]]) -> None:
    url, got = server
    assert tell(url=f"{url}/good?k=1") == ""
    assert got == [("/good?k=1", "application/json", ledger.line_of(ENTRY))]
    assert json.loads(got[0][2])["data"] == WHO
    assert tell(url=f"{url}/bad") == "answered with 500"
    assert tell(url=f"{url}/odd") == "answered with what is not HTTP"
    assert tell(url=f"{url}/moved") == "answered with 302" and got[-1][0] == "/moved", "it is not followed"


def test_an_address_that_does_not_answer_or_drips_has_its_time(server: tuple[str, list[Any]]) -> None:
    url, _got = server
    begun = time.monotonic()
    assert tell(url=f"{url}/drip", timeout=0.5) == "did not answer within 0.5 s"
    assert time.monotonic() - begun < 3
    assert tell(url="http://127.0.0.1:1/x?secret").startswith("cannot be reached: ")


# --- sealed files --------------------------------------------------------------------------------


def chain(path: Path, *rollouts: str, least: int = 1) -> None:
    """Two entries of each rollout, and what is there sealed before each."""
    for rollout in rollouts:
        with Folder(path) as folder:
            folder.seal(least)
            plan = {"hosts": ["a"], "batches": []}
            folder.append(
                rollout, ledger.STARTED, {**WHO, "bundle": {}, "bundle_digest": "", "plan": plan, "plan_digest": ""}
            )
            folder.append(rollout, ledger.ENDED, {"outcome": "complete", "sentence": "done"})


def sealed(path: Path) -> list[str]:
    return sorted(one.name for one in (path / "sealed").iterdir())


def test_a_large_ledger_is_sealed_and_the_chain_goes_on_behind_it(tmp_path: Path) -> None:
    chain(tmp_path, "r1", "r2", "r3")
    assert sealed(tmp_path) == ["000000001-000000002.jsonl", "000000003-000000004.jsonl"]
    assert [(tmp_path / "sealed" / name).stat().st_mode & 0o777 for name in sealed(tmp_path)] == [0o440] * 2
    folder = Folder(tmp_path, writes=False)
    here, everything = folder.read(), folder.read_all()
    assert (here.broken_line, [one.sequence for one in here.entries]) == (None, [5, 6])
    assert (everything.broken_line, [one.sequence for one in everything.entries]) == (None, [1, 2, 3, 4, 5, 6])
    assert everything.entries[2].previous == ledger.digest_of(
        (tmp_path / "sealed" / sealed(tmp_path)[0]).read_bytes().splitlines()[1]
    )
    # Of a rollout that is in the file at hand nothing older is read; of one that is sealed all is.
    assert [one.rollout for one in folder.entries("r3")] == ["r3"] * 2
    assert [one.rollout for one in folder.entries("r1")] == ["r1"] * 2 + ["r2"] * 2 + ["r3"] * 2


def test_a_ledger_is_sealed_from_its_size_on_and_an_empty_one_never(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        assert folder.seal(0) is None
    append(tmp_path)
    size = (tmp_path / "ledger.jsonl").stat().st_size
    with Folder(tmp_path) as folder:
        assert folder.seal(size + 1) is None and not (tmp_path / "sealed").exists()
        place = folder.seal(size)
        assert place == tmp_path / "sealed" / "000000001-000000001.jsonl" and place.stat().st_size == size
        assert folder.seal(0) is None, "there is no ledger now"
        assert folder.read() == ([], None, "", b"") and len(folder.read_all().entries) == 1
    assert append(tmp_path).sequence == 2


def test_a_line_torn_right_behind_a_sealed_file_is_set_aside(tmp_path: Path) -> None:
    chain(tmp_path, "r1")
    with Folder(tmp_path) as folder:
        folder.seal(1)
    (tmp_path / "ledger.jsonl").write_bytes(b'{"half')
    with Folder(tmp_path) as folder:
        assert folder.read().torn == b'{"half' and folder.seal(1) is None
    assert append(tmp_path).sequence == 4
    found = Folder(tmp_path, writes=False).read_all()
    assert found.broken_line is None and [one.kind for one in found.entries[2:]] == [ledger.REPAIRED, "aborted"]


def test_a_sealed_file_that_was_changed_or_lost_its_end_is_a_break(tmp_path: Path) -> None:
    chain(tmp_path, "r1", "r2", "r3")
    first, last = (tmp_path / "sealed" / name for name in sealed(tmp_path))
    whole = last.read_bytes()
    last.write_bytes(whole.replace(b"done", b"dome"))
    folder = Folder(tmp_path, writes=False)
    assert folder.read().broken_line == 1, "the file at hand names the line as it was"
    assert folder.read_all().broken_line == 5
    last.write_bytes(whole.splitlines(keepends=True)[0])
    with pytest.raises(ledger.LedgerBrokenError, match="has sequence 3 where its name says 4"):
        folder.read()
    assert folder.read_all().broken_line == 4
    # A file in the middle that is gone breaks the chain; the oldest ones may be kept elsewhere.
    last.write_bytes(whole)
    first.rename(tmp_path / "elsewhere")
    found = folder.read_all()
    assert (found.broken_line, found.entries[0].sequence) == (None, 3)
    (tmp_path / "elsewhere").rename(first)
    last.unlink()
    assert folder.read_all().broken_line == 3
    assert folder.read().broken_line == 1


class SealedMeanwhile(Folder):  # type: ignore[misc]
    """A reader between whose first two reads a rollout seals the ledger."""

    def _head(self) -> Any:
        found = super()._head()
        if not self.sealed.exists():
            with Folder(self.path) as other:
                assert other.seal(1)
        return found


@pytest.mark.parametrize("which", ["read", "read_all"])
def test_who_reads_while_a_rollout_seals_finds_a_sound_chain(tmp_path: Path, which: str) -> None:
    chain(tmp_path, "r1")
    found = getattr(SealedMeanwhile(tmp_path, writes=False), which)()
    assert sealed(tmp_path) == ["000000001-000000002.jsonl"], "it was not sealed; nothing was tested"
    assert (found.broken_line, len(found.entries)) == (None, 2 if which == "read_all" else 0)


def test_a_ledger_that_is_gone_while_its_head_knows_more_is_a_break(tmp_path: Path) -> None:
    chain(tmp_path, "r1", "r2")
    (tmp_path / "ledger.jsonl").unlink()
    folder = Folder(tmp_path, writes=False)
    assert folder.read().broken_line == 1 and "line 4 was written" in folder.read().fault
    with pytest.raises(ledger.LedgerBrokenError, match="line 4 was written"):
        append(tmp_path)
    # Other files in the folder mean nothing.
    (tmp_path / "sealed" / "notes.txt").write_text("x")
    assert folder.read_all().broken_line == 3


def test_the_files_of_a_ledger_are_read_by_its_owner_and_group_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Folder(tmp_path / "ledger") as folder:
            folder.append("r", "aborted", WHO)
            folder.take(ledger_folder.owner_of(os.getpid(), os.environ, ledger_folder.now()))
    finally:
        os.umask(before)
    found = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "ledger").iterdir()}
    assert found == {"ledger.jsonl": 0o640, "head.json": 0o640, "rollout.lock": 0o640, ".guard": 0o640,
                     "requests": 0o750}  # fmt: skip
    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o750
