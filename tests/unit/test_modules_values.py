# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules host_prepare and bundle_build function by function: what is refused, planned, run and told."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Sequence

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.filesteps import FileState, FileStep
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import trust_change
from ansible_collections.ebpf.fleet.plugins.module_utils.release import store
from ansible_collections.ebpf.fleet.plugins.modules import bundle_build, host_prepare

from tests.integration.release_host import run_module

# --- host_prepare --------------------------------------------------------------------------------


class Module(SimpleNamespace):
    """As much of an AnsibleModule as a plan asks for; `ends` has the exit status of commands by their first words."""

    params: dict[str, Any]
    ends: dict[str, int]

    def run_command(self, command: Sequence[str]) -> tuple[int, str, str]:
        said = " ".join(command)
        self.ran = [*getattr(self, "ran", []), said]
        return next((rc for words, rc in self.ends.items() if said.startswith(words)), 0), "out\n", ""


def module(ends: dict[str, int] | None = None, **params: Any) -> Module:
    given = {"sysusers": None, "tmpfiles": None, "enable": [], **params}
    return Module(params=given, ends=ends or {})


def wanted(path: str, content: str) -> dict[str, Any]:
    return {"path": path, "content": content, "mode": 0o644}


def step(path: str) -> FileStep:
    return FileStep(path, FileState(None, None), "new\n", 0o644)


def test_a_mode_is_read_as_octal() -> None:
    items = [{"path": "/a", "content": "x", "mode": mode} for mode in ("0644", "755", "0", "0777")]
    assert [item["mode"] for item in host_prepare.wanted_files(items)] == [0o644, 0o755, 0, 0o777]
    assert host_prepare.wanted_files(items[:1]) == [{"path": "/a", "content": "x", "mode": 0o644}]
    for mode in ("0778", "1777", "", "u=r"):
        with pytest.raises(FleetError, match="is not octal from 0 to 0777"):
            host_prepare.wanted_files([{**items[0], "mode": mode}])


def test_users_and_folders_that_are_missing_are_those_of_the_lines(tmp_path: Path) -> None:
    me = getpass.getuser()
    text = f'# u commented -\nu ef-no-such-user - "x"\nu {me} -\ng ef-group -\n'
    assert host_prepare.missing_users(text) == ["ef-no-such-user"]
    (tmp_path / "file").touch()
    lines = (
        f"d {tmp_path} 0755 root root -\nd {tmp_path}/none 0755 root root -\nd {tmp_path}/file -\nL+ {tmp_path}/l -\n"
    )
    assert host_prepare.missing_directories(lines) == [f"{tmp_path}/none", f"{tmp_path}/file"]
    assert host_prepare.missing_directories("") == host_prepare.missing_users("") == []


SYSUSERS, TMPFILES = "/etc/sysusers.d/a.conf", "/etc/tmpfiles.d/b.conf"
UNIT = "/etc/systemd/system/c.service"


@pytest.mark.parametrize(
    ("users", "folders", "changed", "enabled", "actions"),
    [
        (True, True, [], True, []),
        (False, True, [], True, [["systemd-sysusers", "a.conf"]]),
        (True, False, [], True, [["systemd-tmpfiles", "--create", "b.conf"]]),
        (True, True, [TMPFILES], True, [["systemd-tmpfiles", "--create", "b.conf"]]),
        (True, True, [SYSUSERS], True, []),
        (True, True, [UNIT], True, [["systemctl", "daemon-reload"]]),
        (True, True, [], False, [["systemctl", "enable", "c.service"]]),
        (False, False, [UNIT], False, [["systemd-sysusers", "a.conf"], ["systemd-tmpfiles", "--create", "b.conf"],
                                       ["systemctl", "daemon-reload"], ["systemctl", "enable", "c.service"]]),
    ],
)  # fmt: skip
def test_only_what_the_host_still_needs_is_run(
    tmp_path: Path, users: bool, folders: bool, changed: list[str], enabled: bool, actions: list[list[str]]
) -> None:
    files = [wanted(SYSUSERS, f"u {getpass.getuser() if users else 'ef-no-such-user'} -\n"),
             wanted(TMPFILES, f"d {tmp_path}{'' if folders else '/none'} -\n")]  # fmt: skip
    asked = module(
        {"systemctl is-enabled": 0 if enabled else 1}, sysusers="a.conf", tmpfiles="b.conf", enable=["c.service"]
    )
    assert host_prepare.plan_actions(asked, files, [step(path) for path in changed]) == actions
    assert host_prepare.plan_actions(module(), files, []) == []


