# SPDX-License-Identifier: GPL-3.0-or-later
"""The trust files: who may have written them, both sides of every limit, times and patterns by their very values."""

from __future__ import annotations

import base64
import calendar
import os
import struct
import time
from pathlib import Path
from typing import Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import signature as sg
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import trustfiles as tf

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
# 2024-03-31T01:30:00Z: in the hour that Berlin's clocks leave out, at 02:30 there, half an hour after the change.
SPRING = calendar.timegm((2024, 3, 31, 1, 30, 0))


def line_of(key: bytes, kind: str = "ssh-ed25519") -> str:
    blob = b"".join(struct.pack(">I", len(part)) + part for part in (kind.encode(), key))
    return f"{kind} {base64.b64encode(blob).decode()}"


def signer(options: str = "", names: str = "me@x", key: bytes = KEY) -> tf.Signer:
    (found,), notes = tf.parse_signers(f"{names} {options} {line_of(key)}\n".encode())
    assert notes == []
    return found


def left_out(line: str) -> str:
    signers, (note,) = tf.parse_signers(f"{line}\n".encode(), "file")
    assert signers == [] and note.startswith("file:1: this line is not used: ")
    return note.partition("used: ")[2]


@pytest.fixture
def berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


# ---- who may have written them ----


def read(folder: Path, required: bool = False) -> tf.Trust:
    return tf.read_trust(str(folder / "signers"), str(folder / "revoked"), required)


def refusal(folder: Path, required: bool = False) -> tuple[str, str]:
    with pytest.raises(FleetError) as found:
        read(folder, required)
    return found.value.code, found.value.message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "trust"
    made.mkdir(mode=0o755)
    (made / "signers").write_text(f"me@x {line_of(KEY)}\n")
    (made / "revoked").write_text(f"{line_of(OTHER)}\n")
    for name in ("signers", "revoked"):
        (made / name).chmod(0o644)
    return made


@needs_root
@pytest.mark.parametrize("name", ["signers", "revoked", "."])
def test_what_another_user_owns_is_not_trusted(folder: Path, name: str) -> None:
    os.chown(folder / name, 65534, 0)
    code, sentence = refusal(folder)
    assert code == "EF_TRUST_MALFORMED" and "belongs to user 65534, neither root nor ours" in sentence
    os.chown(folder / name, 0, 65534)  # of another group alone is fine
    assert read(folder).signers.startswith(b"me@x ")


@pytest.mark.parametrize("name", ["signers", "revoked", "."])
@pytest.mark.parametrize(
    ("mode", "fine"), [(0o644, True), (0o664, False), (0o646, False), (0o755, True), (0o775, False), (0o757, False)]
)
def test_what_others_can_write_is_not_trusted(folder: Path, name: str, mode: int, fine: bool) -> None:
    (folder / name).chmod(mode | (0o111 if name == "." else 0))
    if fine:
        assert read(folder).revoked is not None
    else:
        assert refusal(folder)[0] == "EF_TRUST_MALFORMED"


def test_a_sticky_folder_is_fine_and_a_sticky_file_is_not(folder: Path) -> None:
    folder.chmod(0o1777)
    assert read(folder).signers
    folder.chmod(0o777)
    assert refusal(folder)[0] == "EF_TRUST_MALFORMED"
    folder.chmod(0o755)
    (folder / "signers").chmod(0o1666)
    assert refusal(folder)[0] == "EF_TRUST_MALFORMED"


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(folder: Path) -> None:
    (folder / "signers").write_bytes(b"#" * tf.MAX_TRUST)
    assert len(read(folder).signers) == tf.MAX_TRUST == 1 << 20
    (folder / "signers").write_bytes(b"#" * (tf.MAX_TRUST + 1))
    assert refusal(folder) == (
        "EF_TRUST_MALFORMED",
        f"{folder}/signers: is larger than 1048576 bytes; remove what does not belong there",
    )


def test_only_a_revocation_list_that_is_not_required_may_be_absent(folder: Path) -> None:
    (folder / "revoked").unlink()
    assert read(folder).revoked is None
    assert refusal(folder, required=True)[0] == "EF_TRUST_MISSING"
    (folder / "revoked").write_text("")
    assert read(folder, required=True).revoked == b""
    (folder / "signers").unlink()
    assert refusal(folder)[0] == "EF_TRUST_MISSING"


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "socket of nothing"])
def test_what_is_not_a_regular_file_is_malformed_and_holds_nothing_up(folder: Path, kind: str) -> None:
    path = folder / "revoked"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("signers")
    assert refusal(folder) == ("EF_TRUST_MALFORMED", f"{path}: is not a regular file; put the file itself there")


