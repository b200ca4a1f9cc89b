# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader's smallest parts (text, JSON, paths, numbers, the log) on values, without kernel; ASan and UBSan watch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.loader.drivers import ask, build, run

pytestmark = pytest.mark.apart

OTHER_USER = 12345


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("base"), "base", ["base/*.c"])


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        (b"a", 1), (b"aZ09._-", 1), (b"a/b/c.d", 1), (b"..a/.b/...", 1), (b"a..", 1),
        (b"", 0), (b"/a", 0), (b"a/", 0), (b"a//b", 0), (b".", 0), (b"..", 0), (b"./a", 0), (b"../a", 0), (b"a/.", 0),
        (b"a/..", 0), (b"a/./b", 0), (b"a/../b", 0), (b"a b", 0), (b"a\nb", 0), (b"a\\b", 0), (b"a@", 0), (b"a[", 0),
        (b"a`", 0), (b"a{", 0), (b"a:", 0), (b"a,", 0), (b"\xc3\xa9", 0), (b"a" * 255, 1), (b"a" * 256, 0),
    ],
)  # fmt: skip
def test_a_plain_path(driver: Path, path: bytes, plain: int) -> None:
    assert ask(driver, "plain", path) == str(plain)


UTF8 = [
    b"a", b"\x7f", b"\x80", b"\xbf", b"\xc1\xbf", b"\xc2\x80", b"\xdf\xbf", b"\xc2\x7f", b"\xc2\xc0", b"\xc2",
    b"\xe0\xa0\x80", b"\xe0\x9f\xbf", b"\xed\x9f\xbf", b"\xed\xa0\x80", b"\xef\xbf\xbf", b"\xe1\x41\x80",
    b"\xe1\x80\x41", b"\xe1\x80", b"\xf0\x90\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80",
    b"\xf1\x80\x80\x41", b"\xf1\x41\x80\x80", b"\xf1\x80\x80", b"\xf5\x80\x80\x80", b"\xff",
]  # fmt: skip


def first_character(data: bytes) -> int:
    """Bytes of the character at the start, as Python sees it; 0: none."""
    for size in range(1, min(4, len(data)) + 1):
        try:
            if len(data[:size].decode()) == 1:
                return size
        except UnicodeDecodeError:
            pass
    return 0


@pytest.mark.parametrize("data", UTF8, ids=bytes.hex)
def test_the_length_of_a_utf8_sequence_is_pythons(driver: Path, data: bytes) -> None:
    assert ask(driver, "utf8", data) == str(first_character(data))
    assert ask(driver, "utf8", data + b"a") == str(first_character(data))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain ~", "plain ~"),
        (b'a"b\\c', 'a"b\\c'),
        (b"\x1f \x7f\n", "\x1f \x7f\n"),
        ("é€\U0001f600\uffff\U00010000".encode(), "é€\U0001f600\uffff\U00010000"),
        (b"a\xffb\xe1\x80c", "a\ufffdb\ufffd\ufffdc"),
        (b"end\0behind", "end"),
        (b"", ""),
    ],
)
def test_a_string_is_written_in_ascii_and_read_back_the_same(driver: Path, data: bytes, text: str) -> None:
    written = ask(driver, "string", data, str(len(data)))
    assert written.isascii() and written.isprintable()
    assert json.loads(written) == text
    assert ask(driver, "string", b"abcdef", "3") == '"abc"'


def test_a_text_that_does_not_fit_is_told_by_its_length_and_writes_nothing_behind(driver: Path) -> None:
    assert ask(driver, "cut", "8", b"abc", b"defg") == "abcdefg" + "." * 17 + " 7"
    assert ask(driver, "cut", "8", b"abc", b"defgh") == "abc" + "." * 21 + " 8"
    assert ask(driver, "cut", "8", b"abcdefgh", b"i") == "." * 24 + " 9"
    # Formatted: with a 0 at its end, cut where the room is.
    assert ask(driver, "cut", "8", "+" + b"abc".hex(), "+" + b"defg".hex()) == "abcdefg0" + "." * 16 + " 7"
    assert ask(driver, "cut", "8", "+" + b"abc".hex(), "+" + b"defgh".hex()) == "abcdefg0" + "." * 16 + " 8"
    assert ask(driver, "cut", "8", "+" + b"abcdefgh".hex(), "+" + b"ij".hex()) == "abcdefg0" + "." * 16 + " 10"


