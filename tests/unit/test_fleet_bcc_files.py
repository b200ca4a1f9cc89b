# SPDX-License-Identifier: GPL-3.0-or-later
"""What the BCC collector reads and writes of a host: files, orders, /proc, the journal and systemd."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import socket
import stat
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import (
    attach,
    desired,
    files,
    journal,
    kernel,
    loader_status,
    orders,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys

# ---- files ----


def test_the_limits_are_those_of_the_loader() -> None:
    assert (files.MAX_JSON_BYTES, files.MAX_STATUS_BYTES) == (1 << 20, 4 << 20)


@pytest.mark.parametrize("size", [0, 9, 10])
def test_a_file_of_up_to_its_limit_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert files.read_regular(path, 10) == b"x" * size


def refused(path: Path, number: int, text: str, **how: Any) -> None:
    with pytest.raises(OSError, match=text) as found:
        files.read_regular(path, 10, **how)
    assert found.value.errno == number
    assert found.value.filename == str(path) or found.value.filename == path


def test_what_is_larger_or_not_a_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for size in (11, 5000):
        path.write_bytes(b"x" * size)
        refused(path, errno.EFBIG, "is larger than 10 bytes")
    refused(tmp_path / "absent", errno.ENOENT, "No such file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", errno.EINVAL, "is not a regular file")
    refused(tmp_path, errno.EINVAL, "is not a regular file")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, Path.touch, lambda path: path.write_bytes(b"x" * 11)])
def test_no_descriptor_stays_open(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """The service reads its files again and again, whatever lies there."""
    path = tmp_path / "file"
    make(path)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with contextlib.suppress(OSError):
            files.read_regular(path, 10)
    assert os.listdir("/proc/self/fd") == before


def test_no_more_is_read_than_tells_that_it_is_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    asked: list[int] = []
    fdopen = os.fdopen

    class Stream:
        def __init__(self, fd: int, mode: str) -> None:
            self.stream = fdopen(fd, mode)

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_error: Any) -> None:
            self.stream.close()

        def read(self, size: int) -> bytes:
            asked.append(size)
            return self.stream.read(size)

    monkeypatch.setattr(files.os, "fdopen", Stream)
    refused(path, errno.EFBIG, "is larger")
    assert asked == [11]


def test_a_link_is_followed_only_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    (tmp_path / "link").symlink_to("file")
    refused(tmp_path / "link", errno.ELOOP, "symbolic links")
    assert files.read_regular(tmp_path / "link", 10, follow=True) == b"one"


def test_a_file_is_opened_for_reading_without_waiting_and_is_not_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"one")
    flags: list[int] = []
    opened = os.open
    monkeypatch.setattr(files.os, "open", lambda path, given: flags.append(given) or opened(path, given))
    files.read_regular(tmp_path / "file", 10)
    files.read_regular(tmp_path / "file", 10, follow=True)
    common = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    assert flags == [common | os.O_NOFOLLOW, common]


def test_a_small_file_is_read_as_far_as_it_is_small(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"gr\xfcn")
    assert files.read_small(str(path)) == "gr\ufffdn"
    path.write_text("x" * 65537)
    assert files.read_small(str(path)) == "x" * 65536
    path.write_text("x" * 65535)
    assert files.read_small(str(path)) == "x" * 65535
    assert files.read_small(str(tmp_path / "absent")) == ""


def test_a_document_that_is_none_is_told_by_its_name() -> None:
    assert files.parse_json(b'{"a":1}', "it") == {"a": 1}
    with pytest.raises(ValueError, match="^it: .*"):
        files.parse_json(b"{", "it")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(files, "say", lambda level, text: lines.append((level, text)))
    return lines


@pytest.mark.parametrize("mask", [0, 0o077])
def test_a_file_is_replaced_whole_and_for_all_to_read(tmp_path: Path, said: list[Any], mask: int) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"of a life before, and longer")
    (tmp_path / "file").write_bytes(b"old")
    before = os.umask(mask)
    try:
        files.write_atomic(tmp_path, "file", b"new")
        files.write_atomic(tmp_path, "other", b"")
    finally:
        os.umask(before)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"new", "other": b""}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o644}
    assert said == []


def test_it_is_begun_beside_the_file_and_never_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[Any]
) -> None:
    asked: list[tuple[Any, ...]] = []
    opened = os.open
    monkeypatch.setattr(files.os, "open", lambda *given: asked.append(given) or opened(*given))
    files.write_atomic(tmp_path, "file", b"new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    assert asked == [(tmp_path / ".file.tmp", flags, 0o644)]
    (tmp_path / "elsewhere").write_bytes(b"kept")
    (tmp_path / ".file.tmp").symlink_to("elsewhere")
    files.write_atomic(tmp_path, "file", b"newer")
    assert (tmp_path / "elsewhere").read_bytes() == b"kept" and (tmp_path / "file").read_bytes() == b"new"
    assert len(said) == 1


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, said: list[tuple[int, str]]) -> None:
    files.write_atomic(tmp_path / "absent", "file", b"new")
    (line,) = said
    assert line == (
        3,
        f"cannot write {tmp_path}/absent/file: No such file or directory; "
        "see that the folder belongs to the unit's user",
    )


# ---- kill orders ----

EVERYTHING = orders.Order("global", "/a/global")
FAMILY = orders.Order("family.6.1", "/a/family.6.1")
ONE = orders.Order("feature.one", "/a/feature.one")


@pytest.mark.parametrize(
    ("held", "everything", "of_one", "of_two"),
    [
        ([], None, None, None),
        ([ONE], None, ONE, None),
        ([FAMILY, ONE], FAMILY, FAMILY, FAMILY),
        ([ONE, FAMILY, EVERYTHING], EVERYTHING, EVERYTHING, EVERYTHING),
        ([orders.Order("feature.one", "/b"), ONE], None, orders.Order("feature.one", "/b"), None),
    ],
)
def test_an_order_of_everything_goes_before_one_of_a_feature(
    held: list[orders.Order], everything: Any, of_one: Any, of_two: Any
) -> None:
    found = orders.Orders(held, [])
    assert (found.everything(), found.of_feature("one"), found.of_feature("two")) == (everything, of_one, of_two)


def test_the_orders_of_both_folders_are_read_by_their_paths(tmp_path: Path) -> None:
    names = {
        "b": ["global", "feature.one", "feature.typo", ".feature.two", ".odd", "family.5.10"],
        "a": ["family.6.1", "odd", "feature.two", os.fsdecode(b"feature.\xff")],
    }
    for folder, each in names.items():
        (tmp_path / folder).mkdir()
        for name in each:
            (tmp_path / folder / name).touch()
    folders = [tmp_path / "b", tmp_path / "absent", tmp_path / "a"]
    found = orders.read_orders(folders, ["6.1"], ["one", "two"])
    assert [order.path for order in found.orders] == [
        f"{tmp_path}/{path}" for path in ("a/family.6.1", "a/feature.two", "b/feature.one", "b/global")
    ]
    assert [order.scope for order in found.orders] == ["family.6.1", "feature.two", "feature.one", "global"]
    assert found.unknown == [f"{tmp_path}/{path}" for path in ("a/feature.?", "a/odd", "b/feature.typo")]


def test_a_folder_that_cannot_be_read_keeps_everything_off_and_the_other_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/feature.one").touch()
    found = orders.read_orders([tmp_path / "file", tmp_path / "b"], [], None)
    assert found.orders == [("feature.one", str(tmp_path / "b/feature.one")), ("global", str(tmp_path / "file"))]


# ---- what the loader says ----


def loader_says(**entry: Any) -> Any:
    made = loader_status.LoaderStatus(Path("/none"), "d")
    made.features = {"probe": entry}
    return made.could_not("probe")


def test_why_bcc_may_not_run_it_is_the_loaders_word() -> None:
    assert loader_says(state="attached", variant="full") == (
        None,
        ("EF_NOT_WANTED", "the loader runs it (variant full)"),
    )
    assert loader_says(state="killed", reason_code="EF_OTHER", reason="r") == (None, ("EF_OTHER", "r"))
    for code in ("EF_KILLED_GLOBAL", "EF_KILLED_FEATURE", "EF_KILLED_FAMILY"):
        assert loader_says(state="disabled", reason_code=code, reason="r") == (None, (code, "r"))
    told = "the loader has it in state disabled: r"
    assert loader_says(state="disabled", reason_code="EF_EXPIRED", reason="r") == (None, ("EF_EXPIRED", told))
    told = "the loader has it in state shed: r"
    assert loader_says(state="shed", reason_code="EF_BUDGET_CPU", reason="r") == (None, ("EF_BUDGET_CPU", told))
    assert loader_says(state="disabled", reason_code="EF_NO_BTF", reason="r") == (("EF_NO_BTF", "r"), ("EF_OK", ""))


def test_a_feature_of_which_the_loader_says_nothing_is_not_run() -> None:
    made = loader_status.LoaderStatus(Path("/none"), "d")
    told = (None, ("EF_UNKNOWN", "the loader has not been heard yet; it is asked first"))
    assert made.could_not("probe") == told
    made.features = {"probe": "text"}
    assert made.could_not("probe") == told
    made.features = {}
    made.listen()
    assert made.could_not("probe")[1].text.startswith("the loader says nothing ([Errno 2] No such file")
    assert loader_status.LOADER_GRACE_SECONDS == 30


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A status that is trusted: of this boot and of process 7, which started at 1000000000 ns."""
    monkeypatch.setattr(loader_status, "boot_id", lambda: "this boot")
    monkeypatch.setattr(loader_status, "process_start_ns", lambda pid: 1_000_000_000 if pid == 7 else None)
    return {
        "boot_id": "this boot", "pid": 7, "started_boottime_ns": 1_000_000_000, "bundle": {"digest": "d"},
        "features": {"probe": {}}, "stats_enabled": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, None),
        ({"started_boottime_ns": 1_020_000_000}, None),
        ({"started_boottime_ns": 980_000_000}, None),
        ({"started_boottime_ns": 1_020_000_001}, "the process that wrote its status is gone"),
        ({"started_boottime_ns": 979_999_999}, "the process that wrote its status is gone"),
        ({"pid": 8}, "the process that wrote its status is gone"),
        ({"boot_id": "another"}, "its status is of another boot"),
        ({"features": []}, "it does not run this bundle"),
        ({"bundle": {"digest": "e"}}, "it does not run this bundle"),
    ],
)
def test_a_loader_is_heard_that_lives_and_runs_our_bundle(
    trusted: dict[str, Any], changes: dict[str, Any], text: str | None
) -> None:
    made = loader_status.LoaderStatus(Path("/none"), "d")
    if text is None:
        assert made._trusted({**trusted, **changes}) == {**trusted, **changes}
        return
    with pytest.raises(ValueError, match=f"^{text}$"):
        made._trusted({**trusted, **changes})