# ---- times ----


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20240331013000Z", SPRING),
        ("202403310130Z", SPRING),
        ("20240331Z", SPRING - 5400),
        # Without Z it is this host's time: an hour earlier than UTC in winter, two in summer.
        ("20240115120000", calendar.timegm((2024, 1, 15, 11, 0, 0))),
        ("20240715120000", calendar.timegm((2024, 7, 15, 10, 0, 0))),
        ("20240715", calendar.timegm((2024, 7, 14, 22, 0, 0))),
        ("202407151201", calendar.timegm((2024, 7, 15, 10, 1, 0))),
        ("20240715120102", calendar.timegm((2024, 7, 15, 10, 1, 2))),
        ("19700101000001Z", 1),
    ],
)
def test_a_time_is_local_without_z_and_utc_with_it(text: str, seconds: int) -> None:
    found = signer(f'valid-after="{text}"')
    assert (found.valid_after, found.valid_before) == (seconds, None)
    assert signer(f'valid-before="{text}"').valid_before == seconds


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    "text",
    ["19700101000000Z", "19691231Z", "20240230Z", "2024033124Z", "20240331z", "2024", "20240331 0130Z", "",
     "20240331013", "20240331013000ZZ", "99999999Z", "202403310230"],
)  # fmt: skip
def test_what_is_not_a_time_leaves_the_line_out(text: str) -> None:
    """The last one is in the hour that the change of clocks leaves out."""
    assert "a time is not" in left_out(f'me@x valid-after="{text}" {line_of(KEY)}')


def test_a_key_is_valid_from_its_first_second_to_its_last() -> None:
    trust = sg.Trust("s", b"", "r", None)
    found = signer('valid-after="20240331013000Z",valid-before="20240331013010Z"')

    def code(now: int | None) -> str:
        try:
            sg.judge_signer(KEY, trust, tf.Trusted([found], [], []), now)
        except FleetError as error:
            return error.code
        return "EF_OK"

    assert [code(SPRING + at) for at in (-1, 0, 10, 11)] == ["EF_SIG_EXPIRED", "EF_OK", "EF_OK", "EF_SIG_EXPIRED"]
    assert code(None) == "EF_CLOCK_UNKNOWN"


@pytest.mark.parametrize("options", ['valid-after="20200101Z"', 'valid-before="20990101Z"'])
def test_one_limit_in_time_is_enough_to_need_a_clock(options: str) -> None:
    trusted = tf.Trusted([signer(options)], [], [])
    with pytest.raises(FleetError) as found:
        sg.judge_signer(KEY, sg.Trust("s", b"", "r", None), trusted, None)
    assert found.value.code == "EF_CLOCK_UNKNOWN"


def test_a_line_without_limits_needs_no_clock_and_any_line_that_allows_is_enough() -> None:
    trust = sg.Trust("s", b"", "r", None)
    old, free = signer('valid-before="20200101Z"', "old@x"), signer("", "free@x")
    assert sg.judge_signer(KEY, trust, tf.Trusted([old, free], [], []), None) == "free@x"
    assert sg.judge_signer(KEY, trust, tf.Trusted([old, free], [], []), SPRING) == "free@x"
    for revoked, code in (([KEY], "EF_SIG_REVOKED"), ([OTHER], None)):
        if code is None:
            assert sg.judge_signer(KEY, trust, tf.Trusted([free], [], revoked), 1) == "free@x"
            continue
        with pytest.raises(FleetError) as found:
            sg.judge_signer(KEY, trust, tf.Trusted([free], [], revoked), 1)
        assert found.value.code == code


def test_a_time_that_ends_before_it_begins_leaves_the_line_out() -> None:
    def options(first: str, last: str) -> str:
        return f'me@x valid-after="2024010{first}Z",valid-before="2024010{last}Z" {line_of(KEY)}'

    assert "valid-before is not later" in left_out(options("2", "1"))
    assert "valid-before is not later" in left_out(options("2", "2"))
    assert tf.parse_signers(options("1", "2").encode())[1] == []