@pytest.mark.parametrize(
    ("enabled", "active", "changed", "actions"),
    [
        (True, True, [], []),
        (False, True, [], [["systemctl", "enable", "c.timer"]]),
        (True, False, [], [["systemctl", "restart", "c.timer"]]),
        (False, False, [], [["systemctl", "enable", "c.timer"], ["systemctl", "restart", "c.timer"]]),
        (True, True, ["/etc/systemd/system/c.timer"],
         [["systemctl", "daemon-reload"], ["systemctl", "restart", "c.timer"]]),
        (True, True, [UNIT], [["systemctl", "daemon-reload"]]),
    ],
)  # fmt: skip
def test_a_timer_is_started_and_started_again_where_it_changed_and_a_service_never_is(
    enabled: bool, active: bool, changed: list[str], actions: list[list[str]]
) -> None:
    answers = {"systemctl is-enabled --quiet c.timer": int(not enabled), "systemctl is-active": int(not active)}
    asked = module(answers, enable=["c.service", "c.timer"])
    assert host_prepare.plan_actions(asked, [], [step(path) for path in changed]) == actions


def test_files_are_written_before_commands_run_and_the_first_that_fails_is_told(tmp_path: Path) -> None:
    asked = module({"two": 1, "three": 5})
    host_prepare.apply(asked, [step(str(tmp_path / "a"))], [["one"]])
    assert (tmp_path / "a").read_text() == "new\n" and asked.ran == ["one"]
    for rc, command in ((1, "two"), (5, "three")):
        with pytest.raises(FleetError, match=f"'{command} x' ended with {rc}: out; correct that") as failed:
            host_prepare.apply(asked, [], [[command, "x"], ["never"]])
        assert failed.value.code == "EF_COMMAND"
    assert asked.ran == ["one", "two x", "three x"]


def test_units_are_stopped_and_forgotten_before_their_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_prepare, "UNITS", str(tmp_path))
    (tmp_path / "a.service").write_text("text\n")
    (tmp_path / "b.service").symlink_to("nowhere")
    found = host_prepare.plan_removals(["a.service", "b.service", "c.service"])
    assert found == [f"{tmp_path}/a.service", f"{tmp_path}/b.service"]
    assert host_prepare.removal_commands(found[:1]) == [
        ["systemctl", "disable", "--now", "a.service"], ["rm", "--", f"{tmp_path}/a.service"],
        ["systemctl", "daemon-reload"]]  # fmt: skip
    assert host_prepare.removal_commands([]) == [] == host_prepare.diff_removals([])
    (shown,) = host_prepare.diff_removals(found[:1])
    assert (shown["before"], shown["after"]) == ("text\n", "") and shown["after_header"].endswith("a.service (absent)")
    (tmp_path / "a.timer").touch()
    assert host_prepare.plan_removals(["a.timer"]) == [f"{tmp_path}/a.timer"]
    for name in ("../a.service", "a", "a.service/x", "a.path", "a.timer.x"):
        with pytest.raises(FleetError, match="is not a unit's name"):
            host_prepare.plan_removals([name])


# --- host_prepare: what it takes of trust ---------------------------------------------------------

A, B = (f"{name}@x {trust_change.spell_key(bytes([number]) * 32)}\n" for number, name in enumerate("ab", 1))
LOST = f"the signer b@x ({B.split(maxsplit=1)[1].strip()}) may no longer sign"


def trusting(
    layout: store.Layout, before: str | None, after: str, overrule: bool, warned: list[str], other: bool = False
) -> Any:
    """What is judged of a step that writes the signers, or another file."""
    path = str(layout.etc / "other.conf" if other else layout.signers)
    found = {path: FileState(before, None if before is None else 0o644)}
    asked = SimpleNamespace(params={"trust_overrule": overrule}, warn=warned.append)
    return host_prepare.judge_trust(asked, layout, [FileStep(path, found[path], after, 0o644)], found)


