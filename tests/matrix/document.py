# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix as a document: put together and judged. Pure; the format is docs/formats/matrix.md."""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping

Json = Mapping[str, Any]

SCHEMA = "ebpf.fleet/matrix/v1"
LEAST_KERNELS = 8
LEAST_HIDDEN = 2

_COMPARED = ("profile", "variant", "reason_code")
_FLAVOUR = re.compile(r"-(?:(cloud|rt)-)?(?:amd64|arm64)$")
_VARIANT = ("loads", "attaches", "errno_name", "reason_code", "reason", "programs")


def flavour(release: str) -> str:
    """How Debian calls the kernel's configuration: cloud, rt, generic; another's own is other."""
    match = _FLAVOUR.search(release)
    return (match[1] or "generic") if match else "other"


def prediction(feature: str, said: Json) -> dict[str, Any]:
    """A profile as facts or loader said it, with its sentence."""
    made = {key: said.get(key) for key in (*_COMPARED, "reason")}
    why = "" if made["reason_code"] == "EF_OK" else f": {made['reason']}"
    return {**made, "sentence": said.get("sentence") or f"{feature} → {made['profile']}{why}"}


def equal(predicted: Json | None, reached: Json | None) -> bool:
    """Same profile, variant and reason code; what is missing equals nothing."""
    if predicted is None or reached is None:
        return False
    return all(predicted[key] == reached[key] for key in _COMPARED)


def feature_entry(name: str, predicted: Json | None, reached: Json | None, checked: Json | None) -> dict[str, Any]:
    """One cell of the matrix. `checked` is the feature in the answer of the loader's `check`."""
    said = None if predicted is None else prediction(name, predicted)
    ran = None if reached is None else prediction(name, reached)
    variants = (checked or {}).get("variants", {})
    return {
        "predicted": said,
        "reached": ran,
        "equal": equal(said, ran),
        "variants": {variant: {key: found.get(key) for key in _VARIANT} for variant, found in variants.items()},
    }


def host_entry(capabilities: Json, status: Json, check: Json) -> dict[str, Any]:
    """One line of the matrix: facts of a host, its loader's status, and its loader's trial loads."""
    predicted, reached = capabilities["profiles"], status["features"] or {}
    names = sorted({*predicted, *reached, *check["features"]})
    kernel, distro = capabilities["kernel"], capabilities["distro"]
    return {
        "kernel": dict(kernel),
        "family": kernel["family"],
        "flavour": flavour(kernel["release"]),
        "distro": f"{distro['id']} {distro['version_id'] or ''}".strip(),
        "btf": capabilities["btf"]["state"],
        "features": {
            name: feature_entry(name, predicted.get(name), reached.get(name), check["features"].get(name))
            for name in names
        },
    }


def differences(hosts: Mapping[str, Json]) -> list[dict[str, Any]]:
    """Each cell whose prediction did not come true."""
    return [
        {"host": host, "feature": name, "predicted": cell["predicted"], "reached": cell["reached"]}
        for host, entry in sorted(hosts.items())
        for name, cell in sorted(entry["features"].items())
        if not cell["equal"]
    ]


def document(bundle: Json, digest: str, objects: Mapping[str, str], hosts: Mapping[str, Json]) -> dict[str, Any]:
    """The whole matrix. `objects` are the bundle's compiled objects with their SHA-256."""
    return {
        "schema": SCHEMA,
        "bundle": dict(bundle),
        "digest": digest,
        "objects": dict(objects),
        "hosts": dict(hosts),
        "differences": differences(hosts),
    }


def contradictions(host: str, status: Json, check: Json, kernel_ids: Iterable[int]) -> list[str]:
    """Where the loader's own answers do not fit: `run` against `check`, and both against the kernel's list.

    `kernel_ids` are the ids of the programs that bpftool saw while the loader ran.
    """
    found = [] if status["state"] in ("running", "idle") else [f"{host}: the loader is {status['state']}"]
    if status["kernel"]["btf"] != check["btf"]:
        found.append(f"{host}: run says BTF {status['kernel']['btf']}, check says {check['btf']}")
    seen = set(kernel_ids)
    for name, feature in sorted((status["features"] or {}).items()):
        found += _against_check(host, name, feature, check["features"].get(name))
        found += [
            f"{host}: {name}: bpftool sees no program {program['id']} ({program['name']})"
            for program in feature["programs"]
            if feature["state"] == "attached" and program["id"] not in seen
        ]
        if feature["state"] == "attached" and not feature["programs"]:
            found.append(f"{host}: {name}: attached without a program")
    return found


def _against_check(host: str, name: str, feature: Json, checked: Json | None) -> list[str]:
    if checked is None:
        return [f"{host}: {name}: run knows it, check does not"]
    ran, tried = (feature["profile"], feature["variant"]), (checked["profile"], checked["variant"])
    if ran == tried:
        return []
    return [f"{host}: {name}: run reached {ran[0]}/{ran[1]}, check {tried[0]}/{tried[1]}"]


def shortfall(kernels: Iterable[str], hidden: int) -> list[str]:
    """What a whole matrix lacks: distinct kernels (`kernels` are releases) and hosts without BTF of their own."""
    count = len(set(kernels))
    found = []
    if count < LEAST_KERNELS:
        found.append(f"the matrix has {count} kernels: it needs {LEAST_KERNELS}; see tests/lab/lab.yml")
    if hidden < LEAST_HIDDEN:
        found.append(f"the matrix has {hidden} hosts whose BTF is hidden: it needs {LEAST_HIDDEN}")
    return found


def table(doc: Json) -> str:
    """The matrix as text for a terminal: one line a cell, differences marked."""
    lines = [f"{'host':9} {'kernel':31} {'btf':8} {'feature':20} {'predicted':24} {'reached':24}"]
    for host, entry in doc["hosts"].items():
        for name, cell in entry["features"].items():
            mark = "" if cell["equal"] else "  <-- differs"
            lines.append(
                f"{host:9} {entry['kernel']['release']:31} {entry['btf']:8} {name:20}"
                f" {_cell(cell['predicted']):24} {_cell(cell['reached']):24}{mark}"
            )
    return "\n".join(lines)


def _cell(found: Json | None) -> str:
    if found is None:
        return "-"
    code = "" if found["reason_code"] == "EF_OK" else f" {found['reason_code']}"
    return f"{found['variant'] or found['profile']}{code}"


def difference_text(difference: Json) -> str:
    """One difference with both sentences, for the person who must find out who is right."""
    said, ran = difference["predicted"], difference["reached"]
    return "\n".join(
        [
            f"{difference['host']}: {difference['feature']}:",
            f"  predicted {_cell(said)}: {said['sentence'] if said else 'not at all'}",
            f"  reached   {_cell(ran)}: {ran['sentence'] if ran else 'not at all'}",
        ]
    )
