# SPDX-License-Identifier: GPL-3.0-or-later
"""Every skip of the tests is a hole that is listed with its reason, or a promise that `make test` holds setup to."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import holes

ROOT = Path(__file__).resolve().parents[2]
# What an expression in a text stands for: a pattern takes any name, number or path there.
ANY = "1"


def text_of(node: ast.expr | None) -> str:
    """What a text in the source reads, with ANY for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ANY


def reasons(source: str) -> Iterator[str]:
    """What each skip of a source says, and each function that tells why something cannot be had."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "skip":
                yield text_of(node.args[0] if node.args else None)
            elif node.func.attr in ("skipif", "importorskip"):
                yield text_of(next((word.value for word in node.keywords if word.arg == "reason"), None))
        elif isinstance(node, ast.FunctionDef) and "why_no" in node.name:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and isinstance(inner.value, (ast.Constant, ast.JoinedStr)):
                    yield text_of(inner.value)


SAID = {
    (path.relative_to(ROOT).as_posix(), reason)
    for path in sorted((ROOT / "tests").rglob("*.py"))
    if path.name != Path(__file__).name
    for reason in reasons(path.read_text(encoding="utf-8"))
}
# What one of the functions above says is passed on in these.
PASSED_ON = {
    "tests/host/conftest.py", "tests/scenarios/conftest.py", "tests/integration/test_fan_out.py",
    "tests/integration/test_login_shells.py", "tests/integration/test_cells.py", "tests/scenarios/test_cells.py",
    "tests/integration/test_standing_orders.py",
    "tests/integration/test_bpf_inventory.py", "tests/integration/test_takeoff.py",
    "tests/integration/test_forensics.py", "tests/integration/test_triage_asks.py",
    "tests/integration/test_event_rulebook.py",
}  # fmt: skip


def test_every_skip_is_in_one_of_the_lists() -> None:
    assert len(SAID) > 80
    unlisted = {
        (path, reason)
        for path, reason in SAID
        if reason not in ("", "None") and not (reason == ANY and path in PASSED_ON) and len(holes.kinds(reason)) != 1
    }
    assert unlisted == set(), "list it in tests/holes.yml with why, in one list"


def test_every_line_of_the_lists_is_of_a_skip_and_has_its_reason() -> None:
    said = {reason for _path, reason in SAID}
    for kind, patterns in holes.listed().items():
        for pattern, why in patterns.items():
            assert len(str(why).split()) >= 3, pattern
            assert any(kind in holes.kinds(one) and holes.re.match(pattern, one) for one in said), f"{pattern}: no skip"


@pytest.mark.parametrize(
    ("reason", "set_up", "ends"),
    [("zsh is not installed here", "1", "failed"), ("zsh is not installed here", "0", "skipped"),
     ("this kernel has no kprobes", "1", "skipped"), ("it is Monday", "1", "failed"), ("it is Monday", "0", "skipped")],
)  # fmt: skip
@pytest.mark.parametrize("how", ["pytest.skip({0!r})", "pytest.importorskip('no_such', reason={0!r})"])
def test_a_run_that_set_up_fails_for_what_setup_provides_and_for_what_nobody_listed(
    tmp_path: Path, reason: str, set_up: str, ends: str, how: str
) -> None:
    """A run of its own, with the project's own conftest."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_one.py").write_text(f"import pytest\ndef test_one():\n    {how.format(reason)}\n")
    environment = {**os.environ, "EBPF_FLEET_SET_UP": set_up, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"1 {ends}" in done.stdout, done.stdout
    assert reason in done.stdout or ends == "skipped"
