# SPDX-License-Identifier: GPL-3.0-or-later
"""Root reads what others can write: bounded, without blocking, through no link."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.lookup.last_census import CENSUS
from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import BoundedReadError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import matrix, minimal_btf
from ansible_collections.ebpf.fleet.plugins.plugin_utils.json_file import read_object


def census_of(path: Path) -> object:
    return read_object(path, CENSUS)


class TestFiles:
    def test_a_regular_file_is_read_whole(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"12345")
        assert bounded.read_bytes(tmp_path / "a", 5) == b"12345"

    def test_one_byte_too_many_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"123456")
        with pytest.raises(BoundedReadError, match="larger than 5 bytes"):
            bounded.read_bytes(tmp_path / "a", 5)

    def test_nothing_there_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert bounded.read_bytes(tmp_path / "a", 5) is None
        assert bounded.read_bytes(tmp_path / "file" / "a", 5) is None

    @pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket"])
    def test_what_is_no_regular_file_is_refused_at_once(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "a"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "device":
            path = Path("/dev/zero")
        else:
            import socket

            socket.socket(socket.AF_UNIX).bind(str(path))
        with pytest.raises(BoundedReadError, match=str(path)):
            bounded.read_bytes(path, 100)

    @pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "nowhere"])
    def test_a_link_is_not_followed(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "a").symlink_to(target)
        with pytest.raises(BoundedReadError):
            bounded.read_bytes(tmp_path / "a", 1 << 20)

    def test_a_sparse_giant_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "a").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(BoundedReadError, match="larger"):
            bounded.read_bytes(tmp_path / "a", 1 << 16)

    @pytest.mark.parametrize("kind", ["fifo", "folder", "device", "link to a fifo"])
    @pytest.mark.parametrize(
        ("reader", "code"),
        [(census_of, "EF_CENSUS"), (matrix.read_matrix, "EF_ARGUMENT"), (minimal_btf.read_full, "EF_ARGUMENT")],
    )
    def test_a_file_that_a_person_named_is_regular_or_refused_at_once(
        self, tmp_path: Path, kind: str, reader: Callable[[Path], object], code: str
    ) -> None:
        path = Path("/dev/zero") if kind == "device" else tmp_path / "a"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "link to a fifo":
            os.mkfifo(tmp_path / "fifo")
            path.symlink_to("fifo")
        with pytest.raises(FleetError, match=f"{path}.*not a regular file") as refused:
            reader(path)
        assert refused.value.code == code

    def test_a_link_to_a_file_that_a_person_named_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "census.json").write_text("{}")
        (tmp_path / "last").symlink_to("census.json")
        assert census_of(tmp_path / "last") == {}


class TestJson:
    def test_good(self) -> None:
        assert bounded.parse_json(b'{"a": [1, 2.5, null, "[[[\\"[["]}', 2) == {"a": [1, 2.5, None, '[[["[[']}

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 10_000,
            "[" * 10_000 + "]" * 10_000,
            '{"a":' * 10_000,
            "[" * 33 + "]" * 33,
            "NaN",
            '{"a": Infinity}',
            "-Infinity",
            "1e999",
            "1" * 21,
            "1" * 100_000,
            b"\xff",
            "",
            '"' + '\\"' * 500_000,
            "[\\",
        ],
    )
    def test_anything_else_is_one_clear_error(self, text: str | bytes) -> None:
        with pytest.raises(ValueError, match="is |holds "):
            bounded.parse_json(text)

    def test_as_deep_as_allowed(self) -> None:
        assert bounded.parse_json("[" * 32 + "]" * 32)

    def test_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("[" * 9999)
        with pytest.raises(BoundedReadError, match="a: is nested"):
            bounded.read_json(tmp_path / "a", 1 << 20)
