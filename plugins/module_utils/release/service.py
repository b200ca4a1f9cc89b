# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader's unit under systemd: restart it, stop it, and wait until it says which release it runs."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import unitcgroup
from ansible_collections.ebpf.fleet.plugins.module_utils.release.store import (
    Layout,
    read_status,
    read_status_of,
)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SYSTEMD_RUNS = Path("/run/systemd/system")
COLLECTOR_UNIT = "ebpf-fleet-bcc.service"
SECONDS_FOR_SYSTEMCTL = 20
# As long as the units' TimeoutStopSec= and a little more; a service can have systemd wait longer.
SECONDS_TO_STOP = 12
SECONDS_TO_DIE = 5
SECONDS_FOR_JOURNAL = 10
SECONDS_BETWEEN_LOOKS = 0.2
LOOKS_PER_UNIT_QUERY = 5
# As long as the unit allows a reload (TimeoutStartSec=).
SECONDS_FOR_HANDOVER = 60
# How the loader ends its log when it refuses a bundle.
REFUSAL = re.compile(r"refused: .*\((EF_[A-Z_]+)\)")
# The kernel keeps a process's start in ticks of 1/100 s, rounded down.
TICK_NS = 10000000
START_TICKS = 19  # field 22 of proc(5), counted from the state, which follows the name
UP_STATES = ("running", "idle", "killed")


class Handover(NamedTuple):
    """Whether the next loader took over from the running one without a gap; if not, why it was restarted."""

    used: bool
    why: str


class Confirmation(NamedTuple):
    """What a status document says of a restart: ``confirmed``, ``waiting`` or ``refused``, and why."""

    verdict: str
    code: str
    sentence: str


def judge_status(status: dict[str, Any] | None, digest: str, since_ns: int, boot_id: str) -> Confirmation:
    """Whether a loader that started after ``since_ns`` (boot time) runs the bundle of ``digest``. Pure."""
    if status is None:
        return Confirmation("waiting", "EF_NOT_CONFIRMED", "there is no status document")
    started = status.get("started_boottime_ns")
    if status.get("boot_id") != boot_id or not isinstance(started, int) or started < since_ns - TICK_NS:
        return Confirmation("waiting", "EF_NOT_CONFIRMED", "the status document is of an earlier loader")
    if status.get("state") == "refused":
        code = str(status.get("reason_code", "EF_UNKNOWN"))
        return Confirmation("refused", code, f"the loader refuses it: {status.get('reason')}")
    bundle = status.get("bundle")
    found = bundle.get("digest") if isinstance(bundle, dict) else None
    if found != digest:
        return Confirmation("waiting", "EF_NOT_CONFIRMED", f"the loader reports the bundle {found}")
    if status.get("policy_error"):
        return Confirmation("refused", "EF_HOST_POLICY_MALFORMED", f"the loader says: {status['policy_error']}")
    if status.get("desired_error"):
        return Confirmation("refused", "EF_DESIRED_MALFORMED", f"the loader says: {status['desired_error']}")
    if status.get("state") not in UP_STATES:
        return Confirmation("waiting", "EF_NOT_CONFIRMED", f"the loader is in state {status.get('state')!r}")
    return Confirmation("confirmed", "EF_OK", str(status.get("reason", "")))


def running_digest(layout: Layout) -> str | None:
    """The digest that a live loader of this boot reports, else None."""
    return _live_digest(layout.status)


def collecting_digest(layout: Layout) -> str | None:
    """The digest that a live BCC collector of this boot reports, else None."""
    return _live_digest(layout.collector_status)


def _live_digest(path: Path) -> str | None:
    status = read_status_of(path)
    if status is None or status.get("boot_id") != boot_id() or not _is_alive(status):
        return None
    bundle = status.get("bundle")
    digest = bundle.get("digest") if isinstance(bundle, dict) else None
    return digest if isinstance(digest, str) else None


def _is_alive(status: dict[str, Any]) -> bool:
    """Whether the process that wrote the status is there still, and not another with its number."""
    pid, started = status.get("pid"), status.get("started_boottime_ns")
    if not isinstance(pid, int) or not isinstance(started, int):
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    ticks = int(stat.rpartition(")")[2].split()[START_TICKS])
    return abs(ticks * TICK_NS - started) <= TICK_NS


