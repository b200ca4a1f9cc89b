# SPDX-License-Identifier: GPL-3.0-or-later
"""The release module before and after its work: arguments that are refused, what is asked of the plan, what is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release import store
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import Grant, Lease
from ansible_collections.ebpf.fleet.plugins.module_utils.release.mark import Mark
from ansible_collections.ebpf.fleet.plugins.module_utils.release.plan import plan_release
from ansible_collections.ebpf.fleet.plugins.modules import release

from tests.unit.test_manifest import make as manifest
from tests.unit.test_release_plan import FEATURES, installed, leave, state, want

DIGEST = "d" * 64
LEASE = {"seconds": 60, "holder": "me"}


def params(**given: Any) -> dict[str, Any]:
    """As Ansible reads a task's arguments."""
    read = ArgumentSpecValidator(release.ARGUMENTS).validate(given)
    assert read.error_messages == []
    return dict(read.validated_parameters)


FROM = {"state": "rolled_back"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, None),
        ({"keep": 1}, None),
        ({"keep": 100}, None),
        ({"keep": 0}, "keep: is 0; give 1 to 100 releases"),
        ({"keep": 101}, "keep: is 101; give 1 to 100 releases"),
        ({"wait": 0}, None),
        ({"wait": -1}, "wait: is -1; give 0 or more seconds"),
        ({"service": "", "root": "/x"}, None),
        ({"service": "", "root": "/"}, None),
        ({"root": "/x"}, "service: the running systemd knows nothing of another root; set it to an empty string"),
        ({"digest": DIGEST}, None),
        ({"digest": "d" * 63}, "digest: is not a SHA-256 in hex; give the digest that the lookup ebpf.fleet.bundle "
                               "returned"),
        ({"digest": ""}, "digest: is not a SHA-256 in hex; give the digest that the lookup ebpf.fleet.bundle returned"),
        ({**FROM, "digest": DIGEST}, "digest: belongs to 'state: present'; remove it"),
        ({"state": "absent", "digest": DIGEST}, "digest: belongs to 'state: present'; remove it"),
        (FROM, None),
        ({**FROM, "from_digest": DIGEST}, None),
        ({**FROM, "from_digest": "D" * 64}, "from_digest: is not a SHA-256 in hex; give the digest that a deployment "
                                            "returned"),
        ({**FROM, "from_digest": ""}, "from_digest: is not a SHA-256 in hex; give the digest that a deployment "
                                      "returned"),
        ({"from_digest": DIGEST}, "from_digest: belongs to 'state: rolled_back'; remove it"),
        ({"state": "absent", "from_digest": DIGEST}, "from_digest: belongs to 'state: rolled_back'; remove it"),
        ({"lease": LEASE}, None),
        ({**FROM, "lease": LEASE}, "lease: belongs to 'state: present'; remove it"),
        ({"state": "absent"}, None),
        ({"keep": 0, "wait": -2}, "keep: is 0; give 1 to 100 releases; wait: is -2; give 0 or more seconds"),
    ],
)  # fmt: skip
def test_an_argument_that_does_no_good_is_refused(given: dict[str, Any], words: str | None) -> None:
    if words is None:
        release.check_arguments(params(**given))
        return
    with pytest.raises(FleetError) as refused:
        release.check_arguments(params(**given))
    assert refused.value.as_line() == f"EF_ARGUMENT: {words}"


def test_only_root_of_a_linux_host_deploys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release.os, "geteuid", lambda: 0)
    release.check_host()
    monkeypatch.setattr(release.os, "geteuid", lambda: 1)
    with pytest.raises(FleetError, match="^releases belong to root; set 'become: true'") as refused:
        release.check_host()
    assert refused.value.code == "EF_PERMISSION"
    monkeypatch.setattr(release.platform, "system", lambda: "Darwin")
    with pytest.raises(FleetError, match="^this is Darwin, eBPF needs Linux; leave the host out") as refused:
        release.check_host()
    assert refused.value.code == "EF_UNSUPPORTED_HOST"


@pytest.mark.parametrize("missing", ["manifest", "signature"])
def test_a_bundle_is_needed(missing: str, tmp_path: Path) -> None:
    given = {"manifest": "m", "signature": "s"}
    del given[missing]
    module = SimpleNamespace(params=params(**given), check_mode=True)
    with pytest.raises(FleetError, match="^bundle: is missing; give the path of a bundle on the controller$"):
        release.judge_bundle(module, store.Layout(tmp_path))


