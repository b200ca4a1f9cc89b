# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loader makes of each file that controls it, by value: orders, desired, lease, policy, sink, watch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.loader.bundles import canonical
from tests.loader.drivers import ask, build
from tests.support.odd_documents import DESIRED, LEASE, Odd
from tests.support.odd_orders import FAMILIES, ORDERS, named

pytestmark = pytest.mark.apart

NEEDED = ("base/*.c", "control/*.c", "bundle/bundle.c", "kernel/kernel.c")
DIGEST, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("control"), "control", NEEDED)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("etc/kill.d", "run/kill.d"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def put(path: Path, document: Any) -> Path:
    path.write_bytes(document if isinstance(document, bytes) else canonical(document))
    return path


# Orders.


def orders(driver: Path, place: Path, *features: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(driver, "orders", str(place / "etc"), str(place / "run"), *features))
    return found


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_by_its_name(driver: Path, place: Path, name: str) -> None:
    (place / "run/kill.d" / named(name, "6.1", "debian-6.1")).touch()
    found = orders(driver, place, "runqlat", "block_io")
    assert [bool(scope) for scope, _, _ in found["off"]] == [ORDERS[name], ORDERS[name] and "feature" not in name]
    assert found["all"] == (ORDERS[name] and "feature" not in name)
    if ORDERS[name]:
        path = str(place / "run/kill.d" / named(name, "6.1", "debian-6.1"))
        code = {"global": "GLOBAL", "family": "FAMILY", "feature": "FEATURE"}[name.split(".")[0]]
        assert found["off"][0] == [Path(path).name, f"EF_KILLED_{code}", path]
        assert found["known"] == [{"scope": Path(path).name, "path": path}] and found["unknown"] == []


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("family.6.2", False), ("family.debian-6.2", False), ("family.opensuse-leap-6.4", False), ("family.0.0", False),
        ("family.9.9", False), ("family.10.100", False),
        ("family.6", True), ("family.6.", True), ("family.6.1x", True), ("family.6.1.2", True), ("family.-6.1", True),
        ("family.a", True), ("family./.1", True), ("family.:6.1", True), ("family.x-", True), ("family.x-y", True),
        ("family.x- 6.1", True), ("feature.none", True), ("feature.", True), ("feature.run", True), ("globa", True),
        ("globals", True), ("familx.6.1", True), ("feature", True), (".global", False), (".x", False),
        # The host is of 6.1, so those two hold. The others are of the table that modules and collector have, too.
        *((f"family.{name}", not meant) for name, meant in FAMILIES.items() if name not in ("6.1", "debian-6.1")),
    ],
)  # fmt: skip
def test_what_is_no_order_of_this_host_is_another_hosts_or_unknown(
    driver: Path, place: Path, name: str, unknown: bool
) -> None:
    if "/" in name:
        name = name.replace("/", ",")
    (place / "etc/kill.d" / name).touch()
    found = orders(driver, place, "runqlat")
    assert found["known"] == [] and found["all"] is False and found["off"] == [["", "", ""]]
    assert found["unknown"] == ([str(place / "etc/kill.d" / name)] if unknown else [])


def test_orders_are_told_in_order_of_their_paths_and_any_one_holds(driver: Path, place: Path) -> None:
    for name in (
        "etc/kill.d/feature.b",
        "etc/kill.d/feature.a",
        "run/kill.d/feature.c",
        "etc/kill.d/y",
        "etc/kill.d/x",
    ):
        (place / name).touch()
    found = orders(driver, place, "a", "b", "c", "d")
    assert [one["scope"] for one in found["known"]] == ["feature.a", "feature.b", "feature.c"]
    assert [scope for scope, _, _ in found["off"]] == ["feature.a", "feature.b", "feature.c", ""]
    assert [Path(one).name for one in found["unknown"]] == ["x", "y"]
    (place / "run/kill.d/family.6.1").touch()
    assert {code for _, code, _ in orders(driver, place, "a", "d")["off"]} == {"EF_KILLED_FAMILY"}
    (place / "run/kill.d/global").touch()
    assert {code for _, code, _ in orders(driver, place, "a", "d")["off"]} == {"EF_KILLED_GLOBAL"}


