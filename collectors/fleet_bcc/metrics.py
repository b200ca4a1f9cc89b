# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""metrics.prom: the names and helps of the loader, rendered from a status."""

from __future__ import annotations

from typing import Any, Iterable

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import ENGINE
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.live import HIST_SLOTS, HIST_SUM

BUCKETS = 40
SCALE_DIGITS = {"nanoseconds": 9, "microseconds": 6, "bytes": 0, "count": 0}

# The loader's words, in its order (tests/unit/test_words_agree.py).
PROFILES = ("full", "reduced", "disabled")
STATES = ("off", "attached", "killed", "disabled", "shed")


def decimal(number: int, digits: int) -> str:
    """number / 10^digits without a detour over floating point."""
    whole, rest = divmod(number, 10**digits)
    return f"{whole}.{rest:0{digits}d}".rstrip("0") if rest else str(whole)


def label(value: Any) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class Metrics:
    """Prometheus text with the names and helps of the loader's.

    Every sample has the label engine="bcc": so both files can be collected side by side.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def head(self, name: str, kind: str, text: str) -> None:
        said = text.replace("\\", "\\\\").replace("\n", "\\n")
        self.lines += [f"# HELP ebpf_fleet_{name} {said}", f"# TYPE ebpf_fleet_{name} {kind}"]

    def put(self, name: str, value: Any, **labels: Any) -> None:
        shown = ",".join(f"{key}={label(each)}" for key, each in {"engine": ENGINE, **labels}.items())
        self.lines.append(f"ebpf_fleet_{name}{{{shown}}} {value}")

    def about(self, status: dict[str, Any]) -> None:
        bundle, kernel = status["bundle"] or {}, status["kernel"]
        self.head("build_info", "gauge", "The loader and the bundle that it runs.")
        version, digest = bundle.get("version", ""), bundle.get("digest", "")
        self.put("build_info", 1, loader_version=status["loader_version"], bundle_version=version, bundle_digest=digest)
        self.head("kernel_info", "gauge", "The kernel of this host.")
        self.put("kernel_info", 1, release=kernel["release"], family=kernel["family"])

    def profiles(self, features: dict[str, Any]) -> None:
        self.head("feature_profile", "gauge", "1 for the profile that the feature has reached.")
        for name, feature in features.items():
            for profile in PROFILES:
                self.put("feature_profile", int(feature["profile"] == profile), feature=name, profile=profile)

    def states(self, features: dict[str, Any]) -> None:
        self.head("feature_state", "gauge", "1 for the state that the feature is in.")
        for name, feature in features.items():
            for state in STATES:
                self.put("feature_state", int(feature["state"] == state), feature=name, state=state)
        self.head("feature_wanted", "gauge", "1 where desired.json wants the feature.")
        for name, feature in features.items():
            self.put("feature_wanted", int(feature["wanted"]), feature=name)
        self.head("feature_sample_every", "gauge", "Of how many events one is measured; 1 is every event.")
        for name, feature in features.items():
            self.put("feature_sample_every", feature["sample_every"], feature=name)

    def counters(self, features: dict[str, Any]) -> None:
        for key, name, kind, text in (
            ("produced", "events_produced_total", "counter", "Events that happened while the feature was attached."),
            ("delivered", "events_delivered_total", "counter", "Events that reached their metric or file."),
            (
                "weighted",
                "events_weighted_total",
                "counter",
                "Events that the delivered and the aggregated ones stand for: their weights, added up.",
            ),
            ("dropped", "events_dropped_total", "counter", "Events that were lost."),
            ("sampled_out", "events_sampled_out_total", "counter", "Events that sampling passed over."),
            ("in_flight", "events_in_flight", "gauge", "Events that have no outcome yet."),
        ):
            self.head(name, kind, text)
            for feature, value in features.items():
                number = value.get("weighted") if key == "weighted" else value["counters"][key]
                if number is not None:
                    self.put(name, number, feature=feature)

    def items(self, features: dict[str, Any], spec: tuple[str, str, str, str, int], kind: str, text: str) -> None:
        """One measured field of each program or map; what was not measured has no sample."""
        group, item_label, key, name, digits = spec
        self.head(name, kind, text)
        for feature, value in features.items():
            for item in value[group]:
                if item[key] is not None:
                    self.put(name, decimal(item[key], digits), feature=feature, **{item_label: item["name"]})

    def programs_and_maps(self, features: dict[str, Any]) -> None:
        runs = ("programs", "program", "run_time_ns", "program_run_seconds_total", 9)
        self.items(features, runs, "counter", "Time the program ran.")
        self.items(
            features, ("programs", "program", "run_cnt", "program_runs_total", 0), "counter", "Times the program ran."
        )
        self.items(features, ("maps", "map", "entries", "map_entries", 0), "gauge", "Entries in the map.")
        room = ("maps", "map", "max_entries", "map_max_entries", 0)
        self.items(features, room, "gauge", "Entries that the map can hold.")
        memory = ("maps", "map", "memory_bytes", "map_memory_bytes", 0)
        self.items(features, memory, "gauge", "Kernel memory of the map.")
        self.head("consumer_lag_bytes", "gauge", "Bytes in the ring or perf buffers that wait to be read.")
        for feature, value in features.items():
            if value["consumer"]:
                self.put("consumer_lag_bytes", value["consumer"]["lag_bytes"], feature=feature)

    def control(self, status: dict[str, Any]) -> None:
        self.head("kill_orders_unknown", "gauge", "Kill orders with a name that holds nothing off.")
        self.put("kill_orders_unknown", len(status["kill_unknown"]))
        self.head("desired_error", "gauge", "1 while desired.json cannot be followed.")
        self.put("desired_error", int(status["desired_error"] is not None))
        self.head("stats_enabled", "gauge", "1 while the loader has run time statistics on.")
        self.put("stats_enabled", int(status["stats_enabled"]))

    def service(self, status: dict[str, Any]) -> None:
        self.head("kill_engaged", "gauge", "1 while a kill order of this scope holds.")
        for scope in dict.fromkeys(kill["scope"] for kill in status["kills"]):
            self.put("kill_engaged", 1, scope=scope)
        for name, kind, text, value, digits in (
            ("loader_cpu_seconds_total", "counter", "CPU time of the loader process.", status["loader"]["cpu_ns"], 9),
            (
                "loader_resident_memory_bytes",
                "gauge",
                "Memory of the loader process.",
                status["loader"]["rss_bytes"],
                0,
            ),
            ("status_timestamp_seconds", "gauge", "When this was written.", status["time_unix_ns"], 9),
        ):
            self.head(name, kind, text)
            if value is not None:
                self.put(name, decimal(value, digits))

    def histogram(self, signal_doc: dict[str, Any], hist: list[int], suffix: str = "") -> None:
        """Slot i holds 2^i … 2^(i+1) - 1, and the upper end belongs to the bucket."""
        name, digits = signal_doc["name"] + suffix, SCALE_DIGITS[signal_doc["scale"]]
        self.head(name, "histogram", signal_doc["help"])
        total = 0
        for slot in range(HIST_SLOTS):
            total += hist[slot]
            if slot < BUCKETS:
                self.put(f"{name}_bucket", total, le=decimal((2 << slot) - 1, digits))
        self.put(f"{name}_bucket", total, le="+Inf")
        self.put(f"{name}_sum", decimal(hist[HIST_SUM], digits))
        self.put(f"{name}_count", total)

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def render(status: dict[str, Any], histograms: Iterable[tuple[dict[str, Any], list[int], list[int]]]) -> str:
    """metrics.prom of a status; `histograms` are the signals, each with its slots and sum, and these with weights."""
    out = Metrics()
    features = status["features"] or {}
    out.about(status)
    out.profiles(features)
    out.states(features)
    out.counters(features)
    out.programs_and_maps(features)
    out.control(status)
    out.service(status)
    for signal_doc, hist, weighted in histograms:
        out.histogram(signal_doc, hist)
        out.histogram(signal_doc, weighted, "_weighted")
    return out.text()