@pytest.mark.parametrize("overrule", [False, True])
def test_trust_that_grows_is_taken_without_a_word(tmp_path: Path, overrule: bool) -> None:
    layout, warned = store.Layout(tmp_path), list[str]()
    for before, after in ((None, A), (A, A + B), (A + B, B + A)):
        assert trusting(layout, before, after, overrule, warned) == trust_change.Change(None, [], [])
    assert trusting(layout, A + B, A, overrule, warned, other=True) is None
    assert host_prepare.judge_trust(None, None, [], {}) is None and warned == []


def test_trust_that_takes_a_signer_away_is_refused_by_its_name_unless_it_is_overruled(tmp_path: Path) -> None:
    layout, warned = store.Layout(tmp_path), list[str]()
    with pytest.raises(FleetError) as refused:
        trusting(layout, A + B, A, False, warned)
    assert refused.value.as_line() == (
        f"EF_TRUST_CHANGE: this change of trust is refused and nothing was written: {LOST}. Look for a "
        "variable that is given twice or lacks a line; if it is meant, set 'ebpf_fleet_trust_overrule: true'"
    )
    assert warned == []
    assert trusting(layout, A + B, A, True, warned) == trust_change.Change(None, [LOST], [])
    assert warned == [f"TRUST OVERRULED, as trust_overrule asks: {LOST}"]


@pytest.mark.parametrize("overrule", [False, True])
def test_trust_that_cannot_be_read_is_refused_whatever_is_overruled(tmp_path: Path, overrule: bool) -> None:
    with pytest.raises(FleetError) as refused:
        trusting(store.Layout(tmp_path), A, "", overrule, [])
    assert refused.value.code.startswith("EF_TRUST_")
    assert refused.value.message.endswith("; nothing was written: correct the variable")


def test_ten_notes_on_trust_are_warnings_and_no_more(tmp_path: Path) -> None:
    warned: list[str] = []
    found = trusting(store.Layout(tmp_path), A, A + "odd\n" * 12, False, warned)
    assert len(found.notes) == 12 and found.problems == [] and warned == found.notes[:10]


def test_signers_that_cannot_be_kept_stop_the_change(tmp_path: Path) -> None:
    layout = store.Layout(tmp_path)
    steps = [FileStep(str(layout.signers), FileState(A, 0o644), A + B, 0o644)]
    host_prepare.keep_trust(layout, steps, trust_change.Change(None, [], []))
    assert (layout.former / "allowed_signers").read_text() == A
    host_prepare.keep_trust(layout, steps, trust_change.Change(None, ["a problem"], []))
    assert not layout.former.exists(), "what is taken away on purpose does not come back"
    layout.etc.rmdir()
    layout.etc.write_text("a file")
    with pytest.raises(FleetError, match="the signers of before cannot be kept") as refused:
        host_prepare.keep_trust(layout, steps, trust_change.Change(None, [], []))
    assert refused.value.code == "EF_NOT_WRITTEN" and refused.value.message.endswith("; make room on that disk")


def test_the_host_is_the_one_whose_trust_is_among_the_files() -> None:
    files = [wanted("/other", ""), wanted("/h/etc/ebpf-fleet/trust/allowed_signers", "")]
    assert host_prepare.find_host(files) == store.Layout(Path("/h")) and host_prepare.find_host(files[:1]) is None


def test_a_file_that_is_to_be_applied_is_among_the_files() -> None:
    files = [wanted("/etc/sysusers.d/a.conf", "one"), wanted("/b.conf", "two")]
    assert [host_prepare.text_of(files, name) for name in ("a.conf", "b.conf")] == ["one", "two"]
    with pytest.raises(FleetError, match="'c.conf' is to be applied but is not among files; add it") as refused:
        host_prepare.text_of(files, "c.conf")
    assert refused.value.code == "EF_ARGUMENT"
    with pytest.raises(FleetError, match="files: path 'etc/a' is not absolute; write it from /"):
        host_prepare.wanted_files([{"path": "etc/a", "content": "", "mode": "0644"}])


