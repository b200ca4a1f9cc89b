# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a batch is watched, how long its hosts' lease lasts, and in which slices it bakes. Pure.

A lease must outlive what a host waits for by itself: its activation, the bake until the lease is renewed, and the
measurement. The default adds what a batch takes beyond that: tasks over SSH, a few hosts at a time.
"""

from __future__ import annotations

import math
import posixpath
from typing import Any, Iterator, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import RefusedValueError, whole
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.variables import read

ACTIVATION = "ebpf_fleet_activation_timeout"
WINDOW = "ebpf_fleet_window_after"
BAKE = "ebpf_fleet_bake"
RENEW = "ebpf_fleet_rollout_renew_seconds"
LEASE = "ebpf_fleet_rollout_lease_seconds"

STAGES = "ebpf_fleet_stages"

# Seconds, where the variable is not set. Without LEASE the lease is computed, without BAKE each stage has its own.
DEFAULTS = {ACTIVATION: 60, WINDOW: 30, RENEW: 300}
# Seconds that a batch of a stage bakes: longest where least is known, as most faults show in the first minutes.
BAKES = {"canary": 120, "cell": 60, "region": 60, "fleet": 30, "alone": 120}
READ_BAKE = whole(0, 86400)
# A bake is looked into each SLICE_SECONDS, so that what is plainly bad goes back within seconds; but a bake of hours
# at most SLICES times, as each costs the controller a few tasks.
SLICE_SECONDS = 10
SLICES = 60
# What a batch takes beyond its own waiting.
BATCH_SECONDS = 300
HOST_SECONDS = 10


def timing(given: Mapping[str, Any], hosts: int = 0, changed: bool = True, bake: int | None = None) -> dict[str, Any]:
    """The times of a batch of `hosts`, all in seconds; `changed` is whether the release is new to this host.

    `given` has the variables above, in any form that they take; None is not set. `bake` is what the plan has for
    the batch; without it, before there is a plan, the longest bake of all stages is taken. BAKE, where it is set,
    outranks both. The result has ``activation_seconds``, ``window_seconds``, ``needed_seconds`` (what a lease must
    cover), ``lease_seconds`` (0: no lease),
    ``renew_seconds`` (how often a batch that is held renews its lease, and the longest slice), ``slice_seconds`` (a
    longer bake goes in slices of this length), ``bake_slices`` (how many are baked before the last, shorter or equal
    one), ``bake_rest_seconds`` (the last one), and ``fault``, a sentence, where the lease that is asked for is too
    short, else empty. Raises RefusedValueError for a value that a variable does not take.
    """
    found = {name: _read(given, name, default) for name, default in DEFAULTS.items()}
    window, renew = found[WINDOW], found[RENEW]
    planned = _read(given, BAKE, longest_bake(given.get(STAGES)) if bake is None else bake)
    needed = found[ACTIVATION] + math.ceil(window) + min(planned, renew)
    asked = _read(given, LEASE, None)
    bake = planned if changed else 0
    slice_seconds = min(renew, max(SLICE_SECONDS, math.ceil(planned / SLICES)))
    slices = (bake - 1) // slice_seconds if bake > 0 else 0
    return {
        "activation_seconds": found[ACTIVATION],
        "window_seconds": window,
        "needed_seconds": needed,
        "lease_seconds": needed + BATCH_SECONDS + HOST_SECONDS * hosts if asked is None else asked,
        "renew_seconds": renew,
        "slice_seconds": slice_seconds,
        "bake_slices": slices,
        "bake_rest_seconds": bake - slices * slice_seconds,
        "fault": fault_of(asked, needed),
    }


def longest_bake(stages: Any) -> int:
    """Seconds of the longest bake of these stages, of the default ones where they are not given.

    What cannot be read of a stage is left to the plan, which refuses it with its place.
    """
    try:
        listed = read(STAGES, stages)
    except RefusedValueError:
        listed = None
    # Hosts that stand alone may come behind any list.
    return max([BAKES["alone"], *_bakes(listed or [])] if listed else BAKES.values())


def _bakes(stages: list[Any]) -> Iterator[int]:
    for one in stages:
        if not isinstance(one, Mapping):
            continue
        try:
            yield READ_BAKE("bake", one["bake"]) if one.get("bake") is not None else BAKES.get(str(one.get("stage")), 0)
        except RefusedValueError:
            continue


def _read(given: Mapping[str, Any], name: str, default: int | None) -> Any:
    value = given.get(name)
    return default if value is None else read(name, value)


def fault_of(asked: int | None, needed: int) -> str:
    """What speaks against a lease of so many seconds; empty where nothing does."""
    if asked is None or asked == 0 or asked >= needed:
        return ""
    return (
        f"{LEASE} is {asked}: a host needs {needed} s for its activation, bake and measurement; "
        "give at least that and the time that your largest batch takes, leave it out, or set it to 0 for no lease."
    )


def report_folder(given: str, typed_in: str) -> str:
    """The folder of the records: a relative path is meant from where the command was typed."""
    return posixpath.join(typed_in, given)