@pytest.mark.parametrize("stats", [True, False])
def test_what_was_heard_is_kept_with_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: dict[str, Any], stats: bool
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 50.0)
    (tmp_path / "status.json").write_text(json.dumps({**trusted, "stats_enabled": stats}))
    made = loader_status.LoaderStatus(tmp_path / "status.json", "d")
    assert (made.features, made.stats_enabled, made.heard) == ({}, False, None)
    made.listen()
    assert (made.features, made.stats_enabled, made.heard) == ({"probe": {}}, stats, 50.0)


# ---- desired.json ----


@pytest.mark.parametrize(
    ("value", "counts"),
    [(1, True), (0, False), (-1, False), (2**32 - 1, True), (2**32, False), (True, False), (1.0, False), ("1", False)],
)
def test_a_number_of_events_is_an_integer_of_32_bits(value: Any, counts: bool) -> None:
    assert desired.is_count(value) is counts


WISH = {"schema": "ebpf.fleet/desired/v1", "bundle_digest": "d", "features": {"probe": {"enabled": True}}}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"schema": "x"}, "field 'schema': must be ebpf.fleet/desired/v1"),
        ({"odd": 1}, "field 'odd': is not known here"),
        ({"bundle_digest": "e"}, "field 'bundle_digest': is of another bundle than the one that runs"),
        ({"fallbacks": {}}, "field 'fallbacks': must be a list of fallbacks"),
        ({"fallbacks": ["bcc", "x"]}, "field 'fallbacks': must be a list of fallbacks"),
        ({"features": []}, "field 'features': must be an object"),
        ({"features": {"Probe": {"enabled": True}}}, "field 'Probe': must be a feature with 'enabled' true or false"),
        ({"features": {"probe": []}}, "field 'probe': must be a feature with 'enabled' true or false"),
        ({"features": {"probe": {}}}, "field 'probe': must be a feature with 'enabled' true or false"),
        ({"features": {"probe": {"enabled": True, "x": 1}}}, "field 'probe': has 'enabled' and 'sample_every'"),
        ({"features": {"probe": {"enabled": True, "sample_every": 0}}}, "field 'probe': has 'enabled' and 'sample_ev"),
    ],
)
def test_what_is_wrong_with_a_wish_is_told_by_its_field(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        desired.check_desired({**WISH, **changes}, "d")


@pytest.mark.parametrize(
    ("changes", "bcc"),
    [({}, False), ({"bundle_digest": None}, False), ({"fallbacks": []}, False), ({"fallbacks": ["bcc", "bcc"]}, True)],
)
def test_a_wish_without_what_may_be_left_out_is_one(changes: dict[str, Any], bcc: bool) -> None:
    assert desired.check_desired({**WISH, **changes}, "d") == (WISH["features"], bcc, None)


@pytest.mark.parametrize("entry", [{"enabled": False}, {"enabled": True, "sample_every": 2**32 - 1}])
def test_a_wish_may_have_a_sampling(entry: dict[str, Any]) -> None:
    assert desired.check_desired({**WISH, "features": {"probe": entry}}, "d").features == {"probe": entry}


def test_a_wish_is_read_through_a_link_and_its_fault_is_told(tmp_path: Path) -> None:
    path = tmp_path / "desired.json"
    (tmp_path / "there").write_text('{"schema":"ebpf.fleet/desired/v1","bundle_digest":null,"features":{}}')
    path.symlink_to("there")
    assert desired.read_desired(path, "d") == ({}, False, None)
    (tmp_path / "there").write_text('{"schema":"x"}')
    found = desired.read_desired(path, "d").error
    assert found is not None
    text = f"{path}: field 'schema': must be ebpf.fleet/desired/v1; deploy the release again"
    assert found == ("EF_DESIRED_MALFORMED", text)
    (tmp_path / "there").unlink()
    assert desired.read_desired(path, "d").error == ("EF_NO_DESIRED", f"there is no {path}")
    path.unlink()
    path.mkdir()
    found = desired.read_desired(path, "d").error
    assert found is not None and found.text == f"{path}: is not a regular file; deploy the release again"


# ---- the journal and systemd ----


def test_what_is_printable_goes_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    printable = "".join(map(chr, range(0x20, 0x7F)))
    journal.say(5, f"\x1f{printable}\x7f", "")
    assert capfd.readouterr().err == f"?{printable}?\n"


@pytest.mark.parametrize(("length", "shown"), [(3899, 3899), (3900, 3900), (3901, 3900)])
def test_a_line_is_cut_at_its_end(capfd: pytest.CaptureFixture[str], length: int, shown: int) -> None:
    journal.say(5, "x" * length)
    assert capfd.readouterr().err == f"ebpf-fleet-bcc: {'x' * shown}\n"


def test_a_line_is_dropped_where_no_reader_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(journal.select, "select", lambda *given: asked.append(given) or ([], [], []))
    monkeypatch.setattr(journal.os, "write", lambda *_given: pytest.fail("it would wait"))
    journal.say(5, "text")
    assert asked == [([], [2], [], 0)]


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_closed_journal_stops_nothing(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(*_given: Any) -> None:
        raise error("no")

    monkeypatch.setattr(journal.select, "select", refuse)
    journal.say(5, "text")


@pytest.mark.parametrize("abstract", [True, False])
def test_systemd_is_told_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"ebpf-fleet-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name if abstract else name)
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        journal.notify("READY=1\nSTATUS=grün \udcff")
        assert listener.recv(4096) == "READY=1\nSTATUS=grün ?".encode()


def test_without_systemd_no_one_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    journal.notify("READY=1")
    monkeypatch.setattr(journal.socket, "socket", lambda *_given: pytest.fail("there is no one"))
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("NOTIFY_SOCKET")
        else:
            monkeypatch.setenv("NOTIFY_SOCKET", value)
        journal.notify("READY=1")


def test_systemd_is_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        made: list[bool] = []

        class Sender(socket.socket):
            def sendto(self, *given: Any) -> int:  # type: ignore[override]
                made.append(self.getblocking())
                return super().sendto(*given)

        monkeypatch.setattr(journal.socket, "socket", Sender)
        journal.notify("READY=1")
    assert made == [False]


# ---- the kernel ----


def test_a_call_has_its_number_on_this_machine_and_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(kernel, "LIBC", SimpleNamespace(syscall=lambda *given: done.append(given) or 0))
    monkeypatch.setattr(bpfsys, "syscall_number", lambda table: table["number"])
    assert kernel.system_call({"number": 321}, 1, 2) == 0  # type: ignore[dict-item]
    assert done == [(321, 1, 2)]


@pytest.mark.parametrize(("result", "fails"), [(-1, True), (0, False), (5, False)])
def test_a_result_below_zero_is_the_error(monkeypatch: pytest.MonkeyPatch, result: int, fails: bool) -> None:
    monkeypatch.setattr(kernel, "LIBC", SimpleNamespace(syscall=lambda *_given: result))
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EBUSY)
    if not fails:
        assert kernel.system_call(bpfsys.BPF_NUMBERS) == result
        return
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)) as found:
        kernel.system_call(bpfsys.BPF_NUMBERS)
    assert found.value.errno == errno.EBUSY


