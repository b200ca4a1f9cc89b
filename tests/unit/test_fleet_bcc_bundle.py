# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's bundle: what it asks the loader, what it compares, and what it reads of a contract."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import bundle, command
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.attach import Hook
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import RefusedError

DIGEST = "d" * 64

# ---- a source ----


def test_a_signal_is_the_first_of_its_kind_and_a_copy() -> None:
    signals = [{"kind": "counters", "name": "a"}, {"kind": "events", "name": "b"}, {"kind": "events", "name": "c"}]
    source = bundle.Source("probe", {"signals": signals}, {}, b"")
    found = source.signal("events")
    assert found == signals[1] and found is not signals[1]
    assert source.signal("counters") == signals[0]
    assert source.signal("histogram") is None


@pytest.mark.parametrize(
    ("signals", "every"),
    [([{"sample_every": 5}, {"sample_every": 7}], 5), ([{}], 1), ([{}, {"sample_every": 7}], 1)],
)
def test_the_contracts_sampling_is_the_first_signals(signals: list[dict[str, Any]], every: int) -> None:
    assert bundle.Source("probe", {"signals": signals}, {}, b"").sample_every == every


def test_a_day_is_written_as_contracts_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def now(zone: Any) -> datetime.datetime:
            return datetime.datetime(2026, 3, 4, 23, 59, tzinfo=zone)

    monkeypatch.setattr(bundle, "datetime", SimpleNamespace(datetime=Clock, timezone=datetime.timezone))
    for expires, expired in (("2026-03-03", True), ("2026-03-04", True), ("2026-03-05", False), ("2025-12-31", True)):
        found = bundle.Source("probe", {"expires": expires}, {}, b"").expired()
        assert found == (expires if expired else None), expires


# ---- the loader's verdict ----

LOADER = """#!/usr/bin/python3
import json, os, sys
with open(os.path.join(os.path.dirname(sys.argv[0]), "asked"), "w") as file:
    json.dump([sys.argv[1:], sys.stdin.read()], file)
"""


def ask(tmp_path: Path, lines: str) -> dict[str, Any]:
    loader = tmp_path / "loader"
    loader.write_text(LOADER + lines)
    loader.chmod(0o755)
    (tmp_path / "etc/trust").mkdir(parents=True, exist_ok=True)
    options = argparse.Namespace(etc=str(tmp_path / "etc"), loader=str(loader), bundle="/the/bundle")
    return bundle.ask_loader(options)


def asked(tmp_path: Path) -> list[Any]:
    return list(json.loads((tmp_path / "asked").read_text()))


def test_the_loader_is_asked_with_the_trust_of_this_host(tmp_path: Path) -> None:
    verdict = 'print(json.dumps({"ok": True, "digest": "x"}))'
    assert ask(tmp_path, verdict) == {"ok": True, "digest": "x"}
    trust = tmp_path / "etc/trust"
    command_line = ["verify", "/the/bundle", "--self", "--trust", str(trust / "allowed_signers")]
    assert asked(tmp_path) == [command_line, ""]
    (trust / "revoked_keys").touch()
    ask(tmp_path, verdict)
    assert asked(tmp_path) == [[*command_line, "--revoked", str(trust / "revoked_keys")], ""]
    assert bundle.VERIFY_SECONDS == 120


