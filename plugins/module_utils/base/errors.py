# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception family of the collection: a reason code, a sentence, the remedy and the file it is about."""

from __future__ import annotations

import difflib
import errno
from typing import Iterable

from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import remedy_of


class FleetError(Exception):
    """A refusal or failure that a person can act on.

    ``code`` is one of the list of reason codes, ``message`` one sentence that names the object,
    the problem and the remedy, ``file`` the file it is about, if there is one.
    """

    code: str

    def __init__(self, code: str, message: str, file: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.file = file

    @property
    def remedy(self) -> str | None:
        """What the list says to do about every error of this code; None of a code that is not listed."""
        return remedy_of(self.code)

    def as_line(self) -> str:
        """Code and sentence, as every output shows them."""
        return f"{self.code}: {self.message}"

    def as_result(self) -> dict[str, str | None]:
        """The keyword arguments of a module's ``fail_json``, and the failed result of an action plugin."""
        return {"msg": self.as_line(), "reason_code": self.code, "remedy": self.remedy, "file": self.file}


class OneCodeError(FleetError):
    """An error of which there is one kind: a subclass says its ``code`` once, for all that raise it."""

    def __init__(self, message: str, file: str | None = None) -> None:
        super().__init__(type(self).code, message, file)


def explain(error: OSError | FleetError, code: str = "EF_STORE") -> FleetError:
    """The error itself, or an OSError in the family: of this code, but a full disk has a code of its own."""
    if isinstance(error, FleetError):
        return error
    # Of a rename the second is the file that a person knows, and the first a temporary one.
    named = error.filename if error.filename2 is None else error.filename2
    file = None if named is None else str(named)
    where = file or "the host's disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FleetError("EF_DISK_FULL", f"{where}: no space is left; make room on that file system", file)
    if error.errno == errno.EROFS:
        return FleetError(code, f"{where}: the file system is read-only; remount it", file)
    return FleetError(code, f"{where}: {error.strerror or error}; correct that and run again", file)


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