def test_a_machine_whose_calls_are_not_known_has_none() -> None:
    with pytest.raises(OSError, match="machine") as found:
        kernel.system_call({})
    assert found.value.errno == errno.ENOSYS


def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Each call's table, command, block and size."""
    done: list[Any] = []

    def call(table: Any, command: Any, block: Any, size: Any) -> int:
        done.append((table, command.value, bytes(block), size.value))
        return 9

    monkeypatch.setattr(kernel, "system_call", call)
    return done


def test_bpf_gets_a_whole_block_filled_with_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    done = called(monkeypatch)
    assert kernel.bpf(24, b"abc") == 9
    assert done == [(bpfsys.BPF_NUMBERS, 24, b"abc".ljust(bpfsys.ATTR_BYTES, b"\0"), bpfsys.ATTR_BYTES)]


def test_what_the_kernel_says_of_an_object_comes_back_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(_table: Any, command: Any, block: Any, _size: Any) -> int:
        fd, size, address = struct.unpack_from("=IIQ", block)
        assert (command.value, fd, size) == (15, 77, bpfsys.INFO_BYTES)
        ctypes.memmove(address, b"\1\2\3", 3)
        return 0

    monkeypatch.setattr(kernel, "system_call", call)
    assert kernel.info_by_fd(77) == b"\1\2\3".ljust(bpfsys.INFO_BYTES, b"\0")