def test_without_a_bundle_every_feature_is_known(driver: Path, place: Path) -> None:
    (place / "etc/kill.d/feature.whatever").touch()
    (place / "etc/kill.d/feature.").touch()
    found = orders(driver, place, "-")
    assert [one["scope"] for one in found["known"]] == ["feature.whatever"]
    assert [Path(one).name for one in found["unknown"]] == ["feature."]


def test_a_folder_that_is_not_there_holds_no_order_and_one_that_cannot_be_read_holds_all(
    driver: Path, place: Path
) -> None:
    (place / "run/kill.d").rmdir()
    assert orders(driver, place, "a")["all"] is False
    (place / "run/kill.d").touch()
    found = orders(driver, place, "a")
    assert found["all"] and found["off"] == [["global", "EF_KILLED_GLOBAL", str(place / "run/kill.d")]]


def test_a_name_that_is_no_utf_8_is_told_with_marks(driver: Path, place: Path) -> None:
    (place / "run/kill.d" / os.fsdecode(b"z\xff\xfe~")).touch()
    (place / "run/kill.d/zü").touch()
    assert sorted(Path(one).name for one in orders(driver, place)["unknown"]) == ["z??~", "zü"]


@pytest.mark.parametrize(
    ("one", "two", "equal"),
    [
        ([], [], 1),
        (["global"], ["global"], 1),
        (["global"], [], 0),
        (["global"], ["feature.a"], 0),
        (["global"], ["global", "feature.a"], 0),
        (["x"], ["x"], 1),
        (["x"], ["y"], 0),
        (["x"], [], 0),
        (["global", "x"], ["global", "y"], 0),
        (["global", "x"], ["feature.a", "x"], 0),
    ],
)
def test_orders_are_equal_when_each_is(driver: Path, place: Path, one: list[str], two: list[str], equal: int) -> None:
    """Of one folder, as the paths count: the second is read when the first has been changed into it."""
    etc, run = str(place / "etc"), str(place / "run")
    other = place / "other/etc"
    for folder, names in ((place / "etc/kill.d", one), (other / "kill.d", two)):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).touch()
    found = ask(driver, "same", etc, run, etc, run), ask(driver, "same", etc, run, str(other), run)
    assert found == ("1", "1" if not one and not two else "0")
    # The same names at the same place.
    link = place / "now"
    link.symlink_to(place / "etc")
    before = ask(driver, "orders", str(link), run)
    link.unlink()
    link.symlink_to(other)
    assert (before == ask(driver, "orders", str(link), run)) == bool(equal)


# Desired.


def desired(driver: Path, place: Path, document: Any) -> str:
    return ask(driver, "desired", str(put(place / "desired.json", document)), DIGEST)


def wish(**changes: Any) -> dict[str, Any]:
    document = {"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": {"f": {"enabled": True}}}
    return {key: value for key, value in {**document, **changes}.items() if value != "absent"}


def test_wishes_are_taken_as_they_are(driver: Path, place: Path) -> None:
    names = ["a", "z", "a" + "0" * 31, "b_z9"]
    wishes = {name: {"enabled": name != "z", "sample_every": at or 1} for at, name in enumerate(names)}
    found = desired(driver, place, wish(features=wishes)).split()
    assert found[0] == "0"
    assert sorted(found[1:]) == sorted(f"{name}={int(name != 'z')}/{at or 1}" for at, name in enumerate(names))
    assert desired(driver, place, wish(bundle_digest=DIGEST)) == "0 f=1/0 "
    assert desired(driver, place, wish(fallbacks=[])) == "0 f=1/0 "
    assert desired(driver, place, wish(fallbacks=["bcc"])) == "0 f=1/0 "
    assert desired(driver, place, wish(features={})) == "0 "
    for number in (1, 4294967295):
        assert desired(driver, place, wish(features={"f": {"enabled": False, "sample_every": number}})) == (
            f"0 f=0/{number} "
        )


