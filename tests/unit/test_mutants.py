# SPDX-License-Identifier: GPL-3.0-or-later
"""The tool of `make mutants`: what its rules make of a text, what it draws, which tests it picks, what is enough."""

from __future__ import annotations

import ast
import fcntl
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.mutants import areas, choose, report, rules_python, rules_text, rules_yaml, seen
from tools.mutants.__main__ import ACCEPTED, Results, apart, at_once, chosen, possible, restricted
from tools.mutants.areas import ROOT, Area
from tools.mutants.copy import Copy, copied
from tools.mutants.fault import Fault


def python(text: str) -> set[tuple[str, str]]:
    """{(operator, the whole text with the fault)}."""
    return {(fault.operator, fault.apply(text)) for fault in rules_python.faults("x.py", text)}


def c(text: str) -> set[tuple[str, str]]:
    return {(fault.operator, fault.apply(text)) for fault in rules_text.c_faults("x.c", text)}


def shell(text: str) -> set[tuple[str, str]]:
    return {(fault.operator, fault.apply(text)) for fault in rules_text.shell_faults("x.sh", text)}


def playbook(text: str) -> set[tuple[str, str]]:
    return {(fault.operator, fault.apply(text)) for fault in rules_yaml.faults("x.yml", text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b", {("boundary", "a <= b")}),
        ("a >= b", {("boundary", "a > b")}),
        ("a not in b", {("negated_condition", "a in b")}),
        ("a is not b", {("negated_condition", "a is b")}),
        ("a == b != c", {("negated_condition", "a != b != c"), ("negated_condition", "a == b == c")}),
        ("a and b", {("and_or", "a or b")}),
        ("not a", {("negated_condition", "a")}),
        ("not (a)", {("negated_condition", "(a)")}),
        ("a + b", {("arithmetic", "a - b")}),
        ("(a) // (b)", {("arithmetic", "(a) * (b)")}),
        ("x = True", {("swapped_boolean", "x = False")}),
        ("x = 0", {("constant_plus", "x = (0 + 1)")}),
        ("x = 7", {("constant_plus", "x = (7 + 1)"), ("constant_times", "x = (7 * 1000)")}),
        ("x = 'word'", {("changed_word", 'x = "other_word"')}),
        ("f(a)", {("dropped_statement", "pass")}),
        ("x[a] = b", {("dropped_statement", "pass")}),
        ("x += a", {("dropped_statement", "pass"), ("arithmetic", "x -= a")}),
        ("raise a", {("dropped_statement", "pass")}),
        ("a if b else c", {("negated_condition", "a if (not (b)) else c")}),
        ("[a for a in b if a.c]", {("negated_condition", "[a for a in b if (not (a.c))]")}),
        ("def f():\n    return a\n", {("dropped_return", "def f():\n    return None\n")}),
    ],
)
def test_the_rules_for_python(text: str, expected: set[tuple[str, str]]) -> None:
    assert python(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "'A sentence, which a person reads.'",
        "def f(a: 'word') -> 'word': ...",
        "x: 'word'",
        "DOCUMENTATION = 'word'",
        "__all__ = ['word']",
        "from a import b",
        "def f():\n    return None\n",
        "if TYPE_CHECKING: pass",
    ],
)
def test_what_python_does_not_run_gets_no_fault(text: str) -> None:
    assert python(text) == set()


def test_offsets_are_right_behind_characters_of_several_bytes() -> None:
    assert ("boundary", "x = 'größer', a <= b") in python("x = 'größer', a < b")


