# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a fleet can run, counted: how many hosts reach which profile, by stratum, and why. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils import policy_ready

SCHEMA = "ebpf.fleet/census/v1"
PROFILES = ("full", "reduced", "disabled")
Json = Mapping[str, Any]


def stratum_of(capabilities: Json) -> str:
    """Return kernel family × architecture × distro, as ``6.1/x86_64/debian``; what is not known reads ``unknown``."""
    kernel = capabilities.get("kernel") or {}
    distro = capabilities.get("distro") or {}
    parts = (kernel.get("family"), kernel.get("machine"), distro.get("id"))
    return "/".join(str(part) if part else "unknown" for part in parts)


def rollout_host(hostvars: Json) -> dict[str, Any]:
    """Return what a plan needs of one host: its name, cell, region (None when not set) and stratum."""
    capability = hostvars.get("ebpf_fleet_capability") or {}
    return {
        "name": hostvars["inventory_hostname"],
        "cell": hostvars.get("ebpf_fleet_cell"),
        "region": hostvars.get("ebpf_fleet_region"),
        "stratum": stratum_of(capability.get("capabilities") or {}),
    }


def capability_census(
    answers: Mapping[str, Json],
    target: Json | None = None,
    features: Mapping[str, Json] | None = None,
    time: str | None = None,
) -> dict[str, Any]:
    """Count profiles over the fleet.

    ``answers`` maps every host that was asked to the result of ``capability_facts``, ``target``
    is what the lookup ``bundle`` says of the bundle that was asked about, ``features`` maps hosts
    to their ``ebpf_fleet_features``, ``time`` is when they were asked. The format is in
    docs/interfaces.md.
    """
    contracts = (target or {}).get("contracts") or []
    hosts = {
        name: _host(answer, contracts, (features or {}).get(name))
        for name, answer in answers.items()
        if answer.get("capabilities")
    }
    silent = sorted(set(answers) - set(hosts))
    counted = _features(hosts)
    return {
        "schema": SCHEMA,
        "time": time,
        "bundle": (target or {}).get("bundle"),
        "digest": (target or {}).get("digest"),
        "hosts": hosts,
        "strata": _strata(hosts),
        "features": counted,
        "silent": silent,
        "silent_reasons": {name: _silence(answers[name]) for name in silent},
        "sentences": _sentences(hosts, counted, silent),
    }


def _host(answer: Json, contracts: Sequence[Json], features: Json | None) -> dict[str, Any]:
    capabilities = answer["capabilities"]
    return {
        "kernel": capabilities.get("kernel"),
        "btf": (capabilities.get("btf") or {}).get("state"),
        "privileged": capabilities.get("privileged"),
        "stratum": stratum_of(capabilities),
        "profiles": answer.get("profiles") or {},
        "policy": policy_ready.policy_answers(capabilities, contracts, features),
        "next_kernel": capabilities.get("next_kernel"),
    }


def _silence(answer: Json) -> str | None:
    """What Ansible said of a host that gave no answer, in one line; None where it said nothing."""
    lines = str(answer.get("msg") or "").strip().splitlines()
    kind = "unreachable" if answer.get("unreachable") else "failed" if answer.get("failed") else None
    if not lines:
        return kind
    return (f"{kind}: " if kind else "") + lines[0][:200]


def _strata(hosts: Json) -> dict[str, list[str]]:
    strata: dict[str, list[str]] = {}
    for name in sorted(hosts):
        strata.setdefault(hosts[name]["stratum"], []).append(name)
    return strata


def _features(hosts: Json) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for name in sorted(hosts):
        for feature, prediction in sorted(hosts[name]["profiles"].items()):
            entry = features.setdefault(feature, {"hosts": dict.fromkeys(PROFILES, 0), "strata": {}, "reasons": {}})
            _count(entry, name, hosts[name]["stratum"], prediction)
    return {name: features[name] for name in sorted(features)}


def _count(entry: dict[str, Any], host: str, stratum: str, prediction: Json) -> None:
    entry["hosts"][prediction["profile"]] += 1
    entry["strata"].setdefault(stratum, dict.fromkeys(PROFILES, 0))[prediction["profile"]] += 1
    reasons = entry["reasons"].setdefault(stratum, [])
    said = {key: prediction[key] for key in ("profile", "variant", "reason_code", "reason")}
    for one in reasons:
        if all(one[key] == value for key, value in said.items()):
            one["hosts"].append(host)
            return
    reasons.append({**said, "hosts": [host]})


_NAMES = 5


def _sentences(hosts: Json, features: Json, silent: Sequence[str]) -> list[str]:
    """The census in lines. Hosts of one mind share a line: a fleet of thousands is read in a minute."""
    strata = sorted({host["stratum"] for host in hosts.values()})
    lines = ["%d hosts answered, %d did not; strata: %s" % (len(hosts), len(silent), ", ".join(strata) or "none")]
    for feature, entry in features.items():
        counts = ", ".join("%d %s" % (entry["hosts"][profile], profile) for profile in PROFILES)
        lines.append(f"{feature}: {counts}")
    said: dict[str, list[str]] = {}
    for name in sorted(hosts):
        for line in _host_sentences(hosts[name]):
            said.setdefault(line, []).append(name)
    return lines + [f"{_named(names)}: {line}" for line, names in said.items()]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more


def _host_sentences(host: Json) -> list[str]:
    lines = [
        "{}: {} ({})".format(feature, prediction["reason"], prediction["reason_code"])
        for feature, prediction in sorted(host["profiles"].items())
        if prediction["profile"] != "full"
    ]
    refused = [one for one in host["policy"] if not one["ready"]]
    lines += ["{}: {} ({})".format(one["feature"], one["reason"], one["reason_code"]) for one in refused]
    return lines + _next_sentences(host.get("next_kernel"))


def _next_sentences(after: Json | None) -> list[str]:
    if not after:
        return []
    if after["release"] is None:
        return ["next boot: unknown: {}".format(after["chosen_by"])]
    changes = ["next boot ({}): {}".format(after["release"], one["sentence"]) for one in after["changes"]]
    return changes or ["next boot ({}): no change is foreseen".format(after["release"])]
