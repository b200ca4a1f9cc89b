# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the runbook on floods, while one user floods a host and a budget is exceeded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loader.runbook_flood import Flooded, flooded_world
from tests.support.runbooks import Typed, asks_systemd, typed_elsewhere

AUDIT = "$(ls -tr /var/log/ebpf-fleet/audit.jsonl*)"
METRICS = "/run/ebpf-fleet-loader/metrics.prom"
STATUS = "/run/ebpf-fleet-loader/status.json"


@pytest.fixture(scope="module")
def flood(
    loader: Path, feature_objects: Path, signing_key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flooded]:
    with flooded_world(loader, feature_objects, tmp_path_factory.mktemp("flood"), signing_key) as made:
        yield made


FLOODS: dict[str, Callable[[Flooded, list[str]], object]] = {
    f"""grep -F 'ebpf_fleet_source_thinned_events{{feature="exec_events"' {METRICS}""":
        lambda flood, lines: any(f'uid="{flood.uid}"' in line and int(line.split()[-1]) > 0 for line in lines),
    f"""grep -E '^ebpf_fleet_feature_degraded\\{{feature="exec_events",.*\\}} 1$' {METRICS}""":
        lambda flood, lines: len(lines) == 1 and f'step="{flood.step}"' in lines[0],
    f"""grep -hE '"event": *"degrade",.*"feature": *"exec_events"' {AUDIT} | tail -n 3""":
        lambda flood, lines: any(json.loads(line)["reason_code"].startswith("EF_BUDGET_") for line in lines),
    f"jq '.features.exec_events.fairness.top' {STATUS}":
        lambda flood, lines: json.loads("".join(lines))[0]["uid"] == flood.uid,
    f"jq '.features.exec_events.degraded' {STATUS}":
        lambda flood, lines: json.loads("".join(lines))["step"] == flood.step,
}  # fmt: skip

# What other pages than the runbooks ask of the loader's files.
ELSEWHERE: dict[str, Callable[[Flooded, list[str]], object]] = {
    "budgets.md": lambda flood, lines: json.loads("".join(lines))["exec_events"]["step"] == flood.step,
    "lease.md": lambda flood, lines: any(
        line.split("\t")[1:5] == ["attach", "exec_events", "EF_OK", "desired"] for line in lines
    ),
}
# No one withdraws trust in this world (tests/loader/test_standing.py does): it finds that no one did.
WITHDRAWN = 'select(.event == "trust")'


@pytest.mark.parametrize("text", FLOODS)
def test_a_command_of_the_page_on_floods_finds_the_flooder(flood: Flooded, text: str) -> None:
    if shutil.which(text.split()[0]) is None:
        pytest.skip(f"{text.split()[0]} is not installed on this machine")
    lines = flood.world.lines(text)
    assert FLOODS[text](flood, lines), lines


@pytest.mark.parametrize(
    "command", [one for one in typed_elsewhere() if not asks_systemd(one.text)], ids=lambda one: one.page
)
def test_a_search_of_another_page_finds_what_it_says(flood: Flooded, command: Typed) -> None:
    assert command.page in ELSEWHERE, "no check for a search of this page: write one above"
    if shutil.which(command.text.split()[0]) is None:
        pytest.skip(f"{command.text.split()[0]} is not installed on this machine")
    if WITHDRAWN in command.text:
        assert flood.world.lines(command.text) == []
        assert flood.world.lines(command.text.replace('"trust"', '"attach"')), "the same search finds what there is"
        return
    assert ELSEWHERE[command.page](flood, flood.world.lines(command.text)), flood.world.lines(command.text)
