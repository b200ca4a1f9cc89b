# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The high-water mark of a host: the highest sequence that ran, which rollback and removal do not lower. Pure.

The loader reads the same file (mark.c) and refuses a bundle below the mark, but for the releases that the
file names: the current one and the previous one, so that the way back always works (docs/rollout.md).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import MAX_SEQUENCE, canonical_json

SCHEMA = "ebpf.fleet/mark/v1"
FILE = "mark.json"
KEYS = {"schema", "sequence", "digest", "below", "seen_unix", "lowered"}
LOWERED_KEYS = {"from", "to", "digest", "at_unix"}
MAX_BYTES = 4096
MAX_BELOW = 8
DIGEST = re.compile(r"[0-9a-f]{64}\Z")
REMEDY = "deploy a release with 'allow_downgrade: true', which writes it again"


class Mark(NamedTuple):
    """``digest`` reached ``sequence``; the bundles of ``below`` may run all the same; times are seconds since 1970.

    ``seen_unix`` is the greatest wall-clock time that a deployment saw, ``lowered`` the last explicit lowering.
    """

    sequence: int
    digest: str
    below: tuple[str, ...]
    seen_unix: int
    lowered: dict[str, Any] | None = None

    def allows(self, sequence: int, digest: str) -> bool:
        """Whether a bundle may run here."""
        return sequence > self.sequence or digest == self.digest or digest in self.below

    def same_rule(self, other: Mark | None) -> bool:
        """Whether both say the same but for the time."""
        return other is not None and self._replace(seen_unix=0) == other._replace(seen_unix=0)


# A file that is there and cannot be understood: what ran here is not known.
UNREADABLE = Mark(MAX_SEQUENCE, "", (), 0)


def render_mark(mark: Mark) -> str:
    """The text of mark.json."""
    return canonical_json({"schema": SCHEMA, **mark._asdict(), "below": list(mark.below)})


def parse_mark(data: bytes | None) -> Mark | None:
    """The mark of a file's bytes, None for no file; :data:`UNREADABLE` for what is not one."""
    if data is None:
        return None
    try:
        doc = strictjson.parse(data) if len(data) <= MAX_BYTES else None
    except ValueError:
        return UNREADABLE
    if not isinstance(doc, dict) or set(doc) != KEYS or doc["schema"] != SCHEMA or not _is_sound(doc):
        return UNREADABLE
    return Mark(doc["sequence"], doc["digest"], tuple(doc["below"]), doc["seen_unix"], doc["lowered"])


def _is_number(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.match(value) is not None


def _is_sound(doc: dict[str, Any]) -> bool:
    below, lowered = doc["below"], doc["lowered"]
    if not _is_number(doc["sequence"], 1) or not _is_digest(doc["digest"]) or not _is_number(doc["seen_unix"], 0):
        return False
    if not isinstance(below, list) or len(below) > MAX_BELOW or not all(map(_is_digest, below)):
        return False
    return lowered is None or _is_lowering(lowered)


def _is_lowering(lowered: Any) -> bool:
    if not isinstance(lowered, dict) or set(lowered) != LOWERED_KEYS or not _is_digest(lowered["digest"]):
        return False
    return all(_is_number(lowered[name], 0) for name in ("from", "to", "at_unix"))


def check_downgrade(mark: Mark | None, sequence: int, digest: str) -> None:
    """Refuse to activate a bundle that is not above the mark and is not the one that reached it."""
    if mark is None or sequence > mark.sequence or digest == mark.digest:
        return
    if mark == UNREADABLE:
        raise FleetError("EF_MARK_MALFORMED", f"{FILE}: cannot be understood, so what ran here is not known; {REMEDY}",
                         FILE)  # fmt: skip
    raise FleetError(
        "EF_SEQUENCE_DOWNGRADE",
        f"the bundle has sequence {sequence}, and this host has run {mark.sequence} (release {mark.digest[:12]}); "
        "build the bundle with a higher sequence or set 'allow_downgrade: true', which lowers the mark",
        "manifest.json",
    )


def raise_mark(mark: Mark | None, sequence: int, digest: str, kept: list[str], now: int, stays: bool) -> Mark:
    """The mark once that bundle is current; ``kept`` are the current and the previous release's digests.

    ``stays``: it is current already, as after a rollback. Else one that is not above the mark was allowed: it
    lowers the mark, and that is recorded.
    """
    known = None if mark == UNREADABLE else mark
    seen = max(now, known.seen_unix if known else 0)
    lowered = known.lowered if known else None
    if known is not None and (digest == known.digest or (stays and digest in known.below)):
        top, holder = known.sequence, known.digest
    else:
        top, holder = sequence, digest
        if mark is not None and sequence <= mark.sequence:
            lowered = {"from": mark.sequence, "to": sequence, "digest": digest, "at_unix": seen}
    below = tuple(sorted({one for one in kept if one != holder}))
    return Mark(top, holder, below, seen, lowered)
