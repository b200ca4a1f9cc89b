# SPDX-License-Identifier: GPL-3.0-or-later
"""Every deed has one record, with who, what and why, in the journal and in a file that only grows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.service import BOTH, Service, both_wanted, feature_of, make_service, ours_in_kernel, wait_for
from tests.loader.test_lease import grant

FILE_LIMIT = 4 << 20  # EF_AUDIT_FILE_LIMIT
KEYS = {
    "schema", "seq", "time", "boottime_ns", "boot_id", "pid", "event", "bundle_digest", "feature", "variant",
    "programs", "links", "reason_code", "reason", "who",
}  # fmt: skip
EVENTS = {
    "start", "stop", "load", "attach", "detach", "refuse", "kill", "unkill", "degrade", "recover", "policy",
    "desired", "lease", "expire", "trust",
}  # fmt: skip
SOURCES = {"kill file", "desired", "policy", "lease", "budget", "backpressure", "contract", "trust", "loader", "signal"}


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with both features wanted; not started."""
    yield from both_wanted(loader, tmp_path, trust, feature_objects)


def path_of(service: Service, rotation: int = 0) -> Path:
    return service.log / ("audit.jsonl" + (f".{rotation}" if rotation else ""))


def records(service: Service, event: str | None = None) -> list[dict[str, Any]]:
    """The records of the file, each held against the schema."""
    if not path_of(service).exists():
        return []
    found = [json.loads(line) for line in path_of(service).read_text().splitlines()]
    for one in found:
        assert set(one) == KEYS and one["schema"] == "ebpf.fleet/audit/v1"
        assert one["event"] in EVENTS and one["who"]["source"] in SOURCES
        assert set(one["who"]) == {"source", "path", "uid"}
        assert all(set(program) == {"name", "id", "tag"} for program in one["programs"])
        assert one["reason_code"].startswith("EF_") and one["reason"]
    return [one for one in found if event in (None, one["event"])]


def of_journal(service: Service) -> list[dict[str, Any]]:
    lines = (line for line in service.journal().splitlines() if "ebpf.fleet/audit/v1" in line)
    return [json.loads(line) for line in lines]


def one(service: Service, event: str, feature: str | None = None) -> dict[str, Any]:
    """The only record of an event of a feature, once it is there."""

    def there() -> list[dict[str, Any]]:
        return [each for each in records(service, event) if each["feature"] == feature]

    found: list[dict[str, Any]] = wait_for(there, f"a record of {event}")
    assert len(found) == 1, found
    return found[0]


def test_a_life_from_start_to_stop(service: Service) -> None:
    status = service.start_settled()
    ids = {each["id"]: each["tag"] for each in ours_in_kernel("prog")}
    assert service.stop() == 0
    found = records(service)
    assert found == of_journal(service), "file and journal say the same"
    assert [each["seq"] for each in found] == list(range(1, len(found) + 1))
    assert {each["boot_id"] for each in found} == {status["boot_id"]}
    assert {each["pid"] for each in found} == {status["pid"]}
    assert {each["bundle_digest"] for each in found} == {service.bundle.digest}
    assert [each["boottime_ns"] for each in found] == sorted(each["boottime_ns"] for each in found)
    names = [each["event"] for each in found]
    assert names[0] == "start" and names[-1] == "stop"
    assert sorted(names[1:-1]) == sorted(["desired", "policy", *["load", "attach", "detach"] * 2])
    for name in BOTH:
        feature = status["features"][name]
        load, attach, detach = [each for each in found if each["feature"] == name]
        assert (load["event"], attach["event"], detach["event"]) == ("load", "attach", "detach")
        assert load["links"] == [] and load["who"]["source"] == "loader"
        assert attach["links"] == detach["links"] == feature["links"]
        assert attach["programs"] == detach["programs"] == load["programs"]
        assert {each["id"]: each["tag"] for each in attach["programs"]}.items() <= ids.items()
        assert attach["variant"] == detach["variant"] == "full"
        assert attach["who"] == {"source": "desired", "path": str(service.etc / "desired.json"), "uid": 0}
        assert detach["who"]["source"] == "signal"


def test_orders_have_the_owner_of_their_file(service: Service) -> None:
    links = service.start_settled()["features"]["runqlat"]["links"]
    (service.run / "kill.d").mkdir()
    part = service.run / "kill.d" / ".part"
    part.touch()
    os.chown(part, 4711, 4711)
    path = service.run / "kill.d" / "feature.runqlat"
    part.rename(path)
    service.wait_state("runqlat", "killed")
    who = {"source": "kill file", "path": str(path), "uid": 4711}
    kill, detach = one(service, "kill"), one(service, "detach", "runqlat")
    assert kill["who"] == detach["who"] == who
    assert kill["reason_code"] == detach["reason_code"] == "EF_KILLED_FEATURE"
    assert detach["links"] == links, "what was cut is named although it is gone by then"
    path.unlink()
    service.wait_state("runqlat", "attached")
    assert one(service, "unkill")["who"] == {**who, "uid": None}