@pytest.mark.parametrize(
    ("lines", "code", "reason"),
    [
        ('print(json.dumps({"ok": False, "reason_code": "EF_SIG_UNKNOWN_SIGNER", "reason": "no"})); sys.exit(3)',
         "EF_SIG_UNKNOWN_SIGNER", "no"),
        ('print(json.dumps({"ok": False, "reason_code": "EF_X", "reason": "no"}))', "EF_X", "no"),
        ('print(json.dumps({"ok": 1, "reason_code": "EF_X", "reason": "no"}))', "EF_X", "no"),
        ('print(json.dumps({"ok": True, "reason_code": "EF_X", "reason": "no"})); sys.exit(1)', "EF_X", "no"),
        ('print(json.dumps({"ok": True})); sys.exit(3)', "EF_UNKNOWN", "exit 3"),
        ("print(json.dumps([1])); sys.exit(4)", "EF_UNKNOWN", "exit 4"),
        ("print(json.dumps([1]))", "EF_UNKNOWN", "exit 0"),
    ],
)  # fmt: skip
def test_what_the_loader_refuses_is_refused_for_its_reason(tmp_path: Path, lines: str, code: str, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        ask(tmp_path, lines)
    assert (refused.value.code, refused.value.message) == (code, reason)


@pytest.mark.parametrize("lines", ["", "print('{')"])
def test_a_loader_without_an_answer_vouches_for_nothing(tmp_path: Path, lines: str) -> None:
    with pytest.raises(RefusedError, match="loader gives no verdict .*deploy the release again") as refused:
        ask(tmp_path, lines)
    assert refused.value.code == "EF_UNKNOWN"


def test_a_loader_that_hangs_or_is_not_there_vouches_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "VERIFY_SECONDS", 0.2)
    with pytest.raises(RefusedError, match="timed out"):
        ask(tmp_path, "import time; time.sleep(60)")
    options = argparse.Namespace(etc="/none", loader="/none/loader", bundle="/b")
    with pytest.raises(RefusedError, match="/none/loader gives no verdict"):
        bundle.ask_loader(options)


# ---- the files ----


def write(folder: Path, **files: bytes) -> bundle.Files:
    """A bundle of these files, as it was verified."""
    named = {}
    for name, data in files.items():
        path = name.replace("__", "/").replace("_json", ".json").replace("_c", ".c").replace("_py", ".py")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        named[path] = {"sha256": hashlib.sha256(data).hexdigest()}
    return seal(folder, {"files": named})


def seal(folder: Path, manifest: dict[str, Any]) -> bundle.Files:
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    return bundle.Files(folder, hashlib.sha256(data).hexdigest())


def test_a_file_is_what_the_manifest_says(tmp_path: Path) -> None:
    files = write(tmp_path, a=b"one", features__x__bcc_c=b"two")
    assert files.read("a") == b"one" and files.read("features/x/bcc.c") == b"two"
    (tmp_path / "a").write_bytes(b"One")
    with pytest.raises(RefusedError, match="^a: is not what was signed; deploy the release again$") as refused:
        files.read("a")
    assert refused.value.code == "EF_FILE_DIGEST"
    (tmp_path / "a").unlink()
    with pytest.raises(RefusedError, match="^a: No such file or directory; deploy the release again$") as refused:
        files.read("a")
    assert refused.value.code == "EF_FILE_MISSING"
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(RefusedError, match="^b: is not in the manifest; build the release again$") as refused:
        files.read("b")
    assert refused.value.code == "EF_FILE_MISSING"


def test_the_manifest_is_the_one_that_was_verified(tmp_path: Path) -> None:
    write(tmp_path, a=b"one")
    with pytest.raises(RefusedError, match="manifest.json: is not the one that was verified") as refused:
        bundle.Files(tmp_path, DIGEST)
    assert refused.value.code == "EF_FILE_DIGEST"


# ---- a contract ----

