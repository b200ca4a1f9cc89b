# SPDX-License-Identifier: GPL-3.0-or-later
"""The fan-out's pure parts, and its loop over processes of this machine."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from ansible.plugins.loader import become_loader
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import fanout, output
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import process as fanout_process


def launch(script: str, connect: float = 5, run: float = 5, **more):
    def start(_kex: bool):
        return fanout_process.spawn([b"/bin/sh", b"-c", script.encode()])

    return fanout.Launch(start, connect, run, **more)


def run(scripts: dict[str, fanout.Launch], logins: int = 50, most: int = 50):
    return fanout.FanOut(list(scripts), scripts.__getitem__, logins, most).run()


def test_a_login_gives_its_place_to_the_next_host_when_it_has_hung_for_two_seconds():
    session = fanout.Session("h", launch("sleep 9"), 0.0)
    session.start(100.0)
    try:
        assert [session.is_logging_in(now) for now in (100.0, 101.999, 102.0)] == [True, True, False]
    finally:
        session.process.kill()
        while not session.process.reap():
            time.sleep(0.01)


def test_a_capture_keeps_both_ends_and_counts_the_gap():
    capture = output.Capture()
    capture.add(b"first" + b"x" * 200_000)
    capture.add(b"y" * 10 + b"last")
    text = capture.text()
    dropped = 200_019 - output.HEAD_BYTES - output.TAIL_BYTES
    assert text.startswith("first") and text.endswith("last")
    assert f"[{dropped} bytes left out]" in text and len(text) < 66_000


@pytest.mark.parametrize("size", [0, 1, output.HEAD_BYTES, output.HEAD_BYTES + output.TAIL_BYTES])
def test_a_capture_within_its_bounds_is_whole(size):
    capture = output.Capture()
    for start in range(0, size, 1000):
        capture.add(b"a" * min(1000, size - start))
    assert capture.text() == "a" * size


def test_only_the_words_of_ssh_itself_are_taken_out():
    stderr = (
        'Authenticated to 127.0.0.1 ([127.0.0.1]:22) using "publickey".\r\nno space left\n'
        "Transferred: sent 3120, received 2904 bytes, in 0.1 seconds\r\nBytes per second: sent 1.0, received 2.0\r\n"
        "Connection to 127.0.0.1 closed.\r\nConnection to the data base closed. Retrying\n"
    )
    assert output.without_chatter(stderr) == "no space left\nConnection to the data base closed. Retrying\n"
    assert output.is_logged_in(stderr.encode())
    assert not output.is_logged_in(b"not Authenticated to anything")


def test_last_words_are_printable_and_bounded():
    assert output.last_words("", " \r\n") == "nothing"
    words = output.last_words("a\x1b[2J" + "b" * 5000, "")
    assert "\x1b" not in words and len(words) <= output.SAID_LETTERS


@pytest.mark.parametrize(
    ("arguments", "quiet"),
    [([b"ssh", b"-q"], True), ([b"ssh", b"-Tqn"], True), ([b"ssh", b"-C", b"-o", b"ControlMaster=no"], False)],
)
def test_a_quiet_ssh_is_known(arguments, quiet):
    assert output.hides_the_login(arguments) is quiet


@pytest.fixture
def sudo():
    plugin = become_loader.get("sudo")
    plugin.set_options(direct={"become_pass": "secret"})
    plugin.build_become_command("true", None)
    plugin.success = "BECOME-SUCCESS-abc"
    return plugin


def test_the_password_is_sent_once_however_the_prompt_is_cut(sudo):
    talk = output.Escalation(sudo, "secret")
    prompt = sudo.prompt.encode()
    sent, kept = b"", b""
    for letter in b"Welcome\r\n" + prompt:
        more, send = talk.feed("stdout", bytes([letter]))
        kept, sent = kept + more, sent + send
    assert sent == b"secret\n"
    more, send = talk.feed("stdout", b"\r\nBECOME-SUCCESS-abc\r\nout" + prompt)
    assert send == b"" and talk.done
    assert kept + more == b"Welcome\r\n\r\nout" + prompt


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([b"PROMPT", b"PROMPT"], "asked for twice"),
        ([b"PROMPT", b"\r\nSorry, try again.\r\n"], "is wrong"),
        ([b"sudo: a password is required\r\n"], "none is given"),
    ],
)
def test_a_refused_escalation_is_known_at_once(sudo, lines, words):
    talk = output.Escalation(sudo, "secret")
    for line in lines:
        talk.feed("stdout", line.replace(b"PROMPT", sudo.prompt.encode()))
    assert words in talk.error and not talk.done


def test_limits_follow_the_controller_and_are_never_nothing():
    assert fanout.limits({"cpus": 4, "files": 1_048_576, "free_bytes": 64 << 30}) == (64, 4096)
    assert fanout.limits({"cpus": 1, "files": 256, "free_bytes": 64 << 30}) == (16, 32)
    assert fanout.limits({"cpus": 1, "files": 10, "free_bytes": 0}) == (16, 8)


def test_descendants_are_found_through_every_generation():
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1}
    assert fanout_process.descendants(10, parents) == [11, 12]
    assert fanout_process.descendants(99, parents) == []


def test_each_host_has_its_own_result_in_the_given_order():
    found = run({"b": launch("echo out; echo err >&2"), "a": launch("exit 3"), "web, blue": launch("kill -9 $$")})
    assert list(found) == ["b", "a", "web, blue"]
    assert (found["b"]["rc"], found["b"]["stdout"], found["b"]["stderr"]) == (0, "out\n", "err\n")
    assert (found["a"]["rc"], found["a"]["failed"]) == (3, True)
    assert found["web, blue"]["rc"] == -9


def test_what_a_command_leaves_behind_with_our_pipes_holds_up_nothing_and_is_ended():
    mark = f"sleep 10{os.getpid()}"
    found = run({"a": launch(f"{mark} & echo done", connect=20, run=20)})["a"]
    assert found["rc"] == 0 and found["stdout"] == "done\n" and found["seconds"] < 10
    shown = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert mark not in shown.splitlines()


def test_a_command_that_closes_its_pipes_and_hangs_is_ended_at_its_bound():
    found = run({"a": launch("exec >&- 2>&-; sleep 1000", connect=1, run=1, sees_login=False)})["a"]
    assert found["rc"] is None and 2 <= found["seconds"] < 10


def test_where_the_login_cannot_be_seen_both_bounds_count_together():
    found = run({"a": launch("sleep 2", connect=1, run=8, sees_login=False)})["a"]
    assert found["rc"] == 0 and found["logged_in"] is None


def test_no_more_run_at_once_than_may():
    begun = time.monotonic()
    found = run({str(number): launch("sleep 0.5") for number in range(6)}, most=2)
    assert all(result["rc"] == 0 for result in found.values())
    assert time.monotonic() - begun >= 1.5


def test_hosts_that_cannot_be_started_are_their_own_result():
    def start(_kex):
        raise OSError("no more processes")

    found = run({"a": fanout.Launch(start, 5, 5), "b": launch("true")})
    assert "no process can be started" in found["a"]["msg"] and found["a"]["unreachable"]
    assert found["b"]["rc"] == 0


def test_a_forked_worker_that_dies_or_raises_is_told(capfd):
    def dies():
        os.kill(os.getpid(), 9)

    def raises():
        raise RuntimeError("broken plugin")

    def works():
        return {"rc": 0, "stdout": "x" * 100_000, "stderr": "", "msg": "", "unreachable": False}

    def forked(work):
        return fanout.Launch(lambda _kex: fanout_process.fork(work), 5, 5, sees_login=False, is_document=True)

    found = run({"dies": forked(dies), "raises": forked(raises), "works": forked(works)})
    assert "status -9" in found["dies"]["msg"] and found["dies"]["failed"]
    assert "broken plugin" in found["raises"]["msg"]
    assert len(found["works"]["stdout"]) == 100_000 and not found["works"]["failed"]


def test_no_child_is_left_unreaped():
    run({str(number): launch("sleep 100" if number % 2 else "true", connect=1, run=1) for number in range(6)})
    children = [pid for pid, parent in fanout_process.parents().items() if parent == os.getpid()]
    comms = [Path(f"/proc/{pid}/comm") for pid in children]
    assert not {"sh", "sleep"} & {path.read_text().strip() for path in comms if path.exists()}


def test_more_of_the_output_is_kept_where_more_is_asked_for():
    many = f"head -c {300_000} /dev/zero | tr '\\0' x"
    found = run({"less": launch(many), "more": launch(many, head_bytes=400_000)})
    assert "bytes left out" in found["less"]["stdout"] and found["more"]["stdout"] == "x" * 300_000


def test_a_result_is_what_is_made_of_it_as_soon_as_it_is_there():
    seen = []

    def keep(host, result):
        seen.append((host, result["stdout"]))
        return {**result, "stdout": ""}

    hosts = {"late": launch("sleep 1; echo 2"), "early": launch("echo 1"), "bad": launch("echo 3; exit 4")}
    found = fanout.FanOut(list(hosts), hosts.__getitem__, 9, 9, keep=keep).run()
    assert sorted(seen) == [("bad", "3\n"), ("early", "1\n"), ("late", "2\n")] and seen[-1][0] == "late"
    assert [one["stdout"] for one in found.values()] == ["", "", ""] and found["bad"]["rc"] == 4