def test_what_is_asked_of_the_plan() -> None:
    made = manifest()
    incoming = store.Incoming(made, b"sig", None, "{}")
    given = params(
        state="present", bundle="b", keep=5, allow_downgrade=True, features={"runqlat": {}}, lease=LEASE, wait=7
    )
    found = release.make_request(given, incoming)
    assert found.now > 1_700_000_000
    assert found._replace(now=0)._asdict() == {
        "state": "present", "release": made.release_id, "digest": made.digest, "sequence": made.sequence,
        "features": {"runqlat": {}}, "signature": b"sig", "keep": 5, "allow_downgrade": True, "from_digest": None,
        "manage_service": True, "fallbacks": (), "collector": False, "lease": Grant(60, "me"), "now": 0,
    }  # fmt: skip
    left = release.make_request(params(state="rolled_back", from_digest=DIGEST, service=""), None)
    assert left._replace(now=0) == leave(DIGEST, manage_service=False, fallbacks=())._replace(now=0)
    with pytest.raises(FleetError, match="^lease.seconds: is 0"):
        release.make_request(params(lease={"seconds": 0, "holder": "me"}), incoming)


def test_only_what_is_to_be_left_and_never_was_is_not_locked(tmp_path: Path) -> None:
    layout = store.Layout(tmp_path)
    assert release.needs_disk(layout, want(1)) is True and release.needs_disk(layout, leave()) is False
    layout.base.mkdir(parents=True)
    assert release.needs_disk(layout, leave()) is True


def test_what_is_told_of_a_host() -> None:
    lease = Lease(DIGEST, "boot", 5, "me")
    host = state("2", "1", installed(2, fallbacks=("bcc",)), installed(1))._replace(lease=lease)
    request = want(2, fallbacks=("bcc",))
    plan = plan_release(host, request)
    assert release.result(plan, host, request) == {
        "changed": plan.changed, "release": "2", "previous": "1", "digest": "d2", "features": FEATURES,
        "fallbacks": ["bcc"], "lease": lease._asdict(), "mark": Mark(2, "d2", ("d1",), 0)._asdict(),
        "releases": ["1", "2"], "steps": [{"act": one.act, "release": one.release} for one in plan.steps],
        "diff": {"before_header": "release (before)", "after_header": "release (present)", "before": plan.before,
                 "after": plan.after},
    }  # fmt: skip
    nothing = release.result(plan_release(state(None, None), want(1)), state(None, None), want(1))
    kept = ("changed", "release", "previous", "digest", "features", "fallbacks", "lease", "mark", "releases")
    assert [nothing[name] for name in kept] == [True, None, None, None, None, [], None, None, []]
    assert nothing["steps"][0] == {"act": "install", "release": "1"}
    assert [one["act"] for one in nothing["steps"]] == ["install", "set_mark", "activate", "link_desired"]


LOWERED = {"from": 7, "to": 3, "digest": "c" * 64, "at_unix": 5}
SENTENCE = (
    "allow_downgrade: the mark goes from sequence 7 to 3: release cccccccccccc, and whatever is above it, may be "
    "deployed here again"
)


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("mark", "acts", "before", "told"),
    [
        (Mark(3, "c", (), 0, LOWERED), ["set_mark"], None, True),
        (Mark(3, "c", (), 0, LOWERED), ["install", "set_mark"], Mark(7, "d", (), 0), True),
        (Mark(3, "c", (), 0, LOWERED), ["set_mark"], Mark(7, "d", (), 0, {**LOWERED, "at_unix": 4}), True),
        (Mark(3, "c", (), 0, LOWERED), ["set_mark"], Mark(3, "c", (), 0, LOWERED), False),
        (Mark(3, "c", (), 0, LOWERED), ["install"], None, False),
        (Mark(3, "c", (), 0), ["set_mark"], None, False),
        (None, ["set_mark"], None, False),
    ],
)
def test_a_mark_that_is_lowered_is_told_and_logged_unless_it_only_would_be(
    mark: Mark | None, acts: list[str], before: Mark | None, told: bool, check_mode: bool
) -> None:
    warned: list[str] = []
    logged: list[str] = []
    module = SimpleNamespace(warn=warned.append, log=logged.append, check_mode=check_mode)
    plan = SimpleNamespace(mark=mark, steps=[SimpleNamespace(act=one) for one in acts])
    release.say_lowering(module, state(None, None)._replace(mark=before), plan)
    assert warned == ([SENTENCE] if told else [])
    assert logged == ([f"ebpf.fleet: {SENTENCE}"] if told and not check_mode else [])
