# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a fleet can run, counted: how many hosts reach which profile, by stratum, and why. Pure."""

from __future__ import annotations

from typing import Any, Mapping

PROFILES = ("full", "reduced", "disabled")


def stratum_of(capabilities: Mapping[str, Any]) -> str:
    """Return kernel family × architecture × distro, as ``6.1/x86_64/debian``; what is not known reads ``unknown``."""
    kernel = capabilities.get("kernel") or {}
    distro = capabilities.get("distro") or {}
    parts = (kernel.get("family"), kernel.get("machine"), distro.get("id"))
    return "/".join(str(part) if part else "unknown" for part in parts)


def rollout_host(hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a plan needs of one host: its name, cell, region (None when not set) and stratum."""
    capability = hostvars.get("ebpf_fleet_capability") or {}
    return {
        "name": hostvars["inventory_hostname"],
        "cell": hostvars.get("ebpf_fleet_cell"),
        "region": hostvars.get("ebpf_fleet_region"),
        "stratum": stratum_of(capability.get("capabilities") or {}),
    }


def capability_census(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Count profiles over the fleet.

    ``answers`` maps every host that was asked to the result of
    ``capability_facts``. Returns ``hosts`` (stratum, kernel, profiles),
    ``features`` (each with the number of hosts by profile and by stratum),
    ``silent`` (hosts without an answer: nothing is known of them) and ``sentences``.
    """
    hosts = {name: _host(answer) for name, answer in answers.items() if answer.get("capabilities")}
    silent = sorted(set(answers) - set(hosts))
    features: dict[str, Any] = {}
    for name in sorted(hosts):
        for feature, prediction in sorted(hosts[name]["profiles"].items()):
            _count(features, feature, hosts[name]["stratum"], prediction["profile"])
    return {"hosts": hosts, "features": features, "silent": silent, "sentences": _sentences(hosts, features, silent)}


def _host(answer: Mapping[str, Any]) -> dict[str, Any]:
    capabilities = answer["capabilities"]
    return {
        "kernel": capabilities.get("kernel"),
        "btf": (capabilities.get("btf") or {}).get("state"),
        "stratum": stratum_of(capabilities),
        "profiles": answer.get("profiles") or {},
    }


def _count(features: dict[str, Any], feature: str, stratum: str, profile: str) -> None:
    entry = features.setdefault(feature, {"hosts": dict.fromkeys(PROFILES, 0), "strata": {}})
    entry["hosts"][profile] += 1
    entry["strata"].setdefault(stratum, dict.fromkeys(PROFILES, 0))[profile] += 1


def _sentences(hosts: Mapping[str, Any], features: Mapping[str, Any], silent: list[str]) -> list[str]:
    strata = sorted({host["stratum"] for host in hosts.values()})
    lines = ["%d hosts answered, %d did not; strata: %s" % (len(hosts), len(silent), ", ".join(strata) or "none")]
    for feature, entry in features.items():
        counts = ", ".join("%d %s" % (entry["hosts"][profile], profile) for profile in PROFILES)
        lines.append(f"{feature}: {counts}")
    for name in sorted(hosts):
        for feature, prediction in sorted(hosts[name]["profiles"].items()):
            if prediction["profile"] != "full":
                lines.append("{}: {}: {} ({})".format(name, feature, prediction["reason"], prediction["reason_code"]))
    return lines
