# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of drills: what is injected, what must be seen of it, and which page says what then is so. Pure.

tests/unit/test_gameday.py holds every `says` against the page that it is quoted from.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean

ALL = "all"


class Step(NamedTuple):
    """A sentence of a page, and the sign by which it is judged whether it was so; `when` is during or after."""

    page: str
    section: str
    says: str
    sign: str
    when: str = "during"


class Drill(NamedTuple):
    """`detected`: signs of which one tells the fault; `degraded`: signs that must all be seen then.

    `features`: of these the first that is attached is watched, and takes the kill order where `kill` is true.
    `restarts`: the loader is started again at the begin and at the end. `budgets`: those of the sign `over`.
    """

    name: str
    injects: str
    detected: tuple[str, ...]
    degraded: tuple[str, ...]
    documented: str
    runbook: tuple[Step, ...]
    features: tuple[str, ...] = ()
    kill: bool = False
    restarts: bool = False
    budgets: tuple[str, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        """The reason codes of the budgets that the fault exceeds."""
        return tuple(f"EF_BUDGET_{name}" for name in self.budgets)


_EVENTS = ("exec_events",)
_SILENT = "docs/runbooks/loader_silent.md"
_FLOODS = "docs/runbooks/event_floods.md"

_TABLE = (
    Drill(
        "event_flood",
        "programs that start and end as fast as the host can, from one control group",
        detected=("thinned", "over", "dropped"),
        degraded=("thinned",),
        documented="docs/degradation.md#fairness",
        runbook=(
            Step(_FLOODS, "EbpfFleetEventsThinned", "Who is it?", "source_named"),
            Step(_FLOODS, "EbpfFleetEventsThinned", "the flood ends with it, and so does the alert", "quiet", "after"),
        ),
        features=_EVENTS,
        kill=True,
        budgets=("CPU", "HOST_CPU", "EVENT_RATE", "HOST_EVENT_RATE",
               "DROPS"),
    ),
    Drill(
        "map_flood",
        "system calls of numbers that do not exist, each a key of its own",
        detected=("over", "dropped"),
        degraded=("over",),
        documented="docs/degradation.md#budgets",
        runbook=(
            Step("docs/runbooks/syscall_errors.md", "SyscallErrorsHigh",
                 "a program tries all numbers, and new pairs find no room", "filled"),
            Step("docs/runbooks/syscall_errors.md", "SyscallErrorsHigh",
                 "empty the table with `systemctl restart ebpf-fleet-loader`", "emptied", "after"),
        ),
        features=("syscall_errors",),
        kill=True,
        restarts=True,
        budgets=("MAP_FILL", "DROPS"),
    ),
    Drill(
        "cpu_burn",
        "processes that wake each other and fail in system calls, so that our programs run all the time",
        detected=("over",),
        degraded=("over", "step"),
        documented="docs/degradation.md#budgets",
        runbook=(
            Step("docs/budgets.md", "On call", "which feature, which limit, how far over", "how_far"),
            Step("docs/budgets.md", "On call",
                 "what is shed costs nothing, and comes back by itself", "as_before", "after"),
        ),
        features=("runqlat", "syscall_errors"),
        kill=True,
        budgets=("CPU", "HOST_CPU"),
    ),
    Drill(
        "crash_loop",
        "SIGKILL of the loader's main process, again each time it is back",
        detected=("restarted",),
        degraded=("given_up", "nothing_held"),
        documented=f"{_SILENT}#ebpffleetsilent",
        runbook=(
            Step(_SILENT, "EbpfFleetSilent",
                 "it ended six times within two minutes, and systemd starts it no more", "given_up"),
            Step(_SILENT, "EbpfFleetSilent", "It comes back with what is desired", "as_before", "after"),
        ),
        restarts=True,
    ),
    Drill(
        "tampered_bundle",
        "one byte of an object of the installed bundle is another for the loader, which is started again",
        detected=("tamper_refused",),
        degraded=("exit_refused", "nothing_held"),
        documented="docs/formats/loader.md",
        runbook=(
            Step(_SILENT, "EbpfFleetSilent", "`failed` with exit status 3: the bundle was refused", "exit_refused"),
            Step(_SILENT, "EbpfFleetSilent", "journal has the reason code", "tamper_refused"),
        ),
        restarts=True,
    ),
    Drill(
        "missing_btf",
        "the kernel's BTF is not there for the loader, which is started again",
        detected=("btf_gone",),
        degraded=("without_vmlinux",),
        documented="docs/btf.md",
        runbook=(
            Step("docs/btf.md", "Kernels that do not tell their types",
                 "`btf` in the loader's `status.json` (`vmlinux`, `bundled` or `missing`)", "btf_gone"),
        ),
        restarts=True,
    ),
    Drill(
        "sink_stall",
        "the file system of the loader's records is full for the loader, which is started again, while programs start",
        detected=("unwritten", "dropped"),
        degraded=("over", "step"),
        documented="docs/degradation.md#budgets",
        runbook=(
            Step("docs/runbooks/events_dropped.md", "EbpfFleetEventsDropped",
                 "`unwritten` above 0 are records that the sink", "unwritten"),
        ),
        features=_EVENTS,
        kill=True,
        restarts=True,
        budgets=("DROPS",),
    ),
    Drill(
        "controller_loss",
        "programs that start and end, and a controller that says nothing until the host has ended it by itself",
        detected=("ended_by_host",),
        degraded=("ended_by_host",),
        documented="docs/gameday.md",
        runbook=(Step("docs/gameday.md", "What ends a fault", "systemd ends it", "ended_by_host"),),
        features=_EVENTS,
    ),
)  # fmt: skip
DRILLS: dict[str, Drill] = {one.name: one for one in _TABLE}


def drill(name: str) -> Drill:
    """A drill by its name; FleetError EF_ARGUMENT for another."""
    if name not in DRILLS:
        raise FleetError("EF_ARGUMENT", f"drill {name!r} is not one; {did_you_mean(name, DRILLS)}")
    return DRILLS[name]


def chosen(names: list[str]) -> list[str]:
    """The drills in the order of the table; `all` is each of them. FleetError EF_ARGUMENT for an unknown or none."""
    if not names:
        raise FleetError("EF_ARGUMENT", f"ebpf_fleet_gameday_drills: name drills, or all; {', '.join(DRILLS)}")
    if names == [ALL]:
        return list(DRILLS)
    for name in names:
        drill(name)
    return [name for name in DRILLS if name in names]
