# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of a host: which features run and how thinly they sample. Pure."""

from __future__ import annotations

import re
from typing import Any, Dict, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson, values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import canonical_json
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import default_sample_every
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import U32_MAX

SCHEMA = "ebpf.fleet/desired/v1"
CODE = "EF_DESIRED_MALFORMED"
FALLBACKS = ("bcc",)
KEYS = frozenset(("schema", "bundle_digest", "features", "fallbacks"))
FEATURE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_EVERY = values.whole(1, U32_MAX)
Features = Dict[str, Dict[str, Any]]


def resolve_features(requested: dict[str, Any] | None, contracts: dict[str, dict[str, Any]]) -> Features:
    """What shall run, in full. ``contracts`` maps every feature of the bundle to its contract.

    ``requested`` None means every feature but those on the policy data path, which
    must be named, enabled and sampled as its contract says. Raises FleetError (EF_NOT_IN_BUNDLE, EF_DESIRED_MALFORMED).
    """
    if requested is None:
        requested = {name: {} for name in contracts if contracts[name].get("data_path") != "policy"}
    if not isinstance(requested, dict):
        raise FleetError(CODE, "features: is not a mapping; give feature names with 'enabled' and 'sample_every'")
    resolved: Features = {}
    for name in sorted(requested):
        if name not in contracts:
            raise FleetError(
                "EF_NOT_IN_BUNDLE",
                f"features: {name!r} is not in the bundle; {did_you_mean(name, contracts)}",
            )
        resolved[name] = _entry(name, requested[name], default_sample_every(contracts[name]))
    return resolved


def _entry(name: str, value: Any, sample_every: int) -> dict[str, Any]:
    field = f"features.{name}"
    if not isinstance(value, dict):
        raise FleetError(CODE, f"{field}: is not a mapping; give 'enabled' and 'sample_every'")
    for key in sorted(value):
        if key not in ("enabled", "sample_every"):
            hint = did_you_mean(key, ("enabled", "sample_every"))
            raise FleetError(CODE, f"{field}.{key}: is not a known key; {hint}")
    try:
        return {
            "enabled": values.truth(f"{field}.enabled", value.get("enabled", True)),
            "sample_every": _EVERY(f"{field}.sample_every", value.get("sample_every", sample_every)),
        }
    except values.RefusedValueError as error:
        raise FleetError(CODE, str(error)) from error


def _check_entry(field: str, entry: dict[str, Any]) -> None:
    if not isinstance(entry["enabled"], bool):
        raise FleetError(CODE, f"{field}.enabled: is {entry['enabled']!r}; give true or false")
    every = entry["sample_every"]
    if not isinstance(every, int) or isinstance(every, bool) or not 1 <= every <= U32_MAX:
        raise FleetError(CODE, f"{field}.sample_every: is {every!r}; give an integer from 1 to {U32_MAX}")


def check_resolved(features: Any, known: Any) -> Features:
    """The host's own check of what the controller resolved; ``known`` are the manifest's features."""
    if not isinstance(features, dict):
        raise FleetError(CODE, "features: is not a mapping; run the module through its action plugin")
    for name in sorted(features):
        if name not in known:
            raise FleetError(
                "EF_NOT_IN_BUNDLE", f"features: {name!r} is not in the bundle; {did_you_mean(name, known)}"
            )
        entry = features[name]
        if not isinstance(entry, dict) or set(entry) != {"enabled", "sample_every"}:
            raise FleetError(
                CODE, f"features.{name}: needs exactly 'enabled' and 'sample_every'; give both and nothing else"
            )
        _check_entry(f"features.{name}", entry)
    return features


def check_fallbacks(value: Any) -> list[str]:
    """The collectors that the operator opted into, sorted; None means none. Raises FleetError."""
    found = [] if value is None else value
    if not isinstance(found, list):
        raise FleetError(CODE, "fallbacks: is not a list; give [bcc] or []")
    for name in found:
        if name not in FALLBACKS:
            raise FleetError(CODE, f"fallbacks: {name!r} is not a fallback; {did_you_mean(str(name), FALLBACKS)}")
    return sorted(set(found))


def render_desired(digest: str, features: Features, fallbacks: Sequence[str] = ()) -> str:
    """The text of ``desired.json`` for the bundle of that digest."""
    doc: dict[str, Any] = {"schema": SCHEMA, "bundle_digest": digest, "features": features}
    if fallbacks:
        doc["fallbacks"] = list(fallbacks)
    return canonical_json(doc)


def parse_desired(data: bytes) -> Features | None:
    """The features of an installed ``desired.json``; None for what the loader does not take."""
    doc = _document(data)
    return None if doc is None else dict(doc["features"])


def parse_fallbacks(data: bytes) -> tuple[str, ...]:
    """The fallbacks of an installed ``desired.json``; none for what the loader does not take."""
    doc = _document(data) or {}
    return tuple(doc.get("fallbacks", []))


def _document(data: bytes) -> dict[str, Any] | None:
    """The document by the loader's own rules, so that both take the same files."""
    try:
        doc = strictjson.parse(data)
    except ValueError:
        return None
    if not isinstance(doc, dict) or doc.get("schema") != SCHEMA or not set(doc) <= KEYS:
        return None
    if "bundle_digest" not in doc or not (doc["bundle_digest"] is None or isinstance(doc["bundle_digest"], str)):
        return None
    fallbacks, features = doc.get("fallbacks", []), doc.get("features")
    if not isinstance(fallbacks, list) or any(name not in FALLBACKS for name in fallbacks):
        return None
    if not isinstance(features, dict) or not all(_is_wish(name, features[name]) for name in features):
        return None
    return doc


def _is_wish(name: str, wish: Any) -> bool:
    if not FEATURE_NAME.match(name) or not isinstance(wish, dict) or not set(wish) <= {"enabled", "sample_every"}:
        return False
    every = wish.get("sample_every", 1)
    is_whole = isinstance(every, int) and not isinstance(every, bool)
    return isinstance(wish.get("enabled"), bool) and is_whole and 1 <= every <= U32_MAX
