# SPDX-License-Identifier: GPL-3.0-or-later
"""metrics.prom by those who read it: promtool, node_exporter's textfile collector, and docs/metrics.md."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import jinja2
import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import metrics as bcc_metrics
from ansible_collections.ebpf.fleet.plugins.filter.values import value as value_filter

from tests.loader.bundles import Trust, canonical
from tests.loader.exposition import Exposition, parse
from tests.loader.prometheus import check_metrics, node_exporter, scrape
from tests.loader.service import FEATURES, ROOMY_POLICY, Service, contract_of, feature_of, make_service, wait_for

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
NAMES = sorted(path.parent.name for path in FEATURES.glob("*/contract.yml"))
# The collector leaves these to the loader beside it.
LOADER_ONLY = {
    "ebpf_fleet_backpressure_active",
    "ebpf_fleet_consumer_lag_seconds",
    "ebpf_fleet_events_aggregated_total",
    "ebpf_fleet_feature_unobserved_seconds_total",
    "ebpf_fleet_events_thinned_total",
    "ebpf_fleet_events_unshipped_bytes",
    "ebpf_fleet_events_unshipped_deleted_bytes_total",
    "ebpf_fleet_source_thinned_events",
    "ebpf_fleet_lease_left_seconds",
    "ebpf_fleet_audit_lost_total",
    "ebpf_fleet_series_unkept_total",
    "ebpf_fleet_policy_error",
    "ebpf_fleet_trust_withdrawn",
    "ebpf_fleet_clock_unknown",
    "ebpf_fleet_budget_used_ratio",
    "ebpf_fleet_host_budget_used_ratio",
    "ebpf_fleet_feature_degraded",
    "ebpf_fleet_degradations_total",
}


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with every feature of the repository wanted; not started."""
    made = make_service(loader, tmp_path, trust, {name: feature_of(feature_objects, name) for name in NAMES})
    made.want(*NAMES, runqlat=4)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def text_of(service: Service) -> str:
    """The file as it is after a new account."""
    service.fresh_status()
    return (service.state / "metrics.prom").read_text()


def good(text: str) -> Exposition:
    """What is in a file that promtool and our own reader have nothing against."""
    assert check_metrics(text) == ""
    found = parse(text)
    assert set(found.helps) == set(found.types), "HELP and TYPE each"
    assert not [name for name in found.types if ":" in name]
    for name, kind in found.types.items():
        assert name.startswith("ebpf_fleet_") and found.helps[name], name
        assert (kind == "counter") == name.endswith("_total"), name
    return found


def labels(found: Exposition, name: str) -> set[tuple[str, ...]]:
    """The names of the labels that a metric's series have."""
    return {tuple(key for key, _ in series) for series in found.samples.get(name, {})}


def value(found: Exposition, name: str, **wanted: str) -> float:
    return found.samples[f"ebpf_fleet_{name}"][tuple(wanted.items())]


def work() -> None:
    """Something for the features to see."""
    for _ in range(20):
        subprocess.run(["true"], check=True)
    subprocess.run(["cat", "/nowhere"], check=False, capture_output=True)


# ---- the states ----


def test_every_state_has_metrics_that_promtool_takes(service: Service) -> None:
    service.start_settled()
    work()
    attached = good(text_of(service))
    reached = [name for name, each in service.now()["features"].items() if each["state"] == "attached"]
    assert {"exec_events", "runqlat"} <= set(reached), service.journal()
    assert all(value(attached, "feature_state", feature=name, state="attached") == 1 for name in reached)
    assert value(attached, "feature_sample_every", feature="runqlat") == 4
    order = service.order("feature.runqlat")
    service.order("feature.mistyped")
    service.wait_state("runqlat", "killed")
    killed = good(text_of(service))
    assert value(killed, "feature_state", feature="runqlat", state="killed") == 1
    assert value(killed, "feature_profile", feature="runqlat", profile="disabled") == 1
    assert value(killed, "kill_engaged", scope="feature.runqlat") == value(killed, "kill_orders_unknown") == 1
    order.unlink()
    service.want("exec_events", "not_shipped")
    service.wait_state("runqlat", "off")
    off = good(text_of(service))
    assert value(off, "feature_wanted", feature="runqlat") == 0
    assert value(off, "feature_state", feature="not_shipped", state="disabled") == 1
    service.write_desired(b"{")
    wait_for(lambda: service.now()["desired_error"], "the error is seen")
    assert value(good(text_of(service)), "desired_error") == 1
    for name, series in attached.samples.items():
        if name.startswith("ebpf_fleet_events_") and name.endswith("_total"):
            assert all(off.samples[name][key] >= count for key, count in series.items()), "counters never go back"
    service.stop()
    good((service.state / "metrics.prom").read_text())