def test_no_file_is_no_wish(driver: Path, place: Path) -> None:
    assert ask(driver, "desired", str(place / "none"), DIGEST) == "1 "


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"schema": "ebpf.fleet/desired/v2"}, "schema", "must be ebpf.fleet/desired/v1"),
        ({"schema": "absent"}, "schema", "must be ebpf.fleet/desired/v1"),
        ({"more": 1}, "more", "is not known here"),
        ({"bundle_digest": "absent"}, "bundle_digest", "must be a digest or null"),
        ({"bundle_digest": 7}, "bundle_digest", "must be a digest or null"),
        ({"bundle_digest": OTHER}, "bundle_digest", "is of another bundle than the one that runs"),
        ({"fallbacks": "bcc"}, "fallbacks", "must be a list"),
        ({"fallbacks": {}}, "fallbacks", "must be a list"),
        ({"fallbacks": ["perl"]}, "fallbacks", "only 'bcc' is known"),
        ({"fallbacks": ["bcc", 7]}, "fallbacks", "only 'bcc' is known"),
        ({"features": "absent"}, "features", "must be an object"),
        ({"features": []}, "features", "must be an object"),
        ({"features": {"A": {"enabled": True}}}, "A", "must be a feature's name, [a-z][a-z0-9_]{0,31}"),
        ({"features": {"`": {"enabled": True}}}, "`", "must be a feature's name"),
        ({"features": {"{": {"enabled": True}}}, "{", "must be a feature's name"),
        ({"features": {"": {"enabled": True}}}, "", "must be a feature's name"),
        ({"features": {"a-b": {"enabled": True}}}, "a-b", "must be a feature's name"),
        ({"features": {"a" * 33: {"enabled": True}}}, "a" * 33, "must be a feature's name"),
        ({"features": {"f": True}}, "f", "must be an object with 'enabled' true or false"),
        ({"features": {"f": {}}}, "f", "must be an object with 'enabled' true or false"),
        ({"features": {"f": {"enabled": 1}}}, "f", "must be an object with 'enabled' true or false"),
        ({"features": {"f": {"enabled": True, "x": 1}}}, "x", "is not known here"),
        *(({"features": {"f": {"enabled": True, "sample_every": every}}}, "sample_every",
           "must be an integer from 1 to 4294967295") for every in (0, -1, 4294967296, "1", 1.5, None)),
        # What was read before the fault does not count either.
        ({"features": {"a": {"enabled": True}, "f": 1}}, "f", "must be an object with 'enabled' true or false"),
    ],
)  # fmt: skip
def test_a_desired_state_with_a_fault_wishes_nothing(
    driver: Path, place: Path, changes: dict[str, Any], field: str, expected: str
) -> None:
    found = desired(driver, place, wish(**changes))
    assert found.startswith(f"2 {place}/desired.json: field '{field}': {expected}")
    assert found.endswith("; deploy the release again")


@pytest.mark.parametrize("odd", DESIRED, ids=lambda odd: odd.name)
def test_an_odd_desired_state(driver: Path, place: Path, odd: Odd) -> None:
    good = canonical(wish(features={"runqlat": {"enabled": True, "sample_every": 7}}))
    found = desired(driver, place, odd.make(good))
    assert found == "0 runqlat=1/7 " if odd.readable else found.startswith("2 ")
    assert found.isprintable() and found.isascii()


# Lease.


def a_lease(**changes: Any) -> dict[str, Any]:
    document = {"schema": "ebpf.fleet/lease/v1", "bundle_digest": DIGEST, "boot_id": "boot",
                "expires_boottime_ns": 1000, "holder": "me"}  # fmt: skip
    return {key: value for key, value in {**document, **changes}.items() if value != "absent"}


