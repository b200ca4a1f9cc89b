# SPDX-License-Identifier: GPL-3.0-or-later
"""`make reason-codes` writes docs/reason-codes.md from the list in plugins/module_utils/base/reasons/."""

from __future__ import annotations

import sys
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.reason import Reason, Section
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import SECTIONS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reason-codes.md"
INTRO = """\
# Reason codes

Every refusal and every feature that is not what it could be has one of these codes, and a sentence that names file,
value and remedy. The sentence is in the playbook's output, in the journal (`journalctl -u ebpf-fleet-loader`), and in
the status field `reason`. Read it first; this page says what the code means for the host. A module that fails returns
the code as `reason_code` and the remedy below as `remedy`.

*From* says who gives it: `loader` (`ebpf-loader run`, `check` and the others), `verify` (`ebpf-loader verify`, also on
behalf of a module), `collector` (BCC), `modules` (of this collection, with filters, lookups and actions), `playbooks`.

This page is made from `plugins/module_utils/base/reasons/` by `make reason-codes`.
"""


def row(code: str, reason: Reason) -> str:
    """One line of a section's table."""
    see = f": [{Path(reason.see.partition('#')[0]).name}]({reason.see})" if reason.see else ""
    return f"| `{code}` | {reason.sentence} | {reason.remedy}{see} | {', '.join(reason.by)} |"


def section(one: Section) -> str:
    """A section with its table."""
    rows = "\n".join(row(code, reason) for code, reason in one.reasons.items())
    return f"## {one.title}\n\n{one.intro}\n\n| code | means | do | from |\n| --- | --- | --- | --- |\n{rows}\n"


def render() -> str:
    """The whole page."""
    return "\n".join([INTRO, *map(section, SECTIONS)])


def main() -> int:
    PAGE.write_text(render(), encoding="utf-8")
    print(f"reason-codes: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