@pytest.mark.parametrize(
    ("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0-3,8-9\n", 6), ("0,2,4-5", 4), ("2-2", 1), ("0-127", 128)]
)
def test_processors_are_counted_over_all_ranges(monkeypatch: pytest.MonkeyPatch, text: str, count: int) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: {"/sys/devices/system/cpu/possible": text}[str(path)])
    assert kernel.possible_cpus.__wrapped__() == count


def small_files(monkeypatch: pytest.MonkeyPatch, found: dict[str, str]) -> None:
    monkeypatch.setattr(kernel, "read_small", lambda path: found.get(path, ""))


@pytest.mark.parametrize(("ticks", "start"), [(100, 7_000_000_000), (1000, 700_000_000), (300, 700 * 3_333_333)])
def test_when_a_process_started_is_its_twenty_second_field(
    monkeypatch: pytest.MonkeyPatch, ticks: int, start: int
) -> None:
    fields = ["S", *(str(1000 + number) for number in range(4, 22)), "700"]
    monkeypatch.setattr(kernel.os, "sysconf", lambda name: {"SC_CLK_TCK": ticks}[name])
    for command in ("(bcc)", "(a) b) 1 2 3)"):
        small_files(monkeypatch, {"/proc/7/stat": f"7 {command} {' '.join(fields)} 9 9\n"})
        assert kernel.process_start_ns(7) == start
    small_files(monkeypatch, {"/proc/7/stat": f"7 (bcc) {' '.join(fields)}"})
    assert kernel.process_start_ns(7) == start
    small_files(monkeypatch, {"/proc/7/stat": f"7 (bcc) {' '.join(fields[:-1])}"})
    assert kernel.process_start_ns(7) is None
    assert kernel.process_start_ns(8) is None