def lease(driver: Path, path: Path, now: int = 0, boot: str = "boot") -> tuple[str, Any, str]:
    flags, told, reason = ask(driver, "lease", str(path), DIGEST, boot, str(now)).split("|")
    return flags, json.loads(told), reason


@pytest.mark.parametrize(("now", "left"), [(0, 1000), (999, 1), (1000, 0), (1001, 0)])
def test_a_lease_is_over_at_its_very_moment(driver: Path, place: Path, now: int, left: int) -> None:
    path = put(place / "lease.json", a_lease())
    told = {"expires_boottime_ns": 1000, "left_ns": left, "holder": "me", "expired": left == 0}
    reason = "EF_LEASE_EXPIRED the lease of 'me' ran out unconfirmed; roll out again, or remove it to end the probation"
    assert lease(driver, path, now) == (f"1 0 {int(left == 0)} 0", told, reason)


def test_a_lease_is_of_its_owner(driver: Path, place: Path) -> None:
    path = put(place / "lease.json", a_lease())
    os.chown(path, 12345, 0)
    flags, told, reason = lease(driver, path)
    assert flags == "1 1 1 12345" and told["expired"] is True
    assert reason.startswith(f"EF_LEASE_EXPIRED {path}: belongs to user 12345")


def test_no_lease_or_another_bundles_is_none(driver: Path, place: Path) -> None:
    assert lease(driver, place / "none")[:2] == ("0 0 0 -1", None)
    assert lease(driver, put(place / "file", b"x") / "lease.json")[:2] == ("0 0 0 -1", None)
    assert lease(driver, put(place / "lease.json", a_lease(bundle_digest=OTHER)), 5000)[:2] == ("0 0 0 0", None)


UNUSABLE = {"expires_boottime_ns": None, "left_ns": None, "holder": None, "expired": True}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"schema": "ebpf.fleet/lease/v2"}, "field 'schema': must be ebpf.fleet/lease/v1"),
        ({"schema": "absent"}, "field 'schema': must be ebpf.fleet/lease/v1"),
        ({"more": 1}, "must have schema, bundle_digest, boot_id, expires_boottime_ns and holder, and nothing else"),
        ({"holder": "absent"}, "must have schema, bundle_digest, boot_id, expires_boottime_ns and holder"),
        ({"bundle_digest": "a" * 63}, "field 'bundle_digest': must be 64 hex digits"),
        ({"bundle_digest": "a" * 65}, "field 'bundle_digest': must be 64 hex digits"),
        ({"bundle_digest": None}, "field 'bundle_digest': must be 64 hex digits"),
        ({"boot_id": None}, "field 'boot_id': must be a text"),
        ({"expires_boottime_ns": -1}, "field 'expires_boottime_ns': must be an integer, 0 at least"),
        ({"expires_boottime_ns": "9"}, "field 'expires_boottime_ns': must be an integer, 0 at least"),
        ({"expires_boottime_ns": 1.5}, "field 'expires_boottime_ns': must be an integer, 0 at least"),
        ({"holder": ""}, "field 'holder': must be a text of 1 to 128 bytes"),
        ({"holder": "h" * 129}, "field 'holder': must be a text of 1 to 128 bytes"),
        ({"holder": 7}, "field 'holder': must be a text of 1 to 128 bytes"),
        ({"boot_id": "other"}, "is of another boot of this host"),
        ({"boot_id": ""}, "is of another boot of this host"),
    ],
)
def test_what_is_no_lease_of_this_boot_has_run_out(
    driver: Path, place: Path, changes: dict[str, Any], what: str
) -> None:
    path = put(place / "lease.json", a_lease(**changes))
    flags, told, reason = lease(driver, path)
    assert (flags, told) == ("1 1 1 0", UNUSABLE)
    assert reason.startswith(f"EF_LEASE_EXPIRED {path}: {what}")
    assert reason.endswith("; roll out again, or remove it to end the probation")


