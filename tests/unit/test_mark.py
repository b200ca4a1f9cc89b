# SPDX-License-Identifier: GPL-3.0-or-later
"""The high-water mark: what a file of it may say, on both sides of each bound, and whom it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release import mark as mk
from ansible_collections.ebpf.fleet.plugins.module_utils.release.mark import UNREADABLE, Mark
from ansible_collections.ebpf.fleet.plugins.module_utils.release.trust_kept import read_mark, write_mark

D = [f"{number:x}" * 64 for number in range(10)]
LOWERED = {"from": 9, "to": 7, "digest": D[0], "at_unix": 0}
MARK = Mark(7, D[0], (D[1],), 1000, LOWERED)


def parsed(**changes: Any) -> Mark | None:
    document = {**json.loads(mk.render_mark(MARK)), **changes}
    return mk.parse_mark(json.dumps(document).encode())


def test_a_mark_is_read_as_it_was_written() -> None:
    assert mk.parse_mark(mk.render_mark(MARK).encode()) == parsed() == MARK
    assert mk.parse_mark(None) is None


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("schema", ["ebpf.fleet/mark/v1"], ["ebpf.fleet/mark/v2", None]),
        ("sequence", [1, 2**62], [0, -1, True, 1.0, "1", None]),
        ("digest", [D[3]], ["", "A" * 64, D[0][:-1], D[0] + "a", D[0] + "\n", None, 7]),
        ("below", [[], [D[1]] * 8], [[D[1]] * 9, D[1], [D[1], ""], None, {}]),
        ("seen_unix", [0, 2**40], [-1, False, 0.5, None]),
        ("lowered", [None, LOWERED, {**LOWERED, "from": 0, "to": 0}],
         [{}, [], {**LOWERED, "digest": "x"}, {**LOWERED, "more": 1}, {**LOWERED, "from": -1}, {**LOWERED, "to": True},
          {**LOWERED, "at_unix": -1}, {name: LOWERED[name] for name in ("from", "to", "digest")}]),
        ("more", [], [1]),
    ],
)  # fmt: skip
def test_each_field_has_its_values_and_with_any_other_the_mark_is_unreadable(
    name: str, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        assert parsed(**{name: value}) not in (None, UNREADABLE), value
    for value in bad:
        assert parsed(**{name: value}) == UNREADABLE, value


def test_a_file_of_as_many_bytes_as_are_read_is_a_mark_and_a_longer_one_is_none(tmp_path: Path) -> None:
    data = mk.render_mark(MARK).encode()
    path = tmp_path / "mark.json"
    for size, found in ((4096, MARK), (4097, UNREADABLE)):
        assert mk.parse_mark(data.ljust(size)) == found
        path.write_bytes(data.ljust(size))
        assert read_mark(path) == found


def test_what_is_there_and_no_plain_file_is_unreadable_and_nothing_is_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "mark.json"
    assert read_mark(path) is None
    write_mark(path, MARK)
    assert read_mark(path) == MARK and path.stat().st_mode & 0o777 == 0o644
    for make in (lambda: path.mkdir(), lambda: os.mkfifo(path), lambda: path.write_bytes(b"\xff")):
        path.rmdir() if path.is_dir() else path.unlink()
        make()
        assert read_mark(path) == UNREADABLE


LOWER = "EF_SEQUENCE_DOWNGRADE"


@pytest.mark.parametrize(
    ("sequence", "digest", "code"),
    [(8, D[5], None), (7, D[0], None), (1, D[0], None), (7, D[5], LOWER), (6, D[1], LOWER)],
)
def test_a_bundle_must_be_above_the_mark_or_the_one_that_reached_it(
    sequence: int, digest: str, code: str | None
) -> None:
    mk.check_downgrade(None, sequence, digest)
    if code is None:
        mk.check_downgrade(MARK, sequence, digest)
        return
    with pytest.raises(FleetError) as refused:
        mk.check_downgrade(MARK, sequence, digest)
    assert (refused.value.code, refused.value.file) == (code, "manifest.json")
    assert f"sequence {sequence}, and this host has run 7 (release {D[0][:12]})" in refused.value.message


def test_above_a_mark_that_cannot_be_read_is_nothing() -> None:
    with pytest.raises(FleetError) as refused:
        mk.check_downgrade(UNREADABLE, 2**62, D[1])
    assert (refused.value.code, refused.value.file) == ("EF_MARK_MALFORMED", "mark.json")
    assert "allow_downgrade: true" in refused.value.message


@pytest.mark.parametrize(
    ("sequence", "digest", "allowed"),
    [(8, D[5], True), (7, D[5], False), (7, D[0], True), (1, D[1], True), (1, D[2], False)],
)
def test_whom_a_mark_lets_run(sequence: int, digest: str, allowed: bool) -> None:
    assert MARK.allows(sequence, digest) is allowed


def test_only_the_time_is_not_of_the_rule() -> None:
    assert MARK.same_rule(MARK._replace(seen_unix=5)) and not MARK.same_rule(None)
    assert not MARK.same_rule(MARK._replace(sequence=8)) and not MARK.same_rule(MARK._replace(lowered=None))


def test_the_mark_of_a_bundle_that_became_current() -> None:
    fresh = mk.raise_mark(None, 3, D[2], [D[2], D[1], D[1]], 50, False)
    assert fresh == Mark(3, D[2], (D[1],), 50)
    higher = mk.raise_mark(MARK, 8, D[2], [D[2], D[0]], 999, False)
    assert higher == Mark(8, D[2], (D[0],), 1000, LOWERED), "the clock goes on; it is not set back"
    again = mk.raise_mark(MARK, 7, D[0], [D[0], D[3]], 2000, False)
    assert again == Mark(7, D[0], (D[3],), 2000, LOWERED)
    back = mk.raise_mark(MARK, 5, D[1], [D[1], D[0]], 2000, True)
    assert back == Mark(7, D[0], (D[1],), 2000, LOWERED), "after a rollback the mark stays"
    for sequence in (7, 5):
        lowered = mk.raise_mark(MARK, sequence, D[1], [D[1]], 2000, False)
        record = {"from": 7, "to": sequence, "digest": D[1], "at_unix": 2000}
        assert lowered == Mark(sequence, D[1], (), 2000, record)
    assert mk.raise_mark(UNREADABLE, 5, D[1], [D[1]], 9, False).lowered == {
        "from": UNREADABLE.sequence, "to": 5, "digest": D[1], "at_unix": 9}  # fmt: skip
