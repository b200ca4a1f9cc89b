"""The alert rules name metrics and runbooks that exist, and each alert that the metrics page names has a rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
METRICS = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docs/runbooks/alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
SERIES = re.compile(r"(_bucket|_count|_sum)$")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_metrics_that_are_documented(rule: dict[str, Any]) -> None:
    named = {SERIES.sub("", name) for name in re.findall(r"\bebpf_fleet_\w+", rule["expr"])}
    contracts = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("bpf/features/*/contract.yml"))
    assert named, rule["expr"]
    known = {name for name in named if f"`{name}`" in METRICS or name.replace("ebpf_fleet_", "") in contracts}
    assert named - known == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_leads_to_a_runbook_that_names_it_or_its_feature(rule: dict[str, Any]) -> None:
    page = ROOT / rule["annotations"]["runbook"]
    assert page.is_file(), page
    assert rule["annotations"]["summary"].strip()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"Alert: `(EbpfFleet\w+)`", METRICS))))
def test_an_alert_that_the_metrics_page_names_is_a_rule(name: str) -> None:
    assert name in {rule["alert"] for rule in RULES}


def test_a_degraded_security_signal_alerts() -> None:
    (rule,) = [rule for rule in RULES if rule["alert"] == "EbpfFleetSecuritySignalDegraded"]
    owners = {
        path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8"))["owner"]["team"]
        for path in ROOT.glob("bpf/features/*/contract.yml")
    }
    security = {name for name, team in owners.items() if "security" in team}
    assert security
    assert {name for name in security if name in rule["expr"]} == security