def test_both_ends_of_what_a_lease_may_say(driver: Path, place: Path) -> None:
    path = put(place / "lease.json", a_lease(holder="h" * 128, expires_boottime_ns=0))
    assert lease(driver, path)[0] == "1 0 1 0"
    assert lease(driver, path)[1]["holder"] == "h" * 128
    # Where the boot has no name no lease can be of it.
    assert lease(driver, put(place / "lease.json", a_lease(boot_id="")), boot="")[0] == "1 1 1 0"


@pytest.mark.parametrize(("size", "usable"), [(4096, True), (4097, False)])
def test_a_lease_of_4096_bytes_is_read(driver: Path, place: Path, size: int, usable: bool) -> None:
    data = canonical(a_lease())
    assert lease(driver, put(place / "lease.json", data + b" " * (size - len(data))))[0] == (
        "1 0 0 0" if usable else "1 1 1 0"
    )


def test_a_lease_that_is_a_symlink_has_run_out(driver: Path, place: Path) -> None:
    put(place / "real", a_lease())
    (place / "lease.json").symlink_to(place / "real")
    assert lease(driver, place / "lease.json")[0] == "1 1 1 -1"


@pytest.mark.parametrize("odd", LEASE, ids=lambda odd: odd.name)
def test_an_odd_lease(driver: Path, place: Path, odd: Odd) -> None:
    path = put(place / "lease.json", odd.make(canonical(a_lease())))
    assert lease(driver, path)[0] == ("1 0 0 0" if odd.readable else "1 1 1 0")


@pytest.mark.parametrize(
    ("changes", "equal"),
    [({}, 1), ({"holder": "you"}, 0), ({"expires_boottime_ns": 1001}, 0), ({"boot_id": "other"}, 0),
     ({"bundle_digest": OTHER}, 0)],
)  # fmt: skip
def test_leases_are_equal_when_all_that_they_say_is(
    driver: Path, place: Path, changes: dict[str, Any], equal: int
) -> None:
    one, two = put(place / "one", a_lease()), put(place / "two", a_lease(**changes))
    assert ask(driver, "leases", str(one), str(two)) == str(equal)
    assert ask(driver, "leases", str(two), str(two)) == "1"


def test_unusable_leases_differ_by_their_reason(driver: Path, place: Path) -> None:
    one, two = put(place / "one", a_lease(holder="")), put(place / "two", a_lease(holder=""))
    assert ask(driver, "leases", str(one), str(two)) == "0"


# Policy. The driver's contract has {500000, 10, -1, 5000, -1, 20000} for a feature.

DEFAULTS = " 900000 20 67108864 134217728 200000 10000"
OF_CONTRACT = " 500000 10 -1 5000 -1 10000"


def policy(driver: Path, place: Path, document: Any, feature: str = "f") -> list[str]:
    return ask(driver, "policy", str(put(place / "policy.json", document)), feature).split("|")


def a_policy(**more: Any) -> dict[str, Any]:
    return {"schema": "ebpf.fleet/policy/v1", **more}


def test_a_policy_that_says_nothing_leaves_the_defaults(driver: Path, place: Path) -> None:
    assert policy(driver, place, a_policy()) == ["0", DEFAULTS, OF_CONTRACT, "0 ", ""]
    assert policy(driver, place, a_policy(host={}, features={})) == ["0", DEFAULTS, OF_CONTRACT, "0 ", ""]
    assert ask(driver, "policy", str(place / "none"), "f").split("|") == ["1", DEFAULTS, OF_CONTRACT, "0 ", ""]


def test_a_policys_limits_are_the_hosts_and_only_tighten_a_contract(driver: Path, place: Path) -> None:
    host = {"map_fill_ppm": 1, "cpu_millicores": 2, "rss_bytes": 3, "map_memory_bytes": 4, "event_rate_per_second": 5,
            "drop_ratio_ppm": 0}  # fmt: skip
    found = policy(driver, place, a_policy(host=host))
    assert found[1:3] == [" 1 2 3 4 5 0", " 1 10 -1 5000 -1 0"]
    looser = {"map_fill_ppm": 500001, "cpu_millicores": 11, "map_memory_bytes": 5001, "event_rate_per_second": 7,
              "drop_ratio_ppm": 10001}  # fmt: skip
    assert policy(driver, place, a_policy(features={"f": looser}))[2] == " 500000 10 -1 5000 7 10000"
    tighter = {"map_fill_ppm": 499999, "cpu_millicores": 9, "map_memory_bytes": 4999, "drop_ratio_ppm": 9999}
    both = a_policy(features={"e": looser, "f": tighter})
    assert policy(driver, place, both)[2] == " 499999 9 -1 4999 -1 9999"
    assert policy(driver, place, both, "g")[2] == OF_CONTRACT