def test_each_order_is_recorded_once_whatever_comes_and_goes_beside_it(service: Service) -> None:
    service.start_settled()
    first = service.order("feature.runqlat")
    service.wait_state("runqlat", "killed")
    second = service.order("feature.exec_events")
    wait_for(lambda: len(records(service, "kill")) >= 2, "the second order is recorded")
    second.unlink()
    wait_for(lambda: records(service, "unkill"), "its end is recorded")
    first.unlink()
    service.wait_state("runqlat", "attached")
    wait_for(lambda: len(records(service, "unkill")) >= 2, "the end of the first")
    for event, paths in (("kill", [first, second]), ("unkill", [second, first])):
        assert [each["who"]["path"] for each in records(service, event)] == [str(path) for path in paths]


def test_what_is_desired_and_what_is_not(service: Service) -> None:
    service.want("runqlat")
    service.start_settled()
    assert "runqlat/1" in one(service, "desired")["reason"]
    service.want("runqlat", runqlat=8)
    wait_for(lambda: len(records(service, "desired")) == 2, "another sampling is another desire")
    service.want("runqlat", runqlat=8)
    service.want()
    gone = one(service, "detach", "runqlat")
    assert (gone["who"]["source"], gone["reason_code"]) == ("desired", "EF_NOT_WANTED")
    assert len(records(service, "desired")) == 3, "the same again is none"
    service.write_desired(b"{")
    wait_for(lambda: records(service, "desired")[-1]["reason_code"] == "EF_DESIRED_MALFORMED", "malformed is said")


def test_a_lease_from_grant_to_expiry(service: Service) -> None:
    path = grant(service, 600)
    service.start_settled()
    grant(service, 700)
    wait_for(lambda: len(records(service, "lease")) == 2, "a renewal is told")
    grant(service, 0)
    expired = one(service, "expire")
    assert expired["who"] == {"source": "lease", "path": str(path), "uid": 0}
    service.wait_state("runqlat", "off")
    assert one(service, "detach", "runqlat")["reason_code"] == "EF_LEASE_EXPIRED"
    path.unlink()
    wait_for(lambda: len(records(service, "lease")) == 4, "the removal is told")
    granted, renewed, last, removed = records(service, "lease")
    assert granted["who"]["uid"] == 0 and granted["reason"].startswith("granted by 'rollout 7'")
    assert renewed["who"]["uid"] == 0 and renewed["reason"].startswith("renewed")
    assert last["reason"].startswith("renewed") and removed["reason"].startswith("removed")


def test_a_lease_of_a_stranger_has_its_owner(service: Service) -> None:
    path = grant(service, 600)
    os.chown(path, 4711, 4711)
    service.start_settled()
    said = one(service, "lease")
    assert said["who"] == {"source": "lease", "path": str(path), "uid": 4711}
    assert said["reason_code"] == "EF_LEASE_EXPIRED" and "belongs to user 4711" in said["reason"]


def test_a_refused_bundle_and_a_refused_variant(service: Service) -> None:
    manifest = service.bundle.root / "manifest.json"
    data = manifest.read_bytes()
    manifest.write_bytes(data + b" ")
    service.start()
    assert service.process is not None and service.process.wait(20) == 3
    found = records(service)
    assert [each["event"] for each in found] == ["start", "refuse", "stop"]
    assert found[1]["reason_code"] == "EF_SIG_BAD" and found[1]["bundle_digest"] is None