@pytest.mark.parametrize(("ahead", "known"), [(-301, False), (-300, True), (0, True), (1, True)])
def test_a_clock_may_be_five_minutes_behind_a_time_that_has_been(ahead: int, known: bool) -> None:
    assert sg.clock_known(SPRING + ahead + 0.9, SPRING) is known


# ---- patterns of namespaces ----


@pytest.mark.parametrize(
    ("patterns", "text", "found"),
    [
        ("ebpf-fleet-release", "ebpf-fleet-release", True),
        ("ebpf-fleet-releas", "ebpf-fleet-release", False),
        ("ebpf-fleet-releases", "ebpf-fleet-release", False),
        ("*", "anything", True),
        ("*", "", True),
        ("", "", True),
        ("", "x", False),
        ("?", "x", True),
        ("?", "", False),
        ("?", "xy", False),
        ("a*c", "abbbc", True),
        ("a*c", "abbb", False),
        ("a*b*c", "axbxbc", True),
        ("a**", "a", True),
        ("a*?", "a", False),
        ("git,ebpf-*", "ebpf-x", True),
        ("git,ebpf-*", "file", False),
        # A negated pattern that matches ends it, wherever it stands.
        ("!ebpf-*", "ebpf-x", False),
        ("*,!ebpf-*", "ebpf-x", False),
        ("!ebpf-*,*", "ebpf-x", False),
        ("!git,*", "ebpf-x", True),
        ("!git", "ebpf-x", False),
        ("!*", "ebpf-x", False),
    ],
)
def test_a_pattern_matches_as_opensshs_and_a_negated_one_ends_it(patterns: str, text: str, found: bool) -> None:
    assert sg.matches(patterns, text) is found


@pytest.mark.parametrize(
    ("namespaces", "code"),
    [(None, None), ("*", None), ("ebpf-fleet-release,git", None), ("*,!ebpf-fleet-*", "EF_SIG_NAMESPACE"),
     ("!ebpf-fleet-release", "EF_SIG_NAMESPACE"), ("git", "EF_SIG_NAMESPACE")],
)  # fmt: skip
def test_a_key_signs_only_for_its_namespaces(namespaces: str | None, code: str | None) -> None:
    found = signer("" if namespaces is None else f'namespaces="{namespaces}"')
    assert found.namespaces == namespaces
    trusted = tf.Trusted([found], [], [])
    if code is None:
        assert sg.judge_signer(KEY, sg.Trust("s", b"", "r", None), trusted, SPRING) == "me@x"
        return
    with pytest.raises(FleetError) as error:
        sg.judge_signer(KEY, sg.Trust("s", b"", "r", None), trusted, SPRING)
    assert error.value.code == code


# ---- the lines ----


@pytest.mark.parametrize(
    ("names", "principal"), [("me@x", "me@x"), ("me@x,you@x", "me@x"), ('"me@x,you@x"', "me@x"), ("x", "x")]
)
def test_the_first_name_is_the_principal(names: str, principal: str) -> None:
    assert signer(names=names).principal == principal


@pytest.mark.parametrize("names", ["*", "me?", "!me", "*@x", 'me"x', '"', "me,,you", ",me"])
def test_a_pattern_or_what_cannot_be_read_names_nobody(names: str) -> None:
    assert left_out(f"{names} {line_of(KEY)}")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("me@x", "it is not PRINCIPALS [OPTIONS] KEY"),
        ("me@x ssh-ed25519", "no readable public key"),
        (f"me@x {line_of(KEY[:31])}", "no readable public key"),
        (f"me@x {line_of(KEY + b'x')}", "no readable public key"),
        (f"me@x {line_of(KEY, 'ssh-rsa')}", "its key is of type ssh-rsa; use ssh-ed25519"),
        (f"me@x {line_of(KEY, 'ssh-ed25519-cert-v01')}", "no readable public key"),
        (f'me@x namespaces="a",namespaces="b" {line_of(KEY)}', "an option is given twice"),
        (f'me@x namespaces="a",Namespaces="b" {line_of(KEY)}', "an option is given twice"),
        (f'me@x namespaces="a"; {line_of(KEY)}', "not comma-separated"),
        (f"me@x cert-authority {line_of(KEY)}", "its option 'cert-authority' is not"),
        (f"me@x\x01 {line_of(KEY)}", "a control character"),
    ],
)
def test_a_line_that_cannot_be_used_is_left_out_and_told(line: str, words: str) -> None:
    assert words in left_out(line)