def test_memory_in_ram_is_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    small_files(monkeypatch, {"/proc/7/statm": "100 30 5 1 0 9 0\n", "/proc/8/statm": "100 30", "/proc/9/statm": "100"})
    assert kernel.resident_bytes(7) == kernel.resident_bytes(8) == 30 * mmap.PAGESIZE
    assert kernel.resident_bytes(9) is None and kernel.resident_bytes(10) is None


def test_the_boot_is_the_kernels_word(monkeypatch: pytest.MonkeyPatch) -> None:
    small_files(monkeypatch, {"/proc/sys/kernel/random/boot_id": "the boot\n"})
    assert kernel.boot_id() == "the boot"


@pytest.mark.parametrize(
    ("release", "distro", "btf", "told"),
    [
        ("6.1.0-18-amd64", "debian", True, ("6.1", "debian-6.1", "vmlinux")),
        ("6.1.0-18-amd64", "", False, ("6.1", None, "missing")),
        ("odd", "debian", True, ("", None, "vmlinux")),
    ],
)
def test_the_kernel_is_told_as_orders_name_it(
    monkeypatch: pytest.MonkeyPatch, release: str, distro: str, btf: bool, told: tuple[str | None, ...]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(kernel.os, "uname", lambda: SimpleNamespace(release=release, machine="x86_64"))
    monkeypatch.setattr(kernel.hostfiles, "read_os_release", lambda root: {"id": distro if root == Path("/") else "x"})
    monkeypatch.setattr(kernel.os, "access", lambda *given: asked.append(given) or btf)
    assert kernel.kernel_facts() == {
        "release": release, "family": told[0], "distro_family": told[1], "machine": "x86_64", "btf": told[2],
    }  # fmt: skip
    assert asked == [("/sys/kernel/btf/vmlinux", os.R_OK)]


def test_the_process_gets_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    fake = SimpleNamespace(prctl=lambda option, name, *rest: done.append((option, name.value, rest)))
    monkeypatch.setattr(kernel, "LIBC", fake)
    kernel.set_process_name()
    assert done == [(15, b"ebpf-fleet-bcc", (0, 0, 0))]
    assert (kernel.PR_SET_PDEATHSIG, kernel.PR_SET_NO_NEW_PRIVS) == (1, 38)


# ---- attaching ----


def test_a_raw_tracepoint_is_opened_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def bpf(command: int, attributes: bytes) -> int:
        name, fd = struct.unpack("=QI", attributes)
        done.append((command, ctypes.string_at(name), fd))
        return 5

    monkeypatch.setattr(attach, "bpf", bpf)
    assert attach.Hook("raw_tp", "sched_switch").attach(77) == 5
    assert done == [(17, b"sched_switch", 77)]


def test_a_perf_event_is_not_inherited_and_belongs_to_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def call(table: Any, block: Any, *numbers: Any) -> int:
        done.append((table, bytes(block), [(type(each), each.value) for each in numbers]))
        return 6

    monkeypatch.setattr(attach, "system_call", call)
    assert attach.open_perf_event(b"abc", -1, 3) == 6
    of_int = [(ctypes.c_int, -1), (ctypes.c_int, 3), (ctypes.c_int, -1), (ctypes.c_ulong, 8)]
    assert done == [(bpfsys.PERF_NUMBERS, b"abc".ljust(112, b"\0"), of_int)]


@pytest.mark.parametrize(("kind", "returns"), [("kprobe", 0), ("kretprobe", 1)])
def test_a_kprobe_is_described_by_its_symbol(monkeypatch: pytest.MonkeyPatch, kind: str, returns: int) -> None:
    seen: list[Any] = []
    fd = os.open("/dev/null", os.O_RDONLY)

    def opened(block: bytes, *_where: int) -> int:
        *fields, symbol, last = struct.unpack("=IIQQQQQIIQQ", block)
        seen.extend([fields, ctypes.string_at(symbol), last])
        return fd

    monkeypatch.setattr(Path, "read_text", lambda path: {"/sys/bus/event_source/devices/kprobe/type": "9\n"}[str(path)])
    monkeypatch.setattr(attach, "open_perf_event", opened)
    monkeypatch.setattr(attach.fcntl, "ioctl", lambda *_given: 0)
    assert attach.Hook(kind, "do_exit").attach(77) == fd
    os.close(fd)
    assert seen[1:] == [b"do_exit", 0]
    assert seen[0][:7] == [9, 112, returns, 1, 0, 0, 0] and seen[0][8] == 0
