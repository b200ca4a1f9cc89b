# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit of an injection under systemd: start it, stop it, ask whether it is there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import scripts

SECONDS = 20
_GONE = ("inactive", "failed", "unknown")


def _call(command: Sequence[str], seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=seconds, check=False, text=True, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError("EF_SERVICE", f"{' '.join(command)}: {error}; look at journalctl -u {scripts.UNIT}") from error


def _must(command: Sequence[str], seconds: float = SECONDS) -> None:
    done = _call(command, seconds)
    if done.returncode:
        said = printable(" ".join(done.stdout.split()), 300)
        raise FleetError("EF_SERVICE", f"{' '.join(command)}: status {done.returncode}: {said}")


def reload() -> None:
    """Let systemd read its files."""
    _must(["systemctl", "daemon-reload"])


def start() -> None:
    """Begin the injection; from here on it ends by itself."""
    reload()
    _must(["systemctl", "start", scripts.UNIT])


def is_there() -> bool:
    """Does the unit run, or is it about to end? What systemd does not tell counts as yes."""
    return _call(["systemctl", "is-active", scripts.UNIT]).stdout.strip() not in _GONE


def stop() -> None:
    """End the unit, and wait until it has taken the injection back; one that is not there is as good."""
    if is_there():
        _must(["systemctl", "stop", scripts.UNIT], scripts.SECONDS_TO_UNDO + SECONDS)


def undo(folder: Path) -> None:
    """Take back what the unit could not, or what was begun without one."""
    path = folder / "undo.sh"
    if path.exists():
        _must(["/bin/sh", str(path)], scripts.SECONDS_TO_UNDO)
