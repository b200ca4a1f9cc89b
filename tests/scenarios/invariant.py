# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds at the end of every scenario, whatever happened in it. Pure.

Each host has exactly one release, which its loader verifies on the disk, and one loader that runs those very files and
holds programs. Where a host lost contact on probation its lease took the programs off, and the release is there. Where
it never had a release, nothing runs. And no batch begins after one that was not promoted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# What a host may come to: it runs a release, it detached by its lease, nothing was ever there.
RUNS, LEASE_OVER, NOTHING = "runs", "lease over", "nothing"


def host_faults(
    name: str, seen: Mapping[str, Any], digests: Iterable[str], ends: Sequence[str] = (RUNS,), probation: bool = False
) -> list[str]:
    """What is wrong with a host, a sentence each.

    `seen` is what host_state.py printed, `digests` are the releases that it may have, `ends` what may have become of
    it. With `probation` it may still be on it, as after the death of a controller.
    """
    current, loaders, status = seen["current"], seen["loaders"], seen["status"]
    if len(loaders) > 1:
        return [f"{name}: {len(loaders)} loaders run: {loaders}"]
    if not current:
        faults = [] if NOTHING in ends else [f"{name}: no release is installed"]
        return faults + [f"{name}: a loader of no release runs: {one}" for one in loaders]
    faults = []
    if not current["verified"]:
        faults.append(f"{name}: the release on the disk is not one that it verifies: {current['why']}")
    if current["digest"] not in set(digests):
        faults.append(f"{name}: has release {current['digest'][:12]}, which is not one of those that it may have")
    if seen["lease"] and not probation and LEASE_OVER not in ends:
        faults.append(f"{name}: is still on probation")
    if not loaders:
        return [*faults, f"{name}: has a release, and no loader runs"]
    return faults + _loader_faults(name, loaders[0], current, status, ends)


def _loader_faults(
    name: str, loader: Mapping[str, Any], current: Mapping[str, Any], status: Mapping[str, Any], ends: Sequence[str]
) -> list[str]:
    faults = []
    if not loader["exe"].startswith(current["place"] + "/"):
        faults.append(f"{name}: runs {loader['exe']}, and {current['place']} is the current release")
    if (status["pid"], status["digest"]) != (loader["pid"], current["digest"]):
        faults.append(f"{name}: the status is of process {status['pid']} and release {status['digest']}")
    dark = (status["state"], status["reason_code"]) == ("idle", "EF_LEASE_EXPIRED")
    if dark and LEASE_OVER not in ends:
        faults.append(f"{name}: detached, as its lease was over")
    if not dark and RUNS not in ends:
        faults.append(f"{name}: runs ({status['state']}, {status['reason_code']}), and its lease should be over")
    if dark is bool(loader["programs"]):
        faults.append(f"{name}: says {status['state']} and holds {loader['programs']} programs")
    return faults


def ledger_faults(entries: Iterable[Any]) -> list[str]:
    """Batches that began though the one before them was not promoted, in the order of the ledger's entries.

    A resumed rollout begins where the hosts are: what was begun before its process died counts no more.
    """
    faults = []
    open_batch: dict[str, int] = {}
    failed: dict[str, int] = {}
    for entry in entries:
        what = str(entry.data.get("action", entry.kind))
        number = entry.data.get("number")
        if what in ("started", "resumed"):
            open_batch.pop(entry.rollout, None)
            failed.pop(entry.rollout, None)
        elif what == "rolled_back" or (what == "verdict" and entry.data["verdict"] == "fail"):
            failed[entry.rollout] = number if isinstance(number, int) else 0
        elif what == "promoted":
            if open_batch.get(entry.rollout) == number:
                del open_batch[entry.rollout]
        elif what == "batch_begun":
            before = failed.get(entry.rollout, open_batch.get(entry.rollout))
            if before is not None:
                faults.append(f"rollout {entry.rollout}: batch {number} began after batch {before}, not promoted")
            open_batch[entry.rollout] = entry.data["number"]
    return faults
