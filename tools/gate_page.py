# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's checks and limits, written down: `make checks` writes them wherever they stand.

These are the two tables of docs/rollout.md, the list of checks in the gate's format, and the option `limits` of the
module's documentation. Nothing is told twice: all of it comes of plugins/module_utils/rollout/gate/checks.py.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Iterable, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.checks import (
    CHECKS,
    DEFAULT_LIMITS,
    SWITCHES,
    WITNESS,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.record import Check

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/rollout.md"
MODULE = ROOT / "plugins/modules/gate.py"
# The sentence of the gate's format that lists the checks, on whichever page it stands.
LISTED = re.compile(r"^Checks: [^.]*?,\sand\sthe\snames\sof\s`extra_checks`", re.M)
# The part of the option's description that has the defaults.
DESCRIBED = re.compile(r"^      - C\(\w+\) \d.*? are null and then not judged\.\n", re.M | re.S)
MIB = 1 << 20


def is_witness(check: Check) -> bool:
    """Whether it holds the status against root's own view: these have a table of their own."""
    return check.step == WITNESS


def figure(check: Check) -> str:
    """The limit of a check that has no default, in words."""
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


def list_page() -> Path:
    """The page that lists the checks."""
    (page,) = [path for path in sorted((ROOT / "docs").rglob("*.md")) if LISTED.search(path.read_text("utf-8"))]
    return page


def listed(page: str) -> str:
    """That page with the list as the records say."""
    names = " ".join(f"`{one.name}`" for one in CHECKS)
    text = "\n".join(textwrap.wrap(f"Checks: {names}, and the names of `extra_checks`", 120))
    return LISTED.sub(lambda _found: text, page)


def described(source: str) -> str:
    """The module with the defaults of its option `limits` as the records say."""
    numbers = [
        f"C({name}) {value}" for name, value in DEFAULT_LIMITS.items() if value is not None and name not in SWITCHES
    ]
    null = [one for one in CHECKS if one.limit is not None and one.default is None]
    items = [
        f"{', '.join(numbers)}.",
        f"{_and([one for one in null if one.fallback])} are null and then taken from the contracts' budgets.",
        f"{_and([one for one in null if not one.fallback])} are null and then not judged.",
    ]
    wrap = {"width": 112, "initial_indent": "      - ", "subsequent_indent": "        "}
    text = "".join(textwrap.fill(item, **wrap) + "\n" for item in items)  # type: ignore[arg-type]
    return DESCRIBED.sub(lambda _found: text, source)


def _and(checks: Sequence[Check]) -> str:
    *first, last = (f"C({one.limit})" for one in checks)
    return f"{', '.join(first)} and {last}"


def main() -> int:
    """Write all of them."""
    for path, write in ((PAGE, written), (list_page(), listed), (MODULE, described)):
        path.write_text(write(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