def test_a_fault_in_python_knows_its_function() -> None:
    text = "A = 1\nclass C:\n    def f(self):\n        def g():\n            return 2\n        return g\n"
    scopes = {(fault.line(text), fault.scope) for fault in rules_python.faults("x.py", text)}
    assert scopes == {(1, ""), (5, "C.f.g"), (6, "C.f")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\tif (a < b)\n", {("boundary", "\tif (a <= b)\n"), ("negated_condition", "\tif (!(a < b))\n")}),
        ("\tif (!a)\n", {("negated_condition", "\tif (a)\n")}),
        ("\tx = a == b;\n", {("negated_condition", "\tx = a != b;\n")}),
        ("\treturn a && b;\n", {("and_or", "\treturn a || b;\n"), ("dropped_return", "\treturn 0;\n")}),
        ("\treturn 0;\n", {("constant_plus", "\treturn 1;\n")}),
        ("\tf(a);\n", {("dropped_statement", "\t;\n")}),
        ("\ta->b = c;\n", {("dropped_statement", "\t;\n")}),
        ("\ta->b += c;\n", {("dropped_statement", "\t;\n"), ("arithmetic", "\ta->b -= c;\n")}),
        ("int x = a * b;\n", {("arithmetic", "int x = a / b;\n")}),
        ("int x = 8;\n", {("constant_plus", "int x = 9;\n"), ("constant_times", "int x = 80;\n")}),
        ("bool x = true;\n", {("swapped_boolean", "bool x = false;\n")}),
        # What only looks like an expression.
        ("char *f(const char *a);\n", set()),
        ("int x = 0x10;\n", set()),
        ("#define A 5\n", set()),
        ("#include <a.h>\n", set()),
        ("/* a < b && 5 */ // 7 < 8\n", set()),
        ('x("a < b && 5 \\" 6");\n', set()),
        ("x = '7';\n", set()),
    ],
)
def test_the_rules_for_c(text: str, expected: set[tuple[str, str]]) -> None:
    assert c(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[ $a -lt 5 ] && b\n",
         {("boundary", "[ $a -le 5 ] && b\n"), ("and_or", "[ $a -lt 5 ] || b\n"),
          ("constant_plus", "[ $a -lt 6 ] && b\n"), ("constant_times", "[ $a -lt 50 ] && b\n")}),
        ("if ! a; then\n", {("negated_condition", "if a; then\n")}),
        ("if a; then\n", {("negated_condition", "if ! a; then\n")}),
        ("[ ! -d x ]\n", {("negated_condition", "[ -d x ]\n")}),
        ("\treturn 0\n", {("dropped_return", "\treturn 1\n"), ("constant_plus", "\treturn 1\n")}),
        ("\tkill_all\n", set()),
        ("\tkill_all now\n", {("dropped_statement", "\t:\n")}),
        ("# if a; then\n", set()),
        ("x 'if a = b 5'\n", set()),
    ],
)  # fmt: skip
def test_the_rules_for_shell(text: str, expected: set[tuple[str, str]]) -> None:
    assert shell(text) == expected


def test_a_condition_in_c_ends_on_its_line() -> None:
    text = "\tif (a)\n\t\tf(b,\n\t\t  c);\n}\n\nint g(void) {\n"
    negated = [after for operator, after in c(text) if operator == "negated_condition"]
    assert negated == [text.replace("if (a)", "if (!(a))")]


PLAY = """\
- name: One
  module:
    value: true
    text: "{{ a > 5 }}"
  when: x is defined
  failed_when: false

- name: Two
  ansible.builtin.assert:
    that:
      - a == b
      - c
"""


def test_the_rules_for_playbooks() -> None:
    found = playbook(PLAY)
    assert {operator for operator, _ in found} == {
        "dropped_task", "dropped_when", "dropped_failed_when", "swapped_boolean", "boundary", "constant_plus",
        "constant_times", "negated_condition", "dropped_condition",
    }  # fmt: skip
    assert ("dropped_when", PLAY.replace("  when: x is defined\n", "")) in found
    assert ("dropped_failed_when", PLAY.replace("  failed_when: false\n", "")) in found
    assert ("negated_condition", PLAY.replace("x is defined", "not (x is defined)")) in found
    assert ("boundary", PLAY.replace("a > 5", "a >= 5")) in found
    assert ("dropped_condition", PLAY.replace("      - a == b\n", "")) in found
    assert ("dropped_task", PLAY[PLAY.index("- name: Two") :]) in {(o, text.lstrip("\n")) for o, text in found}


def test_a_condition_of_several_lines_is_negated_as_one() -> None:
    text = "- name: One\n  when: >-\n    a\n    and b\n  x: y\n"
    assert ("negated_condition", "- name: One\n  when: >-\n    not (a\n    and b)\n  x: y\n") in playbook(text)
    assert ("dropped_when", "- name: One\n  x: y\n") in playbook(text)


def test_the_rules_for_templates() -> None:
    text = "# A comment\n[Service]\nTasksMax=5\n{% if a %}\nUser=x\n{% endif %}\n"
    found = {(fault.operator, fault.apply(text)) for fault in rules_yaml.template_faults("x.j2", text)}
    assert found == {
        ("dropped_line", text.replace("TasksMax=5\n", "")),
        ("dropped_line", text.replace("User=x\n", "")),
        ("constant_plus", text.replace("5", "6")),
        ("constant_times", text.replace("5", "50")),
        ("negated_condition", text.replace("if a", "if not (a)")),
    }


