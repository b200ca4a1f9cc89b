# SPDX-License-Identifier: GPL-3.0-or-later
"""The pull channel as a host runs it: a real server, real signatures, real folders of orders, and the real loader."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import publish

from tests.integration.pullhost import PullHost, listed, new_key, public, reseal
from tests.integration.runner import run_one
from tests.integration.sandbox import Sandbox, can_sandbox
from tests.loader.bundles import Trust
from tests.loader.service import feature_of, ours_in_kernel, wait_for
from tests.support.httpserver import serving
from tests.support.play import play

pytestmark = pytest.mark.apart
GLOBAL = {"scope": "global", "reason": "INC-1"}
EXEC = {"scope": "feature=exec_events"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: new_key(folder / name) for name in ("kill", "other")}


@pytest.fixture
def host(tmp_path: Path, keys: dict[str, Path]) -> Iterator[PullHost]:
    """A host that a list has never reached, whose location is a real server."""
    made = PullHost(tmp_path / "root", tmp_path, keys["kill"])
    with serving(made.answer) as url:
        made.settle(f"{url}/kill-list")
        yield made


def test_orders_come_and_go_with_the_list_and_no_visit_changes_what_is_so(host: PullHost) -> None:
    host.publish(listed(1, GLOBAL, EXEC))
    first = host.visit()
    assert (first.rc, first.status["ok"], first.status["sequence"]) == (0, True, 1), first
    assert host.orders() == {"run": ["feature.exec_events", "global"], "etc": ["feature.exec_events", "global"]}
    assert "placed the order global: INC-1\n" in first.journal and first.status["signer"] == "ops@x"
    before = host.everything()
    second = host.visit()
    assert (second.rc, second.journal, second.status["placed"], second.status["taken"]) == (0, "", [], [])
    assert host.everything() == before
    host.publish(listed(2, EXEC))
    third = host.visit()
    assert (third.rc, third.status["taken"], third.status["sequence"]) == (0, ["global"], 2)
    assert "took the order global back\n" in third.journal
    assert host.orders() == {"run": ["feature.exec_events"], "etc": ["feature.exec_events"]}
    host.publish(listed(9))
    assert host.visit().rc == 0 and host.orders() == {"run": [], "etc": []}


def test_a_boot_in_which_memory_is_empty_has_the_order_on_disk_and_gets_the_other_back(host: PullHost) -> None:
    host.publish(listed(1, GLOBAL))
    host.visit()
    (host.run / "kill.d/global").unlink()
    assert host.visit().status["placed"] == ["global"]
    assert host.orders() == {"run": ["global"], "etc": ["global"]}


@pytest.mark.parametrize(
    ("order", "placed"),
    [
        ({"hosts": ["web1"]}, True), ({"hosts": ["web2", "web"]}, False), ({"cells": ["eu-1"]}, True),
        ({"cells": ["eu-2"]}, False), ({"hosts": ["web1"], "cells": ["eu-2"]}, False),
    ],
)  # fmt: skip
def test_an_order_is_placed_on_the_hosts_that_it_names(host: PullHost, order: dict[str, Any], placed: bool) -> None:
    host.publish(listed(1, {**GLOBAL, **order}))
    visited = host.visit()
    assert visited.rc == 0 and host.orders()["run"] == (["global"] if placed else [])
    assert visited.status["wanted"] == (["global"] if placed else [])


def test_a_family_is_decided_by_who_obeys(host: PullHost) -> None:
    host.publish(listed(1, {"scope": "kernel_family=1.0"}))
    assert host.visit().rc == 0 and host.orders()["run"] == ["family.1.0"]


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_the_oldest_and_the_newest_python_do_it(host: PullHost, version: str) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")) or [
        Path(path) for path in [shutil.which(f"python{version}")] if path
    ]
    if not found or subprocess.run([found[0], "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"Python {version} is not on this machine")
    host.publish(listed(1, GLOBAL))
    assert host.visit(python=str(found[0])).rc == 0 and host.orders()["run"] == ["global"]


def test_a_file_is_as_good_as_a_server(host: PullHost) -> None:
    host.settle(f"file://{host.served}/kill-list")
    host.publish(listed(1, GLOBAL))
    assert host.visit().rc == 0 and host.orders()["run"] == ["global"]


# ---- refusals ----


def forged(host: PullHost, data: bytes, other: Path) -> None:
    (host.served / "kill-list").write_bytes(data.replace(b'"scope":"global"', b'"scope":"feature=a"'))


def by_a_stranger(host: PullHost, data: bytes, other: Path) -> None:
    host.publish(listed(8, GLOBAL), other)


def of_another_namespace(host: PullHost, data: bytes, other: Path) -> None:
    host.trust(f"ops@x {public(host.key)}")
    (host.served / "kill-list").write_bytes(reseal(data, host.key, "ebpf-fleet-release"))


def by_a_signer_of_releases(host: PullHost, data: bytes, other: Path) -> None:
    host.trust(f'ops@x namespaces="ebpf-fleet-release" {public(host.key)}')


def by_a_revoked_key(host: PullHost, data: bytes, other: Path) -> None:
    host.trust(f"ops@x {public(host.key)}", revoked=f"{public(host.key)}\n")


def replayed(host: PullHost, data: bytes, other: Path) -> None:
    host.publish(listed(6, GLOBAL))


def of_the_same_sequence(host: PullHost, data: bytes, other: Path) -> None:
    host.publish(listed(7, GLOBAL))


def expired(host: PullHost, data: bytes, other: Path) -> None:
    host.publish(listed(8, GLOBAL, issued=int(time.time()) - 100, seconds=100))


def truncated(host: PullHost, data: bytes, other: Path) -> None:
    (host.served / "kill-list").write_bytes(data[:-20])


def cut_in_the_line(host: PullHost, data: bytes, other: Path) -> None:
    (host.served / "kill-list").write_bytes(data[:60])


def too_large(host: PullHost, data: bytes, other: Path) -> None:
    (host.served / "kill-list").write_bytes(data + b"\n" * killlist.MAX_BYTES)


def gone(host: PullHost, data: bytes, other: Path) -> None:
    (host.served / "kill-list").unlink()


def without_trust(host: PullHost, data: bytes, other: Path) -> None:
    (host.etc / "trust/allowed_signers").unlink()


def trust_that_others_write(host: PullHost, data: bytes, other: Path) -> None:
    (host.etc / "trust/allowed_signers").chmod(0o666)


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (forged, "EF_SIG_BAD"), (by_a_stranger, "EF_SIG_UNKNOWN_SIGNER"), (of_another_namespace, "EF_SIG_NAMESPACE"),
        (by_a_signer_of_releases, "EF_SIG_NAMESPACE"), (by_a_revoked_key, "EF_SIG_REVOKED"),
        (of_the_same_sequence, "EF_KILL_LIST_REPLAY"), (expired, "EF_KILL_LIST_EXPIRED"),
        (truncated, "EF_SIG_MALFORMED"), (cut_in_the_line, "EF_KILL_LIST"), (too_large, "EF_KILL_LIST"),
        (gone, "EF_KILL_LIST_UNREACHABLE"), (without_trust, "EF_TRUST_MISSING"),
        (trust_that_others_write, "EF_TRUST_MALFORMED"), (replayed, "EF_KILL_LIST_REPLAY"),
    ],
)  # fmt: skip
def test_a_list_that_is_refused_changes_nothing_and_is_told(
    host: PullHost, keys: dict[str, Path], fault: Callable[[PullHost, bytes, Path], None], code: str
) -> None:
    """It would place `global` and take the order of the feature back, were it followed."""
    data = host.publish(listed(7, EXEC))
    assert host.visit().rc == 0
    if fault not in (gone, truncated, cut_in_the_line, too_large, of_another_namespace):
        data = host.publish(listed(8, GLOBAL))
    fault(host, data, keys["other"])
    before = {path: was for path, was in host.everything().items() if "/trust/" not in path}
    visited = host.visit()
    assert visited.rc == 1
    assert (visited.status["ok"], visited.status["code"]) == (False, code), visited
    assert visited.journal.startswith(f"{code}: ") and visited.journal.count("\n") == 1
    assert visited.status["problems"] == [visited.journal.rstrip("\n")]
    assert (visited.status["wanted"], visited.status["sequence"]) == (None, 7)
    assert {path: was for path, was in host.everything().items() if "/trust/" not in path} == before
    assert "ebpf_fleet_pull_ok 0\n" in (host.state / "metrics.prom").read_text()


def slow(request: BaseHTTPRequestHandler, over: threading.Event, data: bytes) -> None:
    """All of a good list, a byte at a time."""
    request.send_response(200)
    request.end_headers()
    with contextlib.suppress(OSError):
        for byte in data:
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
            if over.wait(0.1):
                return


def elsewhere(request: BaseHTTPRequestHandler, over: threading.Event, data: bytes) -> None:
    """The list itself where it is asked for by another name, a redirect to there else."""
    request.send_response(200 if request.path == "/moved" else 302)
    request.send_header("Location", "/moved")
    request.end_headers()
    request.wfile.write(data)


@pytest.mark.parametrize(("server", "words"), [(slow, "was not fetched within 1 s"), (elsewhere, "a redirect")])
def test_a_server_that_is_slow_or_leads_elsewhere_is_not_followed(
    host: PullHost, server: Callable[[BaseHTTPRequestHandler, threading.Event, bytes], None], words: str
) -> None:
    over = threading.Event()
    data = publish.seal(listed(1, GLOBAL), host.key)
    with serving(lambda request: server(request, over, data)) as url:
        host.settle(f"{url}/kill-list", timeout_s=1)
        visited = host.visit()
        over.set()
    assert (visited.rc, visited.status["code"]) == (1, "EF_KILL_LIST_UNREACHABLE") and words in visited.journal
    assert host.orders() == {"run": [], "etc": []} and not host.mark.exists()


def test_a_mark_that_cannot_be_read_takes_no_list(host: PullHost) -> None:
    host.publish(listed(7, EXEC))
    host.visit()
    host.mark.write_text("{}")
    host.publish(listed(8, GLOBAL))
    visited = host.visit()
    assert (visited.rc, visited.status["code"]) == (1, "EF_PULL_STATE")
    assert host.orders()["run"] == ["feature.exec_events"] and host.mark.read_text() == "{}"
    host.mark.unlink()
    assert host.visit().rc == 0 and host.orders()["run"] == ["global"]


def test_a_full_disk_keeps_no_order_from_the_host_and_nothing_is_taken_back(host: PullHost) -> None:
    host.publish(listed(7, EXEC))
    host.visit()
    host.publish(listed(8, GLOBAL))
    place = host.mark.parent
    full = f"mount -t tmpfs -o size=4k tmpfs {place} && ! dd if=/dev/zero of={place}/full bs=1k 2>/dev/null || exit 99"
    keep = f"cp {host.mark} {host.root}/kept; {full}; true"
    visited = host.visit(keep)
    if visited.rc == 99:
        pytest.skip("a small file system cannot be mounted here")
    # Here the mark is on the disk that is full, so this host never saw a list; the orders come first all the same.
    assert (visited.rc, visited.status["code"]) == (1, "EF_DISK_FULL"), visited
    assert visited.status["placed"] == ["global"] and visited.status["taken"] == []
    assert host.orders()["run"] == ["feature.exec_events", "global"]
    assert json.loads(host.mark.read_bytes())["sequence"] == 7
    assert host.visit().status["taken"] == ["feature.exec_events"]


def test_a_host_whose_clock_is_behind_obeys_and_takes_nothing_back(host: PullHost) -> None:
    host.publish(listed(7, EXEC))
    host.visit()
    host.publish(listed(8, GLOBAL, issued=int(time.time()) + 3600))
    visited = host.visit()
    assert (visited.rc, visited.status["code"]) == (1, "EF_CLOCK_UNKNOWN")
    assert host.orders()["run"] == ["feature.exec_events", "global"]
    # It is remembered all the same: what it replaced cannot come back.
    host.publish(listed(7, EXEC))
    assert host.visit().status["code"] == "EF_KILL_LIST_REPLAY"


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_a_second_visit_at_the_same_time_leaves_it_to_the_first(host: PullHost, kind: int) -> None:
    host.publish(listed(1, GLOBAL))
    host.state.mkdir(parents=True)
    with (host.state / "lock").open("wb") as lock:
        fcntl.flock(lock, kind)
        visited = host.visit()
    assert visited.rc == 1 and visited.journal.startswith("EF_LOCKED: ") and host.orders()["run"] == []
    assert host.visit().rc == 0


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "ebpf.fleet/pull/v1"}', None])
def test_settings_that_cannot_be_used_are_told_apart(host: PullHost, text: str | None) -> None:
    host.publish(listed(1, GLOBAL))
    (host.etc / "pull.json").unlink()
    if text is not None:
        (host.etc / "pull.json").write_text(text)
    visited = host.visit()
    assert visited.rc == 2 and visited.journal.startswith("EF_ARGUMENT: ") and host.orders()["run"] == []


# ---- the policy ----


def test_keep_keeps_what_holds_whatever_becomes_of_the_list(host: PullHost) -> None:
    host.publish(listed(1, EXEC))
    host.visit()
    (host.served / "kill-list").unlink()
    host.expire_lease()
    visited = host.visit()
    assert (visited.rc, visited.status["lease_left_s"], visited.status["detached"]) == (1, 0, False)
    assert host.orders() == {"run": ["feature.exec_events"], "etc": ["feature.exec_events"]}


def test_detach_turns_everything_off_when_the_lease_is_over_and_back_on_with_the_next_list(host: PullHost) -> None:
    settings = json.loads((host.etc / "pull.json").read_text())
    host.settle(settings["location"], policy="detach")
    host.publish(listed(1, EXEC))
    assert host.visit().rc == 0
    (host.served / "kill-list").unlink()
    held = host.visit()
    assert (held.rc, held.status["detached"], host.orders()["run"]) == (1, False, ["feature.exec_events"])
    assert 0 < held.status["lease_left_s"] <= 20
    host.expire_lease()
    over = host.visit()
    assert (over.rc, over.status["detached"], over.status["placed"]) == (1, True, ["global"])
    assert [line.partition(":")[0] for line in over.status["problems"]] == ["EF_KILL_LIST_UNREACHABLE", "EF_PULL_LEASE"]
    assert host.orders()["run"] == ["feature.exec_events", "global"]
    assert host.visit().status["detached"] is True
    host.publish(listed(1, EXEC, seconds=3600))  # of a lower time, so another list of that sequence: refused
    assert host.visit().status["detached"] is True
    host.publish(listed(2, EXEC))
    back = host.visit()
    assert (back.rc, back.status["taken"], back.status["detached"]) == (0, ["global"], False)
    assert host.orders() == {"run": ["feature.exec_events"], "etc": ["feature.exec_events"]}


@pytest.mark.parametrize("status", [None, "", "{}", '{"schema": "ebpf.fleet/pull-status/v1", "boot_id": "other",'
                                    ' "contact_boottime_ns": 1}'])  # fmt: skip
def test_detach_has_no_lease_before_the_first_list_of_a_boot(host: PullHost, status: str | None) -> None:
    host.settle("file:///nowhere/kill-list", policy="detach")
    if status is not None:
        host.state.mkdir(parents=True)
        (host.state / "status.json").write_text(status)
    visited = host.visit()
    assert (visited.rc, visited.status["detached"]) == (1, True)
    assert host.orders() == {"run": ["global"], "etc": ["global"]}


def test_the_first_visit_of_a_boot_waits_for_its_location(host: PullHost) -> None:
    """The list comes while the visit waits; without the wait the policy would have decided before."""
    asked: list[int] = []

    def late(request: BaseHTTPRequestHandler) -> None:
        asked.append(1)
        if len(asked) > 1:
            host.publish(listed(1, EXEC))
        host.answer(request)

    with serving(late) as url:
        host.settle(f"{url}/kill-list", policy="detach", wait_s=60)
        assert host.visit().rc == 0 and len(asked) == 2
        # A later visit does not.
        (host.served / "kill-list").unlink()
        asked.clear()
        assert host.visit().rc == 1 and len(asked) == 1
    assert host.orders()["run"] == ["feature.exec_events"]


# ---- with people ----


def by_script(host: PullHost, state: str) -> str:
    """What the kill script answers."""
    script = killscript.render(["global"], state, root=str(host.root), deadline_seconds=5, grace_seconds=1)
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=120).stdout


def test_a_person_who_orders_what_the_list_ordered_is_the_one_who_takes_it_back(host: PullHost) -> None:
    host.publish(listed(1, GLOBAL))
    host.visit()
    by_script(host, "engaged")
    host.publish(listed(2))
    visited = host.visit()
    assert (visited.rc, visited.status["taken"], visited.status["of_people"]) == (0, [], ["global"])
    assert host.orders() == {"run": ["global"], "etc": ["global"]}
    assert "kill list" not in by_script(host, "released")
    assert host.orders() == {"run": [], "etc": []}


def test_a_release_by_a_person_does_not_outlast_the_list(host: PullHost) -> None:
    host.publish(listed(1, GLOBAL))
    host.visit()
    said = by_script(host, "released")
    assert "the orders are gone" in said and "a kill list had placed it, and does so again while it has it" in said
    assert host.orders() == {"run": [], "etc": []}
    assert host.visit().status["placed"] == ["global"] and host.orders()["run"] == ["global"]


# ---- the loader ----


def in_kernel(ids: dict[int, str]) -> set[int]:
    """Which of these programs the kernel has, by bpftool."""
    return {one["id"] for one in ours_in_kernel("prog")} & set(ids)


@pytest.mark.kernel
@pytest.mark.skipif(not can_sandbox(), reason="loading programs and a process namespace of its own need root")
def test_the_loader_detaches_what_the_list_orders_and_attaches_it_again(
    tmp_path: Path, loader: Path, feature_objects: Path, trust: Trust, keys: dict[str, Path]
) -> None:
    both = ["exec_events", "runqlat"]
    sandbox = Sandbox(loader, tmp_path / "root", trust, {name: feature_of(feature_objects, name) for name in both})
    host = PullHost(tmp_path / "root", tmp_path, keys["kill"])
    try:
        sandbox.start(*both)
        ids = {int(line.split()[0]): line.split()[2] for line in (sandbox.service.state / "programs").open()}
        with serving(host.answer) as url:
            host.settle(f"{url}/kill-list")
            host.publish(listed(1, EXEC))
            assert host.visit().rc == 0
            sandbox.wait(lambda: sandbox.attached() == ["runqlat"], "one feature off")
            stays = {number for number, name in ids.items() if name == "runqlat"}
            assert stays and stays != set(ids)
            wait_for(lambda: in_kernel(ids) == stays, f"only {stays} left of {ids}")
            host.publish(listed(2, GLOBAL))
            assert host.visit().rc == 0
            wait_for(lambda: not in_kernel(ids), "nothing left")
            host.publish(listed(1, EXEC))
            assert host.visit().status["code"] == "EF_KILL_LIST_REPLAY" and sandbox.attached() == []
            host.publish(listed(3))
            assert host.visit().rc == 0
            sandbox.wait(lambda: sorted(sandbox.attached()) == both, "both on again")
    finally:
        sandbox.stop()


# ---- the publisher ----


def published(folder: Path, key: Path, *options: str, **more: Any) -> dict[str, Any]:
    given = {"path": str(folder / "kill-list"), "signing_key": str(key), "orders": [GLOBAL], **more}
    return run_one(folder, "kill_list", *options, **given)


def test_the_module_publishes_the_next_list_and_leaves_one_that_says_the_same(
    tmp_path: Path, keys: dict[str, Path]
) -> None:
    path, key = tmp_path / "kill-list", keys["kill"]
    checked = published(tmp_path, key, "--check", "--diff")
    assert checked["changed"] and not path.exists() and not (tmp_path / ".kill-list.lock").exists()
    first = published(tmp_path, key)
    assert (first["changed"], first["sequence"], first["orders"]) == (True, 1, [GLOBAL])
    data = path.read_bytes()
    assert not published(tmp_path, key)["changed"] and path.read_bytes() == data
    second = published(tmp_path, key, orders=[])
    assert (second["changed"], second["sequence"], second["orders"]) == (True, 2, [])
    for sequence in (1, 2):
        refused = published(tmp_path, key, sequence=sequence)
        assert refused["failed"] and refused["reason_code"] == "EF_KILL_LIST_REPLAY"
    assert published(tmp_path, key, sequence=100)["sequence"] == 100
    path.write_text("precious\n")
    refused = published(tmp_path, key)
    assert refused["failed"] and refused["reason_code"] == "EF_SIG_MISSING" and path.read_text() == "precious\n"


@pytest.mark.parametrize(("age", "renewed"), [(200_000, False), (400_000, True)])
def test_a_list_is_renewed_when_half_of_its_time_is_over(
    tmp_path: Path, keys: dict[str, Path], age: int, renewed: bool
) -> None:
    there = publish.seal(listed(5, GLOBAL, issued=int(time.time()) - age, seconds=604_800), keys["kill"])
    (tmp_path / "kill-list").write_bytes(there)
    done = published(tmp_path, keys["kill"])
    assert (done["changed"], done["sequence"]) == (renewed, 6 if renewed else 5)
    assert ((tmp_path / "kill-list").read_bytes() == there) is not renewed


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"orders": [{"scope": "globl"}]}, "EF_KILL_LIST"), ({"orders": [{**GLOBAL, "hosts": []}]}, "EF_KILL_LIST"),
        ({"lifetime": 59}, "EF_ARGUMENT"), ({"lifetime": 31622401}, "EF_ARGUMENT"),
        ({"renew_before": -1}, "EF_ARGUMENT"),
        ({"lifetime": 60, "renew_before": 61}, "EF_ARGUMENT"), ({"sequence": 0}, "EF_KILL_LIST_REPLAY"),
        ({"signing_key": "/nowhere/key"}, "EF_KEY"),
    ],
)  # fmt: skip
def test_the_module_refuses_what_no_host_would_follow(
    tmp_path: Path, keys: dict[str, Path], given: dict[str, Any], code: str
) -> None:
    refused = published(tmp_path, keys["kill"], **given)
    assert refused["failed"] and refused["reason_code"] == code, refused
    assert not (tmp_path / "kill-list").exists()


def test_what_the_playbook_publishes_a_host_follows(host: PullHost) -> None:
    given = {
        "ebpf_fleet_kill_list": str(host.served / "kill-list"), "ebpf_fleet_kill_list_signing_key": str(host.key),
        "ebpf_fleet_kill_list_orders": [{**GLOBAL, "cells": ["eu-1"]}],
    }  # fmt: skip
    played = play("kill_list", given, inventory=None)
    assert played.rc == 0 and "sequence: 1" in played.text and "changed=1" in played.text, played.text
    assert host.visit().rc == 0 and host.orders()["run"] == ["global"]
    again = play("kill_list", given, inventory=None)
    assert again.rc == 0 and "changed=0" in again.text, again.text
    taken = play("kill_list", {**given, "ebpf_fleet_kill_list_orders": []}, inventory=None)
    assert taken.rc == 0 and "orders:   none" in taken.text, taken.text
    assert host.visit().rc == 0 and host.orders()["run"] == []
    for wrong in ({"ebpf_fleet_kill_list_orders": "global"}, {"ebpf_fleet_kill_list": ""},
                  {"ebpf_fleet_kill_list_lifetime": 5}):  # fmt: skip
        refused = play("kill_list", {**given, **wrong}, inventory=None)
        assert refused.rc == 2 and "EF_ARGUMENT" in refused.text, refused.text
    assert host.visit().status["sequence"] == 2
