# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and another try by their values: which pattern a name becomes, when a host is asked again and when not."""

from __future__ import annotations

import os
import time

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import fanout, hostnames
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import process as fanout_process
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts.fanout import FanOut, Launch, Session

KEX = "Unable to negotiate with 192.0.2.1 port 22: no matching key exchange method found. Their offer: x\r\n"
BUSY = "kex_exchange_identification: Connection closed by remote host\r\n"


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("w1", "w1"),
        ("web-1.example_x", "web-1.example_x"),
        ("_", "_"),
        ("a b", r"~a\x20b\Z"),
        ("a,b:c", r"~a\x2cb\x3ac\Z"),
        ("-x", r"~\x2dx\Z"),
        (".x", r"~\x2ex\Z"),
        ("", r"~\Z"),
        ("é", r"~\xe9\Z"),
        ("\u0100", r"~\u0100\Z"),
        ("\uffff", r"~\uffff\Z"),
        ("\U00010000", r"~\U00010000\Z"),
        ("\n", r"~\x0a\Z"),
    ],
)
def test_a_name_that_a_pattern_would_take_apart_becomes_numbers(name: str, pattern: str) -> None:
    assert hostnames.exact_pattern(name) == pattern


@pytest.mark.parametrize(("count", "more"), [(1, ""), (10, ""), (11, " and 1 more"), (30, " and 20 more")])
def test_ten_names_are_shown_and_the_others_counted(count: int, more: str) -> None:
    names = [f"w{number}" for number in range(count)]
    shown = ", ".join(f"'{name}'" for name in names[:10])
    assert hostnames.some_of(names) == shown + more


def test_a_near_name_is_asked_for_and_a_choice_given_only_of_few() -> None:
    few, many = [f"web{n}" for n in range(10)], [f"web{n}" for n in range(11)]
    assert hostnames.nearest("wb1", few).startswith("did you mean 'web1'")
    assert hostnames.nearest("nothing", few) == f"choose one of: {', '.join(few)}"
    assert hostnames.nearest("nothing", many) == "there are 11 names, and none is near it"


def started(stderr: str, connect: float = 5, tries: int = 1, **more: bool) -> Session:
    """A host's session at `turn` 0 whose process has said `stderr`."""
    session = Session("a", Launch(lambda _kex: fanout_process.spawn([b"/bin/true"]), connect, 5, **more), 0.0)
    session.start(0.0)
    session.tries = tries
    session.captures["stderr"].add(stderr.encode())
    return session


def ended(session: Session) -> None:
    """Give its process and descriptors back."""
    for descriptor in (session.process.stdin, session.process.stdout, session.process.stderr):
        if descriptor is not None:
            os.close(descriptor)
    session.process.kill()
    while not session.process.reap():
        time.sleep(0.01)


@pytest.mark.parametrize(("tries", "least", "most"), [(1, 0.5, 1.0), (2, 1.0, 2.0)])
def test_another_try_waits_twice_as_long_each_time_and_not_all_hosts_alike(
    tries: int, least: float, most: float
) -> None:
    session, fan = started(BUSY, tries=tries), FanOut(["a"], lambda _host: None, 1, 1)  # type: ignore[arg-type,return-value]
    waits = [fan._pause_before_another_try(session, 255) for _turn in range(200)]
    ended(session)
    found = [wait for wait in waits if wait is not None]
    assert len(found) == 200 and least <= min(found) < least * 1.2 and most * 0.9 < max(found) <= most


@pytest.mark.parametrize(
    ("rc", "tries", "stderr", "sees_login", "again"),
    [
        (255, 1, BUSY, True, True),
        (255, fanout.TRIES - 1, BUSY, True, True),
        (255, fanout.TRIES, BUSY, True, False),
        (254, 1, BUSY, True, False),
        (0, 1, BUSY, True, False),
        (255, 1, BUSY, False, False),
        (255, 1, "Permission denied (publickey).\r\n", True, False),
        (255, 1, KEX, True, True),
    ],
)
def test_a_host_is_asked_again_only_where_that_can_help(
    rc: int, tries: int, stderr: str, sees_login: bool, again: bool
) -> None:
    session = started(stderr, tries=tries, sees_login=sees_login)
    fan = FanOut(["a"], lambda _host: None, 1, 1)  # type: ignore[arg-type,return-value]
    pause = fan._pause_before_another_try(session, rc)
    session.logged_in_at = 1.0
    after_login = fan._pause_before_another_try(session, rc)
    ended(session)
    assert (pause is not None) is again and after_login is None
    assert session.our_kex is (stderr != KEX) and (stderr != KEX or pause == 0.0)


@pytest.mark.parametrize(("now", "again"), [(4.99, True), (5.0, False), (6.0, False)])
def test_no_try_begins_when_the_time_of_the_login_is_over(now: float, again: bool) -> None:
    """A server that does not know our key exchange is asked without it at once."""
    session, fan = started(KEX), FanOut(["a"], lambda _host: None, 1, 1)  # type: ignore[arg-type,return-value]
    for stream in session.open:
        os.close(getattr(session.process, stream))
    session.open.clear()
    fan.running.add(session)
    fan._at_end(session, 255, now)
    fan.stop()
    assert ([due for due, _session in fan._again] == [now]) is again
    assert ("a" in fan.results) is not again


def test_a_forked_worker_tells_an_error_of_any_letters() -> None:
    def raises() -> dict[str, object]:
        raise RuntimeError("bad \udcff letter")

    launch = Launch(lambda _kex: fanout_process.fork(raises), 5, 5, sees_login=False, is_document=True)
    assert "bad ? letter" in FanOut(["a"], lambda _host: launch, 1, 1).run()["a"]["msg"]


def test_hosts_that_talk_on_and_on_are_looked_at_now_and_then_and_not_at_each_word() -> None:
    class Counted(FanOut):
        ticks = 0

        def _tick(self, now: float) -> None:
            self.ticks += 1
            super()._tick(now)

    script = b"n=0; while [ $n -lt 300 ]; do echo x; sleep 0.002; n=$((n + 1)); done"
    launch = Launch(lambda _kex: fanout_process.spawn([b"/bin/sh", b"-c", script]), 60, 60)
    fan, begun = Counted(["a"], lambda _host: launch, 1, 1), time.monotonic()
    assert fan.run()["a"]["stdout"] == "x\n" * 300
    assert fan.ticks <= (time.monotonic() - begun) / fanout.TICK_SECONDS + 30
