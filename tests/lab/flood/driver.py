# SPDX-License-Identifier: GPL-3.0-or-later
"""Flood this host with executions of one user while another makes fifty; print what the loader recorded.

    python3 driver.py FOLDER

FOLDER holds ebpf-loader, signers, policy.json, a bundle, and the load as ef-flood and ef-marked. Runs as root.
Python 3.8, standard library only.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAME = "exec_events"
FLOODER, MARKED = 60001, 60002
SECONDS, PROCESSES, MARKS = 10, 4, 50
QUOTA = ("-p", "CPUQuota=20%", "-p", "CPUQuotaPeriodSec=5ms")  # the second wall, as the unit has it
ANSWERED_IN_S = 120.0


def status_of(folder: Path) -> dict[str, Any]:
    path = folder / "state" / "status.json"
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


def wait_for(folder: Path, reached: Any) -> dict[str, Any]:
    limit = time.monotonic() + ANSWERED_IN_S
    while time.monotonic() < limit:
        status = status_of(folder)
        if status and reached(status):
            return status
        time.sleep(0.05)
    raise SystemExit("not in time: " + (folder / "journal").read_text(errors="replace")[-2000:])


def start(base: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The loader with its contract's budgets and the host's policy, in folders of its own."""
    for name in ("etc", "run", "state", "log"):
        (folder / name).mkdir()
    wishes = {NAME: {"enabled": True, "sample_every": 1}}
    desired = {"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": wishes}
    (folder / "etc" / "desired.json").write_text(json.dumps(desired))
    shutil.copy(str(base / "policy.json"), str(folder / "etc" / "policy.json"))
    command = ["systemd-run", "--scope", "--quiet", *QUOTA, str(base / "ebpf-loader"), "run"]
    command += ["--bundle", str(base / "bundle"), "--interval", "1", "--trust", str(base / "signers")]
    for name in ("etc", "run", "state", "log"):
        command += ["--" + name, str(folder / name)]
    with (folder / "journal").open("wb") as journal:
        return subprocess.Popen(command, stderr=journal)


def executed(process: subprocess.Popen[bytes]) -> int:
    out, _err = process.communicate(timeout=ANSWERED_IN_S)
    return int(out.split()[1])


def flood(base: Path, folder: Path) -> dict[str, Any]:
    """The flood, the marks within it, and all statuses meanwhile."""
    load = [str(base / "ef-flood"), str(SECONDS * 1000), str(PROCESSES), "0", "0", str(FLOODER)]
    flooder = subprocess.Popen(load, stdout=subprocess.PIPE)
    pause = str(int((SECONDS - 2) * 1000000 / MARKS))
    marking = [str(base / "ef-marked"), "0", "1", pause, str(MARKS), str(MARKED)]
    marks = subprocess.Popen(marking, stdout=subprocess.PIPE)
    statuses = []
    while flooder.poll() is None:
        statuses.append(status_of(folder))
        time.sleep(1)
    features = [each["features"][NAME] for each in statuses]
    return {
        "flooded": executed(flooder),
        "marks": executed(marks),
        "degraded": [each["degraded"] for each in features if each["degraded"]],
        "budgets": [each["budget"] for each in statuses if each["budget"]],
        "fairness": features[-1]["fairness"],
    }


def records(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((folder / "log").glob("events.jsonl*")):
        found += [json.loads(line) for line in path.read_text().splitlines()]
    return found


def main(base: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ef-flood-") as name:
        folder = Path(name)
        loader = start(base, folder)
        attached = wait_for(folder, lambda status: status["compatibility"])["features"][NAME]
        found = flood(base, folder)
        (folder / "run" / "kill.d").mkdir()
        (folder / "run" / "kill.d" / "global").touch()
        rest = wait_for(folder, lambda status: status["features"][NAME]["state"] == "killed")["features"][NAME]
        loader.send_signal(signal.SIGTERM)
        loader.wait(timeout=ANSWERED_IN_S)
        lines = records(folder)
        found.update(
            variant=attached["variant"],
            counters=rest["counters"],
            thinned=rest["fairness"]["thinned"] if rest.get("fairness") else 0,
            lines=len(lines),
            marked=sum(each["comm"] == "ef-marked" and each["uid"] == MARKED for each in lines),
            journal=(folder / "journal").read_text(errors="replace"),
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
