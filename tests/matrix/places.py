# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix's hosts, how to ask one, and where things are. This machine is a host of it too, twice."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.lab import guest, inventory, ssh
from tests.lab import settings as lab_settings
from tests.matrix.errors import MatrixError
from tests.support.play import ROOT, VENV

OUT = ROOT / "build" / "matrix"
WORK = OUT / "work"
FULL_BTF = ROOT / ".cache" / "matrix" / "btf"
HERE = Path(__file__).resolve().parent

OWN, OWN_HIDDEN = "own", "own-n"
_FOLDER = "/var/tmp/ebpf-fleet-matrix"
_INTERPRETER = """#!/bin/sh
# Python on this machine, without its kernel's BTF.
exec unshare -m sh -c 'mount -t tmpfs -o ro hidden /sys/kernel/btf && exec "$0" "$@"' {python} "$@"
"""


@dataclasses.dataclass(frozen=True)
class Place:
    """One host of the matrix. `host` is None for this machine; `hidden` hosts see no BTF of their kernel."""

    name: str
    hidden: bool
    host: lab_settings.Host | None = None

    @property
    def twin_kernel(self) -> str:
        """What hosts of the same kernel share."""
        return self.host.kernel.name if self.host else OWN


def places(settings: lab_settings.Settings, names: list[str]) -> list[Place]:
    """The hosts named, all of the matrix and this machine when none is. Raises MatrixError for a strange name."""
    known = [Place(host.name, host.hide_btf, host) for host in settings.group(lab_settings.MATRIX)]
    known += [Place(OWN, False), Place(OWN_HIDDEN, True)]
    strange = sorted(set(names) - {place.name for place in known})
    if strange:
        listed = ", ".join(place.name for place in known)
        raise MatrixError(f"no host of the matrix: {', '.join(strange)}; it has {listed}")
    return [place for place in known if not names or place.name in names]


def _port(place: Place) -> int:
    return guest.require(place.name).port


def unpack_and_ask(place: Place, payload: Path, seconds: float) -> str:
    """Bring the payload to a host, run its ask.sh there and return what it printed."""
    hidden = " hidden" if place.hidden and place.host is None else ""
    folder = _FOLDER if place.host else str(WORK / place.name)
    script = (
        f"rm -rf {folder} && mkdir -p {folder} && tar -x -C {folder} -f -"
        f" && sh {folder}/ask.sh {folder}{hidden}; rc=$?; rm -rf {folder}; exit $rc"
    )
    argv = ssh.command(_port(place), [script]) if place.host else ["sh", "-c", script]
    with payload.open("rb") as file:
        try:
            done = subprocess.run(argv, stdin=file, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise MatrixError(f"{place.name}: no answer within {seconds:.0f} s") from error
    if done.returncode:
        raise MatrixError(f"{place.name}: {done.stderr.decode(errors='replace').strip()[-800:]}")
    return done.stdout.decode(errors="replace")


def read_file(place: Place, path: str) -> bytes:
    """A file of a host; empty where there is none."""
    if place.host is None:
        return Path(path).read_bytes() if Path(path).exists() else b""
    argv = ssh.command(_port(place), [f"cat {path} 2>/dev/null || test ! -e {path}"])
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=180, check=False)
    if done.returncode:
        raise MatrixError(f"{place.name}: {path}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def release(place: Place) -> str:
    """The kernel release of a host that runs."""
    return (
        guest.require(place.name).kernel
        if place.host
        else read_file(place, "/proc/sys/kernel/osrelease").decode().strip()
    )


def write_inventory(chosen: list[Place], path: Path) -> None:
    """An Ansible inventory of the hosts: the lab's over SSH, this machine without."""
    hosts: dict[str, Any] = {}
    for place in chosen:
        if place.host:
            variables = inventory.host_variables(_port(place), place.host)
            hosts[place.name] = {**inventory.common_variables(), **variables}
        else:
            hosts[place.name] = {"ansible_connection": "local", "ansible_python_interpreter": _interpreter(place)}
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}, sort_keys=False, width=1000))


def _interpreter(place: Place) -> str:
    python = shutil.which("python3", path="/usr/bin:/bin") or str(VENV / "python")
    if not place.hidden:
        return python
    script = WORK / "python-hidden"
    script.write_text(_INTERPRETER.format(python=python))
    script.chmod(0o755)
    return str(script)