def test_labels_are_the_same_in_every_state(service: Service) -> None:
    service.start_settled()
    work()
    before = good(text_of(service))
    service.order("global")
    service.wait_state("runqlat", "killed")
    after = good(text_of(service))
    assert before.types == after.types and before.helps == after.helps
    for name in before.samples:
        shapes = labels(before, name) | labels(after, name)
        assert len(shapes) == 1, (name, shapes)


def test_what_was_not_measured_has_no_sample(service: Service) -> None:
    """A feature that does not run has no map and no program, which is not the same as one of 0 bytes."""
    service.want()
    service.start_settled()
    found = good(text_of(service))
    for name in ("map_memory_bytes", "map_entries", "program_runs_total", "consumer_lag_bytes", "lease_left_seconds"):
        assert f"ebpf_fleet_{name}" in found.types and f"ebpf_fleet_{name}" not in found.samples


def test_series_stay_below_the_bound_that_the_page_gives(service: Service) -> None:
    service.start_settled()
    work()
    found, status = good(text_of(service)), service.now()
    bounds = {"1": 1, "F": len(status["features"]), "3 F": 3 * len(status["features"])}
    bounds["4"] = 4
    bounds["8 F"] = 8 * len(status["features"])
    bounds["9 F"] = 9 * len(status["features"])
    bounds["6 F"] = 6 * len(status["features"])
    bounds["5 F"] = 5 * len(status["features"])
    bounds["F + 3"] = len(status["features"]) + 3
    bounds["P"] = sum(len(each["programs"]) for each in status["features"].values())
    bounds["M"] = sum(len(each["maps"]) for each in status["features"].values())
    for name, said in documented().items():
        assert len(found.samples.get(name, {})) <= bounds[said["bound"]], name


# ---- the page ----


def documented() -> dict[str, dict[str, Any]]:
    """The metrics that have a heading: type, labels, bound."""
    found = {}
    for name, body in re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S):
        kind = re.search(r"^- Type: (\w+), [\w ]+\. Labels: (.*)$", body, re.M)
        bound = re.search(r"Bound: ([\w +]+?)[.,]", body)
        assert kind and bound, f"{name}: its type, unit, labels and bound"
        for key in ("- Means: ", "- Source: ", " Absent: ", "- Alert: "):
            assert key in body, f"{name}: {key}"
        found[name] = {"type": kind[1], "labels": tuple(re.findall(r"`(\w+)`", kind[2])), "bound": bound[1]}
    return found


def documented_signals() -> dict[str, tuple[str, tuple[str, ...], str, int, str]]:
    """The rows of the signals' table: type, labels, feature, bound, alert."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if "| `ebpf_" in line]
    return {
        name.strip("`"): (kind, tuple(re.findall(r"`(\w+)`", keys)), feature.strip("`"), int(most), alert.strip("`"))
        for name, kind, _unit, keys, feature, most, alert in rows
    }


def give_lease(service: Service, seconds: int) -> None:
    """Put the host on probation, as a rollout does."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    lease = {"schema": "ebpf.fleet/lease/v1", "bundle_digest": service.bundle.digest, "boot_id": boot}
    expires = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + seconds * 10**9
    part = service.etc / ".lease"
    part.write_bytes(canonical({**lease, "expires_boottime_ns": expires, "holder": "test"}))
    part.rename(service.etc / "lease.json")


