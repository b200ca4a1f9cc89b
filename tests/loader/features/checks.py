# SPDX-License-Identifier: GPL-3.0-or-later
"""What a round must have seen of the workload, by feature; any difference is an AssertionError.

Each check gets the round's document (driver.py) and the variant that ran. What other programs of the
host may do meanwhile makes a count larger, never smaller; counts that only the workload can cause are exact.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping

Round = Mapping[str, Any]
LABEL = re.compile(r'([a-z_]+)="([^"]*)"')


def samples(found: Round, metric: str) -> dict[tuple[str, ...], float]:
    """A metric's values by the values of its labels, in the order of the labels."""
    result = {}
    for line in found["metrics"]:
        name, _sep, rest = line.partition("{") if "{" in line else line.partition(" ")
        if name == "ebpf_fleet_" + metric:
            labels, value = rest.rsplit(" ", 1) if "}" in rest else ("", rest)
            result[tuple(text for _, text in LABEL.findall(labels))] = float(value)
    return result


def labels_of(found: Round, metric: str) -> set[tuple[str, ...]]:
    """The names of the labels that a metric has."""
    lines = [line for line in found["metrics"] if line.startswith("ebpf_fleet_" + metric + "{")]
    return {tuple(name for name, _ in LABEL.findall(line)) for line in lines}


def key(text: str) -> tuple[str, ...]:
    """A key of the workload's document, "2,111"."""
    return tuple(text.split(","))


def accounts(found: Round, name: str) -> None:
    """Whatever was produced has exactly one outcome, while it runs and when it is off."""
    for when in ("running", "off"):
        counters = found[when]["features"][name]["counters"]
        outcomes = sum(counters[each] for each in ("delivered", "dropped", "sampled_out", "in_flight"))
        assert counters["produced"] == outcomes, (name, when, counters)
    assert found["off"]["features"][name]["counters"]["in_flight"] == 0, name
    assert found["running"]["features"][name]["counters"]["dropped"] == 0, (name, found["running"]["features"][name])


def tables(found: Round, name: str, *signals: str) -> float:
    """The sum of the feature's counters and histograms equals what was delivered."""
    delivered = found["off"]["features"][name]["counters"]["delivered"]
    assert sum(sum(samples(found, signal).values()) for signal in signals) == delivered, (name, signals)
    return float(delivered)


def block_io_latency(found: Round, variant: str) -> None:
    done = found["workload"]["block_io_latency"]
    delivered = tables(found, "block_io_latency", "block_io_latency_seconds_count")
    assert done["diskstats"] >= done["reads"] <= delivered
    assert samples(found, "block_io_latency_seconds_sum")[()] > 0
    if delivered == done["reads"]:
        assert samples(found, "block_io_latency_seconds_sum")[()] * 1e9 <= done["wall_ns"]


def exec_events(found: Round, variant: str) -> None:
    done = found["workload"]["exec_policy"]
    named = [each for each in found["events"] if each["feature"] == "exec_events" and each["comm"] == done["named"]]
    assert len(named) == 1, "the one program that the workload started by its name"
    assert ("filename" in named[0]) == (variant == "full")


def exec_policy(found: Round, variant: str) -> None:
    done = found["workload"]["exec_policy"]
    assert done["codes"] == [0, 0, 0], "it observes: every execution goes on"
    events = [each for each in found["events"] if each["feature"] == "exec_policy"]
    assert [each["name"] for each in events] == done["names"], events
    assert {each["event"] for each in events} == {"exec_would_deny"}
    assert {each["comm"] for each in events} == {done["comm"]}
    assert all(each["filename"].startswith("/dev/fd/") for each in events)


def file_unlinks(found: Round, variant: str) -> None:
    done = found["workload"]["file_unlinks"]
    tables(found, "file_unlinks", "file_unlinks_total")
    assert done["good"] and labels_of(found, "file_unlinks_total") == {("uid",)}
    expected = done["removed"] + (0 if variant == "vfs" else done["not_there"])
    assert samples(found, "file_unlinks_total")[(str(done["uid"]),)] == expected


