# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host allows eBPF to cost, and where events go: the text of ``policy.json``. Pure."""

from __future__ import annotations

import re
from typing import Any, Iterable

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import canonical_json

SCHEMA = "ebpf.fleet/policy/v1"
CODE = "EF_HOST_POLICY_MALFORMED"
NAME = re.compile(r"\A[a-z][a-z0-9_]{0,31}\Z")
SINKS = ("jsonl", "journal", "datagram", "count")
SOCKET_PATH_BYTES = 107
# As the loader takes it: printable, absolute, no empty part, '.' or '..'.
PLAIN_PATH = re.compile(r"\A(?:/(?!\.{1,2}(?:/|\Z))[!-.0-~]+)+\Z")

# Least and most, as the loader has them.
LIMITS = {
    "cpu_millicores": (1, 1000000),
    "rss_bytes": (1, 1 << 50),
    "map_memory_bytes": (1, 1 << 50),
    "event_rate_per_second": (1, 1000000000),
    "drop_ratio_ppm": (0, 1000000),
    "map_fill_ppm": (1, 1000000),
}
FEATURE_LIMITS = {name: bounds for name, bounds in LIMITS.items() if name != "rss_bytes"}
SINK_NUMBERS = {"file_bytes": (65536, 1 << 32), "files": (1, 16)}


def check_policy(value: Any) -> dict[str, Any]:
    """The host limits as they were given, once they are right. Raises one FleetError that names every bad value."""
    if not isinstance(value, dict):
        raise _wrong("ebpf_fleet_policy", value, "a mapping with host, features and sink")
    problems = _odd_keys("", value, ("host", "features", "sink"))
    problems += _limits("host", value.get("host", {}), LIMITS)
    problems += _features(value.get("features", {}))
    problems += _sink(value.get("sink", {}))
    raise_all(problems)
    return value


def render_policy(value: Any) -> str:
    """The text of ``policy.json``; an empty mapping gives the defaults. Raises FleetError."""
    return canonical_json({"schema": SCHEMA, **check_policy(value)})


def _wrong(field: str, value: Any, expected: str) -> FleetError:
    return FleetError(CODE, f"{field}: is {value!r}; give {expected}")


def _odd_keys(field: str, value: dict[str, Any], known: Iterable[str]) -> list[FleetError]:
    return [
        FleetError(CODE, f"{_join(field, key)}: is not known here; {did_you_mean(key, known)}")
        for key in sorted(value, key=str)
        if key not in known
    ]


def _join(field: str, key: object) -> str:
    return f"{field}.{key}" if field else str(key)


def _numbers(field: str, value: dict[str, Any], known: dict[str, tuple[int, int]]) -> list[FleetError]:
    return [
        _wrong(_join(field, key), value[key], f"an integer from {least} to {most}")
        for key, (least, most) in known.items()
        if key in value and not (type(value[key]) is int and least <= value[key] <= most)
    ]


def _limits(field: str, value: Any, known: dict[str, tuple[int, int]]) -> list[FleetError]:
    if not isinstance(value, dict):
        return [_wrong(field, value, "a mapping of limits")]
    return _odd_keys(field, value, known) + _numbers(field, value, known)


def _features(value: Any) -> list[FleetError]:
    if not isinstance(value, dict):
        return [_wrong("features", value, "a mapping of limits by feature")]
    problems = []
    for name in sorted(value, key=str):
        if not isinstance(name, str) or not NAME.match(name):
            problems.append(_wrong("features", name, "a feature's name, [a-z][a-z0-9_]{0,31}"))
        problems += _limits(_join("features", name), value[name], FEATURE_LIMITS)
    return problems


def _sink(value: Any) -> list[FleetError]:
    if not isinstance(value, dict):
        return [_wrong("sink", value, "a mapping with kind")]
    problems = _odd_keys("sink", value, ("kind", "path", "cursor", *SINK_NUMBERS))
    problems += _numbers("sink", value, SINK_NUMBERS)
    kind = value.get("kind", "jsonl")
    if kind != "jsonl":
        odd = [key for key in SINK_NUMBERS if key in value]
        problems += [_wrong(f"sink.{key}", value[key], "it with the kind jsonl only") for key in odd]
    if kind not in SINKS:
        problems.append(FleetError(CODE, f"sink.kind: is {kind!r}; {did_you_mean(kind, SINKS)}"))
    return problems + _socket(kind, value) + _cursor(kind, value)


def _cursor(kind: Any, value: dict[str, Any]) -> list[FleetError]:
    """Where a log shipper says how far it is: with one file there is nothing that it could be behind of."""
    if "cursor" not in value:
        return []
    cursor = value["cursor"]
    if kind != "jsonl" or value.get("files") == 1:
        return [_wrong("sink.cursor", cursor, "it with the kind jsonl and 2 files or more only")]
    good = isinstance(cursor, str) and len(cursor) <= SOCKET_PATH_BYTES and PLAIN_PATH.match(cursor) is not None
    expected = f"the absolute path of a file: at most {SOCKET_PATH_BYTES} printable characters, no '..'"
    return [] if good else [_wrong("sink.cursor", cursor, expected)]


def _socket(kind: Any, value: dict[str, Any]) -> list[FleetError]:
    path = value.get("path")
    if kind != "datagram":
        return [_wrong("sink.path", path, "it with the kind datagram only")] if "path" in value else []
    good = isinstance(path, str) and len(path) <= SOCKET_PATH_BYTES and PLAIN_PATH.match(path) is not None
    expected = f"the absolute path of a Unix datagram socket: at most {SOCKET_PATH_BYTES} printable characters, no '..'"
    return [] if good else [_wrong("sink.path", path, expected)]
