# SPDX-License-Identifier: GPL-3.0-or-later
"""`make feature NAME=…`: a new feature that builds, and keeps its contract; what is not known yet says FILL IN.

All of it is made in memory and written at the end, so that a name that cannot be used leaves the tree as it was.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Mapping

import jinja2
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import NAME

from tools import privileges

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ALERTS, METRICS = Path("docs/runbooks/alerts.yml"), Path("docs/metrics.md")
PRIVILEGES = Path("docs/privileges.md")
ENTRIES = 1024
HOOK = "sched_process_exec"
# What stands before the name in docs/metrics.md and in alerts.yml, and the first rule that is not of one feature.
ROW = re.compile(r"^\| `ebpf_fleet_.*\|$", re.M)
FIRST_COMMON_RULE = "      - alert: EbpfFleetEventsDropped\n"
# What the tests take for an alert among the headings of a runbook.
ALERT = re.compile(r"[A-Z][a-z]+[A-Z][A-Za-z]+\Z")
RULE = """\
      - alert: {alert}
        # FILL IN: from which rate on someone should look.
        expr: sum by (instance) (rate(ebpf_fleet_{name}_total[5m])) > 1000
        for: 10m
        labels: {{severity: warning}}
        annotations:
          summary: "{{{{ $labels.instance }}}}: FILL IN: what happens on the host, in a few words"
          runbook: docs/runbooks/{name}.md#{anchor}
"""


class FeatureError(Exception):
    """The name cannot be used; the message is one sentence with the remedy."""


def alert_of(name: str) -> str:
    """The alert of a feature: ``file_unlinks`` has FileUnlinksHigh. Alerts have no digits."""
    return "".join(part.capitalize() for part in re.split("[_0-9]+", name)) + "High"


def words_of(name: str) -> dict[str, str]:
    """What the templates need. The kernel keeps 15 characters of the names of programs and maps."""
    short = name.replace("_", "")[:6]
    return {
        "name": name,
        "alert": alert_of(name),
        "program": f"ef_{short}",
        "table": f"ef_{short}_count",
        "key": f"ef_{short}_key",
        "hook": HOOK,
        "entries": str(ENTRIES),
    }


def check_name(root: Path, name: str) -> None:
    """Refuse a name that no feature can have, or that something else has; raises FeatureError."""
    if not name:
        raise FeatureError("NAME is missing; give one, as in: make feature NAME=dns_queries")
    if not NAME.match(name):
        raise FeatureError(f"NAME is {name!r}; use [a-z][a-z0-9_]*, at most 32 characters, as in dns_queries")
    if not ALERT.match(alert_of(name)):
        raise FeatureError(f"NAME is {name!r}; begin it with a word of two letters at least, as in dns_queries")
    for path in (f"bpf/features/{name}", f"docs/runbooks/{name}.md"):
        if (root / path).exists():
            raise FeatureError(f"{path} is there already; choose another NAME than {name!r}, or change that one")
    if f"`ebpf_fleet_{name}_total`" in (root / METRICS).read_text(encoding="utf-8"):
        raise FeatureError(f"{METRICS} has a metric ebpf_fleet_{name}_total already; choose another NAME than {name!r}")
    if f"alert: {alert_of(name)}\n" in (root / ALERTS).read_text(encoding="utf-8"):
        raise FeatureError(f"{ALERTS} has an alert {alert_of(name)} already; choose another NAME than {name!r}")


def with_rule(text: str, name: str) -> str:
    """alerts.yml with the feature's rule, before those that are not of one feature."""
    before, found, after = text.partition(FIRST_COMMON_RULE)
    if not found:
        raise FeatureError(f"{ALERTS} has no rule EbpfFleetEventsDropped, before which the feature's rule would stand")
    alert = alert_of(name)
    return before + RULE.format(name=name, alert=alert, anchor=alert.lower()) + found + after


def with_row(text: str, name: str) -> str:
    """metrics.md with the rows of the feature's signal, as measured and weighted, among the others by name."""
    rows = list(ROW.finditer(text))
    if not rows:
        raise FeatureError(f"{METRICS} has no table of signals, into which the feature's row would go")
    row = f"| `ebpf_fleet_{name}_total` | counter | calls | `uid` | `{name}` | {ENTRIES} | `{alert_of(name)}` |"
    row += f"\n| `ebpf_fleet_{name}_weighted_total` | counter | calls | `uid` | `{name}` | {ENTRIES} | |"
    later = [match.start() for match in rows if match[0] > row]
    at = later[0] if later else rows[-1].end() + 1
    return text[:at] + row + "\n" + text[at:]


def make(root: Path, name: str) -> dict[Path, str]:
    """{path from the root: text} of all that a new feature's skeleton is, but the page that is made from it."""
    check_name(root, name)
    words = words_of(name)
    loader = jinja2.FileSystemLoader(HERE)
    templates = jinja2.Environment(
        loader=loader, keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False
    )
    places = {
        f"bpf/features/{name}/contract.yml": "contract.yml.j2",
        f"bpf/features/{name}/{name}.bpf.c": "program.bpf.c.j2",
        f"docs/runbooks/{name}.md": "runbook.md.j2",
    }
    found = {Path(path): templates.get_template(source).render(words) for path, source in places.items()}
    found[ALERTS] = with_rule((root / ALERTS).read_text(encoding="utf-8"), name)
    found[METRICS] = with_row((root / METRICS).read_text(encoding="utf-8"), name)
    return found


def write(root: Path, files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def write_privileges(root: Path) -> None:
    """docs/privileges.md lists every variant; its score stays, as no feature changes the sandbox."""
    score = privileges.documented((root / PRIVILEGES).read_text(encoding="utf-8"))
    if score:
        write(root, {PRIVILEGES: privileges.render(score)})


def main() -> int:
    name = os.environ.get("FEATURE_NAME", "")
    try:
        files = make(ROOT, name)
    except FeatureError as error:
        print(f"feature: {error}", file=sys.stderr)
        return 2
    write(ROOT, files)
    write_privileges(ROOT)
    for path in (*files, PRIVILEGES):
        print(f"feature: {path}")
    print(f"feature: it builds; see it: make contract NAME={name}; what is left to do: docs/contributing/feature.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
