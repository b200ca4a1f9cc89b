# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on a host and what does not any more: real processes, and a stand-in for systemctl where none is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release import service
from ansible_collections.ebpf.fleet.plugins.module_utils.release.store import Layout

DIGEST, OTHER = "a" * 64, "b" * 64
UNIT = "ebpf-fleet-test.service"
READERS: list[tuple[str, Callable[[Layout], str | None]]] = [
    ("loader", service.running_digest),
    ("collector", service.collecting_digest),
]


def started_ns(pid: int) -> int:
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK")


def status_of(layout: Layout, who: str) -> Path:
    path = layout.status if who == "loader" else layout.collector_status
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(layout: Layout, who: str, **changes: Any) -> None:
    document = {
        "boot_id": service.boot_id(),
        "pid": os.getpid(),
        "started_boottime_ns": started_ns(os.getpid()),
        "bundle": {"digest": DIGEST},
    }
    status_of(layout, who).write_text(json.dumps({**document, **changes}))


@pytest.mark.parametrize(("who", "reader"), READERS)
def test_a_process_that_lives_is_told_by_its_status(tmp_path: Path, who: str, reader: Any) -> None:
    layout = Layout(tmp_path)
    assert reader(layout) is None
    write(layout, who)
    assert reader(layout) == DIGEST
    # One does not speak for the other.
    assert [one(layout) for name, one in READERS if name != who] == [None]


@pytest.mark.parametrize(("who", "reader"), READERS)
def test_one_that_died_counts_as_dead_whatever_its_status_says(tmp_path: Path, who: str, reader: Any) -> None:
    layout = Layout(tmp_path)
    child = subprocess.Popen(["sleep", "60"])
    write(layout, who, pid=child.pid, started_boottime_ns=started_ns(child.pid))
    assert reader(layout) == DIGEST
    child.kill()
    child.wait()
    assert reader(layout) is None


@pytest.mark.parametrize(("who", "reader"), READERS)
@pytest.mark.parametrize(
    "changes",
    [{"boot_id": "another"}, {"boot_id": None}, {"pid": None}, {"pid": "1"}, {"pid": 2**22 + 1},
     {"started_boottime_ns": None}, {"started_boottime_ns": 1.5}, {"bundle": None}, {"bundle": []},
     {"bundle": {}}, {"bundle": {"digest": 7}}],
)  # fmt: skip
def test_a_status_that_proves_nothing_is_no_running_release(
    tmp_path: Path, who: str, reader: Any, changes: dict[str, Any]
) -> None:
    layout = Layout(tmp_path)
    write(layout, who, **changes)
    assert reader(layout) is None


@pytest.mark.parametrize(("off", "alive"), [(0, True), (10**7, True), (-(10**7), True), (10**7 + 1, False),
                                            (-(10**7) - 1, False), (10**9, False)])  # fmt: skip
def test_another_process_with_the_number_is_told_by_its_start(tmp_path: Path, off: int, alive: bool) -> None:
    """A start is known to the kernel's tick of 10 ms and no better."""
    layout = Layout(tmp_path)
    write(layout, "collector", started_boottime_ns=started_ns(os.getpid()) + off)
    assert (service.collecting_digest(layout) == DIGEST) is alive


def test_a_process_whose_name_has_a_bracket_is_read_right(tmp_path: Path) -> None:
    script = "import ctypes, time; ctypes.CDLL(None).prctl(15, b') S 1 (', 0, 0, 0); print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline()
    write(Layout(tmp_path), "loader", pid=child.pid, started_boottime_ns=started_ns(child.pid))
    found = service.running_digest(Layout(tmp_path))
    child.kill()
    child.wait()
    child.stdout.close()
    assert found == DIGEST


# systemctl: this machine has no systemd. It writes down what it was asked and answers what the test says.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$CALLS"
case $1 in
show) printf 'ActiveState=%s\\nLoadState=%s\\n' "${ACTIVE:-inactive}" "${LOADED:-loaded}"
  printf 'CanReload=%s\\nReloadResult=%s\\n' "${RELOADS:-no}" "${RELOAD_RESULT:-success}" ;;