def test_a_file_that_cannot_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / "file/a")
    with pytest.raises(FleetError, match=f"cannot write {path}: .*; correct that and run again") as refused:
        host_prepare.apply(module(), [step(path)], [["never"]])
    assert (refused.value.code, refused.value.file) == ("EF_NOT_WRITTEN", path)


# --- bundle_build --------------------------------------------------------------------------------


def params(folder: Path, **changes: Any) -> dict[str, Any]:
    (folder / "Makefile").touch()
    return {"name": "ebpf-fleet", "version": "1.0.0", "sequence": 1, "compatibility": None, "matrix": None,
            "btf_dirs": [], "source": str(folder), "created": None, "features": None, "features_dirs": None,
            "loader": None, "signing_key": "key", **changes}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"sequence": 2}, None),
        ({"sequence": 0}, "sequence: is 0; give a positive integer"),
        ({"sequence": -1}, "sequence: is -1"),
        ({"name": ""}, "name: is ''"),
        ({"name": "n" * 64}, None),
        ({"name": "n" * 65}, "name: is 'n"),
        ({"version": 1.1}, "version: is 1.1 (a number); YAML makes"),
        ({"version": "v" * 64}, None),
        ({"version": "v" * 65}, "version: is 'v"),
        ({"compatibility": {"summary": [], "known_disabled": []}}, None),
        ({"compatibility": {"summary": []}}, "compatibility: needs exactly"),
        ({"compatibility": {"summary": [], "known_disabled": []}, "matrix": "m"}, "compatibility: is given beside"),
        ({"btf_dirs": ["/nowhere"]}, "btf_dirs: /nowhere is not a folder"),
        ({"source": "/nowhere"}, "source: /nowhere has no Makefile"),
    ],
)
def test_what_no_bundle_can_have_is_refused(tmp_path: Path, changes: dict[str, Any], words: str | None) -> None:
    if words is None:
        bundle_build.check_arguments(params(tmp_path, **changes))
        return
    with pytest.raises(FleetError) as refused:
        bundle_build.check_arguments(params(tmp_path, **changes))
    assert refused.value.code == "EF_ARGUMENT" and words in refused.value.message
    assert "; " not in refused.value.message.replace("; use", "").replace("; give", "").replace("; leave", "").replace(
        "; YAML", ""), "one thing is wrong, and one is told"  # fmt: skip


def existing(version: str) -> Any:
    doc = {"bundle": {"created": "2020-01-02T03:04:05Z"}}
    return SimpleNamespace(manifest=SimpleNamespace(version=version, sequence=3, digest="d" * 64, doc=doc))


