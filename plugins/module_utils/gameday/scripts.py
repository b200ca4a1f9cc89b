# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill runs on a host: a unit that ends by itself, the script in it, and the one that takes it back. Pure.

All of it lies in /run: a reboot takes back whatever systemd could not.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError

FOLDER = "/run/ebpf-fleet-gameday"
UNIT = "ebpf-fleet-gameday.service"
UNIT_FILE = f"/run/systemd/system/{UNIT}"
LOADER = "ebpf-fleet-loader.service"
DROP_IN = f"/run/systemd/system/{LOADER}.d/50-ebpf-fleet-gameday.conf"
SECONDS_TO_UNDO = 60
PYTHON = "/usr/bin/python3"

# Two processes wake each other over pipes, and fail in a system call in between.
_BURN = """\
import os
there, back = os.pipe(), os.pipe()
if os.fork():
    while True:
        os.write(there[1], b"x")
        os.read(back[0], 1)
else:
    while True:
        os.read(there[0], 1)
        for _turn in range(20):
            try:
                os.close(1000000)
            except OSError:
                pass
        os.write(back[1], b"x")
"""
_KEYS = """\
import ctypes, time
call = ctypes.CDLL(None).syscall
while True:
    for number in range(2000, 6000):
        call(number)
    time.sleep(0.2)
"""
_FLOOD = """\
for _one in $(seq "$(nproc)"); do
    while :; do /bin/true; done &
done
wait"""
_CRASH = f"""\
while :; do
    systemctl kill --kill-who=main --signal=KILL {LOADER} 2>/dev/null
    sleep 0.5
done"""


class Host(NamedTuple):
    """What a script needs to know of the host."""

    python: str
    object_path: str
    uid: int
    gid: int


def _again(text: str) -> str:
    return f"systemctl daemon-reload\nsystemctl reset-failed {LOADER}\n{text}"


def _with_drop_in(then: str) -> str:
    """The loader starts once more, and sees what the drop-in says. Where it refuses to, that is what is seen."""
    return f"mkdir -p {shlex.quote(DROP_IN.rpartition('/')[0])}\ncp {FOLDER}/drop-in {DROP_IN}\n" + _again(
        f"systemctl restart {LOADER}\n{then}"
    )


def drop_in(name: str, host: Host) -> str:
    """The drop-in of the loader's unit; empty for a drill without one."""
    owner = f"uid={host.uid},gid={host.gid}"
    lines = {
        "tampered_bundle": f"BindReadOnlyPaths={FOLDER}/object:{host.object_path}",
        "missing_btf": "TemporaryFileSystem=/sys/kernel/btf:ro",
        # LogsDirectory= would bind the real folder over it.
        "sink_stall": f"LogsDirectory=\nTemporaryFileSystem=/var/log/ebpf-fleet:size=64k,mode=0750,{owner}",
    }
    return f"# Of a game day, and gone with it.\n[Service]\n{lines[name]}\n" if name in lines else ""


def inject(name: str, host: Host) -> str:
    """The script that is the fault. It does not end by itself."""
    stay = "exec sleep infinity"
    bodies: dict[str, str] = {
        "event_flood": _FLOOD,
        "controller_loss": _FLOOD,
        "crash_loop": _CRASH,
        "cpu_burn": f'for _one in $(seq "$(nproc)"); do\n{host.python} {FOLDER}/work.py &\ndone\nwait',
        "map_flood": f"exec {host.python} {FOLDER}/work.py",
        "tampered_bundle": _with_drop_in(stay),
        "missing_btf": _with_drop_in(stay),
        "sink_stall": _with_drop_in(_FLOOD),
    }
    return f"# {name}, of a game day\nexport LC_ALL=C\n{bodies[name]}\n"


def work(name: str) -> str:
    """The Python that the script runs; empty for a drill without."""
    return {"cpu_burn": _BURN, "map_flood": _KEYS}.get(name, "")


def undo(restarts: bool) -> str:
    """Takes it back, whoever ended it; may be run again. What ended the unit stands in `ended` then."""
    start = _again(f"systemctl --no-block restart {LOADER}\n") if restarts else ""
    return (
        f"export LC_ALL=C\nrm -f {DROP_IN}\nrmdir {shlex.quote(DROP_IN.rpartition('/')[0])} 2>/dev/null\n{start}"
        f'echo "${{SERVICE_RESULT:-again}}" > {FOLDER}/ended.part && mv {FOLDER}/ended.part {FOLDER}/ended\n'
    )


def unit(name: str, seconds: int) -> str:
    """The unit in which the fault lives: systemd ends it after so many seconds, and takes it back whatever ended it."""
    return f"""\
# Of a game day. It is gone with the next boot, and may be stopped at any time: that takes the fault back.
[Unit]
Description=ebpf.fleet game day: {name}
CollectMode=inactive-or-failed

[Service]
ExecStart=/bin/sh {FOLDER}/inject.sh
ExecStopPost=/bin/sh {FOLDER}/undo.sh
RuntimeMaxSec={seconds}
TimeoutStopSec={SECONDS_TO_UNDO}
OOMPolicy=continue
TasksMax=64
MemoryMax=128M
LimitCORE=0
"""


def flipped(data: bytes) -> bytes:
    """The object with one byte that is another: in its middle, where it is neither its head nor its end."""
    if not data:
        raise FleetError("EF_GAMEDAY_RECORD", "the object of the bundle is empty; nothing was injected")
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
