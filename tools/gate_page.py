# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's checks and limits, written down: `make checks` writes the two tables of docs/rollout.md.

Nothing here is told twice: every row is a record of plugins/module_utils/rollout/gate/checks.py.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Iterable

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import CHECKS, WITNESS
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.record import Check

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/rollout.md"
MIB = 1 << 20


def is_witness(check: Check) -> bool:
    """Whether it holds the status against root's own view: these have a table of their own."""
    return check.step == WITNESS


def figure(check: Check) -> str:
    """The limit of a check that nobody has set, in words."""
    if check.default is not None:
        if check.unit == "bytes" and check.default and check.default % MIB == 0:
            return f"{check.default // MIB} MiB"
        return f"{check.default:,} {check.unit}"
    if check.fallback is not None:
        return check.fallback.words
    return "not judged unless set" if check.optional else ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _cell in head), *rows]
    return "\n".join(re.sub(r" +", " ", f"| {' | '.join(cells)} |") for cells in lines)


def tables() -> dict[str, str]:
    """{name of a marked part of the page: its text}."""
    limits = [
        (f"`{one.name}`", one.what, figure(one), f"`{one.limit}`" if one.limit else "")
        for one in CHECKS
        if not is_witness(one)
    ]
    return {
        "checks": table(("check", "what is judged", "default limit", "`ebpf_fleet_gate_limits`"), limits),
        "comparisons": table(
            ("check", "fails when"), [(f"`{one.name}`", one.what) for one in CHECKS if is_witness(one)]
        ),
    }


def written(page: str) -> str:
    """The page with its marked parts as the records say; ValueError where a mark is missing."""
    for name, text in tables().items():
        pattern = rf"(<!-- {name}: written by `make checks` -->\n\n).*?(\n\n<!-- end of {name} -->)"
        if len(re.findall(pattern, page, re.S)) != 1:
            raise ValueError(f"{PAGE.name} has no part marked {name}, or more than one: put its marks back")
        page = re.sub(pattern, lambda found, text=text: found[1] + text + found[2], page, flags=re.S)  # type: ignore[misc]
    return page


def main() -> int:
    """Write the page."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