def oom_kills(found: Round, variant: str) -> None:
    done = found["workload"]["oom_kills"]
    assert done["killed"] and done["kernel_says"] >= 1, done
    events = [each for each in found["events"] if each["feature"] == "oom_kills"]
    assert len(events) == 1 and events[0]["event"] == "oom_kill", events
    assert events[0]["pid"] == done["pid"] == events[0]["trigger_pid"]
    if variant == "marked":
        assert events[0]["comm"] in ("", done["comm"])
        return
    assert events[0]["comm"] == done["comm"]
    assert (events[0]["memcg"], events[0]["cgroup_id"]) == (1, done["cgroup_id"])
    assert events[0]["total_pages"] == done["limit_pages"]
    assert 0 < events[0]["points"] <= 2 * done["limit_pages"]


def runqlat(found: Round, variant: str) -> None:
    assert tables(found, "runqlat", "run_queue_latency_seconds_count") > 10


def syscall_errors(found: Round, variant: str) -> None:
    done = found["workload"]["syscall_errors"]
    tables(found, "syscall_errors", "syscall_errors_total")
    assert labels_of(found, "syscall_errors_total") == {("syscall", "error", "compat")}
    counted = samples(found, "syscall_errors_total")
    assert counted[key(done["key"])] == done["times"]
    if "key" in done["compat"]:
        assert counted[key(done["compat"]["key"])] == done["compat"]["times"]
    assert not any(int(error) > 511 or int(error) == 0 for _, error, _ in counted)


def tcp_connect_latency(found: Round, variant: str) -> None:
    done = found["workload"]["tcp_connect_latency"]
    tables(found, "tcp_connect_latency", "tcp_connect_latency_seconds_count", "tcp_connect_failures_total")
    assert labels_of(found, "tcp_connect_failures_total") == {("family", "error")}
    failed = samples(found, "tcp_connect_failures_total")
    for pair, times in done["failed"].items():
        family, _ = key(pair)
        seen = failed.get(key(pair), 0)
        account = found["running"]["features"]["tcp_connect_latency"]
        assert seen == times or (family == "2" and seen > times), (pair, done, failed, account)
    assert samples(found, "tcp_connect_latency_seconds_count")[()] >= sum(done["established"].values())
    assert samples(found, "tcp_connect_latency_seconds_sum")[()] > 0
    entries = {each["name"]: each["entries"] for each in found["running"]["features"]["tcp_connect_latency"]["maps"]}
    assert entries["ef_tcl_start"] == found["running"]["features"]["tcp_connect_latency"]["counters"]["in_flight"]


def tcp_retransmits(found: Round, variant: str) -> None:
    done = found["workload"]["tcp_retransmits"]
    tables(found, "tcp_retransmits", "tcp_retransmits_total")
    assert labels_of(found, "tcp_retransmits_total") == {("family", "state")}
    counted = samples(found, "tcp_retransmits_total")
    assert counted[("10", "1")] == done["established_10"] >= 2
    assert counted[("10", "2")] == done["syn_sent_10"]
    assert sum(counted.values()) >= done["all"]


CHECKS: Mapping[str, Callable[[Round, str], None]] = {
    "block_io_latency": block_io_latency,
    "exec_events": exec_events,
    "exec_policy": exec_policy,
    "file_unlinks": file_unlinks,
    "oom_kills": oom_kills,
    "runqlat": runqlat,
    "syscall_errors": syscall_errors,
    "tcp_connect_latency": tcp_connect_latency,
    "tcp_retransmits": tcp_retransmits,
}


def reached(found: Round, name: str) -> tuple[str, str]:
    """A feature's state and reason code in a round."""
    feature = found["attached"]["features"][name]
    return str(feature["state"]), str(feature["reason_code"])


def check(found: Round, name: str, variant: str) -> None:
    """All that holds of a feature that was attached."""
    feature = found["attached"]["features"][name]
    assert (feature["state"], feature["variant"]) == ("attached", variant), feature
    assert found["off"]["features"][name]["state"] == "killed"
    accounts(found, name)
    skipped = found["workload"].get(name, {}).get("skipped")
    assert not skipped, f"{name} could not be exercised: {skipped}"
    CHECKS[name](found, variant)