CONTRACT = {"signals": [{"kind": "events", "name": "x"}]}
BCC = {"programs": ["ef_a", "ef_b"], "requires": ["attach:kretprobe:do_exit", "x", "attach:raw_tp:sched_switch"]}
HOOKS = {"ef_a": Hook("kretprobe", "do_exit"), "ef_b": Hook("raw_tp", "sched_switch")}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"programs": None}, ": needs the lists programs and requires"),
        ({"requires": None}, ": needs the lists programs and requires"),
        ({"programs": "ef_a"}, ": needs the lists programs and requires"),
        ({"requires": {}}, ": needs the lists programs and requires"),
        ({"programs": ["ef_a", 7]}, ".programs: 7 must be ef_ and up to 12 of [a-z0-9_]"),
        ({"programs": ["ef_a", "b"]}, ".programs: 'b' must be ef_ and up to 12 of [a-z0-9_]"),
        ({"requires": ["attach:lsm:x"]}, ".requires: 'attach:lsm:x' must be a raw_tp, kprobe or kretprobe"),
        ({"requires": ["attach:raw_tp:"]}, ".requires: 'attach:raw_tp:' must be a raw_tp, kprobe or kretprobe"),
        ({"programs": []}, ".requires: needs one attach: for each program, in the same sequence"),
        ({"programs": ["ef_a"]}, ".requires: needs one attach: for each program, in the same sequence"),
        ({"programs": [], "requires": []}, ".requires: needs one attach: for each program, in the same sequence"),
    ],
)
def test_what_is_wrong_with_a_contract_is_told_by_its_field(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedError) as refused:
        bundle.read_hooks("probe", {**BCC, **changes})
    assert refused.value.code == "EF_CONTRACT_MALFORMED"
    assert refused.value.message == f"features/probe/contract.json: bcc{text}"


@pytest.mark.parametrize("length", [127, 128])
def test_a_target_is_as_long_as_the_contracts_grammar_allows(length: int) -> None:
    for kind in ("raw_tp", "kprobe", "kretprobe"):
        assert (bundle.HOOK.fullmatch(f"attach:{kind}:{'a' * length}") is not None) is (length == 127)


def test_a_source_is_read_where_bcc_is_a_fallback(tmp_path: Path) -> None:
    contract = {**CONTRACT, "bcc": BCC}
    files = write(
        tmp_path,
        features__probe__contract_json=json.dumps(contract).encode(),
        features__probe__bcc_c=b"text",
        features__other__contract_json=json.dumps(CONTRACT).encode(),
    )
    assert bundle.read_source(files, "probe") == ("probe", contract, HOOKS, b"text")
    assert bundle.read_source(files, "other") is None


def test_a_file_holds_bytes_or_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert bundle.holds(path, b"one") is True
    assert bundle.holds(path, b"two") is False
    assert bundle.holds(tmp_path / "absent", b"") is False


# ---- all of it ----


def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contract: bytes) -> bundle.Bundle:
    data = {
        "features/a/contract.json": contract, "features/a/bcc.c": b"text",
        "features/b/contract.json": json.dumps(CONTRACT).encode(), "collector/bcc.py": b"entry",
    }  # fmt: skip
    for path, content in data.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    manifest = {
        "features": {"b": {}, "a": {}},
        "bundle": {"name": "ebpf-fleet", "version": "1", "sequence": 7, "built": "then"},
        "files": {path: {"sha256": hashlib.sha256(content).hexdigest()} for path, content in data.items()},
    }
    files = seal(tmp_path, manifest)
    digest = hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert files.manifest == manifest
    monkeypatch.setattr(bundle, "ask_loader", lambda options: {"digest": digest, "of": options})
    for name in [name for name in sys.modules if name.startswith(bundle.OWN_MODULES)]:
        monkeypatch.delitem(sys.modules, name)
    return bundle.open_bundle(argparse.Namespace(bundle=str(tmp_path)), tmp_path / "collector/bcc.py")


def test_a_bundle_has_its_features_in_order_and_the_sources_of_those_that_bcc_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(tmp_path, monkeypatch, json.dumps({**CONTRACT, "bcc": BCC}).encode())
    digest = hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert found.about == {"name": "ebpf-fleet", "version": "1", "sequence": 7, "digest": digest}
    assert (found.digest, found.features) == (digest, ["a", "b"])
    assert [(source.name, source.programs, source.text) for source in found.sources] == [("a", HOOKS, b"text")]


@pytest.mark.parametrize("contract", [b"{", b"7", b'{"bcc": 7}'])
def test_a_contract_that_cannot_be_read_refuses_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contract: bytes
) -> None:
    with pytest.raises(RefusedError, match="^a contract cannot be read .*; build the release again$") as refused:
        opened(tmp_path, monkeypatch, contract)
    assert refused.value.code == "EF_CONTRACT_MALFORMED"


