# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the kill switch as one POSIX sh script, for hosts where nothing else may work.

The script needs a shell, grep, sleep and the like, no Python and no free disk. It places the orders
before it reads anything, starts a timer that kills a loader which does not obey, proves from the
kernel that the orders took effect, and ends with one line that `kill_answer` reads, at its deadline
at the latest. Its text lies in the folder parts. Nothing here touches a host.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.scope import on_host

MARK = "ebpf-fleet-kill: "
STATES = ("engaged", "released", "query")

DEFAULT_GRACE_SECONDS = 2
DEFAULT_DEADLINE_SECONDS = 10
MAX_DEADLINE_SECONDS = 600
# What a login gets beyond the script's deadline, for the way there and back.
WAY_SECONDS = 10

_ROOT = re.compile(r"(?:/[A-Za-z0-9._-]+)*")

_PARTS = Path(__file__).with_name("parts")
_SEARCH = ("families.sh", "unit.sh", "evidence.sh", "pins.sh", "concern.sh")
_BODIES = {
    "engaged": (*_SEARCH, "engage.sh"),
    "released": ("orders.sh", "families.sh", "concern.sh", "release.sh"),
    "query": ("orders.sh", *_SEARCH, "query.sh"),
}
_FOR_QUOTES = re.compile(r"""[\\"$`]""")

COLLECTOR_UNIT = "ebpf-fleet-bcc.service"
USER = "ebpf-fleet"


def part(name: str) -> str:
    """The text of one file of the folder parts; they lie beside this module on the controller."""
    text = (_PARTS / name).read_text(encoding="utf-8")
    # What a file says to a linter about itself is not true of the whole.
    return text.partition("\n")[2] if text.startswith("# shellcheck") else text


def _python() -> str:
    """The program that lists the kernel's programs, as it stands within double quotes of sh."""
    return _FOR_QUOTES.sub(lambda found: "\\" + found.group(), part("list_programs.py"))


def render(
    scopes: object,
    state: str = "engaged",
    persistent: bool = True,
    grace_seconds: int = DEFAULT_GRACE_SECONDS,
    deadline_seconds: int = DEFAULT_DEADLINE_SECONDS,
    unit: str = "ebpf-fleet-loader.service",
    root: str = "",
) -> str:
    """The script for these scopes and this state, as plain sh.

    A scope is what a person writes (`scope.read`); what of it chooses hosts was done on the controller.
    `grace_seconds` is how long the loader may take before it is killed, `deadline_seconds` when
    the script gives up. `root` is a folder that stands before every path but /proc. Raises
    ValueError for anything that is not exactly what it should be.
    """
    if isinstance(scopes, str) or not isinstance(scopes, (list, tuple)):
        raise FleetError("EF_ARGUMENT", f"scopes {scopes!r}: give a list of scopes, such as ['global']")
    found, only_family = on_host(scopes)
    _check(state, grace_seconds, deadline_seconds, unit, root)
    values = {
        "@ORDERS@": " ".join(scope.order for scope in found),
        "@FEATURES@": " ".join(scope.name for scope in found if scope.kind == "feature"),
        "@FAMILIES@": only_family or " ".join(scope.name for scope in found if scope.kind == "family"),
        "@WITHIN_FAMILY@": "true" if only_family else "false",
        "@WHOLE@": "true" if any(scope.kind == "global" for scope in found) else "false",
        "@PERSISTENT@": "true" if persistent else "false",
        "@GRACE@": str(grace_seconds),
        "@DEADLINE@": str(deadline_seconds),
        "@UNIT@": unit,
        "@UNITS@": f"{unit} {COLLECTOR_UNIT}",
        "@USER@": USER,
        "@ROOT@": root,
        "@MARK@": MARK,
    }
    script = "".join(map(part, ("prelude.sh", "supervise.sh", *_BODIES[state])))
    for key, value in values.items():
        script = script.replace(key, value)
    return script.replace("@PYTHON@", _python())


def deadline_within(login_seconds: float) -> int:
    """The deadline, in seconds, of a script whose login may take so long: it answers before it is cut off."""
    return max(DEFAULT_DEADLINE_SECONDS, min(MAX_DEADLINE_SECONDS, int(login_seconds) - WAY_SECONDS))


def _check(state: str, grace: Any, deadline: Any, unit: str, root: str) -> None:
    if state not in STATES:
        raise FleetError("EF_ARGUMENT", f"state {state!r}: say one of {', '.join(STATES)}")
    for name, value in (("grace_seconds", grace), ("deadline_seconds", deadline)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DEADLINE_SECONDS:
            problem = f"{name} {value!r}: give a whole number of seconds from 0 to {MAX_DEADLINE_SECONDS}"
            raise FleetError("EF_ARGUMENT", problem)
    if grace >= deadline:
        raise FleetError(
            "EF_ARGUMENT", f"grace_seconds {grace} must be less than deadline_seconds {deadline}; give less"
        )
    if not re.fullmatch(r"[A-Za-z0-9@._-]+", unit):
        raise FleetError("EF_ARGUMENT", f"unit {unit!r}: is not a unit's name; give one such as NAME.service")
    if not _ROOT.fullmatch(root):
        raise FleetError(
            "EF_ARGUMENT", f"root {root!r}: give an absolute path of letters, digits, dot, dash and underscore"
        )


# What a login shell could read as something else within single quotes: "!" is history to tcsh, a newline
# ends its word, and fish unwraps a backslash before another or a quote. printf puts them back.
_CODES = {"\n": "\\n", "\t": "\\t", "'": "\\0047", "!": "\\0041", "\\": "\\0134"}
# Some shells read words of a bounded length.
WORD_LETTERS = 1000


def command(script: str) -> str:
    """One command that runs the script in /bin/sh, whatever the login shell is.

    It is one line of words in single quotes, which sh, bash, zsh, ksh, fish and tcsh read alike. The
    script does not see them: it sees no arguments.
    """
    pieces = [_CODES.get(letter, letter) for letter in script]
    words = [""]
    for piece in pieces:
        if len(words[-1]) + len(piece) > WORD_LETTERS:
            words.append("")
        words[-1] += piece
    return " ".join(["/bin/sh -c", f"'{_UNWRAP}' sh", *(f"'{word}'" for word in words)])


# All words at once: printf repeats its format for each.
_UNWRAP = 'eval "set --; $(printf %b "$@")"'
