# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugins and what they use, value by value: the controller's limits, progress, whom an answer is believed."""

from __future__ import annotations

import builtins
import resource
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ebpf.fleet.plugins.action import capability_facts, fan_out, gate
from ansible_collections.ebpf.fleet.plugins.filter import names
from ansible_collections.ebpf.fleet.plugins.lookup import bundle
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import as_tar
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts.fanout import Counts
from ansible_collections.ebpf.fleet.plugins.plugin_utils import fan_out_run, host_connection
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_connection import CONNECT_VARIABLE, Reach

from tests.integration.release_host import make_bundle, make_key, public_key

ALL = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "files", "raised"),
    [
        (1024, 4096, 4096, (4096, 4096)),
        (1024, 65536, 65536, (65536, 65536)),
        (1024, 1_000_000, 65536, (65536, 1_000_000)),
        (1024, ALL, 65536, (65536, ALL)),
        (4096, 4096, 4096, None),
        (100_000, 1_000_000, 100_000, None),
        (ALL, ALL, 65536, None),
    ],
)
def test_descriptors_are_raised_to_what_is_allowed_and_no_further(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, files: int, raised: tuple[int, int] | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: asked.append(limits))
    found = fan_out_run.environment()
    assert (found["files"], asked) == (files, [] if raised is None else [raised])
    assert found["cpus"] >= 1 and found["free_bytes"] > 0


@pytest.mark.parametrize(
    ("text", "found"),
    [("MemTotal: 9 kB\nMemAvailable:  5 kB\n", 5120), ("MemTotal: 9 kB\n", 1 << 30), ("MemAvailable: x kB\n", 1 << 30),
     (None, 1 << 30)],
)  # fmt: skip
def test_free_memory_is_a_gib_where_it_cannot_be_read(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, text: str | None, found: int
) -> None:
    path = tmp_path / "meminfo"
    if text is not None:
        path.write_text(text)
    really = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda name, **more: really(path if name == "/proc/meminfo" else name, **more)
    )
    assert fan_out_run.free_bytes() == found


def test_progress_is_told_when_it_moves_and_now_and_then() -> None:
    """From two seconds on, a line for a change, or one each ten seconds; a last one where there was a first."""
    said: list[str] = []
    progress = fan_out_run.Progress(SimpleNamespace(display=lambda text, stderr: said.append((text, stderr))))
    for answered, seconds in ((0, 1.9), (0, 2.0), (0, 11.9), (0, 12.0), (1, 12.1), (1, 13.0)):
        progress(Counts(answered, 0, 5 - answered, seconds))
    progress.end(Counts(1, 0, 4, 14.0))
    progress.end(Counts(4, 1, 0, 15.0))
    line = "fan-out: {} answered, {} failed, {} outstanding, {} s"
    assert said == [(line.format(*one), True) for one in ((0, 0, 5, 2), (0, 0, 5, 12), (1, 0, 4, 12), (4, 1, 0, 15))]
    quiet = fan_out_run.Progress(SimpleNamespace(display=lambda text, stderr: said.append(text)))
    quiet(Counts(0, 0, 5, 1.0))
    quiet.end(Counts(5, 0, 0, 1.5))
    assert len(said) == 4, "a short run says nothing"


def test_output_that_cannot_be_kept_is_a_failure_of_its_host_and_is_not_lost_unsaid(tmp_path: Any) -> None:
    answer = {"rc": 0, "stdout": "evidence", "failed": False, "msg": ""}
    kept = fan_out_run.saver(str(tmp_path), ["a", "../b"])("../b", answer)
    assert kept == {**answer, "stdout": "", "stdout_file": f"{tmp_path}/00002.out"}
    assert (tmp_path / "00002.out").read_text() == "evidence" and len(list(tmp_path.iterdir())) == 1
    lost = fan_out_run.saver(str(tmp_path / "gone"), ["a"])("a", answer)
    assert (lost["failed"], lost["stdout"], "stdout_file" in lost) == (True, "", False)
    assert lost["msg"].startswith("its output cannot be kept on the controller: ") and "gone" in lost["msg"]
    assert fan_out_run.saver("", ["a"])("a", answer) is answer