def test_only_the_collectors_files_are_compared_with_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle's other files are read when they are needed, and some never."""
    read: list[str] = []
    monkeypatch.setattr(bundle, "holds", lambda path, data: bool(read.append(f"{path} {data.decode()}")) or True)
    for name in [name for name in sys.modules if name.startswith(bundle.OWN_MODULES)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "elsewhere.odd", SimpleNamespace(__file__="/x/odd.py"))  # type: ignore[arg-type]
    names = ["features/x/contract.json", "collector/bcc.py", "collector/lib/a.py"]
    files = SimpleNamespace(manifest={"files": dict.fromkeys(names)}, read=lambda path: path.encode())
    bundle.check_own(files, tmp_path / "bcc.py")  # type: ignore[arg-type]
    assert read == [f"{tmp_path}/bcc.py collector/bcc.py", f"{tmp_path}/lib/a.py collector/lib/a.py"]


# ---- the command line ----


def test_the_options_are_those_of_the_unit_and_their_defaults_a_hosts() -> None:
    found = vars(command.parse(["run", "--bundle", "/b", "--loader", "/l"]))
    assert found == {
        "command": "run", "bundle": "/b", "loader": "/l", "etc": "/etc/ebpf-fleet", "run": "/run/ebpf-fleet",
        "state": "/run/ebpf-fleet-bcc", "loader_status": "/run/ebpf-fleet-loader/status.json",
        "log": "/var/log/ebpf-fleet", "interval": 5,
    }  # fmt: skip
    words = {name: f"/x/{name}" for name in ("bundle", "loader", "etc", "run", "state", "loader_status", "log")}
    options = [text for name, value in words.items() for text in (f"--{name.replace('_', '-')}", value)]
    assert vars(command.parse(["run", *options, "--interval", "3600"])) == {
        "command": "run", **words, "interval": 3600,
    }  # fmt: skip
    assert vars(command.parse(["compile", "--socket", "7"])) == {"command": "compile", "socket": 7}


@pytest.mark.parametrize(
    "words",
    [[], ["other"], ["run"], ["run", "--bundle", "/b"], ["run", "--loader", "/l"], ["compile"],
     ["compile", "--socket", "x"], ["run", "--bundle", "/b", "--loader", "/l", "--interval", "0"]],
)  # fmt: skip
def test_a_command_that_lacks_something_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parse(words)
    assert ended.value.code == 2
    assert "bcc.py" in capsys.readouterr().err


def test_the_service_takes_its_name_gives_up_new_rights_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(command, "set_process_name", lambda: done.append("name"))
    monkeypatch.setattr(command, "LIBC", SimpleNamespace(prctl=lambda *given: done.append(given)))
    monkeypatch.setattr(command.resource, "setrlimit", lambda *given: done.append(given))
    monkeypatch.setattr(
        command, "Service", lambda options, entry: SimpleNamespace(run=lambda: done.append(entry) or 77)
    )
    entry = Path("/x/bcc.py")
    assert command.main(["run", "--bundle", "/b", "--loader", "/l"], entry) == 77
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert done == ["name", (38, 1, 0, 0, 0), (resource.RLIMIT_MEMLOCK, unlimited), entry]


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_it_runs_with_the_memory_that_it_may_lock(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(*_given: Any) -> None:
        raise error("no")

    monkeypatch.setattr(command, "set_process_name", lambda: None)
    monkeypatch.setattr(command, "LIBC", SimpleNamespace(prctl=lambda *_given: 0))
    monkeypatch.setattr(command.resource, "setrlimit", refuse)
    monkeypatch.setattr(command, "Service", lambda _options, _entry: SimpleNamespace(run=lambda: 3))
    assert command.main(["run", "--bundle", "/b", "--loader", "/l"], Path("/x")) == 3


def test_the_child_only_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "compile_main", lambda fd: fd + 70)
    monkeypatch.setattr(command, "set_process_name", lambda: pytest.fail("that is the service's"))
    assert command.main(["compile", "--socket", "7"], Path("/x")) == 77
