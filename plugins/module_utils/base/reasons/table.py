# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All reasons by their code, and questions to the list. Pure."""

from __future__ import annotations

from typing import Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons import bundle, features, fleet
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.reason import Reason, Section

SECTIONS: tuple[Section, ...] = (*bundle.SECTIONS, *features.SECTIONS, *fleet.SECTIONS)
REASONS: Mapping[str, Reason] = {code: one for section in SECTIONS for code, one in section.reasons.items()}


def given_by(giver: str) -> frozenset[str]:
    """The codes that one giver can give."""
    return frozenset(code for code, one in REASONS.items() if giver in one.by)


def remedy_of(code: str) -> str | None:
    """What to do, with the page that says more; None of a code that is not listed, as a newer loader may give."""
    found = REASONS.get(code)
    if found is None:
        return None
    return f"{found.remedy} (docs/{found.see})" if found.see else found.remedy