"$FAILS") echo "it says why" >&2; exit 4 ;;
esac
"""


class Systemd:
    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.calls, self.patch = folder / "calls", patch
        (folder / "bin").mkdir()
        script = folder / "bin/systemctl"
        script.write_text(SYSTEMCTL)
        script.chmod(0o755)
        patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        patch.setenv("CALLS", str(self.calls))
        patch.setenv("FAILS", "nothing")

    def says(self, **answers: str) -> None:
        for name, value in answers.items():
            self.patch.setenv(name, value)

    @property
    def asked(self) -> list[str]:
        """The verbs in their order; the same question again is left out."""
        words = [line.split()[0] for line in self.calls.read_text().splitlines()]
        return [word for at, word in enumerate(words) if at == 0 or word != words[at - 1]]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    for name, seconds in (("SECONDS_TO_STOP", 0.4), ("SECONDS_TO_DIE", 0.4)):
        monkeypatch.setattr(service, name, seconds)
    return Systemd(tmp_path, monkeypatch)


def stop_code() -> tuple[str, str]:
    with pytest.raises(FleetError) as found:
        service.stop(UNIT)
    return found.value.code, found.value.message


def test_a_unit_that_stops_is_stopped(systemd: Systemd) -> None:
    service.stop(UNIT)
    assert systemd.calls.read_text().splitlines()[0] == f"stop --no-block -- {UNIT}"
    assert systemd.asked == ["stop", "show"]


@pytest.mark.parametrize("state", ["inactive", "failed", "active"])
def test_a_stop_that_systemd_refuses_is_an_error_though_nothing_seems_to_run(systemd: Systemd, state: str) -> None:
    """What systemd did not do may yet be started again by it: that is not known to have ended."""
    systemd.says(FAILS="stop", ACTIVE=state)
    code, sentence = stop_code()
    assert code == "EF_SERVICE" and f"systemctl stop {UNIT} failed (it says why)" in sentence


@pytest.mark.parametrize("state", ["active", "activating", "deactivating", "reloading", ""])
def test_a_unit_that_stays_is_an_error_and_is_asked_once_more(systemd: Systemd, state: str) -> None:
    systemd.says(ACTIVE=state or "unknown")
    begin = time.monotonic()
    code, sentence = stop_code()
    assert code == "EF_SERVICE" and f"{UNIT} does not stop" in sentence
    assert systemd.asked == ["stop", "show", "stop", "show"]
    assert 0.8 <= time.monotonic() - begin < 10


def test_a_systemctl_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stop_code()[0] == "EF_NO_SYSTEMD"


@pytest.mark.parametrize(("loaded", "known"), [("loaded", True), ("not-found", False), ("masked", False)])
def test_only_a_unit_that_is_loaded_is_known(systemd: Systemd, loaded: str, known: bool) -> None:
    systemd.says(LOADED=loaded)
    assert service.unit_known(UNIT) is known
    if known:
        service.need_collector_unit()
        return
    with pytest.raises(FleetError) as found:
        service.need_collector_unit()
    assert found.value.code == "EF_NO_SERVICE"


@pytest.mark.parametrize(
    ("runs", "asked"), [(None, ["reset-failed", "start"]), (DIGEST, ["reset-failed", "start"]),
                        (OTHER, ["stop", "show", "reset-failed", "start"])],
)  # fmt: skip
def test_a_collector_of_another_release_is_stopped_first_and_its_word_forgotten(
    tmp_path: Path, systemd: Systemd, runs: str | None, asked: list[str]
) -> None:
    layout = Layout(tmp_path / "host")
    if runs is not None:
        write(layout, "collector", bundle={"digest": runs})
    service.start_collector(layout, DIGEST, 0)
    assert systemd.asked == asked
    assert status_of(layout, "collector").exists() is (runs == DIGEST)


def test_a_collector_that_runs_is_confirmed_and_one_that_died_is_not(tmp_path: Path, systemd: Systemd) -> None:
    layout = Layout(tmp_path / "host")
    write(layout, "collector")
    service.start_collector(layout, DIGEST, 1)
    child = subprocess.Popen(["true"])
    began = started_ns(child.pid)
    child.wait()
    write(layout, "collector", pid=child.pid, started_boottime_ns=began)
    with pytest.raises(FleetError) as found:
        service.start_collector(layout, DIGEST, 1)
    assert found.value.code == "EF_NOT_CONFIRMED" and "did not start on the release within 1 s" in found.value.message


def test_a_restart_stops_forgets_and_starts_in_this_order(tmp_path: Path, systemd: Systemd) -> None:
    layout = Layout(tmp_path / "host")
    write(layout, "loader")
    service.restart_and_confirm(layout, UNIT, DIGEST, 0)
    assert systemd.asked == ["stop", "show", "reset-failed", "start"]
    assert systemd.calls.read_text().splitlines()[-1] == f"start --no-block -- {UNIT}"
    assert not status_of(layout, "loader").exists()


@pytest.mark.parametrize("fails", ["stop", "start"])
def test_a_restart_that_systemd_refuses_is_an_error(tmp_path: Path, systemd: Systemd, fails: str) -> None:
    systemd.says(FAILS=fails)
    with pytest.raises(FleetError) as found:
        service.restart_and_confirm(Layout(tmp_path / "host"), UNIT, DIGEST, 0)
    assert found.value.code == "EF_SERVICE" and f"systemctl {fails} " in found.value.message
    assert ("start" in systemd.asked) is (fails == "start")


def test_a_loader_that_does_not_confirm_in_time_is_an_error(tmp_path: Path, systemd: Systemd) -> None:
    layout = Layout(tmp_path / "host")
    status_of(layout, "loader")
    since = service.boottime_ns()
    with pytest.raises(FleetError) as found:
        service.await_confirmation(layout, UNIT, DIGEST, since, 1)
    assert found.value.code == "EF_NOT_CONFIRMED" and "within 1 s: there is no status document" in found.value.message
    systemd.says(ACTIVE="failed")
    begin = time.monotonic()
    with pytest.raises(FleetError, match="ended instead of running the release"):
        service.await_confirmation(layout, UNIT, DIGEST, since, 60)
    assert time.monotonic() - begin < 30
    write(layout, "loader", started_boottime_ns=since, state="running", reason="fine")
    service.await_confirmation(layout, UNIT, DIGEST, since, 1)
    write(layout, "loader", started_boottime_ns=since, state="refused", reason_code="EF_SIG_BAD", reason="no")
    with pytest.raises(FleetError) as found:
        service.await_confirmation(layout, UNIT, DIGEST, since, 60)
    assert found.value.code == "EF_SIG_BAD"


# ---- a handover ----

RELOADS = {"ACTIVE": "active", "RELOADS": "yes"}


def hands_over(layout: Layout, wait: int = 1) -> str | None:
    return service._hand_over(layout, UNIT, DIGEST, wait)


def test_a_loader_that_reports_the_release_took_over(tmp_path: Path, systemd: Systemd) -> None:
    layout = Layout(tmp_path / "host")
    systemd.says(**RELOADS)
    write(layout, "loader", state="running", reason="fine")
    running = service.boottime_ns()
    (tmp_path / "bin/systemctl").write_text(
        SYSTEMCTL
        + f"""