MOST = {"map_fill_ppm": 1000000, "cpu_millicores": 1000000, "rss_bytes": 2**50, "map_memory_bytes": 2**50,
        "event_rate_per_second": 1000000000, "drop_ratio_ppm": 1000000}  # fmt: skip


@pytest.mark.parametrize("name", MOST)
def test_both_ends_of_each_limit(driver: Path, place: Path, name: str) -> None:
    least = int(name != "drop_ratio_ppm")
    for number, taken in ((least, True), (least - 1, False), (MOST[name], True), (MOST[name] + 1, False)):
        found = policy(driver, place, a_policy(host={name: number}))
        assert found[0] == ("0" if taken else "2"), number
        if taken:
            assert str(number) in found[1].split()
        else:
            told = f"field 'host.{name}': must be an integer from {least} to {MOST[name]}; correct ebpf_fleet_policy"
            assert told in found[4] and found[1] == DEFAULTS
    for odd in ("1", 1.5, None, True):
        assert policy(driver, place, a_policy(host={name: odd}))[0] == "2"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({}, "'schema': must be ebpf.fleet/policy/v1"),
        ({"schema": "ebpf.fleet/policy/v2"}, "'schema': must be ebpf.fleet/policy/v1"),
        (a_policy(more=1), "'more': is not known here"),
        (a_policy(host=[]), "'host': must be an object of limits"),
        (a_policy(host={"x": 1}), "'host.x': is not a known limit"),
        (a_policy(features=[]), "'features': must be an object"),
        (a_policy(features={"f": 1}), "'features.f': must be an object of limits"),
        (a_policy(features={"f": {"rss_bytes": 5}}), "'features.f.rss_bytes': is not a known limit"),
        (a_policy(features={"f": {"x": 5}}), "'features.f.x': is not a known limit"),
        (a_policy(features={"f": {"cpu_millicores": 0}}), "'features.f.cpu_millicores': must be an integer from 1 to"),
        *((a_policy(features={name: {}}), f"'features.{name}': must be a feature's name, [a-z][a-z0-9_]{{0,31}}")
          for name in ("", "A", "`", "{", "a-b", "a" * 33, "9")),
        (a_policy(features={"a\x1f\x7f": {}}), "'features.a??': must be a feature's name"),
        (a_policy(sink={"kind": "x"}), "'sink': sink.kind must be jsonl, journal, datagram or count"),
        # What was read before the fault does not count either.
        (a_policy(host={"cpu_millicores": 5}, features={"f": {"cpu_millicores": 5}, "g": 1}), "'features.g'"),
    ],
)  # fmt: skip
def test_a_policy_with_a_fault_is_the_defaults(driver: Path, place: Path, document: Any, told: str) -> None:
    found = policy(driver, place, document)
    assert found[:4] == ["2", DEFAULTS, OF_CONTRACT, "0 "]
    assert f"{place}/policy.json: field {told}" in found[4]
    assert found[4].endswith("; correct ebpf_fleet_policy and run the role ebpf.fleet.prepare again")


def test_a_policy_that_is_no_json_says_where(driver: Path, place: Path) -> None:
    assert "line 1, column 3" in policy(driver, place, b"{ \xc3\xa9")[4]
    assert policy(driver, place, b'{"schema": 1, "schema": 2}')[0] == "2"


