# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of an entry of the list. Pure."""

from __future__ import annotations

from typing import Mapping, NamedTuple

# Who gives a code. VERIFY is `ebpf-loader verify`, whose answer about a bundle a module takes over.
VERIFY, LOADER, COLLECTOR, MODULES, PLAYBOOKS = "verify", "loader", "collector", "modules", "playbooks"


class Reason(NamedTuple):
    """What a code means for the host and what to do; `by` who gives it, `see` a page below docs/, or empty."""

    sentence: str
    remedy: str
    by: tuple[str, ...]
    see: str = ""


class Section(NamedTuple):
    """Codes that belong together: the title and first words of their section of the page."""

    title: str
    intro: str
    reasons: Mapping[str, Reason]
