# SPDX-License-Identifier: GPL-3.0-or-later
"""The orders that stand: how one becomes another, and their real files, on a full disk and with a process that dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope, standing_order
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.standing_order import Release, StandingOrder, StoreError
from ansible_collections.ebpf.fleet.plugins.plugin_utils import order_store, order_work
from ansible_collections.ebpf.fleet.plugins.plugin_utils.bounded_call import within
from ansible_collections.ebpf.fleet.plugins.plugin_utils.order_store import Store

SINCE = "2026-11-28T19:05:01Z"
CELL = scope.read("cell=a")
NEW = StandingOrder("20261128-190501-3f1c2a", CELL, "jane", SINCE, "load", True, outstanding=("b", "a"))
BACK = Release("joe", "2026-11-28T20:00:00Z", "fixed")


def answer(ok: bool = True, placed: bool | None = True, **more: Any) -> dict[str, Any]:
    return {"ok": ok, "placed": placed, "concerned": True, **more}


# What an order becomes.


def test_a_new_order_has_every_host_outstanding_and_answers_sort_them() -> None:
    order = standing_order.engaged(None, NEW)
    assert order.outstanding == ("a", "b") == order.hosts
    order = standing_order.answered(
        order, {"a": answer(), "b": answer(placed=False), "c": answer(ok=False), "d": answer(placed=None)}
    )
    assert (order.placed, order.not_placed, order.outstanding) == (("a", "d"), ("b",), ("c",))
    # Who had confirmed and does not any more is outstanding again; who was not asked stays what it was.
    order = standing_order.answered(order, {"a": answer(ok=False), "b": answer()})
    assert (order.placed, order.not_placed, order.outstanding) == (("b", "d"), (), ("a", "c"))


def test_the_same_order_again_is_the_same_order() -> None:
    before = NEW._replace(
        reason="", placed=("a",), outstanding=("c",), released=("d", "e"), everywhere=False, release=BACK
    )
    after = standing_order.engaged(before, NEW._replace(id="x", since="y", who="z", outstanding=("a", "b", "d")))
    assert (after.id, after.since, after.who, after.reason) == (NEW.id, SINCE, "jane", "load")
    assert (after.placed, after.outstanding, after.released) == (("a",), ("b", "c", "d"), ("e",))
    assert after.everywhere is True and after.release is None, "an unfinished taking back is over"
    assert standing_order.engaged(before._replace(reason="first"), NEW).reason == "first"


def test_taken_back_takes_out_who_confirmed_and_who_is_in_the_inventory_no_longer() -> None:
    order = NEW._replace(placed=("a", "b"), not_placed=("c",), outstanding=("d", "gone"))
    rest = standing_order.taken_back(order, ["a", "c", "z"], ["a", "b", "c", "d", "z"])
    assert (rest.placed, rest.not_placed, rest.outstanding, rest.released) == (("b",), (), ("d",), ("a", "c"))
    assert standing_order.taken_back(rest, ["b", "d"], ["b", "d"]).hosts == ()


@pytest.mark.parametrize(
    ("text", "host", "cell", "meant"),
    [
        ("global", "new", None, True), ("global", "a", None, False), ("global", "out", None, False),
        ("feature=x", "new", None, True), ("cell=a", "new", "a", True), ("cell=a", "new", "b", False),
        ("cell=a", "new", None, False), ("host=w*", "w9", None, False), ("host=w*,cell=a", "w9", "a", False),
    ],
)  # fmt: skip
def test_whom_an_order_means_that_came_after_it(text: str, host: str, cell: str | None, meant: bool) -> None:
    order = NEW._replace(scope=scope.read(text), outstanding=("a",), released=("out",))
    assert standing_order.means(order, host, cell) is meant
    assert standing_order.means(order._replace(everywhere=False), host, cell) is False


@pytest.mark.parametrize(
    ("other", "back", "host", "kept"),
    [
        ("global", "cell=a", "p", True), ("global", "cell=a", "o", True), ("global", "cell=a", "n", False),
        ("global", "cell=a", "z", False), ("cell=a", "cell=a", "p", False), ("feature=x", "cell=a", "p", False),
        ("kernel_family=6.1", "global", "p", False), ("feature=x", "feature=x,cell=a", "p", True),
        ("feature=x,kernel_family=6.1", "feature=x", "p", True), ("feature=y", "feature=x", "p", False),
    ],
)  # fmt: skip
def test_what_another_order_needs_on_a_host_is_kept(other: str, back: str, host: str, kept: bool) -> None:
    order = NEW._replace(scope=scope.read(other), placed=("p",), not_placed=("n",), outstanding=("o",))
    assert (standing_order.keeping([order], scope.read(back), host) is not None) is kept


def test_an_id_is_of_the_second_and_the_scope() -> None:
    one = standing_order.ident(SINCE, ["cell=a"])
    assert one.startswith("20261128-190501-") and len(one) == 22
    assert one == standing_order.ident(SINCE, ["cell=a"]) != standing_order.ident(SINCE, ["cell=b"])


def test_the_list_says_who_has_yet_to_confirm_and_shows_nothing_that_paints() -> None:
    order = NEW._replace(
        placed=("a",), outstanding=tuple(f"h{n:02}" for n in range(12)), reason="\x1b[2J", release=BACK
    )
    line = standing_order.line(order)
    assert line.startswith(f"{NEW.id}  scope=cell=a  since {SINCE}  by jane  1 confirmed  12 outstanding: 'h00', ")
    assert "'h09' and 2 more" in line and line.isprintable()
    assert "joe began to take it back at 2026-11-28T20:00:00Z: fixed; not finished, run that again" in line
    assert "reason: none was given" in standing_order.line(NEW._replace(reason="", outstanding=()))


# Its file.

GOOD = json.loads(standing_order.render(NEW))


def test_a_file_is_read_as_it_was_written() -> None:
    for order in (NEW, NEW._replace(scope=scope.read(["host=web, blue", "cell=x, y"]), release=BACK, released=("z",))):
        assert standing_order.parse(standing_order.render(order)) == order


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "x"}, {"id": "../../x"}, {"id": 7}, {"scope": ["globl"]}, {"scope": []}, {"everywhere": "yes"},
        {"placed": "a"}, {"outstanding": [7]}, {"release": {}}, {"release": {**BACK._asdict(), "who": 7}}, {"more": 1},
        {"who": None}, {"release": 7},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_an_order_is_never_no_order(tmp_path: Path, change: dict[str, Any]) -> None:
    document = {**GOOD, **change}
    data = json.dumps(document).encode()
    with pytest.raises(FleetError):
        standing_order.parse(data)
    (tmp_path / f"{NEW.id}.json").write_bytes(data)
    with pytest.raises(StoreError, match=f"{NEW.id}.json: .*; find out who wrote there"):
        Store(tmp_path).orders()


@pytest.mark.parametrize("missing", GOOD)
def test_a_field_that_is_missing_is_told(missing: str) -> None:
    with pytest.raises(StoreError, match=r"schema|fields"):
        standing_order.parse(json.dumps({key: value for key, value in GOOD.items() if key != missing}).encode())


# The store.


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "orders")


def test_a_store_that_was_never_written_has_no_order_and_reading_makes_none(store: Store) -> None:
    assert store.orders() == [] and not store.path.exists()


def test_an_order_goes_through_the_store(store: Store) -> None:
    ident = order_work.write_down(store, CELL, ["a", "b"], True, "load")
    assert order_work.write_down(store, CELL, ["c"], False, "again") == ident, "one scope, one order"
    (own,) = order_work.standing(store)
    assert (own.outstanding, own.reason, own.everywhere) == (("a", "b", "c"), "load", True)
    order_work.write_answers(store, ident, {"a": answer(), "b": answer(placed=False), "c": answer(ok=False)})
    own, others = order_work.begin_release(store, CELL, "fixed")
    assert (own.placed, own.not_placed, own.outstanding, others) == (("a",), ("b",), ("c",), [])
    assert order_work.standing(store)[0].release.reason == "fixed", "before any host is asked"
    answers = {"a": answer(), "b": answer(), "c": answer(ok=False)}
    assert order_work.end_release(store, ident, answers, ["a", "b", "c"]) == ["c"]
    assert order_work.standing(store)[0].released == ("a", "b")
    assert order_work.end_release(store, ident, {"c": answer()}, ["a", "b", "c"]) == []
    assert order_work.standing(store) == []
    gone = standing_order.parse((store.taken / f"{ident}.json").read_bytes())
    assert gone.release.reason == "fixed" and gone.release.who == own.who and gone.outstanding == ("c",)


def test_taking_back_what_this_controller_does_not_know_is_kept_where_a_host_had_it(store: Store) -> None:
    own, _others = order_work.begin_release(store, CELL, "fixed")
    assert [one.id for one in order_work.standing(store)] == [own.id] and own.hosts == ()
    order_work.end_release(store, own.id, {"a": answer(concerned=False)}, ["a"])
    assert order_work.standing(store) == [] and list(store.taken.iterdir()) == []
    own, _others = order_work.begin_release(store, CELL, "fixed")
    order_work.end_release(store, own.id, {"a": answer(), "b": answer(concerned=False)}, ["a", "b"])
    assert order_work.standing(store) == []
    (gone,) = [standing_order.parse(path.read_bytes()) for path in store.taken.iterdir()]
    assert gone.release.reason == "fixed" and gone.released == ("a",)


def test_answers_to_an_order_that_was_taken_back_meanwhile_bring_it_not_back(store: Store) -> None:
    order_work.write_answers(store, NEW.id, {"a": answer()})
    assert order_work.standing(store) == []


def test_what_is_not_an_order_file_is_left_alone(store: Store) -> None:
    order_work.write_down(store, CELL, ["a"], True, "")
    for name in (".tmp-1.json", "notes.txt", ".guard"):
        (store.path / name).write_text("x")
    assert len(store.orders()) == 1


@pytest.mark.parametrize("kind", ["fifo", "symlink", "folder"])
def test_a_file_that_is_none_is_an_error_and_hangs_no_one(store: Store, kind: str) -> None:
    store.path.mkdir()
    path = store.path / f"{NEW.id}.json"
    {"fifo": lambda: os.mkfifo(path), "symlink": lambda: path.symlink_to("/etc/passwd"), "folder": path.mkdir}[kind]()
    with pytest.raises(FleetError, match=path.name) as caught:
        order_work.standing(store)
    assert caught.value.code == "EF_ORDER_STORE"


def test_another_process_that_holds_the_store_is_waited_for_only_so_long(store: Store) -> None:
    with store.locked():
        begun = time.monotonic()
        with pytest.raises(StoreError, match="another process holds .guard"), store.locked(seconds=0.2):
            pass
        assert time.monotonic() - begun >= 0.2
    with store.locked(seconds=0):
        pass


HOLDS = """import fcntl, os, sys
guard = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(guard, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_that_is_killed_gives_the_store_back(store: Store) -> None:
    store.taken.mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(store.path / ".guard")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    guard = os.open(store.path / ".guard", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(guard)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert order_work.write_down(store, CELL, ["a"], True, "")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder whose file system has no room left."""
    if os.geteuid() != 0:
        pytest.skip("not root: a small tmpfs cannot be mounted")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], check=False)
    if done.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_changes_nothing_of_what_stands(small: Path) -> None:
    store = Store(small / "orders")
    ident = order_work.write_down(store, CELL, ["a"], True, "load")
    before = (store.path / f"{ident}.json").read_bytes()
    with pytest.raises(OSError, match="No space") as caught, (small / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    assert caught.value.errno == errno.ENOSPC
    for call in (lambda: order_work.write_down(store, scope.read("global"), ["a"], True, ""),
                 lambda: order_work.write_answers(store, ident, {"a": answer()}),
                 lambda: order_work.begin_release(store, CELL, "fixed")):  # fmt: skip
        with pytest.raises(FleetError) as refused:
            call()
        assert refused.value.code == "EF_DISK_FULL"
        assert sorted(path.name for path in store.path.iterdir()) == [".guard", f"{ident}.json", "released"]
        assert (store.path / f"{ident}.json").read_bytes() == before


@pytest.mark.parametrize("given", [7, ["a"], True])
def test_a_folder_that_is_not_a_path_is_refused(given: Any) -> None:
    with pytest.raises(StoreError, match="ebpf_fleet_ledger: .* is not a path"):
        order_store.folder_of(given, {})


def test_the_store_is_beside_the_ledger() -> None:
    assert order_store.folder_of("", {"XDG_STATE_HOME": "/s"}) == Path("/s/ebpf-fleet/orders")
    assert order_store.folder_of("x", {"PWD": "/p"}) == Path("/p/x/orders")


# In a process of its own.


def test_what_comes_back_is_what_was_returned_however_long() -> None:
    long = [f"host{n}" for n in range(50_000)]
    assert within(30, "EF_ORDER_STORE", lambda: long) == long


def test_what_hangs_is_ended_and_told() -> None:
    begun = time.monotonic()
    with pytest.raises(FleetError, match="no answer from the disk within 0.3 s") as caught:
        within(0.3, "EF_ORDER_STORE", lambda: time.sleep(1000))
    assert caught.value.code == "EF_ORDER_STORE" and time.monotonic() - begun < 100
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FleetError("EF_LEDGER", "so", "/f"), "EF_LEDGER", "so"),
        (OSError(errno.ENOSPC, "No space left", "/f"), "EF_DISK_FULL", "/f: no space is left"),
        (PermissionError(errno.EACCES, "Permission denied", "/f"), "EF_ORDER_STORE", "/f: Permission denied"),
        (KeyError("x"), "EF_ORDER_STORE", "KeyError: 'x'"),
        (SystemExit(3), "EF_ORDER_STORE", "the process that was to do it ended by itself"),
    ],
)
def test_whatever_goes_wrong_is_one_of_our_errors(error: BaseException, code: str, words: str) -> None:
    with pytest.raises(FleetError, match=words) as caught:
        within(30, "EF_ORDER_STORE", lambda: raises(error))
    assert caught.value.code == code
