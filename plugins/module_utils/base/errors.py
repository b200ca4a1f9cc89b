# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception family of the collection: a reason code, a sentence and the file it is about."""

from __future__ import annotations

import difflib
from typing import Iterable


class FleetError(Exception):
    """A refusal or failure that a person can act on.

    ``code`` is a reason code of docs/interfaces.md, ``message`` one sentence that
    names the object and the remedy, ``file`` the file it is about, if there is one.
    """

    def __init__(self, code: str, message: str, file: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.file = file

    def as_result(self) -> dict[str, str | None]:
        """The keyword arguments of a module's ``fail_json``."""
        return {"msg": f"{self.code}: {self.message}", "reason_code": self.code, "file": self.file}


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The sentence part that names the nearest known word, or all of them if none is near."""
    names = sorted(known)
    if not names:
        return "there is none to choose from"
    near = difflib.get_close_matches(str(word), names, n=1)
    return f"did you mean {near[0]!r}?" if near else "choose one of: " + ", ".join(names)


def raise_all(problems: list[FleetError]) -> None:
    """Raise one error that carries every sentence of ``problems``; return if there is none."""
    if not problems:
        return
    first = problems[0]
    if len(problems) == 1:
        raise first
    sentences = "; ".join(problem.message for problem in problems)
    raise FleetError(first.code, f"{len(problems)} problems: {sentences}", first.file)
