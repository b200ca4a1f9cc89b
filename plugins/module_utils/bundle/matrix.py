# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A measured capability matrix, held against the bundle that it is to go into. On the controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import refuse_irregular
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import MAX_OBJECT, canonical_json
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import PROFILES

PATH = "compatibility/matrix.json"
SCHEMA = "ebpf.fleet/matrix/v1"
KEYS = ("schema", "bundle", "digest", "objects", "hosts", "differences")
AGAIN = "measure this bundle with 'make test-matrix'"


def read_matrix(path: Path) -> Any:
    """Parse a matrix; raises FleetError (EF_ARGUMENT) for anything that is not JSON of a bearable size."""
    try:
        refuse_irregular(path)
        with path.open("rb") as file:
            data = file.read(MAX_OBJECT + 1)
        if len(data) > MAX_OBJECT:
            raise refusal(path, "document", f"has more than {MAX_OBJECT} bytes", "measure fewer hosts")
        return json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise refusal(path, "document", f"cannot be read as JSON ({error})", AGAIN) from error


def refusal(path: Path, field: str, problem: str, remedy: str) -> FleetError:
    """The one form of an error about a matrix."""
    return FleetError("EF_ARGUMENT", f"matrix: {path}: {field}: {problem}; {remedy}", str(path))


def matrix_bytes(doc: Any, path: Path) -> bytes:
    """The matrix as it goes into the bundle: canonical JSON."""
    try:
        text: str = canonical_json(doc)
        return text.encode("ascii")
    except FleetError as error:
        raise refusal(path, "document", error.message, AGAIN) from error


def check_matrix(doc: Any, path: Path, variants: Mapping[str, list[str]], objects: Mapping[str, str]) -> None:
    """The matrix must be of exactly this bundle: its features, variants and objects.

    ``variants`` maps each feature to its variants, ``objects`` each object's bundle path to its SHA-256.
    """
    _check_shape(doc, path)
    _check_objects(doc["objects"], path, objects)
    for host in sorted(doc["hosts"]):
        _check_host(doc["hosts"][host], path, f"hosts.{host}", variants)
    if doc["differences"]:
        said = ", ".join(f"{one.get('host')} {one.get('feature')}" for one in doc["differences"][:5])
        raise refusal(
            path, "differences", f"what was predicted was not reached ({said})", "correct that and measure again"
        )


def _check_shape(doc: Any, path: Path) -> None:
    if not isinstance(doc, dict) or doc.get("schema") != SCHEMA:
        raise refusal(path, "schema", f"is not {SCHEMA}", "give build/matrix/matrix.json, made by 'make test-matrix'")
    for key in KEYS:
        if key not in doc:
            raise refusal(path, key, "is missing", AGAIN)
    for key in ("objects", "hosts"):
        if not isinstance(doc[key], dict) or not doc[key]:
            raise refusal(path, key, "is not a mapping with at least one entry", AGAIN)
    if not isinstance(doc["differences"], list) or not all(isinstance(one, dict) for one in doc["differences"]):
        raise refusal(path, "differences", "is not a list of mappings", AGAIN)


def _check_objects(measured: Mapping[str, Any], path: Path, objects: Mapping[str, str]) -> None:
    for name in sorted(set(measured) | set(objects)):
        if name not in objects:
            raise refusal(path, "objects", f"{name} was measured, but is not in this bundle", AGAIN)
        if name not in measured:
            raise refusal(path, "objects", f"{name} of this bundle was not measured", AGAIN)
        if measured[name] != objects[name]:
            raise refusal(path, "objects", f"{name} was measured with SHA-256 {str(measured[name])[:12]}…, "
                          f"this bundle has {objects[name][:12]}…", AGAIN)  # fmt: skip


def _check_host(host: Any, path: Path, field: str, variants: Mapping[str, list[str]]) -> None:
    features = host.get("features") if isinstance(host, dict) else None
    if not isinstance(features, dict) or not isinstance(host.get("kernel"), dict):
        raise refusal(path, field, "is not a host with 'kernel' and 'features'", AGAIN)
    if sorted(features) != sorted(variants):
        different = sorted(set(features) ^ set(variants))
        raise refusal(path, f"{field}.features", f"differ from this bundle's in {', '.join(different)}", AGAIN)
    for name, feature in sorted(features.items()):
        here = f"{field}.features.{name}"
        if not isinstance(feature, dict) or not isinstance(feature.get("variants"), dict):
            raise refusal(path, here, "has no 'variants'", AGAIN)
        unknown = sorted(set(feature["variants"]) - set(variants[name]))
        if unknown:
            raise refusal(path, f"{here}.variants", f"{unknown[0]!r} is not in this bundle", AGAIN)
        for key in ("predicted", "reached"):
            _check_reached(feature.get(key), path, f"{here}.{key}", variants[name])


def _check_reached(answer: Any, path: Path, field: str, variants: list[str]) -> None:
    if not isinstance(answer, dict) or answer.get("profile") not in PROFILES:
        raise refusal(path, field, "has no profile full, reduced or disabled", AGAIN)
    if answer.get("variant") not in (None, "bcc", *variants):
        raise refusal(path, f"{field}.variant", f"{answer.get('variant')!r} is not in this bundle", AGAIN)
