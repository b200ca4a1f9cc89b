# SPDX-License-Identifier: GPL-3.0-or-later
"""Events from outside: who is heard, what an alert may ask for, how often it is done, and what the log says."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.events import alerts, desk, options, senders
from ansible_collections.ebpf.fleet.plugins.module_utils.events.rates import Limits, Rates
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope as kill_scope

TOKEN, OTHER, KEY = "t" * 40, "o" * 40, "k" * 40
SENDERS = senders.parse(f"# who\n\nops token {TOKEN}\nnight token {OTHER}\nrelay hmac {KEY}\n".encode(), "FILE")
NOW = 1_790_000_000.0
BEARER = [("Content-Type", "application/json"), ("Authorization", f"Bearer {TOKEN}")]
ALERT: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "Costly", "ebpf_fleet_action": "kill", "ebpf_fleet_scope": "feature=runqlat"},
    "annotations": {"summary": "{{ 7 * 7 }}"}, "startsAt": "2026-11-28T12:00:00.5Z", "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph", "fingerprint": "0123456789abcdef",
}  # fmt: skip


def alert(scope: str | None = "feature=runqlat", action: str | None = "kill", **more: Any) -> dict[str, Any]:
    """ALERT with other labels; None takes a label away, and what is named more is of the alert itself."""
    labels = {"alertname": "Costly", "ebpf_fleet_action": action, "ebpf_fleet_scope": scope}
    return {**ALERT, "labels": {name: one for name, one in labels.items() if one is not None}, **more}


def document(*given: Any, **more: Any) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "receiver": "ebpf", "groupKey": "{}:{}", "groupLabels": {},
            "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://a", "truncatedAlerts": 0,
            "alerts": list(given) or [ALERT], **more}  # fmt: skip


def body(*given: Any, **more: Any) -> bytes:
    return json.dumps(document(*given, **more)).encode()


def request(
    data: bytes | None = None, headers: Any = None, wall: float = NOW, ticks: float = 0.0, remote: str = "127.0.0.1"
) -> desk.Request:
    return desk.Request(remote, BEARER if headers is None else headers, body() if data is None else data, wall, ticks)


def front(limits: Limits | None = None, allow_everything: bool = False) -> desk.Desk:
    return desk.Desk(SENDERS, limits or Limits(), allow_everything)


# --- the file of secrets ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names 0 senders"),
        ("# none\n", "names 0 senders"),
        ("\n".join(f"s{at} token {at:040d}" for at in range(101)), "names 101 senders"),
        (f"ops token {TOKEN} more", "line 1: is not of the form"),
        (f"ops {TOKEN}", "line 1: is not of the form"),
        (f"\nops plain {TOKEN}", "line 2: is not of the form"),
        (f"o/s token {TOKEN}", "name with other letters"),
        (f"{'n' * 65} token {TOKEN}", "name with other letters"),
        ("ops token short", "not of 32 to 512 visible letters"),
        (f"ops token {'t' * 31}", "not of 32 to 512 visible letters"),
        (f"ops token {'t' * 513}", "not of 32 to 512 visible letters"),
        (f"ops token {TOKEN}\nops hmac {KEY}", "line 2: names ops for the second time"),
        (f"ops token {TOKEN}\nday token {TOKEN}", "line 2: has the secret of another"),
        (f"ops token {'ü' * 40}", "not ASCII"),
    ],
)
def test_a_file_of_secrets_that_cannot_be_used_names_the_line_and_no_secret(text: str, says: str) -> None:
    with pytest.raises(FleetError) as caught:
        senders.parse(text.encode(), "/x/secrets")
    assert caught.value.code == "EF_EVENT_SECRETS" and says in caught.value.message
    assert caught.value.message.startswith("/x/secrets") and caught.value.file == "/x/secrets"
    assert TOKEN not in caught.value.message and "short" not in caught.value.message


def test_a_file_of_secrets_gives_its_senders() -> None:
    assert [(one.name, one.kind, one.secret.decode()) for one in SENDERS] == [
        ("ops", "token", TOKEN), ("night", "token", OTHER), ("relay", "hmac", KEY),
    ]  # fmt: skip
    longest = senders.parse(f"{'n' * 64} token {'t' * 512}\nb hmac {'k' * 32}".encode(), "FILE")
    assert [len(one.secret) for one in longest] == [512, 32]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
@pytest.mark.parametrize("owner", [0, 1000])
def test_a_private_file_of_the_reader_or_of_root_is_read(mode: int, owner: int) -> None:
    senders.check_place(0o100000 | mode, owner, 1000, "FILE")


@pytest.mark.parametrize(
    ("mode", "owner", "says"),
    [(0o640, 1000, "mode 0640"), (0o604, 0, "mode 0604"), (0o620, 1000, "mode 0620"), (0o600, 1001, "the user 1001")],
)
def test_a_file_that_others_may_read_or_own_is_refused(mode: int, owner: int, says: str) -> None:
    with pytest.raises(FleetError, match=says) as caught:
        senders.check_place(0o100000 | mode, owner, 1000, "FILE")
    assert caught.value.code == "EF_EVENT_SECRETS"


# --- who sends ---


def signed(data: bytes, at: float = NOW, key: str = KEY, name: str = "relay", **other: str) -> list[tuple[str, str]]:
    own = {"X-Ebpf-Fleet-Sender": name, "X-Ebpf-Fleet-Time": str(int(at)),
           "X-Ebpf-Fleet-Signature": senders.sign(key.encode(), int(at), data)}  # fmt: skip
    return [(name, value) for name, value in {**own, **other}.items() if value]


def test_the_signature_is_hmac_sha256_over_time_dot_body() -> None:
    """By RFC 2104 written out, as a sender in another language would."""
    padded = KEY.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(one ^ 0x36 for one in padded) + b"1790000000.{}").digest()
    outer = hashlib.sha256(bytes(one ^ 0x5C for one in padded) + inner).hexdigest()
    assert senders.sign(KEY.encode(), 1790000000, b"{}") == outer


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (BEARER, "ops"),
        ([("authorization", f"bearer {OTHER}")], "night"),
        ([("Authorization", f"Bearer  {TOKEN} ")], "ops"),
        (signed(b"{}"), "relay"),
        (signed(b"{}", NOW - senders.SIGNED_WITHIN), "relay"),
        (signed(b"{}", NOW + senders.SIGNED_WITHIN), "relay"),
    ],
)
def test_a_sender_is_known_by_its_token_or_signature(headers: Any, name: str) -> None:
    assert senders.Door(SENDERS).admit(senders.Attempt(headers, b"{}", NOW)) == name


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([], "neither a token nor a signature"),
        ([("X-Token", TOKEN)], "neither a token nor a signature"),
        ([("Authorization", f"Basic {TOKEN}")], "not a Bearer token"),
        ([("Authorization", TOKEN)], "not a Bearer token"),
        ([("Authorization", "Bearer ")], "of no sender"),
        ([("Authorization", f"Bearer {TOKEN[:-1]}")], "of no sender"),
        ([("Authorization", f"Bearer {TOKEN}t")], "of no sender"),
        ([("Authorization", f"Bearer {KEY}")], "of no sender"),
        ([("Authorization", "Bearer \udcff")], "of no sender"),
        ([*BEARER, ("AUTHORIZATION", f"Bearer {TOKEN}")], "there twice"),
        ([*BEARER, *signed(b"{}")], "a token and a signature"),
        (signed(b"{}", key=TOKEN), "signature is of no sender"),
        (signed(b"{}", name="ops", key=TOKEN), "signature is of no sender"),
        (signed(b"{}", name="ghost", key="\0" * 32), "signature is of no sender"),
        (signed(b"{ }"), "signature is of no sender"),
        (signed(b"{}", **{"X-Ebpf-Fleet-Time": str(int(NOW) + 1)}), "signature is of no sender"),
        (signed(b"{}", **{"X-Ebpf-Fleet-Time": ""}), "needs all of"),
        (signed(b"{}", **{"X-Ebpf-Fleet-Sender": ""}), "needs all of"),
        (signed(b"{}", **{"X-Ebpf-Fleet-Signature": ""}), "needs all of"),
        (signed(b"{}", **{"X-Ebpf-Fleet-Signature": "A" * 64}), "not 64 hexadecimal digits"),
        (signed(b"{}", **{"X-Ebpf-Fleet-Signature": "a" * 65}), "not 64 hexadecimal digits"),
        (signed(b"{}", **{"X-Ebpf-Fleet-Time": "-1"}), "whole seconds"),
        (signed(b"{}", **{"X-Ebpf-Fleet-Time": "1" * 13}), "whole seconds"),
        (signed(b"{}", NOW - senders.SIGNED_WITHIN - 1), "set both clocks"),
        (signed(b"{}", NOW + senders.SIGNED_WITHIN + 1), "set both clocks"),
    ],
)
def test_who_is_not_a_sender_is_refused(headers: Any, says: str) -> None:
    with pytest.raises(FleetError, match=re.escape(says)) as caught:
        senders.Door(SENDERS).admit(senders.Attempt(headers, b"{}", NOW))
    assert caught.value.code == "EF_EVENT_SENDER"


def test_a_signature_is_good_once_for_as_long_as_its_time_would_be() -> None:
    door = senders.Door(SENDERS)
    first = signed(b"{}", NOW + senders.SIGNED_WITHIN)
    door.admit(senders.Attempt(first, b"{}", NOW))
    for later in (0, 1, 2 * senders.SIGNED_WITHIN):
        with pytest.raises(FleetError, match="used before"):
            door.admit(senders.Attempt(first, b"{}", NOW + later))
    with pytest.raises(FleetError, match="set both clocks"):
        door.admit(senders.Attempt(first, b"{}", NOW + 2 * senders.SIGNED_WITHIN + 1))
    assert door.admit(senders.Attempt(signed(b"{}", NOW + 1), b"{}", NOW + 1)) == "relay"


def test_more_signatures_than_can_be_remembered_are_refused_until_old_ones_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(senders, "MAX_SEEN", 2)
    door = senders.Door(SENDERS)
    for data in (b"1", b"2"):
        door.admit(senders.Attempt(signed(data), data, NOW))
    with pytest.raises(FleetError, match="send fewer"):
        door.admit(senders.Attempt(signed(b"3"), b"3", NOW))
    later = NOW + senders.SIGNED_WITHIN + 1
    assert door.admit(senders.Attempt(signed(b"3", later), b"3", later)) == "relay"


# --- the document ---


def changed(path: str, value: Any) -> bytes:
    """The document with one thing changed: keys and positions joined by dots; KeyError stands for taken away."""
    found = copy.deepcopy(document())
    *way, last = [int(one) if one.isdigit() else one for one in path.split(".")]
    inner: Any = found
    for one in way:
        inner = inner[one]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(found).encode()


LONG = "x" * (alerts.MAX_VALUE + 1)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "the body"),
        (b"\xff{}", "the body"),
        (b"[]", "the body is not an object"),
        (b'{"version": NaN}', "the body"),
        (b"[" * 100, "the body is nested"),
        *[(changed("version", value), "version is not") for value in (KeyError, 4, "3", None)],
        *[(changed("status", value), "status is neither") for value in (KeyError, "ended", 1, ["firing"])],
        *[(changed(name, value), name) for name in ("receiver", "groupKey") for value in (KeyError, None, 1, LONG)],
        *[(changed("alerts", value), "alerts is not a list") for value in (KeyError, None, {}, [], [ALERT] * 501)],
        *[(changed("alerts.0", value), "alerts[0] is not an object") for value in (None, "x", [])],
        *[(changed("alerts.0.status", value), "alerts[0].status") for value in (KeyError, "x", None, {})],
        *[(changed("alerts.0.fingerprint", value), "alerts[0].fingerprint")
          for value in (KeyError, 1, "", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0")],
        *[(changed("alerts.0.startsAt", value), "alerts[0].startsAt")
          for value in (KeyError, 5, "", "yesterday", "2026-11-28 12:00:00Z", "2026-11-28T12:00:00",
                        "2026-11-28T12:00:00Z\n")],
        *[(changed("alerts.0.labels", value), "alerts[0].labels is not an object")
          for value in (KeyError, None, [], {}, {f"l{at}": "x" for at in range(65)})],
        *[(changed("alerts.0.labels", value), "alerts[0].labels has a label")
          for value in ({"a-b": "x"}, {"": "x"}, {"1a": "x"}, {"l" * 201: "x"}, {"a\n": "x"})],
        *[(changed("alerts.0.labels.alertname", value), "alerts[0].labels.alertname") for value in (None, 1, [], LONG)],
    ],
)  # fmt: skip
def test_each_field_that_is_not_as_alertmanager_sends_it_is_named(data: bytes, field: str) -> None:
    with pytest.raises(FleetError) as caught:
        alerts.read(data)
    assert caught.value.code == "EF_EVENT_MALFORMED" and caught.value.message.startswith(field), caught.value.message


def test_what_alertmanager_may_add_and_the_longest_that_is_taken_are_read() -> None:
    labels = {f"l{at}": "x" * alerts.MAX_VALUE for at in range(alerts.MAX_LABELS)}
    found = alerts.read(body(*[{**ALERT, "labels": labels}] * 2, ALERT, futureField={"a": [1]}))
    assert [len(one.labels) for one in found] == [64, 64, 3] and found[2].firing
    assert (found[2].name, found[0].name) == ("Costly", "without a name")
    assert len(alerts.read(body(*[{**ALERT, "labels": {"a": "b"}}] * alerts.MAX_ALERTS))) == alerts.MAX_ALERTS


# --- what an alert asks for ---


def wish(given: dict[str, Any], allow_everything: bool = False) -> alerts.Wish | None:
    (found,) = alerts.read(body(given))
    return alerts.asked(found, allow_everything)


@pytest.mark.parametrize(
    ("scope", "is_kept_as"),
    [
        ("feature=runqlat", "feature=runqlat"),
        ("feature=runqlat,cell=a", "feature=runqlat,cell=a"),
        ("cell=a", "cell=a"),
        ("host=web1.example.org", "host=web1.example.org"),
        ("host=web1,host=web2", "host=web1,host=web2"),
        ("feature=runqlat,host=web*", "feature=runqlat,host=web*"),
        ("host=web1,feature=runqlat", "feature=runqlat,host=web1"),
        ("kernel_family=6.1,cell=a", "kernel_family=6.1,cell=a"),
        ("kernel_family=debian-6.1,host=web1", "kernel_family=debian-6.1,host=web1"),
    ],
)
def test_a_bounded_scope_is_what_rollback_takes(scope: str, is_kept_as: str) -> None:
    found = wish(alert(scope))
    assert found is not None and (found.action, found.scope) == ("kill", is_kept_as)
    assert kill_scope.read(found.scope) == kill_scope.read(scope)
    assert found.reason == "alert Costly since 2026-11-28T12:00:00.5Z, fingerprint 0123456789abcdef"


EVERYTHING = ["global", "host=all", "host=*", "host=web*", "host=web1,host=all", "kernel_family=6.1", "host=!web1",
              "kernel_family=6.1,host=all", "host=~.*", "host=web[1:9]", "host=a:b", "host=ungrouped"]  # fmt: skip


@pytest.mark.parametrize("scope", EVERYTHING)
def test_what_may_be_everything_needs_the_rulebooks_word(scope: str) -> None:
    with pytest.raises(FleetError, match="allow_everything") as caught:
        wish(alert(scope))
    assert caught.value.code == "EF_EVENT_SCOPE"
    found = wish(alert(scope), allow_everything=True)
    assert found is not None and found.scope == scope


INJECTED = [f"feature=runqlat{letter}" for letter in "{}%#'\"\\ \t\n$`;|<>()^?ü\0"] + [
    "host={{ lookup('pipe', 'id') }}", "host={%x%}", "feature=runqlat,host=a b",
]  # fmt: skip


@pytest.mark.parametrize("scope", INJECTED)
def test_no_letter_passes_that_begins_a_template_or_means_something_to_a_shell(scope: str) -> None:
    for everything in (False, True):
        with pytest.raises(FleetError, match="one that no event may have") as caught:
            wish(alert(scope), everything)
        assert caught.value.code == "EF_EVENT_SCOPE"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (alert(None), "ebpf_fleet_scope is not there"),
        (alert(""), "ebpf_fleet_scope is not there"),
        (alert("previous"), "no event does that"),
        (alert("previous,cell=a"), "no event does that"),
        (alert("everything"), "is not one"),
        (alert("feature="), "is not one"),
        (alert("feature=a,feature=b"), "given twice"),
        (alert("feature=../../etc"), "is not one"),
        (alert("feature=" + "a" * 512), "more than 512 letters"),
        (alert(action="kil"), "did you mean 'kill'"),
        (alert(action="release"), "is not an action"),
        (alert(action="released"), "is not an action"),
        (alert("feature=runqlat,cell=a", "reduce"), "reduce takes feature= and host="),
        (alert("kernel_family=6.1,host=web1", "reduce"), "reduce takes feature= and host="),
    ],
)
def test_what_no_event_may_ask_for_is_refused(given: dict[str, Any], says: str) -> None:
    for everything in (False, True):
        with pytest.raises(FleetError, match=re.escape(says)) as caught:
            wish(given, everything)
        assert caught.value.code == "EF_EVENT_SCOPE"


def test_an_alert_that_asks_for_nothing_is_not_of_us() -> None:
    assert wish(alert(action=None)) is None and wish(alert(action="", scope="global")) is None


def test_a_reduction_names_hosts_and_feature() -> None:
    one, all_of_it = wish(alert("host=web1,feature=runqlat", "reduce")), wish(alert("feature=runqlat", "reduce"))
    assert one is not None and (one.hosts, one.feature) == (("web1",), "runqlat")
    assert all_of_it is not None and alerts.variables(all_of_it)["hosts"] == ["all"]
    assert alerts.variables(one)["hosts"] == ["web1"]


def test_an_alerts_name_becomes_letters_that_begin_no_template() -> None:
    labels = {**ALERT["labels"], "alertname": "{{ lookup('pipe','id') }}{%x%}{#y#}\n\x1b[2J\ud800" + "n" * 300}
    (outcome,) = [front().decide(request(body({**ALERT, "labels": labels})))]
    (event,) = outcome.events
    assert re.fullmatch(r"alert [A-Za-z0-9_.,:/? -]+", event["ebpf_fleet"]["reason"])
    assert not set("{}%#'\"\\\n\x1b") & set(
        "".join(str(one) for one in event["ebpf_fleet"].values() if isinstance(one, str))
    )
    assert len(event["ebpf_fleet"]["alert"]) == 100


# --- how often ---


def test_the_window_slides_and_a_refused_action_counts_for_nothing() -> None:
    rates = Rates(Limits(actions=2, per_scope=2, window=100))
    assert [rates.take(f"a{at}", "kill", f"s{at}", float(at)) for at in (0, 10)] == [0, 0]
    assert [rates.take("a2", "kill", "s2", at) for at in (20.0, 20.5, 99.5)] == [80, 80, 1]
    assert rates.take("a2", "kill", "s2", 100.0) == 0, "the first one is out of the window"
    assert rates.take("a3", "kill", "s3", 109.9) == 1 and rates.take("a3", "kill", "s3", 110.0) == 0


def test_one_scope_has_its_own_bound() -> None:
    rates = Rates(Limits(actions=10, per_scope=2, window=100))
    assert [rates.take(f"a{at}", "kill", "feature=a", 0.0) for at in range(3)] == [0, 0, 100]
    assert rates.take("b", "kill", "feature=b", 1.0) == 0 and rates.take("c", "reduce", "feature=a", 1.0) == 0
    assert not rates.known("a2") and rates.known("a1")


def test_reductions_hold_up_no_kill() -> None:
    rates = Rates(Limits(actions=2, per_scope=2, window=100))
    assert [rates.take(f"a{at}", "reduce", f"s{at}", 0.0) for at in range(3)] == [0, 0, 100]
    assert rates.take("b", "kill", "s", 0.0) == 0


def test_where_both_bounds_are_reached_the_longer_wait_is_told() -> None:
    rates = Rates(Limits(actions=2, per_scope=1, window=100))
    assert [rates.take("a", "kill", "one", 0.0), rates.take("b", "kill", "two", 40.0)] == [0, 0]
    assert rates.take("c", "kill", "two", 50.0) == 90 and rates.take("c", "kill", "one", 50.0) == 50


def test_the_oldest_alert_is_forgotten_first_and_memory_is_bounded() -> None:
    rates = Rates(Limits(actions=10**9, per_scope=10**9, window=1))
    for at in range(10_001):
        rates.take(f"a{at}", "kill", "s", at * 2.0)
    assert not rates.known("a0") and rates.known("a1") and rates.known("a10000")


# --- a request as a whole ---


def test_a_kill_is_taken_once_and_the_log_says_who_what_and_why() -> None:
    one = front()
    first, second = one.decide(request()), one.decide(request(ticks=1.0))
    assert (first.status, first.sentence, len(first.events)) == (200, "taken", 1)
    assert first.events[0] == {
        "ebpf_fleet": {
            "action": "kill", "scope": "feature=runqlat", "hosts": ["all"], "feature": "runqlat", "alert": "Costly",
            "reason": "alert Costly since 2026-11-28T12:00:00.5Z, fingerprint 0123456789abcdef",
            "fingerprint": "0123456789abcdef", "since": "2026-11-28T12:00:00.5Z",
        }
    }  # fmt: skip
    assert (second.status, second.events) == (200, [])
    assert first.line == {
        "time": "2026-09-21T14:13:20Z", "remote": "127.0.0.1", "sender": "ops", "status": 200, "decision": "taken",
        "reason_code": None, "detail": "", "counts": {**dict.fromkeys(desk.DECISIONS, 0), "taken": 1},
        "alerts": [{"alert": "Costly", "fingerprint": "0123456789abcdef", "starts_at": "2026-11-28T12:00:00.5Z",
                    "action": "kill", "scope": "feature=runqlat", "decision": "taken", "reason_code": None,
                    "detail": ""}],
    }  # fmt: skip
    assert (
        second.line is not None and second.line["decision"] == "duplicate" and second.line["counts"]["duplicate"] == 1
    )
    assert TOKEN not in json.dumps([first.line, second.line])


def test_the_same_alert_that_fires_again_later_is_another() -> None:
    one = front()
    assert one.decide(request()).events and one.decide(request(body(alert(startsAt="2026-11-28T13:00:00Z")))).events
    assert one.decide(request(body(alert("feature=x", fingerprint="f" * 16)))).events


@pytest.mark.parametrize(
    ("given", "status", "decisions", "code"),
    [
        ([alert(status="resolved")], 200, ["resolved"], None),
        ([alert("global", status="resolved")], 200, ["resolved"], None),
        ([alert(action=None)], 200, ["unconcerned"], None),
        ([alert("global")], 422, ["refused"], "EF_EVENT_SCOPE"),
        ([alert("global"), alert()], 422, ["refused", "taken"], "EF_EVENT_SCOPE"),
        ([alert(), alert()], 200, ["taken", "duplicate"], None),
        ([alert(status="resolved"), alert(fingerprint="a" * 16)], 200, ["resolved", "taken"], None),
    ],
)
def test_each_alert_of_a_document_is_judged_by_itself(
    given: list[Any], status: int, decisions: list[str], code: str | None
) -> None:
    outcome = front().decide(request(body(*given)))
    assert outcome.line is not None and outcome.status == status
    assert [row["decision"] for row in outcome.line["alerts"]] == decisions and outcome.line["reason_code"] == code
    assert len(outcome.events) == decisions.count("taken")
    assert (code is None) == (outcome.sentence in desk.DECISIONS)


def test_too_often_is_the_answer_where_another_alert_is_refused_too() -> None:
    """What was not done may be sent again; what is refused stays refused."""
    outcome = front(Limits(actions=1)).decide(
        request(body(alert("global"), alert(), alert("feature=b", fingerprint="b" * 16)))
    )
    assert outcome.line is not None and (outcome.status, outcome.line["decision"]) == (429, "limited")
    assert outcome.line["reason_code"] == "EF_EVENT_RATE" and outcome.retry_after == 600


def test_a_flood_is_answered_429_with_the_time_to_wait_and_may_come_again() -> None:
    one = front(Limits(actions=2, per_scope=1, window=60))
    flood = [alert(f"feature=f{at}", fingerprint=f"{at:016x}") for at in range(5)]
    outcome = one.decide(request(body(*flood)))
    assert (outcome.status, outcome.retry_after, len(outcome.events)) == (429, 60, 2)
    assert outcome.line is not None and outcome.line["reason_code"] == "EF_EVENT_RATE"
    assert [row["decision"] for row in outcome.line["alerts"]] == ["taken"] * 2 + ["limited"] * 3
    assert outcome.line["counts"]["limited"] == 3
    again = one.decide(request(body(*flood), ticks=60.0))
    assert again.status == 429 and len(again.events) == 2, "what was not done then is done now"
    assert [one["ebpf_fleet"]["scope"] for one in again.events] == ["feature=f2", "feature=f3"]


def test_what_is_no_document_of_a_sender_is_answered_400_and_logged() -> None:
    one = front()
    outcome = one.decide(request(b"{"))
    assert outcome.line is not None
    assert (outcome.status, outcome.events, outcome.line["sender"]) == (400, [], "ops")
    assert (outcome.line["decision"], outcome.line["reason_code"]) == ("malformed", "EF_EVENT_MALFORMED")
    assert one.counts["malformed"] == 1 and outcome.sentence.startswith("EF_EVENT_MALFORMED: the body")


def test_who_is_not_a_sender_learns_nothing_and_cannot_fill_the_log() -> None:
    one = front()
    bad = [("Authorization", "Bearer wrong")]
    outcomes = [one.decide(request(b"{", bad, remote="127.0.0.9\n")) for _ in range(desk.STRANGERS_LOGGED + 5)]
    assert {(each.status, each.sentence) for each in outcomes} == {(401, "EF_EVENT_SENDER: not a sender")}
    lines = [each.line for each in outcomes if each.line]
    assert len(lines) == desk.STRANGERS_LOGGED and "token is of no sender" in lines[0]["detail"]
    assert {each["not_logged"] for each in lines} == {0}
    assert (lines[0]["sender"], lines[0]["remote"]) == (None, "127.0.0.9\\x0a")
    later = one.decide(request(b"{", bad, ticks=desk.STRANGERS_SECONDS + 1)).line
    assert later is not None and later["not_logged"] == 5 and later["counts"]["stranger"] == desk.STRANGERS_LOGGED + 6
    soon = one.decide(request(b"{", bad, ticks=desk.STRANGERS_SECONDS + 2)).line
    assert soon is not None and soon["not_logged"] == 0, "they are told once"
    assert one.decide(request()).status == 200, "a sender is heard all the while"


def test_a_body_that_was_not_read_is_logged_as_of_no_known_sender() -> None:
    one = front()
    outcome = one.unread(request(), 413, "is larger than 5 bytes")
    assert (outcome.status, outcome.events) == (413, [])
    assert outcome.sentence == "EF_EVENT_MALFORMED: the body is larger than 5 bytes; nothing was done"
    assert outcome.line is not None and outcome.line["sender"] is None and outcome.line["decision"] == "malformed"
    lines = [one.unread(request(), 413, "x").line for _ in range(desk.STRANGERS_LOGGED)]
    assert lines[-1] is None and lines[-2] is not None and one.counts["malformed"] == desk.STRANGERS_LOGGED + 1


# --- options ---


def test_a_rulebook_needs_only_the_secrets() -> None:
    found = options.read({"secrets": "/s", "eda_feedback_queue": object()})
    assert found == options.Options("127.0.0.1", 5001, "/s", "", "", "", False, Limits(6, 2, 600))


@pytest.mark.parametrize("yes", [True, "true", "Yes", "on", "1", 1])
def test_options_come_as_texts_too(yes: Any) -> None:
    given = {"secrets": "/s", "host": "::1", "port": "0", "actions": "9", "window": 5, "allow_everything": yes}
    found = options.read({**given, "per_scope": "3", "log": "/l"})
    assert (found.port, found.limits, found.allow_everything, found.log) == (0, Limits(9, 3, 5), True, "/l")
    assert options.read({"secrets": "/s", "host": "0.0.0.0", "certfile": "c", "keyfile": "k"}).certfile == "c"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "secrets: is not given"),
        ({"secrets": ""}, "secrets: is not given"),
        ({"secrets": 5}, "secrets: is not a printable text"),
        ({"secrets": "/s\n"}, "secrets: is not a printable text"),
        ({"secrets": "/s", "token": TOKEN}, "token: is not an option"),
        ({"secrets": "/s", "prot": 5}, "did you mean 'port'"),
        ({"secrets": "/s", "host": "0.0.0.0"}, "0.0.0.0 is not a loopback address"),
        ({"secrets": "/s", "host": "192.0.2.1"}, "is not a loopback address"),
        ({"secrets": "/s", "host": "::"}, "is not a loopback address"),
        ({"secrets": "/s", "host": "localhost"}, "is not an IP address"),
        ({"secrets": "/s", "certfile": "c"}, "certfile: and keyfile belong together"),
        ({"secrets": "/s", "keyfile": "c"}, "certfile: and keyfile belong together"),
        *[({"secrets": "/s", "port": value}, "port: is not a whole number from 0 to 65535")
          for value in (-1, 65536, "x", True, None, 1.5, "")],
        *[({"secrets": "/s", name: value}, f"{name}: is not a whole number from 1")
          for name in ("actions", "per_scope", "window") for value in (0, -5, "none", 10**6)],
        ({"secrets": "/s", "allow_everything": "maybe"}, "allow_everything: is neither true nor false"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_used_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(FleetError, match=re.escape(says)) as caught:
        options.read(given)
    assert caught.value.code == "EF_ARGUMENT"


# --- the rulebook ---

ROOT = Path(__file__).resolve().parents[2]


def test_the_rulebook_kills_and_reduces_and_does_nothing_else() -> None:
    (rules,) = yaml.safe_load((ROOT / "extensions/eda/rulebooks/alerts.yml").read_text(encoding="utf-8"))
    done = {
        rule["condition"].split('"')[1]: (play["name"], play["extra_vars"])
        for rule in rules["rules"]
        for play in [rule["action"]["run_playbook"]]
    }
    assert set(done) == set(alerts.ACTIONS)
    name, given = done["kill"]
    assert name == "ebpf.fleet.rollback" and set(given) == {"scope", "reason"}, "no state: an order is engaged"
    name, given = done["reduce"]
    assert name == "ebpf.fleet.triage" and given["ebpf_fleet_triage_features"] == 0
    # What an event has is what the rules read of it.
    named = set(re.findall(r"event\.ebpf_fleet\.(\w+)", json.dumps(rules["rules"])))
    (event,) = front().decide(request()).events
    assert named == {"action", "scope", "reason", "hosts", "feature"} and named <= set(event["ebpf_fleet"])
    assert rules["execution_strategy"] == "parallel", "a kill waits for no measurement"


def test_the_rulebook_sets_each_option_of_the_source_with_its_default() -> None:
    (rules,) = yaml.safe_load((ROOT / "extensions/eda/rulebooks/alerts.yml").read_text(encoding="utf-8"))
    (source,) = rules["sources"]
    given = source["ebpf.fleet.alertmanager_alerts"]
    assert set(given) == {*options.Options._fields, *Limits._fields} - {"limits"}
    written = {name: re.search(r"default\('?([^')]*)'?\)", str(one)) for name, one in given.items()}
    assert options.read(
        {**{name: one.group(1) for name, one in written.items() if one}, "secrets": "/s"}
    ) == options.read({"secrets": "/s"})


def test_the_sources_own_page_has_its_options_and_their_defaults() -> None:
    path = ROOT / "extensions/eda/plugins/event_source/alertmanager_alerts.py"
    text = re.search(r'DOCUMENTATION = r"""(.*?)"""', path.read_text(encoding="utf-8"), re.S)
    assert text is not None
    told = yaml.safe_load(text.group(1))["options"]
    found = options.read({"secrets": "/s"})
    real = {**found._asdict(), **found.limits._asdict()}
    real.pop("limits")
    assert set(told) == set(real)
    assert {name: one["default"] for name, one in told.items() if "default" in one} == {
        name: value for name, value in real.items() if value != "" and name != "secrets"
    }