def test_names_of_features_in_a_policy_have_32_characters_at_most(driver: Path, place: Path) -> None:
    for name in ("z", "a" + "0" * 31):
        assert policy(driver, place, a_policy(features={name: {"cpu_millicores": 5}}), name)[2].split()[1] == "5"


def test_a_policys_sink_is_read(driver: Path, place: Path) -> None:
    document = a_policy(sink={"kind": "datagram", "path": "/run/x.sock"})
    assert policy(driver, place, document)[3] == "2 /run/x.sock"


@pytest.mark.parametrize(
    ("one", "two", "equal"),
    [
        ({}, {}, 1),
        ({"host": {"cpu_millicores": 5}}, {}, 0),
        ({"host": {"cpu_millicores": 5}}, {"host": {"cpu_millicores": 5}}, 1),
        ({"features": {"f": {}}}, {}, 0),
        ({"features": {"f": {}}}, {"features": {"f": {}}}, 1),
        ({"features": {"f": {}}}, {"features": {"g": {}}}, 0),
        ({"features": {"f": {"cpu_millicores": 5}}}, {"features": {"f": {"cpu_millicores": 6}}}, 0),
        ({"features": {"e": {}, "f": {"cpu_millicores": 5}}}, {"features": {"e": {}, "f": {"cpu_millicores": 6}}}, 0),
    ],
)
def test_policies_are_equal_when_all_limits_are(driver: Path, place: Path, one: Any, two: Any, equal: int) -> None:
    first, second = put(place / "one", a_policy(**one)), put(place / "two", a_policy(**two))
    assert ask(driver, "policies", str(first), str(second)) == str(equal)
    assert ask(driver, "policies", str(second), str(first)) == str(equal)


# Sink.

JSONL = "0 [] [] 16777216 8"


def sink(driver: Path, document: Any) -> str:
    return ask(driver, "sink", json.dumps(document))


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({}, JSONL),
        ({"kind": "jsonl"}, JSONL),
        ({"kind": "journal"}, "1 [] [] 16777216 8"),
        ({"kind": "datagram", "path": "/a"}, "2 [/a] [] 16777216 8"),
        ({"kind": "count"}, "3 [] [] 16777216 8"),
        ({"file_bytes": 65536, "files": 1}, "0 [] [] 65536 1"),
        ({"file_bytes": 4294967296, "files": 16}, "0 [] [] 4294967296 16"),
        ({"files": 2, "cursor": "/" + "c" * 106}, f"0 [] [/{'c' * 106}] 16777216 2"),
        ({"kind": "datagram", "path": "/" + "~" * 106}, f"2 [/{'~' * 106}] [] 16777216 8"),
        ({"kind": "datagram", "path": "/a/..b/.c/d."}, "2 [/a/..b/.c/d.] [] 16777216 8"),
    ],
)
def test_a_sink_that_can_be(driver: Path, document: Any, told: str) -> None:
    assert sink(driver, document) == f"0 {told} "


PATH = "must be the absolute path of a {}: at most 107 printable characters, no blanks, no '//', '.' or '..'"
ODD_PATHS = ["a", "", "/", "/a/", "/a//b", "/a/../b", "/a/./b", "/a b", "/a\x7f", "/a\x1f", "/é", "/" + "c" * 107, 7]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "kind is missing: sink must be an object"),
        ({"kind": "Jsonl"}, "kind must be jsonl, journal, datagram or count"),
        ({"kind": 7}, "kind must be jsonl, journal, datagram or count"),
        ({"more": 7}, "more is not known here"),
        ({"path": "/a"}, "path is for the kind datagram only"),
        ({"kind": "datagram"}, "path " + PATH.format("Unix socket")),
        ({"file_bytes": 65535}, "file_bytes must be an integer from 65536 to 4294967296"),
        ({"file_bytes": 4294967297}, "file_bytes must be an integer from 65536 to 4294967296"),
        ({"file_bytes": "65536"}, "file_bytes must be an integer from 65536 to 4294967296"),
        ({"files": 0}, "files must be an integer from 1 to 16"),
        ({"files": 17}, "files must be an integer from 1 to 16"),
        ({"files": 2.0}, "files must be an integer from 1 to 16"),
        ({"kind": "count", "files": 2}, "files is for the kind jsonl only"),
        ({"kind": "journal", "file_bytes": 65536}, "file_bytes is for the kind jsonl only"),
        ({"files": 1, "cursor": "/c"}, "cursor is for the kind jsonl with 2 files or more"),
        ({"kind": "count", "cursor": "/c"}, "cursor is for the kind jsonl with 2 files or more"),
        *(({"cursor": path}, "cursor " + PATH.format("file")) for path in ODD_PATHS),
        *(({"kind": "datagram", "path": path}, "path " + PATH.format("Unix socket")) for path in ODD_PATHS),
    ],
)
def test_a_sink_that_cannot_be_is_the_default(driver: Path, document: Any, told: str) -> None:
    assert sink(driver, document) == f"-1 {JSONL} sink.{told}"