def test_the_page_and_the_file_name_the_same_metrics(service: Service) -> None:
    give_lease(service, 3600)
    cursor = service.folder / "cursor"
    cursor.write_text('{"schema": "ebpf.fleet/cursor/v1", "segment": 1, "offset": 0}')
    service.allow({**ROOMY_POLICY, "sink": {"kind": "jsonl", "cursor": str(cursor)}})
    service.start_settled()
    work()
    service.order("feature.runqlat")
    service.wait_state("runqlat", "killed")
    wait_for(lambda: (service.fresh_status()["budget"] or {}).get("features"), "the first interval is over")
    found = good(text_of(service))
    page, signals = documented(), documented_signals()
    assert 3000 < value(found, "lease_left_seconds") < 3600
    assert set(found.types) == set(page) | set(signals), "the page and the loader agree both ways"
    for name, said in page.items():
        assert found.types[name] == said["type"], name
        assert labels(found, name) <= {said["labels"]}, name
        assert labels(found, name), f"{name} has no sample in this run"
    for name, (kind, _labels, *_rest) in signals.items():
        assert found.types[name] == kind, name


def signals_of(feature: str) -> Iterator[tuple[str, tuple[str, str, int, str]]]:
    contract = contract_of(feature)
    entries = {each["name"]: each["max_entries"] for each in contract["maps"]}
    for each in contract["signals"]:
        alert = each["consumer"]["alert"]
        if each["kind"] == "histogram":
            yield f"ebpf_fleet_{each['name']}", ("histogram", feature, 43, alert)
            yield f"ebpf_fleet_{each['name']}_weighted", ("histogram", feature, 43, "")
        if each["kind"] == "counters":
            yield f"ebpf_fleet_{each['name']}_total", ("counter", feature, entries[each["map"]], alert)
            yield f"ebpf_fleet_{each['name']}_weighted_total", ("counter", feature, entries[each["map"]], "")


def test_the_page_has_every_signal_of_the_contracts_with_its_bound_and_alert() -> None:
    wanted = dict(pair for feature in NAMES for pair in signals_of(feature))
    page = {name: (kind, *rest) for name, (kind, _labels, *rest) in documented_signals().items()}
    assert page == wanted


def test_the_page_has_the_labels_of_the_objects(loader: Path, feature_objects: Path) -> None:
    """The key's struct in the compiled object is what the labels come from."""
    for name, (kind, said, feature, *_rest) in documented_signals().items():
        if kind != "counter":
            continue
        signal_doc = next(each for each in contract_of(feature)["signals"] if f"_{each['name']}_" in name)
        path = next((feature_objects / feature).glob("full.bpf.o"))
        done = subprocess.run([str(loader), "inspect", str(path)], check=True, capture_output=True, text=True)
        assert tuple(each["name"] for each in json.loads(done.stdout)["structs"][signal_doc["key"]]) == said, name


# ---- the BCC collector ----


def collector_text() -> str:
    """The collector's own writer over a status with every kind of figure."""
    counters = {"produced": 3, "delivered": 2, "dropped": 1, "sampled_out": 0, "in_flight": 0}
    feature = {
        "wanted": True, "state": "attached", "profile": "reduced", "sample_every": 2, "counters": counters,
        "weighted": 4,
        "programs": [{"name": "ef_rql_switch", "run_time_ns": 1_500, "run_cnt": 3}],
        "maps": [
            {"name": "ef_hist", "entries": None, "max_entries": 65, "memory_bytes": 4096},
            {"name": "ef_rql_start", "entries": 7, "max_entries": 16384, "memory_bytes": None},
        ],
        "consumer": {"lag_bytes": 0},
    }  # fmt: skip
    status = {
        "loader_version": "0.1.0", "bundle": {"version": "1\n\\", "digest": "a" * 64}, "stats_enabled": True,
        "kernel": {"release": '6.1"x', "family": "6.1"}, "kills": [{"scope": "global"}], "kill_unknown": [],
        "desired_error": None, "loader": {"cpu_ns": 1, "rss_bytes": 2}, "time_unix_ns": 3,
        "features": {"runqlat": feature},
    }  # fmt: skip
    return bcc_metrics.render(status, [])


