# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet can run, counted: how many hosts reach which profile, by stratum, and why. Pure."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import words
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import PROFILES
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document, policy_ready
from ansible_collections.ebpf.fleet.plugins.module_utils.facts.strata import stratum_of

SCHEMA = capability_document.CENSUS_SCHEMA
NO_SYSTEMD = "EF_NO_SYSTEMD"
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
    docs/formats/census.md.
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
        "silence": _silence({name: read[name].problem for name in silent}),
        "silent_reasons": {name: read[name].problem for name in silent},
        "sentences": _sentences(hosts, counted, silent),
    }


def _host(answer: capability_document.Answer, contracts: Sequence[Json], features: Json | None) -> dict[str, Any]:
    capabilities = answer.capabilities or {}
    can = deployable(capabilities)
    return {
        "kernel": _only(capabilities["kernel"], _KERNEL_FIELDS),
        "btf": capabilities["btf"]["state"],
        "privileged": capabilities.get("privileged"),
        "stratum": stratum_of(capabilities),
        "deployable": can,
        "profiles": _reachable(answer.profiles, can),
        "policy": policy_ready.policy_answers(capabilities, contracts, features),
        "next_kernel": _only(capabilities.get("next_kernel"), _NEXT_FIELDS),
        "trust": _only(capabilities.get("trust"), _TRUST_FIELDS),
    }


def deployable(capabilities: Json) -> dict[str, str]:
    """Can a release be deployed to the host at all? yes, no or unknown, with the reason."""
    found = (capabilities.get("systemd") or {}).get("pid1") or {}
    answer = str(found.get("answer", "unknown"))
    if answer == "yes":
        return {"answer": "yes", "reason_code": "EF_OK", "reason": "systemd runs"}
    if answer == "no":
        why = "systemd is not process 1 here (%s)" % (found.get("evidence") or "no evidence")
        reason = f"no release can be deployed to this host: {why}; boot it with systemd, or leave it out"
        return {"answer": "no", "reason_code": NO_SYSTEMD, "reason": reason}
    reason = "whether a release can be deployed is not known: the host did not say whether systemd runs"
    return {"answer": "unknown", "reason_code": "EF_UNKNOWN", "reason": reason}


def _reachable(profiles: Json, deployable: Mapping[str, str]) -> dict[str, Any]:
    """What the kernel could run is disabled where nothing can be deployed that would run it."""
    if deployable["answer"] != "no":
        return dict(profiles)
    code, reason = deployable["reason_code"], deployable["reason"]
    nothing = {"profile": "disabled", "variant": None, "reason_code": code, "reason": reason}
    return {name: {**nothing, "sentence": f"{name}: disabled, {reason} ({code})"} for name in profiles}


def _only(found: Json | None, fields: Sequence[str]) -> dict[str, Any] | None:
    """The known fields: what else a host sends does not fill the record."""
    return None if found is None else {name: found[name] for name in fields if name in found}


def _silence(reasons: Mapping[str, str | None]) -> str:
    """Why there is no answer of each host that gave none, hosts of one reason together; empty where all answered."""
    hosts: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        why = reason or "nothing was reported of it: it was skipped, or lost before it was asked"
        hosts.setdefault(why, []).append(name)
    return "; ".join(
        why if why.startswith("no usable answer from ") else f"no answer from {_named(names)}: {why}"
        for why, names in hosts.items()
    )


def _strata(hosts: Json) -> dict[str, list[str]]:
    strata: dict[str, list[str]] = {}
    for name in sorted(hosts):
        strata.setdefault(hosts[name]["stratum"], []).append(name)
    return strata


def _features(hosts: Json) -> dict[str, Any]:
    features: dict[str, Any] = {}
    # Reasons by what they say: a list that is searched for each host takes a fleet's square of time.
    told: dict[tuple[Any, ...], list[str]] = {}
    for name in sorted(hosts):
        stratum = hosts[name]["stratum"]
        for feature, prediction in sorted(hosts[name]["profiles"].items()):
            entry = features.setdefault(feature, {"hosts": dict.fromkeys(PROFILES, 0), "strata": {}, "reasons": {}})
            entry["hosts"][prediction["profile"]] += 1
            entry["strata"].setdefault(stratum, dict.fromkeys(PROFILES, 0))[prediction["profile"]] += 1
            said = {key: prediction[key] for key in ("profile", "variant", "reason_code", "reason")}
            same = told.setdefault((feature, stratum, *said.values()), [])
            if not same:
                entry["reasons"].setdefault(stratum, []).append({**said, "hosts": same})
            same.append(name)
    return {name: features[name] for name in sorted(features)}


_NAMES = 5


def _sentences(hosts: Json, features: Json, silent: Sequence[str]) -> list[str]:
    """The census in lines. Hosts of one mind share a line: a fleet of thousands is read in a minute."""
    strata = sorted({host["stratum"] for host in hosts.values()})
    lines = [
        "%s answered, %d did not; strata: %s"
        % (words.counted(len(hosts), "host"), len(silent), ", ".join(strata) or "none")
    ]
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
    deployable = host["deployable"]
    lines = []
    if deployable["answer"] == "no":
        lines = ["{} ({})".format(deployable["reason"], deployable["reason_code"])]
    lines += [
        "{}: {} ({})".format(feature, prediction["reason"], prediction["reason_code"])
        for feature, prediction in sorted(host["profiles"].items())
        if prediction["profile"] != "full" and prediction["reason_code"] != NO_SYSTEMD
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
