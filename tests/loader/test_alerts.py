# SPDX-License-Identifier: GPL-3.0-or-later
"""Alert rules: each has metrics that exist, fires where it should, and leads to its own section of a runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.loader.prometheus import tool
from tests.support.markdown import anchors

pytestmark = pytest.mark.apart

ROOT = Path(__file__).resolve().parents[2]
METRICS = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
ALERTS = ROOT / "docs/runbooks/alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
CONTRACTS = {
    path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.glob("bpf/features/*/contract.yml"))
}
SIGNALS = [(name, signal) for name, contract in CONTRACTS.items() for signal in contract["signals"]]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("roles/*/README.md"))]
SERIES = re.compile(r"(_bucket|_count|_sum)$")
# What reads as an alert's name and is none: names of other things in these pages.
NO_ALERTS: set[str] = set()


def rule_of(alert: str) -> dict[str, Any]:
    (found,) = [rule for rule in RULES if rule["alert"] == alert]
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_metrics_that_are_documented(rule: dict[str, Any]) -> None:
    named = {SERIES.sub("", name) for name in re.findall(r"\bebpf_fleet_\w+", rule["expr"])}
    contracts = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("bpf/features/*/contract.yml"))
    assert named, rule["expr"]
    known = {name for name in named if f"`{name}`" in METRICS or name.replace("ebpf_fleet_", "") in contracts}
    assert named - known == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_leads_to_the_section_of_its_own_name(rule: dict[str, Any]) -> None:
    page, _, section = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / page).is_file(), page
    assert anchors(ROOT / page).get(section) == rule["alert"], "the link leads to the heading of this very alert"
    assert rule["annotations"]["summary"].strip()


def test_no_two_rules_have_one_name() -> None:
    names = [rule["alert"] for rule in RULES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("feature", "signal"), SIGNALS, ids=lambda one: str(one if isinstance(one, str) else one["name"])
)
def test_a_consumer_of_a_contract_has_a_rule_and_its_page(feature: str, signal: dict[str, Any]) -> None:
    consumer = signal["consumer"]
    rule = rule_of(consumer["alert"])
    assert rule["annotations"]["runbook"].partition("#")[0] == consumer["runbook"]
    assert feature in rule["expr"] or signal["name"] in rule["expr"] or "temporary_folder" in rule["expr"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_for_any_feature_opens_no_one_features_page(rule: dict[str, Any]) -> None:
    """A page that a contract names is of that feature; an alert that is not about one signal or feature has another."""
    page = rule["annotations"]["runbook"].partition("#")[0]
    of = {name for name, signal in SIGNALS if signal["consumer"]["runbook"] == page}
    about = {name for name, contract in CONTRACTS.items() if re.search(rf'feature="{name}"', rule["expr"])}
    about |= {name for name, signal in SIGNALS if f"ebpf_fleet_{signal['name']}" in rule["expr"]}
    about |= {"exec_events"} if "temporary_folder" in rule["expr"] else set()
    assert of <= about, f"{page} is of {of}, the alert about {about or 'any feature'}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_alert_that_a_page_names_is_a_rule(path: Path) -> None:
    """As ``Alert: `NAME` ``, in a column `alert`, or as a heading of a runbook; the last is checked below."""
    text = path.read_text(encoding="utf-8")
    named = {
        name for line in re.findall(r"^- Alert: .*", text, re.M) for name in re.findall(r"`([A-Z][A-Za-z]+)`", line)
    }
    named |= set(re.findall(r"`(EbpfFleet[A-Z]\w+)`", text))
    named |= set(re.findall(r"^\| `ebpf_.*\| `([A-Z]\w+)` \|$", text, re.M))
    named |= set(re.findall(r"^- alert: (\w+)", text, re.M))
    assert named - NO_ALERTS <= {rule["alert"] for rule in RULES}


# Opened by a person, whatever the alert: no rule knows that our programs are the reason.
OF_NO_ALERT = ROOT / "docs/runbooks/incident.md"


@pytest.mark.parametrize(
    "path", sorted(set(ROOT.glob("docs/runbooks/*.md")) - {OF_NO_ALERT}), ids=lambda path: path.name
)
def test_a_runbook_has_a_rule_that_leads_to_it(path: Path) -> None:
    leads = {
        rule["alert"] for rule in RULES if rule["annotations"]["runbook"].startswith(f"docs/runbooks/{path.name}#")
    }
    assert leads, "no alert opens this page"
    titles = {title for title in anchors(path).values() if re.fullmatch(r"[A-Z][a-z]+[A-Z]\w+", title)}
    assert titles == leads, "each section with an alert's name is of a rule"


def test_a_degraded_security_signal_alerts() -> None:
    rule = rule_of("EbpfFleetSecuritySignalDegraded")
    security = {name for name, contract in CONTRACTS.items() if "security" in contract["owner"]["team"]}
    assert security
    assert {name for name in security if name in rule["expr"]} == security


# ---- Prometheus' own test of the rules ----

# Of each alert: series with which it fires, and series with which it does not; one value a minute, asked at 2 h.
LONG = "x120"
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "HostRunQueueLatencyHigh": (
        {'ebpf_fleet_run_queue_latency_seconds_bucket{le="0.1"}': f"0+10{LONG}",
         'ebpf_fleet_run_queue_latency_seconds_bucket{le="0.2"}': f"0+1000{LONG}",
         'ebpf_fleet_run_queue_latency_seconds_bucket{le="+Inf"}': f"0+1000{LONG}"},
        {'ebpf_fleet_run_queue_latency_seconds_bucket{le="0.1"}': f"0+1000{LONG}",
         'ebpf_fleet_run_queue_latency_seconds_bucket{le="+Inf"}': f"0+1000{LONG}"},
    ),
    "TcpRetransmitsHigh": (
        {'ebpf_fleet_tcp_retransmits_total{family="2"}': f"0+2000{LONG}",
         'ebpf_fleet_tcp_retransmits_total{family="10"}': f"0+2000{LONG}"},
        {'ebpf_fleet_tcp_retransmits_total{family="2"}': f"0+2000{LONG}"},
    ),
    "TcpConnectSlow": (
        {'ebpf_fleet_tcp_connect_latency_seconds_bucket{le="1.05"}': f"0+10{LONG}",
         'ebpf_fleet_tcp_connect_latency_seconds_bucket{le="2.1"}': f"0+100{LONG}",
         'ebpf_fleet_tcp_connect_latency_seconds_bucket{le="+Inf"}': f"0+100{LONG}"},
        {'ebpf_fleet_tcp_connect_latency_seconds_bucket{le="0.1"}': f"0+100{LONG}",
         'ebpf_fleet_tcp_connect_latency_seconds_bucket{le="+Inf"}': f"0+100{LONG}"},
    ),
    "TcpConnectFailuresHigh": (
        {'ebpf_fleet_tcp_connect_failures_total{error="111"}': f"0+600{LONG}",
         "ebpf_fleet_tcp_connect_latency_seconds_count": f"0+600{LONG}"},
        {'ebpf_fleet_tcp_connect_failures_total{error="111"}': f"0+60{LONG}",
         "ebpf_fleet_tcp_connect_latency_seconds_count": f"0+6000{LONG}"},
    ),
    "BlockIoSlow": (
        {'ebpf_fleet_block_io_latency_seconds_bucket{le="0.1"}': f"0+10{LONG}",
         'ebpf_fleet_block_io_latency_seconds_bucket{le="0.3"}': f"0+100{LONG}",
         'ebpf_fleet_block_io_latency_seconds_bucket{le="+Inf"}': f"0+100{LONG}"},
        {'ebpf_fleet_block_io_latency_seconds_bucket{le="0.01"}': f"0+100{LONG}",
         'ebpf_fleet_block_io_latency_seconds_bucket{le="+Inf"}': f"0+100{LONG}"},
    ),
    "OomKill": (
        {'ebpf_fleet_events_produced_total{feature="oom_kills"}': "0x115 1x10"},
        {'ebpf_fleet_events_produced_total{feature="oom_kills"}': f"3{LONG}",
         'ebpf_fleet_events_produced_total{feature="exec_events"}': f"0+9{LONG}"},
    ),
    "SyscallErrorsHigh": (
        {'ebpf_fleet_syscall_errors_total{error="24"}': f"0+900{LONG}"},
        {'ebpf_fleet_syscall_errors_total{error="2"}': f"0+9000{LONG}"},
    ),
    "FileUnlinksHigh": (
        {'ebpf_fleet_file_unlinks_total{uid="1000"}': f"0+90000{LONG}"},
        {'ebpf_fleet_file_unlinks_total{uid="1000"}': f"0+900{LONG}"},
    ),
    "ExecFromTemporaryFolder": (
        {"ebpf_fleet_exec_from_temporary_folder_timestamp_seconds": f"7000{LONG}"},
        {"ebpf_fleet_exec_from_temporary_folder_timestamp_seconds": f"0{LONG}"},
    ),
    "ExecFromTemporaryFolderUnmeasured": (
        {'ebpf_fleet_feature_state{feature="exec_events",state="attached"}': f"1{LONG}"},
        {'ebpf_fleet_feature_state{feature="exec_events",state="attached"}': f"1{LONG}",
         "ebpf_fleet_exec_from_temporary_folder_timestamp_seconds": f"0{LONG}"},
    ),
    "ExecOfDeletedFile": (
        {'ebpf_fleet_events_produced_total{feature="exec_policy"}': "0x115 1x10"},
        {'ebpf_fleet_events_produced_total{feature="exec_policy"}': f"0{LONG}"},
    ),
    # Of what sampling let pass: 2 of 1000 are few, but 2 of the 100 that were not sampled out are many.
    "EbpfFleetEventsDropped": (
        {'ebpf_fleet_events_dropped_total{feature="runqlat"}': f"0+2{LONG}",
         'ebpf_fleet_events_sampled_out_total{feature="runqlat"}': f"0+900{LONG}",
         'ebpf_fleet_events_produced_total{feature="runqlat"}': f"0+1000{LONG}"},
        {'ebpf_fleet_events_dropped_total{feature="runqlat"}': f"0+2{LONG}",
         'ebpf_fleet_events_sampled_out_total{feature="runqlat"}': f"0+0{LONG}",
         'ebpf_fleet_events_produced_total{feature="runqlat"}': f"0+1000{LONG}"},
    ),
    "EbpfFleetEventsThinned": (
        {'ebpf_fleet_events_thinned_total{feature="exec_events"}': f"0+5{LONG}"},
        {'ebpf_fleet_events_thinned_total{feature="exec_events"}': f"5{LONG}"},
    ),
    "EbpfFleetSecuritySignalDegraded": (
        {'ebpf_fleet_feature_degraded{feature="file_unlinks",step="shed"}': f"1{LONG}"},
        {'ebpf_fleet_feature_degraded{feature="runqlat",step="shed"}': f"1{LONG}",
         'ebpf_fleet_feature_degraded{feature="exec_events",step="shed"}': f"0{LONG}"},
    ),
    "EbpfFleetRecordsUnshipped": (
        {"ebpf_fleet_events_unshipped_deleted_bytes_total": f"0+90{LONG}"},
        {"ebpf_fleet_events_unshipped_deleted_bytes_total": f"90{LONG}"},
    ),
    "EbpfFleetSilent": (
        {"ebpf_fleet_status_timestamp_seconds": f"6000{LONG}"},
        {"ebpf_fleet_status_timestamp_seconds": f"0+60{LONG}"},
    ),
}  # fmt: skip


def with_instance(series: str) -> str:
    name, brace, labels = series.partition("{")
    return f'{name}{{instance="h1",{labels}' if brace else f'{name}{{instance="h1"}}'


def case(alert: str, series: dict[str, str], fires: int) -> dict[str, Any]:
    """One test of promtool: how many of these alerts fire at the end of two hours."""
    sample = {"labels": "{}", "value": fires}
    question = f'count(ALERTS{{alertname="{alert}",alertstate="firing",instance="h1"}}) or vector(0)'
    return {
        "interval": "1m",
        "input_series": [{"series": with_instance(name), "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": question, "eval_time": "2h", "exp_samples": [sample]}],
    }


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == {rule["alert"] for rule in RULES}


@pytest.mark.sample(6)
@pytest.mark.parametrize("alert", CASES)
def test_a_rule_fires_where_it_should_and_only_there(alert: str, tmp_path: Path) -> None:
    firing, quiet = CASES[alert]
    document = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m",
                "tests": [case(alert, firing, 1), case(alert, quiet, 0)]}  # fmt: skip
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run([tool("promtool"), "test", "rules", str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_rules() -> None:
    command = [tool("promtool"), "check", "rules", str(ALERTS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(RULES)} rules found" in done.stdout + done.stderr