def test_every_fault_in_the_tree_changes_its_file_and_what_is_python_or_yaml_stays_so() -> None:
    """Of each area some of the first file: all of them take minutes."""
    for area in areas.read().values():
        path = area.files[0]
        text = (ROOT / path).read_text(encoding="utf-8")
        made = list(areas.faults(path, text))
        assert made, path
        for fault in choose.order(made, 1)[:30]:
            assert fault.apply(text) != text, fault
            assert fault.before(text) != fault.after(text) or fault.operator == "dropped_line", fault
            if path.endswith(".py"):
                ast.parse(fault.apply(text))


def test_the_list_of_areas_names_what_is_there_and_misses_no_file() -> None:
    listed = yaml.safe_load((ROOT / "tools/mutants/areas.yml").read_text(encoding="utf-8"))
    for name, one in listed.items():
        for pattern in one["files"]:
            assert list(ROOT.glob(pattern)) or name == "python/collectors", f"{name}: {pattern} is of no file"
        for test in one["tests"]:
            assert (ROOT / test).exists(), f"{name}: {test}"
    covered = [path for area in areas.read().values() for path in area.files]
    assert len(covered) == len(set(covered)), "a file is in two areas"
    product = [*ROOT.glob("plugins/**/*.py"), *ROOT.glob("bpf/loader/*/*.c"), *ROOT.glob("playbooks/**/*.yml")]
    paths = {path.relative_to(ROOT).as_posix() for path in product if path.name != "__init__.py"}
    assert paths - set(covered) == set()


@pytest.mark.parametrize(
    ("candidates", "count", "expected"),
    [
        ({"a": 5, "b": 500}, 20, {"a": 5, "b": 15}),
        ({"a": 100, "b": 300}, 24, {"a": 12, "b": 12}),
        ({"a": 112, "b": 312}, 64, {"a": 22, "b": 42}),
        ({"a": 3}, 400, {"a": 3}),
        ({"a": 0, "b": 13}, 13, {"a": 0, "b": 13}),
    ],
)
def test_what_each_area_gets(candidates: dict[str, int], count: int, expected: dict[str, int]) -> None:
    assert choose.shares(candidates, count) == expected


def test_four_hundred_faults_are_drawn_over_all_areas() -> None:
    have = {name: sum(len(list(possible(path))) for path in area.files[:2]) for name, area in areas.read().items()}
    quotas = choose.shares(have, 460)
    assert sum(quotas.values()) >= 460 and min(quotas.values()) >= choose.LEAST


def some(operator: str, number: int) -> list[Fault]:
    return [Fault("x", at, at + 1, "y", operator) for at in range(number)]


def test_the_draw_takes_each_kind_in_turn_and_is_the_same_for_a_seed() -> None:
    faults = some("many", 50) + some("few", 2) + some("one", 1)
    drawn = choose.order(faults, 7)
    assert sorted(drawn) == sorted(faults)
    assert {fault.operator for fault in drawn[:3]} == {"many", "few", "one"}
    assert {fault.operator for fault in drawn[3:5]} == {"many", "few"}
    assert choose.order(list(reversed(faults)), 7) == drawn
    assert choose.order(faults, 8) != drawn


def test_a_fault_keeps_its_key_when_other_lines_move() -> None:
    before, after = "a < b\n", "# new\n\na < b\n"
    (one,), (two,) = rules_python.faults("x.py", before), rules_python.faults("x.py", after)
    assert one.start != two.start and one.key(before) == two.key(after)
    (other,) = rules_python.faults("x.py", "a < c\n")
    assert other.key("a < c\n") != one.key(before)


ENTRY = {
    "sha": "0",
    "files": {"plugins/a.py": "0", "plugins/b.py": "0"},
    "ends": {
        "t::slow": ("passed", 3.0),
        "t::quick": ("passed", 0.1),
        "t::bad": ("failed", 0.1),
        "t::off": ("skipped", 0.0),
    },
    "seen": [
        ["t::slow", "plugins/a.py", "f"],
        ["t::quick", "plugins/a.py", "f.<lambda>"],
        ["t::bad", "plugins/a.py", "f"],
        ["t::off", "plugins/a.py", "f"],
        ["", "plugins/b.py", "<module>"],
    ],
}