# What the watch sees.


def watch(driver: Path, paths: list[str], command: str) -> str:
    return ask(driver, "watch", *paths, "--", command)


@pytest.mark.parametrize(
    ("paths", "change", "seen"),
    [
        (["{}/etc/kill.d/"], "touch {}/etc/kill.d/global", True),
        (["{}/etc/kill.d/"], "rm -r {}/etc/kill.d", True),
        (["{}/etc/kill.d/"], "mv {}/etc/kill.d {}/etc/x", True),
        (["{}/etc/kill.d/"], "mv {}/etc {}/x", True),
        (["{}/etc/kill.d/", "{}/run/kill.d/"], "touch {}/run/kill.d/global", True),
        (["{}/etc/kill.d/", "{}/none/kill.d/"], "touch {}/run/kill.d/x", False),
        # Not there yet: the nearest one above that is.
        (["{}/none/kill.d/"], "mkdir {}/none", True),
        (["{}/none/below/kill.d/"], "mkdir {}/none", True),
        (["{}/etc/kill.d/", "{}/etc/desired.json"], "touch {}/etc/desired.json", True),
        (["{}/etc/kill.d/", "{}/etc/desired.json"], "touch {}/run/kill.d/x {}/y", False),
        (["{}/etc/kill.d/", "{}/etc/a", "{}/b"], "touch {}/b", True),
        # Links on the way: where each lies, and where it leads.
        (["{}/etc/kill.d/", "{}/link/file"], "touch {}/real/file", True),
        (["{}/etc/kill.d/", "{}/link/file"], "ln -sfn other {}/link", True),
        (["{}/etc/kill.d/", "{}/sub/link/file"], "touch {}/real/file", True),
        (["{}/etc/kill.d/", "{}/sub/link/file"], "touch {}/sub/x", True),
        (["{}/etc/kill.d/", "{}/absolute/file"], "touch {}/real/file", True),
        (["{}/etc/kill.d/", "{}/absolute/file"], "touch {}/sub/x", False),
        (["{}/link/"], "touch {}/real/x", True),
        (["{}/loop/x"], "true", False),
    ],
)
def test_a_change_that_bears_on_what_is_watched_is_seen(
    driver: Path, place: Path, paths: list[str], change: str, seen: bool
) -> None:
    for name in ("real", "other", "sub"):
        (place / name).mkdir()
    (place / "link").symlink_to("real")
    (place / "sub/link").symlink_to("../real")
    (place / "absolute").symlink_to(place / "real")
    (place / "loop").symlink_to("loop")
    given = [path.replace("{}", str(place)) for path in paths]
    assert watch(driver, given, change.replace("{}", str(place))) == ("seen" if seen else "not seen")


def test_paths_that_have_no_folder_are_watched_where_we_are(driver: Path, place: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(place)
    assert watch(driver, ["file"], "touch file") == "seen"
    assert watch(driver, ["none/x/"], "touch other") == "seen"
    assert watch(driver, ["/no-such-file-of-ours"], "true") == "not seen"
