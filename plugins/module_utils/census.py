# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a fleet can run, counted: how many hosts reach which profile, by stratum, and why. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils import capability_document, policy_ready
from ansible_collections.ebpf.fleet.plugins.module_utils.strata import stratum_of

SCHEMA = capability_document.CENSUS_SCHEMA
PROFILES = capability_document.PROFILES
_KERNEL_FIELDS = ("release", "family", "distro_family", "machine", "build_id")
_NEXT_FIELDS = ("release", "chosen_by", "btf", "source", "profiles", "changes", "unknown")
_TRUST_FIELDS = ("release", "ok", "reason_code", "reason", "clock_known")
Json = Mapping[str, Any]


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
    asked = [one["feature"] for one in contracts if "feature" in one]
    read = {name: capability_document.read(name, answer, asked) for name, answer in answers.items()}
    hosts = {
        name: _host(one, contracts, (features or {}).get(name))
        for name, one in read.items()
        if one.capabilities is not None
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
        "silent_reasons": {name: read[name].problem for name in silent},
        "sentences": _sentences(hosts, counted, silent),
    }


def _host(answer: capability_document.Answer, contracts: Sequence[Json], features: Json | None) -> dict[str, Any]:
    capabilities = answer.capabilities or {}
    return {
        "kernel": _only(capabilities["kernel"], _KERNEL_FIELDS),
        "btf": capabilities["btf"]["state"],
        "privileged": capabilities.get("privileged"),
        "stratum": stratum_of(capabilities),
        "profiles": answer.profiles,
        "policy": policy_ready.policy_answers(capabilities, contracts, features),
        "next_kernel": _only(capabilities.get("next_kernel"), _NEXT_FIELDS),
        "trust": _only(capabilities.get("trust"), _TRUST_FIELDS),
    }


def _only(found: Json | None, fields: Sequence[str]) -> dict[str, Any] | None:
    """The known fields: what else a host sends does not fill the record."""
    return None if found is None else {name: found[name] for name in fields if name in found}


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
    return lines + _trust_sentences(host.get("trust")) + _next_sentences(host.get("next_kernel"))


def _trust_sentences(trust: Json | None) -> list[str]:
    """A host whose trust refuses what it runs is dark already, or at its next start."""
    lines = []
    if trust and not trust["ok"]:
        lines.append(
            "TRUST: it refuses the release {} that is installed: {} ({}); correct the trust and run prepare.yml".format(
                trust["release"], trust["reason"], trust["reason_code"]
            )
        )
    if trust and trust.get("clock_known") is False:
        lines.append("CLOCK: it stands before what has happened already (EF_CLOCK_UNKNOWN); set it")
    return lines


def _next_sentences(after: Json | None) -> list[str]:
    if not after:
        return []
    if after["release"] is None:
        return ["next boot: unknown: {}".format(after["chosen_by"])]
    changes = ["next boot ({}): {}".format(after["release"], one["sentence"]) for one in after["changes"]]
    return changes or ["next boot ({}): no change is foreseen".format(after["release"])]