def boot_id() -> str:
    """The id of this boot."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def boottime_ns() -> int:
    """The clock of leases: it goes on in suspend and no one sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def need_unit(unit: str) -> None:
    """Refuse a host without systemd or without the loader's unit."""
    if not SYSTEMD_RUNS.is_dir():
        raise FleetError(
            "EF_NO_SYSTEMD",
            f"systemd does not run this host, so {unit} cannot be managed; use a host with systemd or set "
            "'service' to an empty string and restart the loader yourself",
        )
    if not unit_known(unit):
        raise FleetError(
            "EF_NO_SERVICE",
            f"{unit} is not known to systemd on this host; prepare the host first or correct 'service'",
        )


def unit_known(unit: str) -> bool:
    """Whether systemd has that unit."""
    return _properties(unit, ["LoadState"]).get("LoadState") == "loaded"


def _properties(unit: str, names: list[str]) -> dict[str, str]:
    done = _systemctl(["show", "--property=" + ",".join(names), "--", unit])
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {key: value for key, _equals, value in pairs}


def _systemctl(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["systemctl", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS_FOR_SYSTEMCTL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError("EF_NO_SYSTEMD", f"systemctl does not run ({error}); repair systemd") from error


def _must(arguments: list[str], unit: str) -> None:
    done = _systemctl([*arguments, "--", unit])
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit {done.returncode}"
        raise FleetError("EF_SERVICE", f"systemctl {arguments[0]} {unit} failed ({said}); look at its journal")


def stop(unit: str) -> None:
    """Stop the unit within a limit; nothing of ours outlives it.

    A service can ignore SIGTERM and ask systemd for ever more time, and systemd itself may not
    answer: after the limit the unit's cgroup is killed.
    """
    unanswered = _ask_to_stop(unit)
    if not _is_gone(unit, 0 if unanswered else SECONDS_TO_STOP):
        unitcgroup.kill(unitcgroup.find(unit), SECONDS_TO_DIE)
        unanswered = _ask_to_stop(unit)
    if unanswered:
        raise unanswered
    if not _is_gone(unit, SECONDS_TO_DIE):
        raise FleetError("EF_SERVICE", f"{unit} does not stop, and is not to be killed; see systemctl status {unit}")


def _ask_to_stop(unit: str) -> FleetError | None:
    try:
        _must(["stop", "--no-block"], unit)
    except FleetError as error:
        return error
    return None


def _is_gone(unit: str, seconds: float) -> bool:
    """Whether no process of the unit is left, by the kernel and by systemd, within that time."""
    until = time.monotonic() + seconds
    while unitcgroup.pids(unitcgroup.find(unit)) or not _is_inactive(unit):
        if time.monotonic() >= until:
            return False
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True


def _is_inactive(unit: str) -> bool:
    try:
        return _properties(unit, ["ActiveState"]).get("ActiveState") in ("inactive", "failed")
    except FleetError:
        return False


def _forget(path: Path) -> None:
    """Remove a status of a service that was stopped, so that it cannot speak for the next one."""
    with contextlib.suppress(OSError):
        path.unlink()


def restart_and_confirm(layout: Layout, unit: str, digest: str, wait: int) -> None:
    """Restart the loader and wait up to ``wait`` seconds until it reports that bundle.

    Zero does not wait. Raises FleetError with the loader's own reason if it refuses.
    """
    stop(unit)
    _forget(layout.status)
    since_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    _systemctl(["reset-failed", "--", unit])
    _must(["start", "--no-block"], unit)
    if wait > 0:
        await_confirmation(layout, unit, digest, since_ns, wait)


def hand_over_or_restart(layout: Layout, unit: str, digest: str, wait: int) -> Handover:
    """Let the next loader take over from the running one, else restart; then it runs that bundle.

    A handover is waited for at most ``wait`` and SECONDS_FOR_HANDOVER seconds; with a ``wait`` of 0, which waits for
    nothing, the loader is restarted. Raises FleetError as restart_and_confirm() does.
    """
    why = _hand_over(layout, unit, digest, wait)
    if why is None:
        return Handover(True, "")
    restart_and_confirm(layout, unit, digest, wait)
    return Handover(False, why)


def _hand_over(layout: Layout, unit: str, digest: str, wait: int) -> str | None:
    """None: it was done; else why not."""
    if wait == 0:
        return "it was not to be waited for"
    if running_digest(layout) is None:
        return "no loader ran"
    facts = _properties(unit, ["ActiveState", "CanReload"])
    if facts.get("ActiveState") != "active":
        return f"{unit} was {facts.get('ActiveState') or 'not active'}"
    if facts.get("CanReload") != "yes":
        return f"{unit} has no ExecReload=; prepare the host again"
    since_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    try:
        _must(["reload", "--no-block"], unit)
    except FleetError as error:
        return error.message
    return _await_handover(layout, unit, digest, since_ns, min(wait, SECONDS_FOR_HANDOVER))


def _await_handover(layout: Layout, unit: str, digest: str, since_ns: int, seconds: int) -> str | None:
    until = time.monotonic() + seconds
    this_boot = boot_id()
    while time.monotonic() < until:
        found = judge_status(read_status(layout), digest, since_ns, this_boot)
        if found.verdict == "confirmed":
            return None
        if found.verdict == "refused":
            return found.sentence
        facts = _properties(unit, ["ActiveState", "ReloadResult"])
        if facts.get("ActiveState") != "reloading" and facts.get("ReloadResult", "success") != "success":
            return f"the next loader did not take over ({facts['ReloadResult']}); see the journal of {unit}"
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return f"the next loader did not take over within {seconds} s; see the journal of {unit}"


def need_collector_unit() -> None:
    """Refuse a host that was not prepared for BCC, before anything changes."""
    if not unit_known(COLLECTOR_UNIT):
        raise FleetError(
            "EF_NO_SERVICE",
            f"{COLLECTOR_UNIT} is not known to systemd on this host; prepare the host with "
            "'ebpf_fleet_bcc_fallback: true' first or take 'bcc' out of 'fallbacks'",
        )


def start_collector(layout: Layout, digest: str, wait: int) -> None:
    """Let the BCC collector run that bundle and wait until it says so; what it compiles comes later."""
    if collecting_digest(layout) not in (None, digest):
        stop(COLLECTOR_UNIT)
        _forget(layout.collector_status)
    _systemctl(["reset-failed", "--", COLLECTOR_UNIT])
    _must(["start", "--no-block"], COLLECTOR_UNIT)
    if wait > 0:
        _await_collector(layout, digest, wait)


def _await_collector(layout: Layout, digest: str, wait: int) -> None:
    until = time.monotonic() + wait
    while collecting_digest(layout) != digest:
        if time.monotonic() > until:
            raise _unconfirmed(layout, COLLECTOR_UNIT, f"did not start on the release within {wait} s")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def await_confirmation(layout: Layout, unit: str, digest: str, since_ns: int, wait: int) -> None:
    """Wait for the loader's word. A loader that ended took its status along, so its unit is asked too."""
    until = time.monotonic() + wait
    this_boot = boot_id()
    looks = 0
    while True:
        looks += 1
        found = judge_status(read_status(layout), digest, since_ns, this_boot)
        if found.verdict == "confirmed":
            return
        if found.verdict == "refused":
            raise FleetError(found.code, f"{unit}: {found.sentence}", str(layout.status))
        if looks % LOOKS_PER_UNIT_QUERY == 0 and _properties(unit, ["ActiveState"]).get("ActiveState") == "failed":
            raise _unconfirmed(layout, unit, "ended instead of running the release")
        if time.monotonic() > until:
            raise _unconfirmed(layout, unit, f"did not confirm the release within {wait} s: {found.sentence}")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _unconfirmed(layout: Layout, unit: str, problem: str) -> FleetError:
    """The error of a loader that did not confirm, with what systemd and the journal know."""
    properties = _properties(unit, ["ActiveState", "Result", "ExecMainStatus"])
    shown = ", ".join(f"{key}={value}" for key, value in sorted(properties.items()))
    said = _last_words(unit)
    refusal = REFUSAL.search(said)
    code = refusal.group(1) if refusal else "EF_NOT_CONFIRMED"
    return FleetError(
        code,
        f"{unit}: {problem} ({shown}; it said: {said or 'nothing'}); look at its journal",
        str(layout.status),
    )


def _last_words(unit: str) -> str:
    """The last lines of this very start of the unit, without its JSON events, for a message."""
    invocation = _properties(unit, ["InvocationID"]).get("InvocationID")
    if not invocation:
        return ""
    match = f"_SYSTEMD_INVOCATION_ID={invocation}"
    command = ["journalctl", "--boot", "--lines", "10", "--output", "cat", "--no-pager", match]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_FOR_JOURNAL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " | ".join(line for line in done.stdout.splitlines() if not line.startswith("{"))[-600:]