def test_the_list_of_what_the_collector_leaves_to_the_loader_is_right() -> None:
    assert set(documented()) - set(parse(collector_text()).types) == LOADER_ONLY


def test_the_collectors_metrics_are_the_loaders_with_a_label(service: Service) -> None:
    service.start_settled()
    ours, theirs = good(text_of(service)), good(collector_text())
    for name, kind in theirs.types.items():
        assert (ours.types[name], ours.helps[name]) == (kind, theirs.helps[name]), name
        assert labels(theirs, name) == {("engine", *documented()[name]["labels"])}, name


# ---- node_exporter ----


def tmpfiles_conf(**variables: Any) -> str:
    """The role's tmpfiles.d file with these variables."""
    template = (ROOT / "roles" / "prepare" / "templates" / "tmpfiles.conf.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    environment.filters["ebpf.fleet.value"] = value_filter
    return environment.from_string(template).render(
        {
            "ebpf_fleet_bcc_fallback": False,
            "ebpf_fleet_perf_event_paranoid": "",
            "ebpf_fleet_pull_location": "https://h/x",
            **variables,
        }
    )


def test_the_role_links_the_metrics_where_they_are_read(tmp_path: Path) -> None:
    for folder in ("textfile", "etc"):
        (tmp_path / folder).mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nebpf-fleet:x:990:990::/:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\nebpf-fleet:x:990:\n")
    conf = tmp_path / "conf"
    conf.write_text(tmpfiles_conf(ebpf_fleet_textfile_directory="/textfile", ebpf_fleet_bcc_fallback=True))
    command = ["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(conf)]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    links = {each.name: str(each.readlink()) for each in (tmp_path / "textfile").iterdir()}
    assert links == {
        "ebpf_fleet.prom": "/run/ebpf-fleet-loader/metrics.prom",
        "ebpf_fleet_bcc.prom": "/run/ebpf-fleet-bcc/metrics.prom",
        "ebpf_fleet_pull.prom": "/run/ebpf-fleet-pull/metrics.prom",
    }
    assert "L+" not in tmpfiles_conf(ebpf_fleet_textfile_directory="")


def families(text: str) -> set[str]:
    return {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ebpf_fleet_")}


def test_node_exporter_reads_both_files_without_an_error(service: Service, tmp_path: Path) -> None:
    service.start_settled()
    work()
    text = text_of(service)
    folder = tmp_path / "textfile"
    folder.mkdir()
    (folder / "ebpf_fleet.prom").symlink_to(service.state / "metrics.prom")
    (folder / "ebpf_fleet_bcc.prom").write_text(collector_text())
    with node_exporter(folder) as url:
        seen = scrape(url)
        assert "\nnode_textfile_scrape_error 0\n" in seen, seen[:2000]
        wanted = {name for name in good(text).types if re.search(rf"^{name}(_bucket)?[{{ ]", text, re.M)}
        assert wanted <= families(seen)
        assert re.search(r'^ebpf_fleet_events_produced_total\{(engine="",)?feature="exec_events"\} [1-9]', seen, re.M)
        assert 'engine="bcc"' in seen


def test_a_loader_that_went_is_an_error_of_the_scrape_and_no_old_figure(service: Service, tmp_path: Path) -> None:
    """systemd removes the RuntimeDirectory of a unit that stopped; the link then leads nowhere."""
    service.start_settled()
    folder = tmp_path / "textfile"
    folder.mkdir()
    (folder / "ebpf_fleet.prom").symlink_to(service.state / "metrics.prom")
    with node_exporter(folder) as url:
        assert families(scrape(url))
        service.stop()
        shutil.rmtree(service.state)
        seen = scrape(url)
        assert "\nnode_textfile_scrape_error 1\n" in seen and not families(seen)
