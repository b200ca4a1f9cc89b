# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages list is what the code has, both ways: reason codes, limits, checks, commands, targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.arguments import CHECKS, DEFAULT_LIMITS

from tools import run_tests

ROOT = Path(__file__).resolve().parents[2]
INTERFACES = (ROOT / "docs/interfaces.md").read_text(encoding="utf-8")
ROLLOUT = (ROOT / "docs/rollout.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CODE = re.compile(r"[\"'](EF_[A-Z][A-Z_]*[A-Z])[\"']")
SOURCES = [*ROOT.glob("bpf/loader/*/*.[ch]"), *ROOT.glob("plugins/**/*.py"), *ROOT.glob("collectors/**/*.py")]
# Names that are no reason of anything: a field of the journal, and a word of the programs' sources.
NO_REASONS = {"EF_FEATURE", "EF_FAIR"}


def codes_of_the_code() -> set[str]:
    found: set[str] = set()
    for path in SOURCES:
        found |= set(CODE.findall(path.read_text(encoding="utf-8")))
    return found - NO_REASONS


def section(title: str) -> str:
    """A section of the page on interfaces."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", INTERFACES, re.M | re.S)
    assert found, title
    return found[1]


# ---- reason codes ----


def test_every_reason_code_is_on_the_page() -> None:
    told = set(re.findall(r"`(EF_[A-Z_]+)`", INTERFACES))
    assert codes_of_the_code() - told == set()


def test_the_page_has_no_code_that_nothing_gives() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")]
    for path in pages:
        told = set(re.findall(r"`(EF_[A-Z][A-Z_]*[A-Z])`", path.read_text(encoding="utf-8")))
        assert told - codes_of_the_code() - NO_REASONS == set(), path.name


def test_the_list_of_codes_covers_all_of_them() -> None:
    """The section itself, by name or by a pattern with its home above."""
    text = section("Reason codes")
    named = set(re.findall(r"`(EF_[A-Z_]+)`", text))
    patterns = [re.compile(one.replace("*", "[A-Z_]+")) for one in re.findall(r"`(EF_[A-Z_]+_\*)`", text)]
    missing = {code for code in codes_of_the_code() - named if not any(pattern.fullmatch(code) for pattern in patterns)}
    assert missing == set()


def test_each_code_has_one_row_with_its_meaning_and_what_to_do() -> None:
    page = (ROOT / "docs/reason-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`EF_[A-Z_]+` ?)+)\| (.+) \| (.+) \|$", page, re.M)
    codes = [code for names, _means, _do in rows for code in re.findall(r"`(EF_[A-Z_]+)`", names)]
    assert sorted(codes) == sorted(codes_of_the_code())
    assert all(len(means.split()) > 2 and do.strip() for _names, means, do in rows)


# ---- the gate ----


def test_the_page_on_rollouts_has_every_limit_with_its_default() -> None:
    told = {}
    for line in re.findall(r"^\| .* \| .* \| `.*` \|$", ROLLOUT, re.M):
        _what, default, names = (cell.strip() for cell in line.strip("|").split("|"))
        told.update({name: default for name in re.findall(r"`(\w+)`", names) if name in DEFAULT_LIMITS})
    assert set(told) == set(DEFAULT_LIMITS) - {"require_events"} and "`require_events: true`" in ROLLOUT
    for name, default in told.items():
        value = DEFAULT_LIMITS[name]
        figure = re.match(r"[\d,]+", default)
        if value is None:
            assert figure is None, f"{name} has no default; the page says {default}"
        else:
            assert figure, f"{name} is {value}; the page says {default}"
            told_value = int(figure[0].replace(",", "")) * (1 << 20 if "MiB" in default else 1)
            assert told_value == value, f"{name} is {value}; the page says {default}"


def test_the_page_names_every_check_of_the_gate() -> None:
    text = section("Gate")
    listed = re.search(r"^Checks: (.*?)\. Rates", text, re.M | re.S)
    assert listed
    assert set(re.findall(r"`(\w+)`", listed[1])) - {"extra_checks"} == set(CHECKS)


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