def test_the_numbers_of_a_fan_out_at_both_ends() -> None:
    good = {"connect_timeout": 1, "timeout": "3600", "logins": "0", "stdout_bytes": "1024"}
    assert fan_out.bounds(good) == {"connect_timeout": 1, "timeout": 3600, "logins": 0, "stdout_bytes": 1024}
    assert fan_out.bounds({**good, "connect_timeout": 3600, "timeout": 1.5, "logins": 4096})["timeout"] == 1.5
    for name, value in (("connect_timeout", 0), ("connect_timeout", 3601), ("timeout", 0.5), ("timeout", 3600.5),
                        ("stdout_bytes", 1023), ("stdout_bytes", (4 << 20) + 1), ("logins", -1),
                        ("logins", 4097), ("logins", 1.5), ("timeout", "soon")):  # fmt: skip
        with pytest.raises(FleetError, match=f"^{name}: is "):
            fan_out.bounds({**good, name: value})


def test_hosts_are_exact_names_each_once() -> None:
    assert fan_out.names(["a b", "a,b", "a b", 7]) == ["a b", "a,b", "7"]
    for hosts, code in (("a,b", "EF_ARGUMENT"), ({"a": 1}, "EF_ARGUMENT"), (None, "EF_ARGUMENT"), ([], "EF_HOSTS")):
        with pytest.raises(FleetError) as refused:
            fan_out.names(hosts)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("value", "given", "seconds"),
    [
        (None, 10, 10.0),
        (None, 3600, 3600.0),
        (1, 10, 1.0),
        ("3600", 10, 3600.0),
        ("{{ 2 + 3 }}", 10, 5.0),
        (0.9, 10, None),
        (3600.5, 10, None),
        ("soon", 10, None),
        ([], 10, None),
    ],
)
def test_a_host_may_have_its_own_bound_of_the_login(value: Any, given: Any, seconds: float | None) -> None:
    reach = Reach.__new__(Reach)
    reach.connect_seconds = given
    value = trust_as_template(value) if isinstance(value, str) else value
    templar = Templar(loader=DataLoader(), variables={})
    variables = {} if value is None else {CONNECT_VARIABLE: value}
    if seconds is not None:
        assert reach._connect_seconds("h", variables, templar) == seconds
        return
    with pytest.raises(FleetError, match=f"{CONNECT_VARIABLE} is .*: give seconds from 1 to 3600") as refused:
        reach._connect_seconds("h", variables, templar)
    assert refused.value.code == "EF_ARGUMENT"


GOOD = {"capabilities": {"kernel": {"release": "6.1"}, "distro": {"id": "debian"}, "btf": {"state": "vmlinux"}}}


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ({"failed": True, "msg": "no  room\nhere"}, "failed", "no room here"),
        ({"unreachable": True, "failed": True, "msg": "gone"}, "unreachable", "gone"),
        ({"failed": True, "msg": "a", "module_stderr": "b", "module_stdout": " "}, "failed", "a: b"),
        ({"skipped": True, "msg": "check"}, "skipped", "check"),
        ({"failed": True, "msg": "SyntaxError: invalid syntax", "module_stderr": "Python 3.6"}, "failed", None),
        ({"capabilities": {}}, "failed", "EF_NO_ANSWER: no usable answer from h: "),
        ({}, "failed", "EF_NO_ANSWER: no usable answer from h: capabilities: is missing"),
    ],
)
def test_what_is_no_answer_is_not_believed(answer: dict[str, Any], kind: str, words: str | None) -> None:
    found = capability_facts.believed("h", answer, [])
    assert found[kind] is True and "capabilities" not in found and "ansible_facts" not in found
    assert words is None or found["msg"].startswith(words)