def test_the_files_that_bear_the_name_or_are_all_about_it_run_first() -> None:
    counts = {"tests/test_a.py": 1, "tests/test_b.py": 4, "tests/test_c.py": 2, "tests/test_d.py": 3}
    chosen = {f"{file}::t": 1.0 for file in counts}
    known = {file: {"ends": {f"{file}::t{n}": ["passed", 1] for n in range(count)}} for file, count in counts.items()}
    first, rest = seen.parts(Fault("plugins/b.py", 0, 1, "", "x"), chosen, known, {})
    assert (first, rest) == (["tests/test_a.py::t", "tests/test_b.py::t", "tests/test_c.py::t"], ["tests/test_d.py::t"])
    first, rest = seen.parts(Fault("plugins/d.py", 0, 1, "", "x"), chosen, known, {"tests/test_c.py::t": 2})
    assert (first[0], rest) == ("tests/test_c.py::t", ["tests/test_b.py::t"])


def test_a_playbook_is_met_by_who_opened_it() -> None:
    area = Area("playbooks/x", ["playbooks/a.yml"], ["t"])
    ends = {"t::one": ["passed", 2.0], "t::two": ["passed", 1.0]}
    known = {"t": {"sha": "0", "files": {"playbooks/a.yml": "1"}, "ends": ends,
                   "seen": [["t::one", "playbooks/a.yml", ""], ["t::two", "plugins/a.py", "f"]]}}  # fmt: skip
    fault = Fault("playbooks/a.yml", 0, 1, "", "x")
    assert list(seen.tests_of(fault, area, known)) == ["t::one"]
    known["t"]["seen"].append(["", "playbooks/a.yml", ""])
    assert list(seen.tests_of(fault, area, known)) == ["t::one", "t::two"]
    assert seen.tests_of(Fault("playbooks/b.yml", 0, 1, "", "x"), area, known) == {}


def test_who_sees_a_fault_is_who_ran_its_function_and_passed() -> None:
    area = Area("python/x", [], ["t"])
    known = {"t": ENTRY}
    assert list(seen.tests_of(Fault("plugins/a.py", 0, 1, "", "x", "f"), area, known)) == ["t::quick", "t::slow"]
    assert seen.tests_of(Fault("plugins/a.py", 0, 1, "", "x", "ff"), area, known) == {}
    assert seen.tests_of(Fault("plugins/c.py", 0, 1, "", "x"), area, known) == {}
    # Outside of functions: whoever imports the file.
    assert list(seen.tests_of(Fault("plugins/b.py", 0, 1, "", "x"), area, known)) == ["t::quick", "t::slow"]


def test_the_digest_is_of_the_tests_and_of_what_their_files_hold() -> None:
    known = {"t": ENTRY}
    one = seen.digest(["t::a", "t::b"], known)
    assert one == seen.digest(["t::b", "t::a"], known)
    assert one not in (seen.digest(["t::a"], known), seen.digest(["t::a", "t::b"], {"t": {**ENTRY, "sha": "1"}}))


def test_of_what_is_not_recorded_the_files_own_test_runs_first() -> None:
    known = {f"tests/test_{name}.py": {**ENTRY, "ends": {name: ("passed", 1.0)}} for name in ("run", "metrics")}
    area = Area("c/tell", [], list(known))
    assert list(seen.tests_of(Fault("bpf/loader/tell/metrics.c", 0, 1, "", "x"), area, known)) == ["metrics", "run"]
    assert list(seen.tests_of(Fault("bpf/loader/tell/audit.c", 0, 1, "", "x"), area, known)) == ["run", "metrics"]


def result(outcome: str, area: str = "python/a", **more: Any) -> dict[str, Any]:
    base = {"area": area, "outcome": outcome, "file": "f", "before": "b", "after": "a", "by": "t", "line": 1, "ran": 3}
    return {**base, "operator": "o", **more}


def accepted(**more: Any) -> dict[str, Any]:
    return {"file": "f", "before": "b", "after": "a", "equivalent": True, "reason": "they mean the same", **more}


