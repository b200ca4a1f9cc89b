# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of the gate, one record each, in the order in which they are judged within their scope. Pure.

A new check is a record here and its judge. Limits and their defaults, what the gate's arguments take, the next
steps of a verdict, and the tables of docs/rollout.md and docs/formats/gate.md (`make checks`) follow from it.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import (
    answers,
    counters,
    expectation,
    features,
    host,
    load,
    outliers,
    shift,
    witness_cost,
    witness_process,
    witness_programs,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import INCONCLUSIVE
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.record import (
    ANSWER,
    EXPECTED,
    FEATURE,
    FLEET,
    HOST,
    PROGRAMS,
    SERVICE,
    Check,
    Fallback,
    budget,
)

WITNESS = (
    "what the loader tells and what the kernel shows differ: treat the host as hostile until someone has looked at it"
)
_SLOWER = "if the release slows the application, do not promote it; else raise application_{}_growth_ppm"


def _application(percentile: str) -> Check:
    return Check(
        name=f"application_{percentile}",
        scope=HOST,
        judge=host.application(percentile),
        what=f"growth of the application's {percentile}",
        step=_SLOWER.format(percentile),
        sentence=f"growth of the application's {percentile}",
        unit="ppm",
        limit=f"application_{percentile}_growth_ppm",
        optional=True,
    )


# What a shift must be at least, and what to do about one. One percent of a host's CPUs or of its time, 32 MiB, and a
# twentieth of the application's latency: less is not worth a way back, whatever the ranks say.
_SHIFTS: dict[str, tuple[int, str]] = {
    "host_cpu_shift": (10_000, "many hosts got busier by a little: compare with their loader_cpu and bpf_cpu"),
    "host_memory_shift": (33_554_432, "many hosts got fuller: compare with their map_memory and the loader's memory"),
    "pressure_cpu_shift": (10_000, "tasks wait longer for a CPU: compare with bpf_cpu and feature_cpu"),
    "pressure_memory_shift": (10_000, "tasks wait longer for memory: compare with map_memory"),
    "pressure_io_shift": (10_000, "tasks wait longer for disks: compare with the features that write events"),
    "application_p95_shift": (50_000, "the release slows the application: do not promote it"),
    "application_p99_shift": (50_000, "the release slows the application: do not promote it"),
}


def _shift(metric: shift.Metric) -> Check:
    least, step = _SHIFTS[metric.check]
    return Check(
        name=metric.check,
        scope=FLEET,
        judge=shift.judge_shift(metric),
        what=f"growth of {metric.words} on all changed hosts against controls that were not changed: a rank test, and "
        "at least the limit",
        step=f"{step}; a shift that is meant is allowed with {metric.limit}",
        sentence=f"shift of {metric.words}",
        unit=metric.unit,
        limit=metric.limit,
        default=least,
    )


def _witness(name: str, scope: str, judge: Any, what: str, unit: str | None = None) -> Check:
    return Check(name=name, scope=scope, judge=judge, what=what, step=WITNESS, unit=unit)


CHECKS: tuple[Check, ...] = (
    Check(
        name="observation",
        scope=ANSWER,
        judge=answers.judge_answer,
        what="the host was observed, and its answer is what it must be",
        step="look at what the host answers (-vvv), or leave it out with --limit",
    ),
    Check(
        name="counters_advance",
        scope=HOST,
        judge=counters.judge_counters,
        what="no counter went backwards within a window; said only where one did",
        step="measure again; if it stays, the host's kernel, clock or loader is wrong: look at it",
    ),
    Check(
        name="status_fresh",
        scope=HOST,
        judge=host.judge_freshness,
        what="age of the status; a stale one holds",
        step="the loader hangs or /run is full: look at the host",
        sentence="age of the status",
        unit="ns",
        limit="status_age_ns",
        default=30_000_000_000,
        over=INCONCLUSIVE,
    ),
    Check(
        name="release",
        scope=HOST,
        judge=host.judge_release,
        what="the host runs the very bundle that the rollout brings",
        step="the host runs another bundle: look at journalctl -u ebpf-fleet-loader there",
        unit="sha256",
        early=True,
    ),
    Check(
        name="loader_active",
        scope=HOST,
        judge=host.judge_active,
        what="the loader is active at both ends of the window",
        step="the loader ended: look at journalctl -u ebpf-fleet-loader on the host",
        early=True,
    ),
    Check(
        name="loader_restarts",
        scope=HOST,
        judge=host.judge_restarts,
        what="loader restarts in the window that were not planned",
        step="the loader ended by itself: look at journalctl -u ebpf-fleet-loader on the host",
        sentence="unordered loader restarts",
        unit="restarts",
        limit="loader_restarts",
        default=0,
        early=True,
    ),
    Check(
        name="loader_cpu",
        scope=HOST,
        judge=load.judge_loader,
        what="CPU of the loader itself",
        step="sample the features with events (ebpf_fleet_features), or raise loader_cpu_millicores",
        sentence="loader CPU",
        unit="millicores",
        limit="loader_cpu_millicores",
        default=50,
        early=True,
    ),
    Check(
        name="bpf_cpu",
        scope=HOST,
        judge=load.judge_programs,
        what="CPU of all BPF programs",
        step="sample the features (ebpf_fleet_features), or have their owners raise their budgets",
        sentence="CPU of all programs",
        unit="millicores",
        limit="bpf_cpu_millicores",
        fallback=Fallback(load.attached_budget, "the sum of the contracts' `cpu_millicores`"),
        early=True,
    ),
    Check(
        name="total_cpu",
        scope=HOST,
        judge=load.judge_total,
        what="CPU of loader and programs",
        step="as loader_cpu and feature_cpu: lower what runs, or raise total_cpu_millicores",
        sentence="CPU of loader and programs",
        unit="millicores",
        limit="total_cpu_millicores",
        fallback=Fallback(load.total_budget, "that sum and `loader_cpu_millicores`"),
        early=True,
    ),
    Check(
        name="host_cpu_delta",
        scope=HOST,
        judge=load.judge_host_cpu,
        what="growth of host CPU, of all cores, less that of the controls; see `host_outliers`",
        step="the sentence has what of it is ours: if another load grew meanwhile, wait until it is over, or raise "
        "host_cpu_delta_ppm",
        sentence="host CPU growth ({how}; {ours})",
        unit="ppm",
        limit="host_cpu_delta_ppm",
        default=50_000,
    ),
    Check(
        name="host_memory_delta",
        scope=HOST,
        judge=load.judge_host_memory,
        what="growth of host memory, less that of the controls; see `host_outliers`",
        step="look at what else grew on the host; wait until it is over, or raise host_memory_delta_bytes",
        sentence="host memory growth ({how})",
        unit="bytes",
        limit="host_memory_delta_bytes",
        default=134_217_728,
    ),
    _application("p95"),
    _application("p99"),
    Check(
        name="features_attached",
        scope=EXPECTED,
        judge=expectation.judge_expected,
        what="every wanted feature reached its predicted profile",
        step="the sentence has the loader's reason: fix the host, or turn the feature off on it",
        unit="profile",
        early=True,
    ),
    _witness("witness", HOST, witness_process.judge_witness, "never: it holds where root's own view was not taken"),
    _witness("witness_boot", HOST, witness_process.judge_boot, "the status is of another boot"),
    _witness(
        "witness_release",
        HOST,
        witness_process.judge_installed,
        "the digest that is told, the installed manifest's and the planned one are not the same",
        "sha256",
    ),
    _witness(
        "witness_process",
        SERVICE,
        witness_process.judge_process,
        "the unit has no main process, or it is stopped, traced or a zombie, or outside the unit's cgroup",
    ),
    _witness(
        "witness_pid",
        SERVICE,
        witness_process.judge_pid,
        "the status is of another process than the unit's main process, or of another start of it",
    ),
    _witness("witness_user", SERVICE, witness_process.judge_user, "it runs with a user id of root"),
    _witness("witness_exe", SERVICE, witness_process.judge_exe, "it executes another file than the installed one"),
    _witness(
        "witness_advance",
        SERVICE,
        witness_cost.judge_advance,
        "the account is of the future, stood still for longer than `status_age_ns`, or advanced while the unit got "
        "no CPU at all",
        "ns",
    ),
    _witness(
        "witness_cpu",
        SERVICE,
        witness_cost.judge_cpu,
        "the CPU time that is told is not between what the kernel counted at both ends of the window (50 ms of "
        "tolerance: ticks)",
        "ns",
    ),
    _witness(
        "witness_memory",
        SERVICE,
        witness_cost.judge_memory,
        "less resident memory is told than two thirds of what the kernel saw at both ends, less 8 MiB",
        "bytes",
    ),
    _witness(
        "witness_programs",
        SERVICE,
        witness_programs.judge_programs,
        "a program that is told as attached is not held, or is held without a link; or one is held and not told",
    ),
    _witness(
        "witness_runs",
        PROGRAMS,
        witness_programs.judge_runs,
        "runs or run time are not between the kernel's counts, or events are told while no program ran",
    ),
    Check(
        name="degradation",
        scope=FEATURE,
        judge=features.judge_degradation,
        what="steps that a budget took a feature down (thinned, reduced)",
        step="a budget thinned or took off the feature: make it fit, or allow it with degradation_steps",
        sentence="{steps}",
        unit="steps",
        limit="degradation_steps",
        default=0,
        early=True,
    ),
    Check(
        name="feature_cpu",
        scope=FEATURE,
        judge=features.judge_feature_cpu,
        what="CPU of a feature's programs",
        step="sample the feature (ebpf_fleet_features), turn it off, or have its owner raise its budget",
        sentence="CPU of its programs",
        unit="millicores",
        fallback=budget("cpu_millicores"),
        early=True,
    ),
    Check(
        name="drop_ratio",
        scope=FEATURE,
        judge=features.judge_drops,
        what="dropped / (produced − sampled out)",
        step="sample the feature (ebpf_fleet_features), or have its owner enlarge its ring or map",
        sentence="dropped of what sampling let pass",
        unit="ppm",
        limit="drop_ratio_ppm",
        fallback=budget("drop_ratio_ppm"),
        switch="require_events",
        early=True,
    ),
    Check(
        name="event_rate",
        scope=FEATURE,
        judge=features.judge_event_rate,
        what="delivered events a second, where a limit is known",
        step="sample the feature (ebpf_fleet_features), or have its owner raise its event_rate_per_second",
        sentence="delivered events",
        unit="events/s",
        limit="event_rate_per_second",
        fallback=budget("event_rate_per_second"),
        optional=True,
    ),
    Check(
        name="accounting",
        scope=FEATURE,
        judge=features.judge_accounting,
        what="produced = delivered + dropped + sampled_out + in_flight: events off",
        step="a program counts wrongly: do not promote it; tell the feature's owner",
        sentence="events that the counters do not account for",
        unit="events",
        limit="accounting_error_events",
        default=0,
    ),
    Check(
        name="map_fill",
        scope=FEATURE,
        judge=features.judge_fill,
        what="fill of each hash map",
        step="have the feature's owner enlarge the map; until then turn the feature off (ebpf_fleet_features)",
        sentence="fill of map {map}",
        unit="ppm",
        limit="map_fill_ppm",
        default=900_000,
    ),
    Check(
        name="map_memory",
        scope=FEATURE,
        judge=features.judge_map_memory,
        what="memory of a feature's maps",
        step="have the feature's owner raise its map_memory_bytes or make its maps smaller",
        sentence="memory of its maps",
        unit="bytes",
        limit="map_memory_bytes",
        fallback=budget("map_memory_bytes"),
        early=True,
    ),
    Check(
        name="consumer_lag",
        scope=FEATURE,
        judge=features.judge_lag,
        what="share of the ring that is unread",
        step="the loader does not get the CPU or its disk is slow: look at CPUQuota= and /var/log on the host",
        sentence="share of the ring unread",
        unit="ppm",
        limit="consumer_lag_ppm",
        default=800_000,
        early=True,
    ),
    Check(
        name="host_outliers",
        scope=FLEET,
        judge=outliers.judge_outliers,
        what="share of a batch's hosts whose CPU or memory grew over the limit of a host, of 20 hosts and more",
        step="many hosts grew over their limit: compare with total_cpu and map_memory, or raise host_outliers_ppm",
        sentence="hosts over a limit of their growth",
        unit="ppm",
        limit=outliers.LIMIT,
        default=50_000,
    ),
    *map(_shift, shift.METRICS),
)

BY_NAME = {check.name: check for check in CHECKS}
NAMES = tuple(BY_NAME)
# {name in ebpf_fleet_gate_limits: its check}, for the limits that are numbers and those that are true or false.
LIMITS = {check.limit: check for check in CHECKS if check.limit is not None}
SWITCHES = {check.switch: check for check in CHECKS if check.switch is not None}
DEFAULT_LIMITS: dict[str, int | bool | None] = {
    **{name: check.default for name, check in LIMITS.items()},
    **dict.fromkeys(SWITCHES, False),
}


def of_scope(*scopes: str) -> list[Check]:
    """The checks of some scopes, in their order."""
    return [check for check in CHECKS if check.scope in scopes]