@pytest.mark.parametrize("number", [0, 9, 10, 99, 1234567890, 2**64 - 1])
def test_a_number_in_decimal(driver: Path, number: int) -> None:
    assert ask(driver, "uint", str(number)) == str(number)


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (0, 9, "0"), (1, 9, "0.000000001"), (10, 9, "0.00000001"), (10**9, 9, "1"), (1_500_000_000, 9, "1.5"),
        (1_000_000_001, 9, "1.000000001"), (1_020_304_050, 9, "1.02030405"), (7, 0, "7"), (1234, 1, "123.4"),
        (1000, 3, "1"), (2**64 - 1, 9, "18446744073.709551615"), (5 * 10**17, 18, "0.5"),
        (1, 18, "0.000000000000000001"),
    ],
)  # fmt: skip
def test_a_number_with_a_fraction(driver: Path, number: int, digits: int, text: str) -> None:
    assert ask(driver, "decimal", str(number), str(digits)) == text


def test_what_a_metric_says_is_escaped_as_prometheus_reads_it(driver: Path) -> None:
    assert ask(driver, "head", 'Says "x" \\ and\nmore.') == (
        '# HELP ebpf_fleet_name Says "x" \\\\ and\\nmore.\n# TYPE ebpf_fleet_name gauge'
    )
    assert ask(driver, "label", b'a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
    assert ask(driver, "label", "é~ \x7f".encode() + b"\xffz") == '"é~ \x7f\ufffdz"'
    assert ask(driver, "label", b"") == '""'


def test_a_refusal_shows_printable_ascii_only(driver: Path) -> None:
    end, _, document = ask(driver, "refuse", b" a~\x1f\x7f\n\xc3\xa9").partition(" ")
    told = {"ok": False, "reason_code": "EF_X", "reason": " a~?????", "file": " a~?????"}
    assert (end, json.loads(document)) == ("-1", told)
    assert json.loads(ask(driver, "refuse", b"").partition(" ")[2])["file"] is None


def test_a_reason_shows_printable_ascii_only(driver: Path) -> None:
    assert ask(driver, "reason", b"! a~\x1f\x7f\n\xc3\xa9") == "EF_X [! a~     ]"


DOCUMENT = {
    "b": [1, -2, 0, True, False, None, [], {}],
    "a": {"z": 'quote " and \\', "\ue000": "\b\f\n\r\t\x01\x1f\x7f~ /", "\U00010000": "é€\uffff\U0001f600\U00010000"},
    "": 2**63 - 1,
    "ab": "",
}


def test_a_document_is_written_as_python_writes_it(driver: Path) -> None:
    """As module_utils/base writes what is signed: sorted keys, no space, ASCII."""
    given = json.dumps(DOCUMENT, ensure_ascii=False).encode()
    assert ask(driver, "canonical", given) == json.dumps(DOCUMENT, sort_keys=True, separators=(",", ":"))
    assert ask(driver, "canonical", b"[1.5]") == "! EINVAL"
    assert ask(driver, "canonical", b'{"a":{"b":[0.1]}}') == "! EINVAL"


@pytest.mark.parametrize(
    ("document", "depth"),
    [
        (b"", 0), (b"1", 0), (b"[]", 1), (b"{}", 1), (b"[ [ ] ]", 2), (b"[[],[],{}]", 2), (b"[]]]]]]][", 1),
        (b"[[[", 3), (b'["[[["]', 1), (b'["\\"[["]', 1), (b'["\\\\",[[]]]', 3), (b'{"a" : { "b" : [ 1 ] } }', 3),
        (b'"]" [ "]" [ ', 2), (b'[ "}" , 1 , [ 2 ] ]', 2), (b'"', 0), (b'["a\\', 1),
    ],
)  # fmt: skip
def test_the_depth_of_a_document(driver: Path, document: bytes, depth: int) -> None:
    assert ask(driver, "depth", document) == str(depth)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b'{"a": 1}', "1 fine"),
        (b'{"a": 1, "a": 2}', "0 line 1, column 12: duplicate object key"),
        (b"[1]\n[2]", "0 line 2, column 1: end of file expected"),
    ],
)
def test_what_is_wrong_with_a_document_is_told_with_its_place(driver: Path, document: bytes, told: str) -> None:
    assert ask(driver, "parse", document).startswith(told)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of root, and nobody else may write to it."""
    path = tmp_path / "etc"
    path.mkdir(mode=0o755)
    (path / "file").write_text("words", encoding="utf-8")
    (path / "file").chmod(0o644)
    return path


def read(driver: Path, path: Path, limit: int = 100, follow: bool = False) -> str:
    return ask(driver, "read", str(path), str(limit), str(int(follow)))


def test_a_control_file_is_read_whole(driver: Path, folder: Path) -> None:
    assert read(driver, folder / "file") == "0 0 5 [words] 0"
    assert read(driver, folder / "file", limit=5) == "0 0 5 [words] 0"
    told = f"{folder}/file cannot be read: File too large; repair it"
    assert read(driver, folder / "file", limit=4) == f"EFBIG 0 0 {told}"
    (folder / "file").write_text("", encoding="utf-8")
    assert read(driver, folder / "file", limit=0) == "0 0 0 [] 0"
    assert read(driver, folder / "none") == "ENOENT -1 0 "
    assert read(driver, folder / "none" / "file") == "ENOENT -1 0 "
    done = subprocess.run([driver, "read", "file", "9", "0"], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "0 0 0 [] 0\n"


def test_a_document_of_ours_is_read_or_says_what_is_wrong(driver: Path, folder: Path) -> None:
    path = folder / "file"
    path.write_text('{"a": 1}', encoding="utf-8")
    assert ask(driver, "document", str(path)) == "1 0 "
    path.write_text("{", encoding="utf-8")
    assert ask(driver, "document", str(path)).startswith("0 0 line 1, column 1: ")
    path.write_text("[" * 101, encoding="utf-8")
    # Where it cannot be read, that is the reason, and not that nothing is no document.
    assert ask(driver, "document", str(path)) == f"0 EFBIG {path} cannot be read: File too large; repair it"
    assert ask(driver, "document", str(folder / "none")) == "0 ENOENT "


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622])
def test_a_control_file_that_others_can_write_is_not_read(driver: Path, folder: Path, mode: int) -> None:
    (folder / "file").chmod(mode)
    told = f"{folder}/file: others can write to it (mode {mode:04o}); chmod go-w"
    assert read(driver, folder / "file") == f"EPERM 0 0 {told}"


def test_a_control_file_of_another_user_is_not_read_and_says_whose_it_is(driver: Path, folder: Path) -> None:
    os.chown(folder / "file", OTHER_USER, 0)
    told = f"{folder}/file: belongs to user {OTHER_USER}, neither root nor the loader's own"
    told += ", who can write to it; chown root"
    assert read(driver, folder / "file") == f"EPERM {OTHER_USER} 0 {told}"


def test_a_control_file_in_a_folder_of_others_is_not_read(driver: Path, folder: Path) -> None:
    folder.chmod(0o775)
    told = f"{folder}: others can write to it (mode 0775); chmod go-w"
    assert read(driver, folder / "file") == f"EPERM 0 0 {told}"
    folder.chmod(0o1777)
    assert read(driver, folder / "file") == "0 0 5 [words] 0"
    os.chown(folder, OTHER_USER, 0)
    assert read(driver, folder / "file").startswith(f"EPERM 0 0 {folder}: belongs to user {OTHER_USER}")


def test_a_file_that_is_sticky_is_not_safe_by_that(driver: Path, folder: Path) -> None:
    (folder / "file").chmod(0o1666)
    assert read(driver, folder / "file").startswith("EPERM 0 0")


def test_a_symlink_is_followed_only_where_it_may_and_only_to_what_is_safe(driver: Path, folder: Path) -> None:
    link = folder / "link"
    behind = folder.parent / "behind"
    behind.mkdir(mode=0o755)
    (behind / "real").write_text("there", encoding="utf-8")
    link.symlink_to(behind / "real")
    assert read(driver, link).startswith("ELOOP -1 0 ")
    assert read(driver, link, follow=True) == "0 0 5 [there] 0"
    folder.chmod(0o777)
    assert read(driver, link, follow=True) == f"EPERM -1 0 {folder}: others can write to it (mode 0777); chmod go-w"
    folder.chmod(0o755)
    behind.chmod(0o777)
    assert read(driver, link, follow=True) == f"EPERM 0 0 {behind}: others can write to it (mode 0777); chmod go-w"
    behind.chmod(0o755)
    (behind / "real").unlink()
    assert read(driver, link, follow=True).startswith("ENOENT -1 0")


def test_what_is_no_regular_file_is_not_read_nor_waited_for(driver: Path, folder: Path) -> None:
    os.mkfifo(folder / "fifo", 0o644)
    assert read(driver, folder / "fifo") == f"EINVAL 0 0 {folder}/fifo cannot be read: Invalid argument; repair it"
    (folder / "below").mkdir()
    assert read(driver, folder / "below").startswith("EINVAL 0 0")


def test_the_folder_of_a_control_file_may_be_the_root(driver: Path) -> None:
    assert read(driver, Path("/no-such-file-of-ours")) == "ENOENT -1 0 "
    assert read(driver, Path("/proc")).startswith("EINVAL 0 0")


def test_a_file_is_read_whole_or_not_at_all(driver: Path, folder: Path) -> None:
    for size, told in ((5, "0 words"), (4, "ESTALE -"), (6, "ESTALE -"), (0, "ESTALE -")):
        assert ask(driver, "whole", str(folder / "file"), str(size)) == told
    assert ask(driver, "whole", str(folder), "5") == "EISDIR -"


def test_a_file_beneath_a_folder_is_opened_through_no_symlink(driver: Path, folder: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_text("123", encoding="utf-8")
    (folder / "a/l").symlink_to(folder / "a/b")
    (folder / "a/b/l").symlink_to(folder / "a/b/file")
    ends = {"a/b/file": "0 3", "file": "0 5", "a/l/file": "ENOTDIR -", "a/b/l": "ELOOP -", "a/b": "EINVAL -",
            "a/c/file": "ENOENT -", "file/a": "ENOTDIR -", "x" * 256 + "/a": "ENAMETOOLONG -"}  # fmt: skip
    for path, told in ends.items():
        assert ask(driver, "beneath", str(folder), path) == told, path


def test_a_folder_is_judged_by_its_owner_and_mode(driver: Path, folder: Path) -> None:
    assert ask(driver, "folder", str(folder)) == "0 "
    folder.chmod(0o757)
    assert ask(driver, "folder", str(folder)) == f"EPERM {folder}: others can write to it (mode 0757); chmod go-w"
    os.chown(folder, OTHER_USER, 0)
    assert ask(driver, "folder", str(folder)).startswith(f"EPERM {folder}: belongs to user {OTHER_USER}")
    told = f"ENOENT {folder}/x: cannot be looked at (No such file or directory); see that it is there"
    assert ask(driver, "folder", str(folder / "x")) == told


def test_a_file_is_written_at_once_with_its_mode_and_leaves_no_other(driver: Path, folder: Path) -> None:
    for data, mode in ((b"one", 0o640), (b"another one", 0o604)):
        assert ask(driver, "write", str(folder), "new", f"{mode:o}", data) == "0 "
        assert (folder / "new").read_bytes() == data
        assert (folder / "new").stat().st_mode & 0o7777 == mode
    assert sorted(path.name for path in folder.iterdir()) == ["file", "new"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_part(driver: Path, folder: Path) -> None:
    (folder / "below").mkdir()
    assert ask(driver, "write", str(folder), "below", "644", b"x") == "EISDIR "
    assert ask(driver, "write", str(folder), "n" * 251, "644", b"x") == "ENAMETOOLONG "
    assert ask(driver, "write", str(folder), "n" * 250, "644", b"x") == "0 "
    assert ask(driver, "write", str(folder / "none"), "new", "644", b"x") == "ENOENT "
    assert sorted(path.name for path in folder.iterdir()) == ["below", "file", "n" * 250]


def test_a_part_that_someone_left_is_replaced_and_not_followed(driver: Path, folder: Path) -> None:
    (folder / ".new.tmp").symlink_to(folder / "file")
    assert ask(driver, "write", str(folder), "new", "644", b"x") == "0 "
    assert (folder / "file").read_text(encoding="utf-8") == "words"
    assert not (folder / "new").is_symlink()


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 40000])
def test_the_digest_of_a_file(driver: Path, folder: Path, size: int) -> None:
    data = bytes(at % 251 for at in range(size))
    (folder / "file").write_bytes(data)
    assert ask(driver, "sha", str(folder / "file")) == f"0 {hashlib.sha256(data).hexdigest()}"


def test_the_digest_of_what_cannot_be_read(driver: Path, folder: Path) -> None:
    assert ask(driver, "sha", str(folder)) == "EISDIR -"


def test_a_digest_is_64_lower_case_digits(driver: Path) -> None:
    assert ask(driver, "hex", "ab" + "0" * 60 + "9f") == "0 ab9f"
    for wrong in ("ab" * 31, "ab" * 33, "ab" * 31 + "a", "AB" * 32, "ab" * 31 + "ag", "ab" * 31 + "a ", ""):
        assert ask(driver, "hex", wrong) == "-1 0000", wrong


@pytest.mark.parametrize(("most", "n"), [(10, 5), (10, 10), (10, 11), (64, 64), (1000, 65), (1000, 129), (300, 999)])
def test_a_bag_keeps_each_number_by_its_key_up_to_its_room(driver: Path, most: int, n: int) -> None:
    kept = min(most, n)
    assert ask(driver, "bag", str(most), str(n)) == f"{kept} {kept} {kept} 0 0"
    assert ask(driver, "bag", "0", "3") == "0 0 0 0 0"


def test_a_line_of_the_log_for_people_and_for_the_journal(driver: Path) -> None:
    os.environ.pop("JOURNAL_STREAM", None)
    assert run(driver, "log", "4", "a ~\x1f\x7f\né").stderr.decode() == "ebpf-loader: a ~???é\n"
    assert run(driver, "log", "4", "told", JOURNAL_STREAM="1:2").stderr == b"<4>told\n"
    assert run(driver, "log", "3", "x" * 5000).stderr == b"ebpf-loader: " + b"x" * 4095 + b"\n"


def test_what_nobody_reads_is_lost_counted_and_told_once(driver: Path) -> None:
    assert ask(driver, "lost").splitlines() == [
        "ebpf-loader: 2 messages were lost: no one read them", "ebpf-loader: three", "ebpf-loader: four"
    ]  # fmt: skip


def test_the_table_of_budgets(driver: Path) -> None:
    """As docs/formats/policy.md states them to operators."""
    assert ask(driver, "budgets").splitlines() == [
        "map_fill_ppm ppm EF_BUDGET_MAP_FILL - 1 0 1 1000000 900000",
        "cpu_millicores millicores EF_BUDGET_CPU EF_BUDGET_HOST_CPU 1 1 1 1000000 20",
        f"rss_bytes bytes - EF_BUDGET_HOST_MEMORY 0 1 1 {2**50} {64 * 2**20}",
        f"map_memory_bytes bytes EF_BUDGET_MAP_MEMORY EF_BUDGET_HOST_MAP_MEMORY 1 1 1 {2**50} {128 * 2**20}",
        "event_rate_per_second per_second EF_BUDGET_EVENT_RATE EF_BUDGET_HOST_EVENT_RATE 1 1 1 1000000000 200000",
        "drop_ratio_ppm ppm EF_BUDGET_DROPS - 1 0 0 1000000 10000",
    ]