def test_lines_are_numbered_and_a_bad_one_leaves_the_others() -> None:
    text = f"# note\r\n\n  me@x {line_of(KEY)} note\r\nbad\n\tyou@x {line_of(OTHER)}\n"
    signers, notes = tf.parse_signers(text.encode(), "file")
    assert [(one.principal, one.key) for one in signers] == [("me@x", KEY), ("you@x", OTHER)]
    assert [note.split(" ")[0] for note in notes] == ["file:4:"]
    trust = tf.Trust("file", text.encode(), "r", None)
    assert tf.unusable_lines(trust) == notes and tf.parse_trust(trust) == tf.Trusted(signers, notes, [])


@pytest.mark.parametrize("data", [b"", b"# only a note\n", b"bad\n"])
def test_signers_without_a_usable_line_are_a_refusal(data: bytes) -> None:
    with pytest.raises(FleetError) as found:
        tf.parse_trust(tf.Trust("file", data, "r", None))
    assert found.value.code == "EF_TRUST_MALFORMED" and f"not usable: {data.count(b'bad')}" in found.value.message


@pytest.mark.parametrize("reader", [tf.parse_signers, tf.parse_revoked])
@pytest.mark.parametrize("data", [tf.KRL_MAGIC + b"x", b"a\0b\n"])
def test_what_is_not_text_is_a_refusal(reader: object, data: bytes) -> None:
    with pytest.raises(FleetError) as found:
        reader(data, "file")  # type: ignore[operator]
    assert found.value.code == "EF_TRUST_MALFORMED"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (f"{line_of(KEY)}\n", [KEY]),
        (f"# note\n\n{line_of(KEY)} note\n{line_of(OTHER)}", [KEY, OTHER]),
        (f"\xef\xbb\xbf{line_of(KEY)}\n", [KEY]),
        (f"no-pty,no-x {line_of(KEY)}\n", [KEY]),
        # What signs nothing here is no fault.
        (f"{line_of(KEY, 'ssh-rsa')}\n{line_of(OTHER)}\n", [OTHER]),
        ("", []),
    ],
)
def test_a_revocation_list_gives_every_key_that_it_names(text: str, keys: list[bytes]) -> None:
    assert tf.parse_revoked(text.encode("latin-1")) == keys


@pytest.mark.parametrize(
    "line", ["no key", f"{line_of(KEY)} {line_of(OTHER)}", f"\x01{line_of(KEY)}", "#\x01", f"x y {line_of(KEY)}"]
)
def test_a_revocation_that_cannot_be_read_refuses_the_file(line: str) -> None:
    with pytest.raises(FleetError) as found:
        tf.parse_revoked(f"{line_of(OTHER)}\n{line}\n".encode(), "file")
    assert found.value.code == "EF_TRUST_MALFORMED" and "file:2" in found.value.message


# ---- SSH's wire format ----


def test_strings_and_keys_are_taken_to_the_byte() -> None:
    assert tf.take_string(b"\0\0\0\x02abc") == (b"ab", b"c") and tf.take_string(b"\0\0\0\0") == (b"", b"")
    for bad in (b"", b"\0\0\0", b"\0\0\0\x03ab"):
        with pytest.raises(ValueError, match="too early"):
            tf.take_string(bad)
    blob = base64.b64decode(line_of(KEY).split()[1])
    assert tf.take_ed25519(blob, 32) == KEY
    for bad_blob, size in ((blob, 31), (blob, 33), (blob + b"x", 32), (blob.replace(b"25519", b"25518"), 32)):
        with pytest.raises(ValueError, match="is not of the type|too early"):
            tf.take_ed25519(bad_blob, size)


@pytest.mark.parametrize(
    ("text", "data"),
    [("", b""), ("YQ==", b"a"), ("YR==", None), ("YQ=", None), ("YQ", None), ("Y Q==", None), ("YQ==\n", None),
     ("ö", None)],
)  # fmt: skip
def test_base64_has_one_form(text: str, data: bytes | None) -> None:
    assert tf.decode_base64(text) == data