@pytest.mark.parametrize(
    ("created", "epoch", "before", "found"),
    [
        ("2026-01-02T03:04:05Z", "0", "1.0.0", "2026-01-02T03:04:05Z"),
        (None, "0", "1.0.0", "1970-01-01T00:00:00Z"),
        (None, "86400", None, "1970-01-02T00:00:00Z"),
        (None, None, "1.0.0", "2020-01-02T03:04:05Z"),
        (None, None, "0.9.0", None),
        (None, None, None, None),
    ],
)
def test_a_bundles_time(
    monkeypatch: pytest.MonkeyPatch, created: str | None, epoch: str | None, before: str | None, found: str | None
) -> None:
    """That which is given, that of the environment, that of the same version, or now."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if epoch is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    asked = {"created": created, "version": "1.0.0"}
    begun = time.time()
    answer = bundle_build.created_at(asked, None if before is None else existing(before))
    if found is not None:
        assert answer == found
    else:
        assert begun - 1 <= bundle_build.epoch_of(answer) <= time.time() + 1


@pytest.mark.parametrize(("created", "epoch", "words"), [
    ("today", None, "created: is 'today'; use YYYY-MM-DDTHH:MM:SSZ"), ("2026-02-30T00:00:00Z", None, "2026-02-30"),
    ("2026-01-02T03:04:05Z\n", None, "created: is "), (None, "soon", "SOURCE_DATE_EPOCH: is 'soon'"),
])  # fmt: skip
def test_a_time_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, created: str | None, epoch: str | None, words: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch or "0")
    with pytest.raises(FleetError, match=words):
        bundle_build.created_at({"created": created, "version": "1"}, None)


def test_what_a_diff_shows_of_a_bundle() -> None:
    assert bundle_build.describe(None) == {}
    assert bundle_build.describe(existing("1.2.3").manifest) == {"version": "1.2.3", "sequence": 3, "digest": "d" * 64}


def test_the_module_with_its_own_defaults_says_what_is_missing(tmp_path: Path) -> None:
    """In check mode, as ansible starts it; the name of a bundle has a default."""
    asked = {
        "source": str(tmp_path),
        "output": str(tmp_path / "b.tar"),
        "version": "1",
        "sequence": 1,
        "signing_key": "k",
    }
    result, done = run_module("bundle_build", asked, check=True)
    assert result is not None and result["failed"], done.stderr
    assert result["msg"] == f"EF_ARGUMENT: source: {tmp_path} has no Makefile; give the collection's bpf folder"


def built(version: str) -> Any:
    made = existing(version)
    made.manifest.doc["compatibility"] = {}
    made.manifest.features = {"probe": {"variants": [{"name": "full"}, {"name": "reduced"}]}}
    return made


@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("before", ["0.9.0", None])
def test_what_a_build_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool, before: str | None) -> None:
    """With what is compiled and signed stood in for; test_bundle_build does all of it."""
    there = None if before is None else existing(before)
    monkeypatch.setattr(bundle_build, "existing_bundle", lambda _output: there)
    monkeypatch.setattr(bundle_build.writer, "build", lambda _order: built("1.0.0"))
    monkeypatch.setattr(bundle_build, "judge_output", lambda *_given: changed or there is None)
    monkeypatch.setattr(bundle_build, "make_request", lambda *_given: None)
    monkeypatch.setattr(bundle_build, "btf_entries", lambda _built: [])
    given = params(tmp_path, output=str(tmp_path / "b.tar"), build_dir=None, force=False)
    found = bundle_build.run(SimpleNamespace(params=given, check_mode=True))

    def shown(version: str | None) -> dict[str, Any]:
        return {} if version is None else {"version": version, "sequence": 3, "digest": "d" * 64}

    assert found["changed"] is (changed or before is None) and not (tmp_path / "b.tar").exists()
    assert found["diff"] == {"before": shown(before), "after": shown("1.0.0" if found["changed"] else before)}
    assert found["features"] == {"probe": ["full", "reduced"]} and found["output"] == str(tmp_path / "b.tar")


@pytest.mark.skipif(os.geteuid() != 0, reason="control files belong to root; run as root")
@pytest.mark.parametrize("check", [True, False])
def test_what_a_preparation_tells_and_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    """On a machine that systemd seems to have booted; its commands are noted and not run."""
    monkeypatch.setattr(host_prepare, "require_systemd", lambda: None)
    monkeypatch.setattr(host_prepare, "UNITS", str(tmp_path))
    (tmp_path / "old.service").write_text("old\n")
    asked = module(
        files=[{"path": str(tmp_path / "a"), "content": "new\n", "mode": "0600"}], remove_units=["old.service"],
        trust_overrule=False,
    )  # fmt: skip
    asked.check_mode = check
    found = host_prepare.run(asked)
    commands = ["systemctl disable --now old.service", f"rm -- {tmp_path}/old.service", "systemctl daemon-reload"]
    assert (found["changed"], found["trust_changed"], found["trust_overruled"]) == (True, False, [])
    assert (found["files"], found["actions"]) == ([str(tmp_path / "a")], commands)
    assert [(one["before"], one["after"]) for one in found["diff"]] == [("", "new\n"), ("old\n", "")]
    assert getattr(asked, "ran", []) == ([] if check else commands) and (tmp_path / "a").exists() is not check
    if not check:
        (tmp_path / "old.service").unlink()
        again = host_prepare.run(asked)
        assert (again["changed"], again["files"], again["actions"], again["diff"]) == (False, [], [], [])
