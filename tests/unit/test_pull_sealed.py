# SPDX-License-Identifier: GPL-3.0-or-later
"""A published kill list: every refusal by its name, with real signatures; no release's is good here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import signature as sg
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import publish, sealed

from tests.unit.test_manifest import make as make_manifest

NOW = 1_795_716_110
DAY = 86400


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("kill", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    return {name: folder / name for name in ("kill", "other")}


def public(key: Path) -> str:
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def trust(line: str, revoked: str | None = None) -> sg.Trust:
    return sg.Trust(
        "allowed_signers", f"{line}\n".encode(), "revoked_keys", None if revoked is None else revoked.encode()
    )


def listed(sequence: int = 7, issued: int = NOW, expires: int = NOW + DAY, *scopes: str) -> killlist.KillList:
    orders = killlist.parse_orders([{"scope": scope} for scope in scopes or ("global",)])
    return killlist.KillList(sequence, issued, expires, orders)


def code(data: bytes, trusted: sg.Trust, now: float = NOW, seen: killlist.Seen | None = None) -> str:
    try:
        judged = sealed.judge(data, trusted, now, seen)
    except FleetError as error:
        assert error.message.isprintable()
        return error.code
    return "EF_OK" if judged.clock_known else "EF_OK without a clock"


def test_a_good_list_names_its_signer_and_its_digest(keys: dict[str, Path]) -> None:
    data = publish.seal(listed(), keys["kill"])
    judged = sealed.judge(data, trust(f'ops@x namespaces="ebpf-fleet-kill" {public(keys["kill"])}'), NOW, None)
    assert (judged.found, judged.signer, judged.clock_known) == (listed(), "ops@x", True)
    assert judged.digest == sealed.digest_of(data.partition(b"\n")[0] + b"\n")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "EF_OK"), ('namespaces="ebpf-fleet-kill"', "EF_OK"),
        ('namespaces="ebpf-fleet-release,ebpf-fleet-kill"', "EF_OK"),
        ('namespaces="ebpf-fleet-*"', "EF_OK"), ('namespaces="ebpf-fleet-release"', "EF_SIG_NAMESPACE"),
        ('namespaces="ebpf-*,!ebpf-fleet-kill"', "EF_SIG_NAMESPACE"), ('valid-before="20200101Z"', "EF_SIG_EXPIRED"),
        ('valid-after="20990101Z"', "EF_SIG_EXPIRED"), ('valid-before="20990101Z"', "EF_OK"),
    ],
)  # fmt: skip
def test_who_may_sign_kill_lists_is_said_by_the_namespace(keys: dict[str, Path], options: str, expected: str) -> None:
    assert code(publish.seal(listed(), keys["kill"]), trust(f"ops@x {options} {public(keys['kill'])}")) == expected


def test_forged_and_revoked_lists_are_refused(keys: dict[str, Path]) -> None:
    data, ours = publish.seal(listed(), keys["kill"]), trust(f"ops@x {public(keys['kill'])}")
    assert code(data, ours) == "EF_OK"
    assert code(data.replace(b'"sequence":7', b'"sequence":8'), ours) == "EF_SIG_BAD"
    assert code(data.replace(b'"global"', b'"globol"'), ours) == "EF_SIG_BAD"
    assert code(publish.seal(listed(), keys["other"]), ours) == "EF_SIG_UNKNOWN_SIGNER"
    assert code(data, trust(f"ops@x {public(keys['kill'])}", f"{public(keys['kill'])}\n")) == "EF_SIG_REVOKED"
    assert code(data, trust(f"ops@x {public(keys['kill'])}", "not a key\n")) == "EF_TRUST_MALFORMED"
    assert code(data, trust("")) == "EF_TRUST_MALFORMED"
    mixed = data.partition(b"\n")[0] + b"\n" + publish.seal(listed(8), keys["kill"]).partition(b"\n")[2]
    assert code(mixed, ours) == "EF_SIG_BAD"


def test_a_list_cut_at_any_byte_is_refused(keys: dict[str, Path]) -> None:
    data, ours = publish.seal(listed(), keys["kill"]), trust(f"ops@x {public(keys['kill'])}")
    line = data.index(b"\n")
    for end in range(len(data)):
        expected = {"EF_KILL_LIST"} if end <= line else {"EF_SIG_MISSING"} if end == line + 1 else {"EF_SIG_MALFORMED"}
        assert code(data[:end], ours) in expected, end


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data + b"\n", "EF_SIG_MALFORMED"), (lambda data: data + b"x", "EF_SIG_MALFORMED"),
        (lambda data: b"\n" + data, "EF_SIG_MALFORMED"), (lambda data: b"", "EF_KILL_LIST"),
        (lambda data: data.replace(b"\n", b"\r\n"), "EF_SIG_MALFORMED"), (lambda data: data + data, "EF_SIG_MALFORMED"),
        (lambda data: b" " * (killlist.MAX_BYTES - len(data)) + data, "EF_SIG_BAD"),
        (lambda data: b" " * (killlist.MAX_BYTES + 1 - len(data)) + data, "EF_KILL_LIST"),
    ],
    ids=["newline", "byte", "before", "empty", "crlf", "twice", "largest", "larger"],
)  # fmt: skip
def test_bytes_before_between_and_behind_are_refused(keys: dict[str, Path], change, expected: str) -> None:  # type: ignore[no-untyped-def]
    data = publish.seal(listed(), keys["kill"])
    assert code(change(data), trust(f"ops@x {public(keys['kill'])}")) == expected


def signed(key: Path, line: bytes, namespace: str = sealed.NAMESPACE) -> bytes:
    command = ["ssh-keygen", "-Y", "sign", "-n", namespace, "-f", str(key)]
    return line + subprocess.run(command, input=line, check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n", b"[]\n", b"null\n", b"{\n", b"\xff\n", b"[" * 40 + b"]" * 40 + b"\n",
        json.dumps(killlist.as_document(listed())).encode() + b"\n",
        sealed.render(listed()).replace(b"1795716110,", b"1795716110.0,"),
        sealed.render(listed()).replace(b'"sequence":7', b'"sequence":7,"sequence":8'),
    ],
    ids=["empty", "list", "null", "half", "latin", "deep", "spaces", "fraction", "twice"],
)  # fmt: skip
def test_what_is_well_signed_and_no_list_is_refused(keys: dict[str, Path], line: bytes) -> None:
    ours = trust(f"ops@x {public(keys['kill'])}")
    assert code(signed(keys["kill"], sealed.render(listed())), ours) == "EF_OK"
    assert code(signed(keys["kill"], line), ours) == "EF_KILL_LIST"


def test_a_signature_of_another_namespace_is_no_kill_list_and_one_of_a_kill_list_is_no_release(
    keys: dict[str, Path],
) -> None:
    ours = trust(f"ops@x {public(keys['kill'])}")
    for namespace in (sg.NAMESPACE, "file", "ebpf-fleet-kill2", ""):
        if namespace:
            assert code(signed(keys["kill"], sealed.render(listed()), namespace), ours) == "EF_SIG_NAMESPACE"
    release = make_manifest()
    data = release if isinstance(release, bytes) else release.data
    assert sg.verify_signature(data, signed(keys["kill"], data, sg.NAMESPACE)[len(data) :], ours, NOW) == "ops@x"
    with pytest.raises(FleetError) as caught:
        sg.verify_signature(data, signed(keys["kill"], data)[len(data) :], ours, NOW)
    assert caught.value.code == "EF_SIG_NAMESPACE"
    # A release as it is signed, in the form of a kill list, is refused for its namespace and not only for its content.
    assert code(signed(keys["kill"], data, sg.NAMESPACE), ours) == "EF_SIG_NAMESPACE"
    assert code(signed(keys["kill"], data), ours) == "EF_KILL_LIST"


def test_replays_and_expired_lists_by_the_hosts_mark_and_clock(keys: dict[str, Path]) -> None:
    ours = trust(f"ops@x {public(keys['kill'])}")
    data = publish.seal(listed(), keys["kill"])
    seen = killlist.Seen(7, sealed.digest_of(data.partition(b"\n")[0] + b"\n"), NOW)
    assert code(data, ours, seen=seen) == "EF_OK"
    assert code(data, ours, seen=seen._replace(sequence=8)) == "EF_KILL_LIST_REPLAY"
    assert (
        code(publish.seal(listed(7, NOW, NOW + DAY, "feature=a"), keys["kill"]), ours, seen=seen)
        == "EF_KILL_LIST_REPLAY"
    )
    assert code(publish.seal(listed(6), keys["kill"]), ours, seen=seen) == "EF_KILL_LIST_REPLAY"
    assert code(publish.seal(listed(8), keys["kill"]), ours, seen=seen) == "EF_OK"
    assert code(data, ours, NOW + DAY - 1, seen) == "EF_OK"
    assert code(data, ours, NOW + DAY, seen) == "EF_KILL_LIST_EXPIRED"
    # What is both old and over is told as what is worse.
    assert code(publish.seal(listed(6), keys["kill"]), ours, NOW + DAY, seen) == "EF_KILL_LIST_REPLAY"


def test_a_clock_that_stands_before_what_has_been_decides_nothing(keys: dict[str, Path]) -> None:
    slack = sg.CLOCK_SLACK_SECONDS
    ours = trust(f"ops@x {public(keys['kill'])}")
    data = publish.seal(listed(), keys["kill"])
    assert code(data, ours, NOW - slack) == "EF_OK"
    assert code(data, ours, NOW - slack - 1) == code(data, ours, 0) == "EF_OK without a clock"
    # What the host saw before counts as the list's own time does.
    seen = killlist.Seen(6, "a" * 64, NOW + DAY - 1)
    assert code(data, ours, NOW, seen) == "EF_OK without a clock"
    assert code(data, ours, NOW + DAY - 1 - slack, seen) == "EF_OK"
    # What had expired when the newest list was made is over by any clock.
    short = publish.seal(listed(8, NOW, NOW + 1000), keys["kill"])
    newest = killlist.Seen(7, "a" * 64, NOW + 999)
    assert code(short, ours, NOW, newest) == code(short, ours, 0, newest) == "EF_OK without a clock"
    for now in (0, NOW, NOW + 900):
        assert code(short, ours, now, newest._replace(issued=NOW + 1000)) == "EF_KILL_LIST_EXPIRED"
    # A replay is one by any clock; and a key that is trusted for a time is not trusted at an unknown one.
    assert code(data, ours, 0, seen._replace(sequence=8)) == "EF_KILL_LIST_REPLAY"
    limited = trust(f'ops@x valid-before="20990101Z" {public(keys["kill"])}')
    assert (code(data, limited), code(data, limited, 0)) == ("EF_OK", "EF_CLOCK_UNKNOWN")
    begun = trust(f'ops@x valid-after="20200101Z" {public(keys["kill"])}')
    assert (code(data, begun), code(data, begun, 0)) == ("EF_OK", "EF_CLOCK_UNKNOWN")


# ---- the publisher ----


def test_what_is_published_is_read_again_and_what_is_no_list_is_never_replaced(
    keys: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "kill-list"
    assert publish.read_published(path) is None
    publish.write(path, publish.seal(listed(), keys["kill"]))
    assert publish.read_published(path) == listed() and path.stat().st_mode & 0o777 == 0o644
    for data in (b"", b"precious\n", path.read_bytes()[:-5], path.read_bytes().replace(b":7", b":1")):
        path.write_bytes(data)
        with pytest.raises(FleetError, match="is there and is not a kill list"):
            publish.read_published(path)


def test_two_publishers_do_not_give_one_sequence_twice(tmp_path: Path) -> None:
    path = tmp_path / "kill-list"
    with publish.locked(path, False):
        with pytest.raises(FleetError, match="another run publishes") as caught, publish.locked(path, False):
            pass
        with publish.locked(path, True):
            pass
    assert caught.value.code == "EF_LOCKED"
    with publish.locked(path, False):
        pass


def test_a_key_of_another_type_signs_nothing(tmp_path: Path) -> None:
    key = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "", "-f", str(key)], check=True)
    for path in (key, tmp_path / "none"):
        with pytest.raises(FleetError) as caught:
            publish.seal(listed(), path)
        assert caught.value.code == "EF_KEY"
