# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of others under systemd: what they are, and their stop, mask, unmask and start."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterable

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import unitcgroup

SYSTEMD_RUNS = Path("/run/systemd/system")
# A link to /dev/null masks a unit where systemd finds it first: in the first folder where people put them, and before
# a unit's own file of that folder in the second (systemd.unit(5), "Unit File Load Path").
MASKS = (Path("/etc/systemd/system"), Path("/etc/systemd/system.control"))
_NULL = "/dev/null"
_PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,ControlGroup,Transient"
_SECONDS_FOR_SYSTEMCTL = 30
SECONDS_TO_STOP, SECONDS_TO_DIE, SECONDS_TO_START = 15, 5, 30
_SECONDS_BETWEEN = 0.1

Unit = Dict[str, Any]


def show(names: Iterable[str]) -> dict[str, Unit]:
    """What systemd says of each unit that it knows; nothing where it does not run this host."""
    if not SYSTEMD_RUNS.is_dir():
        return {}
    found = {name: _show(name) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def _show(name: str) -> Unit | None:
    done = _systemctl(["show", f"--property={_PROPERTIES}", "--", name])
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if told.get("LoadState") in (None, "not-found", "bad-setting", "error") and told.get("ActiveState") == "inactive":
        return None
    return {
        "name": name,
        "id": told.get("Id") or name,
        "active": told.get("ActiveState", "unknown"),
        "enabled": told.get("UnitFileState") or (told["LoadState"] if told.get("LoadState") == "masked" else ""),
        "control_group": told.get("ControlGroup", ""),
        "transient": told.get("Transient") == "yes",
        "mask_path": next((str(folder / name) for folder in MASKS if not os.path.lexists(folder / name)), None),
    }


def _systemctl(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["systemctl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            check=False, timeout=_SECONDS_FOR_SYSTEMCTL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError("EF_NO_SYSTEMD", f"systemctl does not run ({error}); repair systemd") from error


def _must(arguments: list[str]) -> None:
    done = _systemctl(arguments)
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit {done.returncode}"
        raise FleetError("EF_SERVICE", f"systemctl {' '.join(arguments)} failed ({said}); see its journal")


def stop(name: str) -> None:
    """Ask systemd to stop it, and kill its cgroup where that takes too long; FleetError where it still runs then."""
    _must(["stop", "--no-block", "--", name])
    if _is_over(name, SECONDS_TO_STOP):
        return
    unitcgroup.kill(unitcgroup.find(name), SECONDS_TO_DIE)
    if not _is_over(name, SECONDS_TO_DIE):
        raise FleetError("EF_SERVICE", f"{name} does not stop, and is not to be killed; see systemctl status {name}")


def _is_over(name: str, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        one = _show(name)
        if (one is None or one["active"] in ("inactive", "failed")) and not unitcgroup.pids(unitcgroup.find(name)):
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(_SECONDS_BETWEEN)


def mask(name: str, path: str) -> None:
    """Keep it from being started, by a link of ours at that path; FleetError where systemd does not heed it."""
    if not is_masked_by_us(path):
        atomic_files.replace_link(Path(path), _NULL)
    _must(["daemon-reload"])
    if not _is_masked(name):
        raise FleetError("EF_SERVICE", f"{name} is not masked by {path}; see systemctl status {name}")


def is_masked_by_us(path: str) -> bool:
    """Whether the link that masks is at that path."""
    return os.path.islink(path) and os.readlink(path) == _NULL


def _is_masked(name: str) -> bool:
    done = _systemctl(["show", "--property=LoadState", "--value", "--", name])
    return done.stdout.strip() == "masked"


def unmask(name: str, path: str) -> bool:
    """Take our link away; whether it was there. FleetError where the unit is masked by something else, too."""
    there = is_masked_by_us(path)
    if there:
        os.unlink(path)
        atomic_files.sync_folder(Path(path).parent)
        with contextlib.suppress(OSError):  # it has others' files, too
            MASKS[1].rmdir()
    _must(["daemon-reload"])
    if _is_masked(name):
        raise FleetError("EF_SERVICE", f"{name} is still masked, and not by this; see systemctl status {name}")
    return there


def start(name: str) -> None:
    """Start it and wait until it is up; FleetError where it is not."""
    _must(["start", "--no-block", "--", name])
    until = time.monotonic() + SECONDS_TO_START
    state = "unknown"
    while time.monotonic() < until:
        one = _show(name)
        state = one["active"] if one is not None else "not known"
        if state == "active":
            return
        if state == "failed":
            break
        time.sleep(_SECONDS_BETWEEN)
    raise FleetError("EF_SERVICE", f"{name} is {state} and not up; see systemctl status {name}")
