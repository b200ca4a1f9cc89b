# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what a host runs and has on its disk, as JSON: read as root, by nothing of the product but `verify`.

Python 3.8, standard library only. `python3 - <host_state.py`
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import subprocess
from typing import Any

BASE = "/var/lib/ebpf-fleet"
STATUS = "/run/ebpf-fleet-loader/status.json"


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def loaders() -> list[dict[str, Any]]:
    """Every process that runs a release's loader, by the kernel's word: its file, and how many programs it holds."""
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            exe = os.readlink(folder + "/exe")
        except OSError:
            continue
        words = read(folder + "/cmdline").split(b"\0")
        if "/ebpf-fleet/" not in exe or words[1:2] != [b"run"]:
            continue
        state = re.search(rb"^State:\s+(\w)", read(folder + "/status"), re.M)
        held = sum(b"prog_id:" in read(one) for one in glob.glob(folder + "/fdinfo/*"))
        found.append(
            {"pid": int(folder[6:]), "exe": exe, "state": state[1].decode() if state else "", "programs": held}
        )
    return found


def release(name: str) -> dict[str, Any]:
    """What that link names, its digest, and whether the loader on the disk verifies it; empty where it is not there."""
    place = os.path.realpath(os.path.join(BASE, name))
    if not os.path.isdir(place):
        return {}
    manifest = read(place + "/bundle/manifest.json")
    command = [place + "/ebpf-loader", "verify", place + "/bundle", "--self"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False)
        verified, why = done.returncode == 0, done.stdout.decode(errors="replace")[-500:]
    except OSError as error:
        verified, why = False, str(error)
    return {"place": place, "digest": hashlib.sha256(manifest).hexdigest(), "verified": verified, "why": why}


def status() -> dict[str, Any]:
    try:
        return dict(json.loads(read(STATUS)))
    except ValueError:
        return {}


def main() -> None:
    told = status()
    print(json.dumps({
        "loaders": loaders(), "current": release("current"),
        "status": {"digest": (told.get("bundle") or {}).get("digest"), "pid": told.get("pid"),
                   "state": told.get("state"), "reason_code": told.get("reason_code")},
        "lease": bool(read("/etc/ebpf-fleet/lease.json")),
    }))  # fmt: skip


main()
