# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every variable that a person may set, and what it takes. The one home of that. Pure.

The playbooks ask `faults` before anything else, and read each value with `read`: whether it came
from an inventory, a file or `-e key=value`, it is the same value afterwards.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import (
    Reader,
    RefusedValueError,
    decimal,
    label,
    listing,
    mapping,
    maybe,
    names,
    one_of,
    text,
    truth,
    whole,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import documents
from ansible_collections.ebpf.fleet.plugins.module_utils.pull.fetch import check_location
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import (
    cell_controllers,
    freeze,
    hooks,
    omissions,
    plan_holdback,
    plan_waves,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.latency import read_source

_PERCENT = re.compile(r"[1-9][0-9]{0,4}%", re.ASCII)
_SIZE = re.compile(r"infinity|[1-9][0-9]{0,17}([KMGT]|%)?", re.ASCII)
_PROGRAM = re.compile(r"(?:/[A-Za-z0-9._-]+)+", re.ASCII)
_NAMED = 20


def _quota(name: str, value: Any) -> str:
    """Percent of one core, as systemd's CPUQuota= has it."""
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        return str(value)
    raise values.refuse(name, value, "give percent of one core, such as 20%")


def _size(name: str, value: Any) -> str:
    """Bytes, as systemd's MemoryMax= has them; a whole number is bytes."""
    words = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if _SIZE.fullmatch(words):
        return words
    raise values.refuse(name, value, "give bytes, such as 128M, or infinity")


def _next_kernel(name: str, value: Any) -> str:
    """`auto`, or a kernel's release; what is false asks for none."""
    try:
        return "auto" if truth(name, value) else ""
    except RefusedValueError:
        return str(text(name, value))


def _texts(name: str, value: Any) -> Any:
    """Text, or a list of texts: a pattern of hosts, the lines of a trust file."""
    return [text(name, one) for one in value] if isinstance(value, (list, tuple)) else text(name, value)


def _path(name: str, value: Any) -> str:
    """A path, or an empty text for none."""
    found = str(text(name, value))
    if found and not found.strip():
        raise values.refuse(name, value, "give a path, or leave it out")
    return found


def _location(name: str, value: Any) -> str:
    """Where a kill list is, or an empty text for nowhere."""
    found = str(text(name, value))
    try:
        if found:
            check_location(found)
    except ValueError as error:
        raise values.refuse(name, value, f"it {error}; give https://SERVER/PATH, http:// or file:///PATH") from error
    return found


def _program(name: str, value: Any) -> str:
    """An absolute path that systemd takes as it is."""
    found = str(text(name, value))
    if not _PROGRAM.fullmatch(found):
        raise values.refuse(name, value, "give an absolute path of letters, digits, dot, dash and underscore")
    return found


def _latency(name: str, value: Any) -> Any:
    """Where an application's latency comes from, as it was given once it can be used."""
    read_source(name, value)
    return mapping(name, value)


_SECONDS = decimal(1, 3600)

# What a rollout takes.
ROLLOUT: dict[str, Reader] = {
    "ebpf_fleet_bundle": _path,
    "ebpf_fleet_hosts": _texts,
    # What is missing is told by the plan, of all hosts at once.
    "ebpf_fleet_cell": maybe(label),
    "ebpf_fleet_region": maybe(label),
    "ebpf_fleet_stages": maybe(listing),
    "ebpf_fleet_expected_stratum": maybe(text),
    "ebpf_fleet_last_census": _path,
    "ebpf_fleet_until": maybe(label),
    "ebpf_fleet_max_batch": maybe(whole(1)),
    **{f"ebpf_fleet_{name}": maybe(reader) for name, reader in plan_waves.READERS.items()},
    freeze.FREEZES: freeze.read_freezes,
    freeze.BLOCKED: freeze.read_blocked_hours,
    freeze.OVERRULE: maybe(text),
    "ebpf_fleet_maintenance": omissions.read_maintenance,
    "ebpf_fleet_leave_out": omissions.read_leave_out,
    omissions.LIMIT: omissions.read_limit,
    "ebpf_fleet_quarantine_file": _path,
    plan_holdback.PERCENT: maybe(plan_holdback.READ_PERCENT),
    plan_holdback.UNTIL: maybe(plan_holdback.read_date),
    "ebpf_fleet_window_before": decimal(0, 3600),
    "ebpf_fleet_window_after": decimal(0, 3600),
    "ebpf_fleet_bake": whole(0, 86400),
    "ebpf_fleet_rollout_lease_seconds": whole(),
    "ebpf_fleet_rollout_renew_seconds": whole(1, 86400),
    "ebpf_fleet_application_file": _path,
    "ebpf_fleet_gate_limits": mapping,
    "ebpf_fleet_on_inconclusive": mapping,
    "ebpf_fleet_gate_checks": listing,
    "ebpf_fleet_gate_dry_run": names,
    "ebpf_fleet_gate_error_rate": decimal(0.000001, 0.5),
    "ebpf_fleet_control_hosts": whole(0, 1000),
    "ebpf_fleet_application_latency": _latency,
    "ebpf_fleet_report_dir": _path,
    "ebpf_fleet_ledger": _path,
    "ebpf_fleet_hooks": hooks.checked,
    "ebpf_fleet_resume": text,
    "ebpf_fleet_bake_extensions": whole(0, 100),
    "ebpf_fleet_hold_seconds": whole(0, 604800),
    "ebpf_fleet_rollback_all": truth,
    cell_controllers.CONTROLLERS: cell_controllers.checked_controllers,
    "ebpf_fleet_cell_silence": whole(10, 3600),
}
# What people ask of a rollout by its id.
LEDGER: dict[str, Reader] = {
    "ebpf_fleet_rollout_id": text,
    "ebpf_fleet_abort_wait": whole(0, 86400),
    "ebpf_fleet_lift_quarantine": text,
}
# What the roles take, and with them a rollout and prepare.yml.
ROLES: dict[str, Reader] = {
    "ebpf_fleet_allowed_signers": _texts,
    "ebpf_fleet_revoked_keys": _texts,
    "ebpf_fleet_trust_overrule": truth,
    "ebpf_fleet_policy": mapping,
    "ebpf_fleet_loader_cpu_quota": _quota,
    "ebpf_fleet_loader_memory_max": _size,
    "ebpf_fleet_loader_memlock": _size,
    "ebpf_fleet_loader_interval": whole(1, 3600),
    "ebpf_fleet_textfile_directory": _path,
    "ebpf_fleet_perf_event_paranoid": one_of("", "2", "1", "0", "-1"),
    "ebpf_fleet_bcc_fallback": truth,
    "ebpf_fleet_bcc_install_packages": truth,
    "ebpf_fleet_bcc_cpu_quota": _quota,
    "ebpf_fleet_bcc_memory_max": _size,
    "ebpf_fleet_pull_location": _location,
    "ebpf_fleet_pull_interval": whole(*documents.SECONDS["interval_s"]),
    "ebpf_fleet_pull_policy": one_of(documents.KEEP, documents.DETACH),
    "ebpf_fleet_pull_lease": whole(*documents.SECONDS["lease_s"]),
    "ebpf_fleet_pull_timeout": whole(*documents.SECONDS["timeout_s"]),
    "ebpf_fleet_pull_wait": whole(*documents.SECONDS["wait_s"]),
    "ebpf_fleet_pull_python": _program,
    "ebpf_fleet_deploy_digest": text,
    "ebpf_fleet_features": mapping,
    "ebpf_fleet_keep_releases": whole(1, 100),
    "ebpf_fleet_allow_downgrade": truth,
    "ebpf_fleet_activation_timeout": whole(0, 3600),
    "ebpf_fleet_deploy_lease": mapping,
}
# What a kill takes. A kill asks for these alone: a bad value elsewhere must not keep programs on.
KILL: dict[str, Reader] = {
    "ebpf_fleet_kill_timeout": _SECONDS,
    "ebpf_fleet_return_timeout": _SECONDS,
    "ebpf_fleet_logins": whole(0, 4096),
    "ebpf_fleet_kex_algorithms": text,
    "ebpf_fleet_connect_timeout": _SECONDS,
}
CAPABILITIES: dict[str, Reader] = {
    "ebpf_fleet_report": _path,
    "ebpf_fleet_next_kernel": maybe(_next_kernel),
    "ebpf_fleet_fallbacks": names,
}
INVENTORY: dict[str, Reader] = {"ebpf_fleet_last_inventory": _path}
RELEASE: dict[str, Reader] = {
    "ebpf_fleet_release_version": text,
    "ebpf_fleet_release_sequence": whole(1, (1 << 63) - 1),
    "ebpf_fleet_release_signing_key": _path,
    "ebpf_fleet_release_features": names,
    "ebpf_fleet_release_features_dirs": names,
    "ebpf_fleet_release_btf_dirs": names,
    "ebpf_fleet_release_matrix": _path,
    "ebpf_fleet_release_output": _path,
}
KILL_LIST: dict[str, Reader] = {
    "ebpf_fleet_kill_list": _path,
    "ebpf_fleet_kill_list_orders": listing,
    "ebpf_fleet_kill_list_signing_key": _path,
    "ebpf_fleet_kill_list_sequence": maybe(whole(1)),
    "ebpf_fleet_kill_list_lifetime": whole(60, killlist.MAX_LIFETIME_SECONDS),
}
SAMPLING: dict[str, Reader] = {
    "ebpf_fleet_sampling_feature": text,
    "ebpf_fleet_sampling_per_hour": whole(1),
    "ebpf_fleet_sampling_window": decimal(1, 3600),
    "ebpf_fleet_sampling_output": _path,
}
FORENSICS: dict[str, Reader] = {
    "ebpf_fleet_forensics_dir": _path,
    "ebpf_fleet_forensics_file_bytes": whole(4096, 1048576),
    "ebpf_fleet_forensics_bytes": whole(8192, 3145728),
    "ebpf_fleet_forensics_timeout": _SECONDS,
    "ebpf_fleet_forensics_check": one_of("auto", "always", "never"),
}
TRIAGE: dict[str, Reader] = {
    "ebpf_fleet_triage_yes": truth,
    "ebpf_fleet_triage_window": decimal(1, 3600),
    "ebpf_fleet_triage_feature": text,
    "ebpf_fleet_triage_features": whole(0, 32),
    "ebpf_fleet_triage_reduce": text,
}
GAMEDAY: dict[str, Reader] = {
    "ebpf_fleet_gameday": truth,
    "ebpf_fleet_gameday_drills": names,
    "ebpf_fleet_gameday_seconds": whole(30, 600),
    "ebpf_fleet_gameday_recovery": whole(1, 3600),
    "ebpf_fleet_gameday_off_ms": whole(1, 60000),
}
VARIABLES: dict[str, Reader] = {
    **ROLLOUT, **LEDGER, **ROLES, **KILL, **CAPABILITIES, **INVENTORY, **RELEASE, **SAMPLING, **FORENSICS,
    **TRIAGE, **KILL_LIST, **GAMEDAY,
}  # fmt: skip


def read(name: str, value: Any) -> Any:
    """The value that a variable's text, number or document means. Raises RefusedValueError."""
    if name not in VARIABLES:
        raise RefusedValueError(f"{name}: is not a variable of ebpf.fleet; {did_you_mean(name, VARIABLES)}")
    return VARIABLES[name](name, value)


def faults(hosts: Iterable[Mapping[str, Any]], known: Iterable[str] = tuple(VARIABLES)) -> list[str]:
    """One sentence for each value that its variable does not take, with the hosts that have it.

    A host is its variables. What every host has alike, as with `-e`, is told without their names, and so is
    what is of no host.
    """
    wrong: dict[str, list[str]] = {}
    readers = {name: VARIABLES[name] for name in known}
    count = 0
    for host in hosts:
        count += 1
        for name, reader in readers.items():
            problem = _problem(reader, name, host)
            if problem is not None:
                wrong.setdefault(problem, []).append(str(host.get("inventory_hostname", "")))
    return [_sentence(problem, at, count) for problem, at in wrong.items()]


def _problem(reader: Reader, name: str, host: Mapping[str, Any]) -> str | None:
    if name not in host:
        return None
    try:
        reader(name, host[name])
    except RefusedValueError as error:
        return str(error)
    return None


def _sentence(problem: str, hosts: list[str], count: int) -> str:
    if (len(hosts) == count and count > 1) or hosts == [""]:
        return problem
    more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
    return f"{', '.join(hosts[:_NAMED])}{more}: {problem}"