case $1 in reload) {sys.executable} - <<'END'
import json, pathlib
path = pathlib.Path({str(status_of(layout, "loader"))!r})
status = json.loads(path.read_text())
path.write_text(json.dumps(dict(status, started_boottime_ns={running + 10**9})))
END
esac
"""
    )
    assert service.hand_over_or_restart(layout, UNIT, DIGEST, 5) == (True, "")
    assert "stop" not in systemd.asked and f"reload --no-block -- {UNIT}" in systemd.calls.read_text()


@pytest.mark.parametrize(
    ("answers", "wait", "said"),
    [({}, 1, "was inactive"), ({"ACTIVE": "active"}, 1, "has no ExecReload=; prepare the host again"),
     (RELOADS, 0, "was not to be waited for"), (RELOADS, 1, "did not take over within 1 s"),
     ({**RELOADS, "RELOAD_RESULT": "exit-code"}, 5, "did not take over (exit-code)"),
     ({**RELOADS, "FAILS": "reload"}, 1, "systemctl reload")],
)  # fmt: skip
def test_without_a_handover_it_is_said_why(
    tmp_path: Path, systemd: Systemd, answers: dict[str, str], wait: int, said: str
) -> None:
    layout = Layout(tmp_path / "host")
    systemd.says(**answers)
    write(layout, "loader", state="running", reason="fine")
    assert said in str(hands_over(layout, wait))


def test_where_no_loader_runs_it_is_started(tmp_path: Path, systemd: Systemd) -> None:
    layout = Layout(tmp_path / "host")
    systemd.says(ACTIVE="inactive", RELOADS="yes")
    status_of(layout, "loader")
    assert service.hand_over_or_restart(layout, UNIT, DIGEST, 0) == (False, "it was not to be waited for")
    assert systemd.asked == ["stop", "show", "reset-failed", "start"]
    assert hands_over(layout) == "no loader ran"


def test_a_next_loader_that_refuses_what_is_desired_is_not_confirmed(tmp_path: Path, systemd: Systemd) -> None:
    layout = Layout(tmp_path / "host")
    write(layout, "loader", started_boottime_ns=service.boottime_ns() + 10**9, desired_error="no")
    systemd.says(**RELOADS)
    found = service._await_handover(layout, UNIT, DIGEST, service.boottime_ns(), 5)
    assert found == "the loader says: no"