def test_an_answer_of_the_known_form_is_believed_and_nothing_else_of_it() -> None:
    found = capability_facts.believed("h", {**GOOD, "changed": True, "ansible_facts": {"ansible_become": True}}, [])
    assert found["capabilities"] == GOOD["capabilities"] and found["changed"] is False
    assert found["ansible_facts"] == {"ebpf_fleet_capabilities": GOOD["capabilities"]}
    assert set(found) == {"changed", "capabilities", "profiles", "ansible_facts"}
    for privileged, warned in ((False, True), (True, False), (None, False)):
        answer = {"capabilities": {**GOOD["capabilities"], "privileged": privileged}}
        assert ("warnings" in capability_facts.believed("h", answer, [])) is warned


def test_a_reason_code_of_the_list_comes_with_its_remedy_and_another_is_left_out() -> None:
    found = capability_facts.believed("h", {"failed": True, "msg": "x", "reason_code": "EF_PERMISSION"}, [])
    assert found["reason_code"] == "EF_PERMISSION" and found["remedy"]
    for code in ("EF_NONE_SUCH", 7, None):
        assert "reason_code" not in capability_facts.believed(
            "h", {"failed": True, "msg": "x", "reason_code": code}, []
        )


def test_the_features_asked_about_are_those_of_the_contracts() -> None:
    assert capability_facts.asked_about([{"feature": "a"}, {"feature": 7}, "b", {}, {"feature": "c"}]) == ["a", "c"]
    assert capability_facts.asked_about({"feature": "a"}) == capability_facts.asked_about(None) == []


def test_the_filter_of_names_is_known_by_its_name() -> None:
    assert names.FilterModule().filters()["exact_pattern"]("a b") == r"~a\x20b\Z"


# --- how a host is reached ------------------------------------------------------------------------


class Connection:
    """As much of an ssh connection plugin as the making of its arguments asks for."""

    become = None

    def __init__(self, **options: Any) -> None:
        self.options = {
            "ssh_executable": "/usr/bin/ssh",
            "timeout": 10,
            "use_tty": False,
            "host": "h.example",
            **options,
        }
        self._play_context = SimpleNamespace(remote_addr="h", password="")

    def get_option(self, name: str) -> Any:
        return self.options[name]

    def _build_command(self, executable: str, _kind: str, *words: str) -> list[bytes]:
        return [b"sshpass", executable.encode(), b"-C", b"-o", b"Own=yes", *(word.encode() for word in words)]


def reached(monkeypatch: pytest.MonkeyPatch, kex: str, configured: bool, ours: bool, **options: Any) -> list[bytes]:
    """The words of ssh that a host's launch starts."""
    started: list[list[bytes]] = []
    monkeypatch.setattr(host_connection, "configures_kex", lambda: configured)
    monkeypatch.setattr(host_connection.fanout_process, "spawn", lambda argv: started.append(argv))
    monkeypatch.setattr(host_connection.display, "vvv", lambda _text, host: None)
    task = SimpleNamespace(
        copy=lambda: task, delegate_to="localhost", get_play=lambda: None, get_variable_manager=lambda: None, timeout=0
    )
    action = SimpleNamespace(_loader=None, _task=task, _play_context=SimpleNamespace(password="", become_pass=""))
    reach = Reach(action, {"hostvars": {}}, "true", 20, 60, kex)
    launch = reach._ssh(Connection(**options), "true; false", 20.0)
    assert (launch.connect_seconds, launch.run_seconds, launch.is_document, launch.escalation) == (
        20.0,
        60,
        False,
        None,
    )
    launch.start(ours)
    return started[0]


FIRST = [
    b"-o",
    b"ControlMaster=no",
    b"-o",
    b"ControlPath=none",
    b"-o",
    b"LogLevel=VERBOSE",
    b"-o",
    b"ConnectTimeout=10",
]


@pytest.mark.parametrize(
    ("kex", "configured", "ours", "words"),
    [
        ("^x", False, True, [b"-o", b"KexAlgorithms=^x"]),
        ("^x", False, False, []),
        ("^x", True, True, []),
        ("", False, True, []),
    ],
)
def test_our_words_of_ssh_stand_before_the_inventorys_and_the_key_exchange_behind(
    monkeypatch: pytest.MonkeyPatch, kex: str, configured: bool, ours: bool, words: list[bytes]
) -> None:
    found = reached(monkeypatch, kex, configured, ours)
    assert found == [
        b"sshpass",
        b"/usr/bin/ssh",
        *FIRST,
        b"-C",
        b"-o",
        b"Own=yes",
        *words,
        b"h.example",
        b"true; false",
    ]


