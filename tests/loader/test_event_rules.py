# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of docs/event-driven: metrics that exist, a limit, and labels that the event source takes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.events import alerts

from tests.loader.prometheus import tool

pytestmark = pytest.mark.apart

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "docs/event-driven/rules.yml"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load(PATH.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
OF = {"host": "web1.example.org", "feature": "exec_events"}
# Of each: the metric, how much it grows in 15 s so that the alert fires and so that it does not, and what is asked for.
HERE = "feature=exec_events,host=web1.example.org"
CASES = {
    "FeatureTakesTooMuchCpu": ("ebpf_fleet_program_run_seconds_total", 3.3, 2.7, "kill", HERE),
    "FeatureLosesEvents": ("ebpf_fleet_events_dropped_total", 15300, 14700, "reduce", HERE),
    "LoaderTakesTooMuchCpu": ("ebpf_fleet_loader_cpu_seconds_total", 7.8, 7.2, "kill", "host=web1.example.org"),
}


def filled(text: str) -> str:
    """A label or annotation of a rule, as Prometheus fills it in for the host and the feature."""
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: OF[found.group(1)], text)


def labels_of(alert: str) -> dict[str, str]:
    """The labels that the alert fires with, beside its name."""
    rule = RULES[alert]
    own = {name: value for name, value in OF.items() if re.search(rf"by \([^)]*\b{name}\b", rule["expr"])}
    return {**own, **{name: filled(value) for name, value in rule["labels"].items()}}


def case(alert: str, growth: float, fires: bool) -> dict[str, Any]:
    metric = CASES[alert][0]
    labels = ",".join(f'{name}="{value}"' for name, value in OF.items())
    notes = {name: filled(text) for name, text in RULES[alert]["annotations"].items()}
    expected = [{"exp_labels": labels_of(alert), "exp_annotations": notes}] if fires else []
    return {
        "interval": "15s",
        "input_series": [{"series": f"{metric}{{{labels}}}", "values": f"0+{growth}x80"}],
        "alert_rule_test": [{"eval_time": "15m", "alertname": alert, "exp_alerts": expected}],
    }


def test_every_rule_has_a_case_and_a_documented_metric() -> None:
    assert set(CASES) == set(RULES)
    metrics = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    for alert, (metric, *_more) in CASES.items():
        assert metric in RULES[alert]["expr"] and f"`{metric}`" in metrics


@pytest.mark.parametrize("alert", CASES)
def test_a_rule_fires_over_its_limit_alone_and_asks_for_what_the_source_takes(alert: str, tmp_path: Path) -> None:
    _metric, over, under, action, scope = CASES[alert]
    document = {"rule_files": [str(PATH)], "evaluation_interval": "15s",
                "tests": [case(alert, over, True), case(alert, under, False)]}  # fmt: skip
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run([tool("promtool"), "test", "rules", str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sent = {"status": "firing", "labels": {"alertname": alert, **labels_of(alert)}, "fingerprint": "0" * 16,
            "startsAt": "2026-11-28T12:00:00Z"}  # fmt: skip
    body = {"version": "4", "status": "firing", "receiver": "r", "groupKey": "g", "alerts": [sent]}
    (one,) = alerts.read(json.dumps(body).encode())
    wish = alerts.asked(one, allow_everything=False)
    assert wish is not None and (wish.action, wish.scope) == (action, scope)
