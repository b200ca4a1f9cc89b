# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of an answer: yes, no or unknown, with its evidence, and for some a reason code."""

from __future__ import annotations

import errno
from typing import Mapping

Answer = Mapping[str, str]

# What the kernel says of what it does not have; ENOTSUPP, 524, has no name in Python.
ENOTSUPP = 524
ABSENT = (errno.EINVAL, errno.ENOENT, errno.ENOSYS, errno.EOPNOTSUPP, ENOTSUPP)
REFUSED = (errno.EPERM, errno.EACCES)


def answered(answer: str, evidence: str, reason_code: str | None = None) -> Answer:
    """One answer; `reason_code` where the cause of a no is another than absence."""
    found = {"answer": answer, "evidence": evidence}
    if reason_code is not None:
        found["reason_code"] = reason_code
    return found


def is_yes(answer: Answer) -> bool:
    """Was it answered yes?"""
    return answer["answer"] == "yes"


def errno_name(number: int | None) -> str:
    """EINVAL for 22."""
    if number == ENOTSUPP:
        return "ENOTSUPP"
    return errno.errorcode.get(number or 0, f"errno {number}")
