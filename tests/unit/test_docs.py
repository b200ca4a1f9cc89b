# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages list is what the code has, both ways: limits, checks, commands, targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.placeholders import PLACEHOLDER
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import (
    CHECKS,
    DEFAULT_LIMITS,
    NAMES,
    SWITCHES,
)
from ansible_collections.ebpf.fleet.plugins.modules import gate as gate_module

from tests.lab import paths, settings
from tools import gate_page, run_tests

ROOT = Path(__file__).resolve().parents[2]
ROLLOUT = (ROOT / "docs/rollout.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


# ---- the gate ----


def test_the_tables_of_checks_are_the_gates_records() -> None:
    assert gate_page.written(ROLLOUT) == ROLLOUT, "the tables are older than the records: `make checks`"
    assert all(f"`{name}: true`" in ROLLOUT for name in SWITCHES)


def test_a_record_that_changes_makes_the_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    for at, check in enumerate(CHECKS):
        changed = [*CHECKS[:at], check._replace(what=check.what + " and more"), *CHECKS[at + 1 :]]
        monkeypatch.setattr(gate_page, "CHECKS", changed)
        assert gate_page.written(ROLLOUT) != ROLLOUT, check.name
    monkeypatch.setattr(gate_page, "CHECKS", [one._replace(default=51) if one.default == 50 else one for one in CHECKS])
    assert "| 51 millicores |" in gate_page.written(ROLLOUT)


def test_a_page_without_its_marks_is_refused() -> None:
    for name in gate_page.tables():
        with pytest.raises(ValueError, match=f"no part marked {name}"):
            gate_page.written(ROLLOUT.replace(f"<!-- end of {name} -->", ""))


def test_the_list_of_checks_and_the_modules_limits_are_the_gates_records() -> None:
    page, module = gate_page.list_page().read_text(encoding="utf-8"), gate_page.MODULE.read_text(encoding="utf-8")
    assert gate_page.listed(page) == page and gate_page.described(module) == module, "`make checks`"
    for text, pattern in ((page, gate_page.LISTED), (module, gate_page.DESCRIBED)):
        assert len(pattern.findall(text)) == 1
    (found,) = gate_page.LISTED.findall(page)
    assert re.findall(r"`(\w+)`", found) == [*NAMES, "extra_checks"]


def test_the_gates_own_documentation_has_every_limit_with_its_default() -> None:
    words = " ".join(yaml.safe_load(gate_module.DOCUMENTATION)["options"]["limits"]["description"])
    for name, value in DEFAULT_LIMITS.items():
        assert re.search(rf"C\({name}\)", words), name
        assert value is None or f"C({name}) {str(value).lower()}" in words, name


# ---- metrics, features, kernels ----


def test_the_page_on_metrics_has_the_loaders_table() -> None:
    """Names and types; what a loader that runs really writes is held against the page by tests/loader."""
    table = re.findall(r'\.name = "(\w+)",\s*\.type = "(\w+)"', (ROOT / "bpf/loader/tell/metrics.c").read_text())
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    told = re.findall(r"^### `ebpf_fleet_(\w+)`\n\n- Type: (\w+),", page, re.M)
    assert len(table) > 30 and sorted(told) == sorted(table)


def test_the_readme_names_every_feature() -> None:
    (row,) = re.findall(r"^\| features \|(.*)\|$", README, re.M)
    features = {path.parent.name for path in ROOT.glob("bpf/features/*/contract.yml")}
    assert set(re.findall(r"`(\w+)`", row)) == features


def test_nothing_of_a_feature_is_left_to_be_filled_in() -> None:
    """A skeleton may be built and tried; it is not part of the repository before it says whose it is."""
    pages = [*ROOT.glob("bpf/features/*/contract.yml"), *ROOT.glob("docs/runbooks/*")]
    assert len(pages) > 20
    assert [path.name for path in pages if PLACEHOLDER in path.read_text(encoding="utf-8")] == []


def test_the_page_on_the_matrix_has_its_hosts_with_their_kernels() -> None:
    text = (ROOT / "docs/matrix.md").read_text(encoding="utf-8")
    told = {}
    for hosts, kernels, _special in re.findall(r"^\| ([a-z0-9, -]+) \| ([^|]+) \| ([^|]+) \|$", text, re.M):
        series = re.findall(r"\d+\.(?:\d+|x)", kernels)
        names = hosts.split(", ")
        told.update(zip(names, series if len(series) > 1 else series * len(names)))
    real = {host.name: host.kernel.name.partition("-")[0] for host in settings.load(paths.SETTINGS).group("matrix")}
    assert told == real


# ---- what the kill switch needs on a host ----

SCRIPTS = sorted(ROOT.glob("plugins/module_utils/kill/parts/*.sh"))
# Programs that scripts of this kind may call; builtins of sh are left out.
TOOLS = """
    awk base64 bpftool cat chmod chown cp cut date dd expr find flock grep head id ln ls mkdir mktemp mv nsenter od ps
    python3 readlink rm rmdir sed sha256sum sleep sort stat systemctl tail tee timeout touch tr uname uniq wc xargs
""".split()  # noqa: SIM905
CALL = (
    r"(?:^|[|;&(!{{]|\b(?:if|while|until|then|do|else|within \d+|succeeds_within \d+|xargs|exec)\b)\s*{name}\b(?![=(])"
)


def called_in(paths: list[Path]) -> set[str]:
    text = "\n".join(re.sub(r"^\s*#.*$", "", path.read_text(encoding="utf-8"), flags=re.M) for path in paths)
    own = set(re.findall(r"^(\w+)\(\)", text, re.M))
    calls = {name for name in TOOLS if re.search(CALL.format(name=name), text, re.M)} - own
    # `for file in`, `read id`: a variable and no call.
    return calls - {"id"} | ({"xargs"} if "| xargs" in text else set())


def test_the_readme_has_what_the_kill_switch_needs() -> None:
    way_back = [path for path in SCRIPTS if path.name.startswith("rollback")]
    kill = [path for path in SCRIPTS if path not in way_back]
    told = re.search(r"of their programs ((?:`[\w-]+` ?)+):", README)
    rare = re.search(r"`systemctl` is asked only .*?`python3` or `bpftool` only", README, re.S)
    assert told and rare
    assert called_in(kill) - {"systemctl", "python3", "bpftool"} == set(re.findall(r"`([\w-]+)`", told[1]))
    more = re.search(r"`scope=previous` also needs (.*?), and uses `flock`", README, re.S)
    assert more
    needed = {words.split()[0] for words in re.findall(r"`([\w -]+)`", more[1])}
    assert called_in(way_back) - called_in(kill) - {"flock"} | {"systemctl"} == needed


def test_the_playbook_says_the_same() -> None:
    head = (ROOT / "playbooks/rollback.yml").read_text(encoding="utf-8").partition("- name:")[0].replace("\n#", "")
    told = re.search(r"of their programs ((?:`[\w-]+` ?)+):", README)
    assert told
    for name in [*re.findall(r"`([\w-]+)`", told[1]), "systemctl", "sha256sum", "cut", "tr", "mv -T"]:
        assert re.search(rf"\b{name}\b", head), name


# ---- targets ----


def test_make_test_is_what_the_page_says() -> None:
    (row,) = re.findall(r"^\| `make test` \|(.*)\|[^|]*\|$", CONTRIBUTING, re.M)
    assert re.findall(r"`(\w+)`", row) == [*run_tests.SUITES, *run_tests.BESIDE]


@pytest.mark.parametrize("suite", run_tests.SLOW)
def test_a_suite_beside_make_test_has_a_target_and_the_page_names_it(suite: str) -> None:
    targets = re.findall(r"^([a-z-]+):.*\n(?:\t.*\n)*?\t.*tools\.run_tests ([\w ]+)$", MAKEFILE, re.M)
    of = [target for target, suites in targets if suite in suites.split()]
    of += re.findall(rf"^(test-{suite}):", MAKEFILE, re.M)
    assert of, f"no target runs the suite {suite}"
    (row,) = re.findall(rf"^\| `make {of[0]}` \|(.*)\|[^|]*\|$", CONTRIBUTING, re.M)
    assert f"`{suite}`" in row or of[0] == f"test-{suite}"


@pytest.mark.parametrize("target", re.findall(r"^(test[a-z-]*|soak|fuzz|differential|bench):", MAKEFILE, re.M))
def test_a_target_that_tests_is_on_the_page(target: str) -> None:
    assert f"| `make {target}` |" in CONTRIBUTING