def test_a_hang_is_caught_and_what_does_not_build_counts_for_nothing() -> None:
    results = [result("caught"), result("hung"), result("invalid"), result("survived"), result("caught", "c/b")]
    assert report.shares(results, [], lambda area: area) == {
        "python/a": report.Share(2, 1), "c/b": report.Share(1, 0)
    }  # fmt: skip
    assert report.shares(results, [], lambda area: area.split("/")[0])["python"] == report.Share(2, 1)


def test_only_what_no_test_could_tell_leaves_the_count() -> None:
    results = [result("caught", after="x"), result("survived")]
    assert report.shares(results, [accepted()], str)["python/a"] == report.Share(1, 0)
    assert report.shares(results, [accepted(equivalent=False)], str)["python/a"] == report.Share(1, 1)
    assert report.shares(results, [accepted(after="other")], str)["python/a"] == report.Share(1, 1)


@pytest.mark.parametrize(
    ("caught", "survived", "language", "area"),
    [(9, 1, 0, 0), (89, 11, 1, 0), (8, 2, 1, 0), (79, 21, 1, 1), (0, 0, 1, 1)],
)
def test_what_is_not_enough(caught: int, survived: int, language: int, area: int) -> None:
    share = {"x": report.Share(caught, survived)}
    assert len(report.shortfalls({}, share)) == language
    assert len(report.shortfalls(share, {})) == area


def test_an_entry_that_is_stale_is_told() -> None:
    text = "a < b\n"
    made = [(fault, text) for fault in rules_python.faults("f", text)]
    good = accepted(before="a < b", after="a <= b")
    assert report.stale([good], lambda path: made) == []
    assert len(report.stale([good, accepted()], lambda path: made)) == 1
    assert len(report.stale([good], lambda path: [])) == 1
    assert len(report.caught_though_accepted([accepted()], [result("caught")])) == 1
    assert report.caught_though_accepted([accepted()], [result("survived")]) == []


def test_a_fault_that_no_test_can_tell_is_passed_over_where_its_words_mean_it_alone() -> None:
    text = "a < b\nc < d\n"
    drawn = [(fault, text) for fault in rules_python.faults("f", text)]
    (first,) = [fault for fault, _text in drawn if fault.after(text) == "a <= b"]
    assert report.passed_over([accepted(before="a < b", after="a <= b")], drawn) == {first}
    assert report.passed_over([accepted(before="a < b", after="a <= c")], drawn) == set()
    twice = "a < b\na < b\n"
    drawn = [(fault, twice) for fault in rules_python.faults("f", twice)]
    assert report.passed_over([accepted(before="a < b", after="a <= b")], drawn) == set()


@pytest.mark.parametrize(
    "wrong", [{}, [{}], [accepted(reason=" ")], [accepted(equivalent="yes")], [{**accepted(), "more": 1}]]
)
def test_the_form_of_the_reasons(wrong: object) -> None:
    assert report.entry_faults(wrong)
    assert report.entry_faults([accepted()]) == []


def test_the_reasons_of_the_tree_are_well_formed_and_none_is_stale() -> None:
    entries = yaml.safe_load(ACCEPTED.read_text(encoding="utf-8"))
    assert report.entry_faults(entries) == []
    assert report.stale(entries, possible) == []


def test_a_survivor_is_shown_with_its_place_and_reason() -> None:
    shown = report.survivor(result("survived", ran=0), [accepted()])
    assert shown.splitlines() == ["f:1: o (no test runs this)", "  - b", "  + a", "  = they mean the same"]


def test_areas_are_chosen_by_language_or_name() -> None:
    all_areas = {name: Area(name, [], []) for name in ("c/tell", "c/run", "python/kill")}
    assert list(chosen(all_areas, "")) == list(all_areas)
    assert list(chosen(all_areas, "c")) == ["c/tell", "c/run"]
    assert list(chosen(all_areas, "c/run,python")) == ["c/run", "python/kill"]
    with pytest.raises(SystemExit, match="no area c/ru"):
        chosen(all_areas, "c/ru")


def test_tests_are_restricted_by_paths() -> None:
    area = Area("c/x", [], ["tests/unit/test_a.py", "tests/unit/test_b.py", "tests/host/test_a.py"])
    assert restricted(area, "").tests == area.tests
    assert restricted(area, "tests/unit/test_b.py,tests/host").tests == area.tests[1:]