def test_a_variant_that_the_kernel_cannot_have_is_refused_by_name(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    contract, objects = feature_of(feature_objects, "runqlat")
    contract["variants"][0]["requires"] = ["kernel:99.0", *contract["variants"][0]["requires"]]
    service = make_service(loader, tmp_path, trust, {"runqlat": (contract, objects)})
    service.want("runqlat")
    try:
        service.start_settled()
        refused = one(service, "refuse", "runqlat")
        assert (refused["variant"], refused["reason_code"]) == ("full", "EF_KERNEL_TOO_OLD")
        assert one(service, "attach", "runqlat")["variant"] == "reduced"
    finally:
        service.stop(signal.SIGKILL)


def test_a_full_file_is_rotated_and_the_oldest_goes(service: Service) -> None:
    filler = b'{"old": "%d"}\n'
    for rotation in range(4):
        line = filler % rotation
        path_of(service, rotation).write_bytes(line * (FILE_LIMIT // len(line)))
    service.start_settled()
    assert records(service)[0]["event"] == "start"
    for rotation in range(1, 4):
        assert path_of(service, rotation).read_bytes().startswith(filler % (rotation - 1)), rotation
        assert path_of(service, rotation).stat().st_size <= FILE_LIMIT
    assert not path_of(service, 4).exists()
    assert service.now()["audit_lost"] == 0


def test_a_torn_line_is_ended_by_the_next_start(service: Service) -> None:
    path_of(service).write_bytes(b'{"seq": 1}\n{"seq": 2, "ti')
    service.start_settled()
    lines = path_of(service).read_text().splitlines()
    assert lines[1] == '{"seq": 2, "ti', "what was torn stands alone"
    assert [json.loads(line)["seq"] for line in lines[2:]] == list(range(1, len(lines) - 1))


def test_what_is_there_is_only_added_to_and_a_file_that_goes_is_made_anew(service: Service) -> None:
    service.start_settled()
    before = path_of(service).read_bytes()
    order = service.order("feature.runqlat")
    service.wait_state("runqlat", "killed")
    assert path_of(service).read_bytes().startswith(before)
    assert path_of(service).stat().st_mode & 0o777 == 0o640
    path_of(service).rename(service.log / "kept")
    order.unlink()
    one(service, "unkill")
    path_of(service).unlink()
    service.order("global")
    one(service, "kill")


@pytest.mark.parametrize("kind", ["symlink", "folder", "fifo"])
def test_what_is_no_plain_file_is_not_written_to(service: Service, kind: str) -> None:
    victim = service.folder / "victim"
    victim.write_text("mine\n")
    if kind == "symlink":
        path_of(service).symlink_to(victim)
    elif kind == "folder":
        path_of(service).mkdir()
    else:
        os.mkfifo(path_of(service))
    service.start_settled()
    service.order("global")
    service.wait_state("runqlat", "killed")
    assert victim.read_text() == "mine\n"
    lost = service.now()["audit_lost"]
    assert lost > 0
    assert f"cannot write {path_of(service)}" in service.journal()
    assert [each["seq"] for each in of_journal(service)] == list(range(1, lost + 1)), "the journal has them all"


@pytest.fixture
def small_disk(service: Service) -> Iterator[Path]:
    """The log folder is a file system of 64 KiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(service.log)], check=True)
    yield service.log
    service.stop(signal.SIGKILL)
    subprocess.run(["umount", str(service.log)], check=True)


def test_a_full_disk_costs_records_of_the_file_whole_ones_and_counted(service: Service, small_disk: Path) -> None:
    service.want("runqlat")
    service.start_settled()
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            pass  # it is full
    order = service.order("global")
    for _ in range(20):
        service.wait_state("runqlat", "killed")
        order.unlink()
        service.wait_state("runqlat", "attached")
        order.touch()
    wait_for(lambda: service.now()["audit_lost"], "records are lost")
    service.wait_state("runqlat", "killed")
    filler.unlink()
    order.unlink()
    wait_for(lambda: "audit.jsonl can be written again" in service.journal(), "it goes on")
    service.wait_state("runqlat", "attached")
    assert service.stop() == 0
    written, told = records(service), of_journal(service)
    assert len(told) == told[-1]["seq"], "the journal has them all"
    numbers = [each["seq"] for each in written]
    assert numbers == sorted(set(numbers)) and numbers[-1] == told[-1]["seq"]
    assert len(written) < len(told), "the disk was never full: nothing was tested"


def test_a_missing_log_folder_is_no_reason_not_to_run(service: Service) -> None:
    service.log.rmdir()
    service.start_settled()
    service.wait_state("runqlat", "attached")
    wait_for(lambda: service.now()["audit_lost"] > 0, "it is counted")


def test_killed_at_any_moment_every_line_but_the_last_is_whole(service: Service) -> None:
    for wait in (0.0, 0.05, 0.1, 0.2, 0.4):
        service.start()
        try:
            assert service.process is not None
            service.process.wait(wait)
        except subprocess.TimeoutExpired:
            service.stop(signal.SIGKILL)
    service.start_settled()
    assert service.stop() == 0
    starts = 0
    for line in path_of(service).read_text().splitlines():
        try:
            starts += json.loads(line)["event"] == "start"
        except ValueError:
            assert not line.endswith("}"), line
    assert starts >= 2, "it was always killed before it began"
