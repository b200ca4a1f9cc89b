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
from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.variables import read

ACTIVATION = "ebpf_fleet_activation_timeout"
WINDOW = "ebpf_fleet_window_after"
BAKE = "ebpf_fleet_bake"
RENEW = "ebpf_fleet_rollout_renew_seconds"
LEASE = "ebpf_fleet_rollout_lease_seconds"

# Seconds, where the variable is not set. Without LEASE the lease is computed.
DEFAULTS = {ACTIVATION: 60, WINDOW: 30, BAKE: 30, RENEW: 300}
# What a batch takes beyond its own waiting.
BATCH_SECONDS = 300
HOST_SECONDS = 10


def timing(given: Mapping[str, Any], hosts: int = 0, changed: bool = True) -> dict[str, Any]:
    """The times of a batch of `hosts`, all in seconds; `changed` is whether the release is new to this host.

    `given` has the variables above, in any form that they take; None is not set. The result has
    ``window_seconds``, ``needed_seconds`` (what a lease must cover), ``lease_seconds`` (0: no lease),
    ``renew_seconds`` (a longer bake goes in slices of this length), ``bake_slices`` (how many are baked before the
    last, shorter or equal one), ``bake_rest_seconds`` (the last one), and ``fault``, a sentence, where the lease that
    is asked for is too short, else empty. Raises RefusedValueError for a value that a variable does not take.
    """
    found = {name: _read(given, name, default) for name, default in DEFAULTS.items()}
    window, renew = found[WINDOW], found[RENEW]
    needed = found[ACTIVATION] + math.ceil(window) + min(found[BAKE], renew)
    asked = _read(given, LEASE, None)
    bake = found[BAKE] if changed else 0
    slices = (bake - 1) // renew if bake > 0 else 0
    return {
        "window_seconds": window,
        "needed_seconds": needed,
        "lease_seconds": needed + BATCH_SECONDS + HOST_SECONDS * hosts if asked is None else asked,
        "renew_seconds": renew,
        "bake_slices": slices,
        "bake_rest_seconds": bake - slices * renew,
        "fault": fault_of(asked, needed),
    }


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