def test_what_was_tried_is_kept_and_a_survivor_is_tried_again_with_other_tests(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first = Results(path, False)
    first.add({"key": "1", "outcome": "caught", "tests": "old", "file": "a", "by": "t::x"})
    first.add({"key": "2", "outcome": "survived", "tests": "old", "file": "a", "by": ""})
    again = Results(path, False)
    assert again.find("1", "new") and again.find("2", "old")
    assert again.find("2", "new") is None and again.find("3", "old") is None
    assert again.by("a") == {"t::x": 1} and again.by("b") == {}
    assert Results(path, True).find("1", "old") is None and not path.exists()


# The tool on a small tree of its own: a real copy, a real recorder, real runs.

PRODUCT = """\
LIMIT = 5


def over(value):
    return value > LIMIT


def wait(flag):
    while flag:
        flag = False
    return True


def shared():
    return 7
"""
TESTS = """\
import os
import subprocess
import sys
import threading
import time
sys.path.insert(0, os.getcwd())
import pytest
from plugins import small


def test_over():
    assert small.over(6) and not small.over(4)


def test_wait():
    assert small.wait(True)


def test_another_process():
    command = [sys.executable, "-c", "from plugins import small; raise SystemExit(not small.over(9))"]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": os.getcwd()}).returncode == 0


def test_bad():
    assert small.over(0)


@pytest.fixture(scope="module")
def seven():
    return small.shared()


def test_the_first_that_asks(seven):
    assert open("playbooks/a.yml").read()


def test_the_second_that_asks(seven):
    assert seven == 7


@pytest.mark.slow
def test_long():
    assert small.over(8)
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # A run of mutants on this machine is not waited for.
    monkeypatch.setattr("tools.mutants.copy.KERNEL_LOCK", tmp_path / "lock")
    root = tmp_path / "source"
    files = {
        "plugins/__init__.py": "",
        "plugins/small.py": PRODUCT,
        "tests/test_small.py": TESTS,
        "playbooks/a.yml": "a: 1\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    trace = root / "tools/mutants/trace"
    trace.mkdir(parents=True)
    for path in (ROOT / "tools/mutants/trace").glob("*.py"):
        (trace / path.name).write_bytes(path.read_bytes())
    (root / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n    apart\n")
    for words in (["init", "-q"], ["add", "plugins", "tools", "pytest.ini", "playbooks"],
                  ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "-m", "x"]):  # fmt: skip
        subprocess.run(["git", "-C", str(root), *words], check=True)
    return root


def planted(copy: Copy, operator: str, after: str, known: seen.Map) -> tuple[str, str, int]:
    text = copy.text("plugins/small.py")
    found = [one for one in rules_python.faults("plugins/small.py", text) if one.operator == operator]
    (fault,) = [one for one in found if one.after(text) == after]
    tests = seen.tests_of(fault, Area("python/small", ["plugins/small.py"], ["tests/test_small.py"]), known)
    with copy.planted(fault):
        ran = copy.run(list(tests), 5, "-x")
    assert copy.text("plugins/small.py") == text
    return ran.ended, ran.by.rpartition("::")[2], len(tests)


@pytest.mark.slow
def test_a_fault_is_planted_in_a_copy_and_met_by_the_tests_that_ran_its_function(small: Path) -> None:
    said: list[str] = []
    with copied(small) as copy:
        stored = small / "map"
        known = seen.complete(stored, copy, {"tests/test_small.py": True}, said.append)
        assert "test_bad" in said[0] and len(said) == 1
        other = ("tests/test_small.py::test_another_process", "plugins/small.py", "over")
        rows = set(map(tuple, known["tests/test_small.py"]["seen"]))
        assert other in rows and ("", "plugins/small.py", "shared") in rows
        opened = [test.split("::")[1] for test, path, _name in rows if path == "playbooks/a.yml"]
        assert opened == ["test_the_first_that_asks"]
        assert planted(copy, "boundary", "return value >= LIMIT", known) == ("passed", "", 2)
        assert planted(copy, "constant_times", "LIMIT = (5 * 1000)", known)[0] == "failed"
        assert planted(copy, "swapped_boolean", "flag = True", known) == ("hung", "", 1)
        assert planted(copy, "swapped_boolean", "return False", known) == ("failed", "test_wait", 1)
        ended, by, _ran = planted(copy, "constant_plus", "return (7 + 1)", known)
        assert (ended, by) == ("failed", "test_the_second_that_asks")
        # Nothing is recorded twice, until a file that it ran is another.
        seen.complete(stored, copy, {"tests/test_small.py": True}, said.append)
        assert len(said) == 1
        copy.write("plugins/small.py", PRODUCT.replace("5", "4"))
        seen.complete(stored, copy, {"tests/test_small.py": True}, said.append)
        assert len(said) == 2
        # Without calls it is known who opened what; that is not enough for Python.
        (stored / "tests.test_small.py.json").unlink()
        for calls, times in ((False, 3), (False, 3), (True, 4), (False, 4)):
            known = seen.complete(stored, copy, {"tests/test_small.py": calls}, said.append)
            assert len(said) == times
            named = {name for _test, path, name in known["tests/test_small.py"]["seen"] if path == "plugins/small.py"}
            assert ("over" in named) is (times == 4)
            assert any(path == "playbooks/a.yml" for _test, path, _name in known["tests/test_small.py"]["seen"])
        # Nor without those that are marked slow, where they are to be used.
        assert "tests/test_small.py::test_long" not in known["tests/test_small.py"]["ends"]
        for times in (5, 5):
            known = seen.complete(stored, copy, {"tests/test_small.py": True}, said.append, {"tests/test_small.py"})
            assert len(said) == times and "tests/test_small.py::test_long" in known["tests/test_small.py"]["ends"]
        known = seen.complete(stored, copy, {"tests/test_small.py": True}, said.append)
        assert len(said) == 5
    assert (small / "plugins/small.py").read_text() == PRODUCT


LEAVES = """\
import pytest
import pathlib
import subprocess


def test_leaves():
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    pathlib.Path("../left").write_text(str(process.pid))
    if pathlib.Path("../hang").exists():
        process.wait()
"""
RUNS = """\
import pathlib, sys
from tools.mutants.copy import adopt, copied
adopt()
with copied(pathlib.Path(sys.argv[1])) as copy:
    for limit in (60, 3):
        print(copy.run(["tests/test_small.py"], limit).ended, (copy.root.parent / "left").read_text(), flush=True)
        (copy.root.parent / "hang").touch()
"""


def test_what_a_run_leaves_behind_is_ended_with_it(small: Path) -> None:
    """In a session of its own, after a good end and after a hang."""
    # Marked, so that a run of mutants on this machine is not waited for.
    (small / "tests/test_small.py").write_text(f"{LEAVES}\npytestmark = pytest.mark.apart\n")
    command = [sys.executable, "-c", RUNS, str(small)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    (passed, first), (hung, second) = (line.split() for line in done.stdout.splitlines())
    assert (passed, hung) == ("passed", "hung")
    assert not Path(f"/proc/{first}").exists() and not Path(f"/proc/{second}").exists()


MAKEFILE = """\
BUILD := $(abspath ../build)
all: $(BUILD)/loader-obj/x.o $(BUILD)/loader-obj/y.o
$(BUILD)/loader-obj/%.o: %.c
\techo built >>$@
-include $(BUILD)/loader-obj/x.d
"""


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("pytestmark = pytest.mark.apart\n", False),
        ("pytestmark = [pytest.mark.apart, pytest.mark.slow]\n", False),
        ("pytestmark = [\n    pytest.mark.skipif(True, reason='x'),\n    pytest.mark.apart,\n]\n", False),
        ("pytestmark = pytest.mark.apart\n@pytest.mark.kernel\ndef test_one(): pass\n", True),
        ("@pytest.mark.apart\ndef test_one(): pass\n", True),
        ("pytestmark = pytest.mark.slow\n", True),
        ("", True),
    ],
)
def test_which_tests_take_turns_for_the_kernel(small: Path, text: str, shares: bool) -> None:
    (small / "tests/host").mkdir()
    (small / "tests/host/test_x.py").write_text(text)
    with copied(small) as copy:
        assert copy.shares_kernel(["tests/host/test_x.py::test_one"]) is shares
        assert not copy.shares_kernel(["tests/unit/test_seven.py"])


def test_two_runs_at_once_record_each_test_file_once_and_both_know_it(small: Path) -> None:
    (small / "tests/test_more.py").write_text("def test_more():\n    pass\n")
    tests = {"tests/test_small.py": False, "tests/test_more.py": False}
    said: list[str] = []
    with copied(small) as copy:
        place = small / "map/tests.test_small.py.lock"
        place.parent.mkdir()
        with place.open("a") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            known: dict[str, Any] = {}
            run = threading.Thread(target=lambda: known.update(seen.complete(small / "map", copy, tests, said.append)))
            run.start()
            wait_until_blocked(place)
            # What another run records comes last.
            assert [one.split(":")[0] for one in said] == ["recorded tests/test_more.py"]
            entry = json.loads((small / "map/tests.test_more.py.json").read_text())
            entry["sha"] = seen.sha((small / "tests/test_small.py").read_bytes())
            (small / "map/tests.test_small.py.json").write_text(json.dumps(entry))
        run.join()
    assert set(known) == set(tests) and len(said) == 1


def test_areas_are_tried_at_once_the_longest_first_and_what_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began: list[list[str]] = []

    class Process:
        """A run that ends with 3 for one area, and with 1 for all others."""

        def __init__(self, command: list[str], **_: Any) -> None:
            began.append(command)
            self.pid, self.returncode = len(began), 3 if "python/b" in command else 1

        def poll(self) -> int:
            return self.returncode

    monkeypatch.setattr("tools.mutants.__main__.OUT", tmp_path)
    monkeypatch.setattr("tools.mutants.__main__.subprocess.Popen", Process)
    at_once(["--count", "9"], ["python/a", "c/x", "python/b", "playbooks/roles"], 2)
    assert [command[-3] for command in began] == ["playbooks/roles", "c/x", "python/a", "python/b"]
    assert all(command[3:6] == ["--count", "9", "--area"] and command[-2:] == ["--jobs", "1"] for command in began)
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("ended")][-1] == "ended: python/b, by 3: see build/mutants"
    assert "ended: c/x" in told


def test_what_needs_no_turn_is_run_first(small: Path) -> None:
    (small / "tests/host").mkdir()
    (small / "tests/host/test_x.py").write_text("pytestmark = pytest.mark.apart\n")
    (small / "tests/host/test_y.py").write_text("")
    tests = ["tests/host/test_y.py::b", "tests/host/test_x.py::b", "tests/host/test_y.py::a", "tests/host/test_x.py::a"]
    with copied(small) as copy:
        assert apart(copy, [tests]) == [tests[1::2], tests[::2]]
        assert apart(copy, [tests[:3], tests[3:]]) == [tests[1:2], tests[3:], tests[::2]]
        assert apart(copy, [[], []]) == [[], [], []]


def test_a_turn_is_waited_for_and_counts_for_no_limit(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "tests/host").mkdir()
    (small / "tests/host/test_x.py").write_text("def test_one():\n    pass\n")
    lock = small.parent / "lock"
    monkeypatch.setattr("tools.mutants.copy.KERNEL_LOCK", lock)
    with copied(small) as copy, lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended: list[str] = []
        waiting = threading.Thread(target=lambda: ended.append(copy.run(["tests/host/test_x.py"], 30.0).ended))
        waiting.start()
        wait_until_blocked(lock)
        assert not ended
        fcntl.flock(held, fcntl.LOCK_UN)
        waiting.join()
    assert ended == ["passed"]


def wait_until_blocked(lock: Path) -> None:
    """Until the kernel's table says that somebody waits for the lock."""
    inode = f":{lock.stat().st_ino} "
    deadline = time.monotonic() + 30
    while not any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_copy_builds_only_what_a_fault_changed(small: Path) -> None:
    objects = small / "build/loader-obj"
    objects.mkdir(parents=True)
    (small / "bpf").mkdir()
    for name, text in {"Makefile": MAKEFILE, "x.c": "x", "y.c": "y", "x.h": "h"}.items():
        (small / "bpf" / name).write_text(text)
    (small / ".gitignore").write_text("build/\n")
    for words in (
        ["add", "bpf", ".gitignore"],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "-m", "y"],
    ):
        subprocess.run(["git", "-C", str(small), *words], check=True)
    subprocess.run(["make", "-s", "-C", str(small / "bpf")], check=True)
    (objects / "x.d").write_text(f"{objects}/x.o: x.c x.h\nx.h:\n")

    def built(copy: Copy) -> list[int]:
        assert copy.builds()
        return [(copy.root / f"build/loader-obj/{name}.o").read_text().count("built") for name in "xy"]

    with copied(small) as copy:
        assert built(copy) == [1, 1]
        copy.write("bpf/x.h", "other")
        assert built(copy) == [2, 1]
        copy.write("bpf/y.c", "other")
        assert built(copy) == [2, 2]
    assert (objects / "x.o").read_text() == "built\n"