@pytest.mark.parametrize(("timeout", "patience"), [(10, 10), (19, 19), (20, 19), (600, 19), (0, 19)])
def test_sshs_own_patience_ends_just_before_ours(monkeypatch: pytest.MonkeyPatch, timeout: int, patience: int) -> None:
    assert f"ConnectTimeout={patience}".encode() in reached(monkeypatch, "", False, True, timeout=timeout)


def test_a_terminal_is_asked_for_before_the_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reached(monkeypatch, "^x", False, True, use_tty=True)[-5:] == [
        b"-o", b"KexAlgorithms=^x", b"-tt", b"h.example", b"true; false"]  # fmt: skip


class Asked(SimpleNamespace):
    """A plugin that notes the options it is given."""

    _load_name = "sudo"

    def set_options(self, task_keys: Any = None, var_options: Any = None) -> None:
        self.given = (dict(task_keys), var_options)

    def _resolve_option_variables(self, variables: Any, _templar: Any) -> Any:
        return variables


@pytest.mark.parametrize("becomes", [True, False])
def test_the_password_of_the_command_line_reaches_become_where_there_is_one(becomes: bool) -> None:
    become = Asked() if becomes else None
    connection = Asked(become=become, _shell=Asked(_load_name="sh"))
    reach = Reach.__new__(Reach)
    reach.task = SimpleNamespace(dump_attrs=lambda: {"retries": 3, "timeout": 0, "become": True})
    context = SimpleNamespace(timeout=7, password="login", become_pass="secret")
    reach._set_options(connection, context, {"x": 1}, Templar(loader=DataLoader(), variables={}))
    keys = {"timeout": 7, "become": True, "password": "login"}
    assert connection.given == (keys, {"x": 1}) and connection._shell.given[0] == keys
    assert become is None or become.given[0] == {**keys, "become_pass": "secret"}


# --- the lookup of a bundle and the gate's arguments ----------------------------------------------


def test_what_a_plan_knows_of_a_bundle(tmp_path: Any) -> None:
    path = tmp_path / "b.tar"
    made = make_bundle("1.2.3", 7)
    path.write_bytes(as_tar(made))
    found = bundle.describe(str(path))
    assert (found["path"], found["digest"]) == (str(path), made.manifest.digest)
    assert {name: found["bundle"][name] for name in ("version", "sequence")} == {"version": "1.2.3", "sequence": 7}
    assert [one["feature"] for one in found["contracts"]] == ["exec_events", "runqlat"] and found["btf_index"] == []
    assert found["key"] == " ".join(public_key(make_key()).split()[:2])
    with pytest.raises(FleetError, match="^bundle /none: ") as refused:
        bundle.describe("/none")
    assert refused.value.code == "EF_MANIFEST_MISSING"


def test_the_gate_takes_what_the_rollout_gives_it() -> None:
    given = {
        "hosts": ["w1"], "before_var": "b", "after_var": "a", "expected_var": "e", "contracts": [{"feature": "f"}],
        "digest": "d", "limits": {"x": 1}, "on_inconclusive": {"y": "pass"}, "extra_checks": [{"name": "z"}],
    }  # fmt: skip
    judged = ArgumentSpecValidator(gate.ARGUMENTS).validate(given)
    assert judged.error_messages == []
    kept = {name: judged.validated_parameters[name] for name in given}
    assert kept == given
    nothing = ArgumentSpecValidator(gate.ARGUMENTS).validate({"changed": {}}).validated_parameters
    assert [nothing[name] for name in ("contracts", "limits", "on_inconclusive", "extra_checks")] == [[], {}, {}, []]
    unknown = ArgumentSpecValidator(gate.ARGUMENTS).validate({"changed": {}, "contract": []})
    assert len(unknown.error_messages) == 1
