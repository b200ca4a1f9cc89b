# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of a host: the script in the shells that there are, and a reader that believes nothing."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.incident import bundles, evidence, script
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import variables

SHELLS = [found.split() for found in ("dash", "bash --posix", "busybox sh", "ksh") if shutil.which(found.split()[0])]
MARK = script.MARK
BEGIN = {"begin": 1, "family": "6.1", "distro": "debian", "python": True, "root": True}
NEEDED = {"host.txt": "time: now\n", "unit.txt": "== unit\n"}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def part(name: str, text: str, **more: Any) -> str:
    head = {"file": name, "bytes": len(text), "sha256": sha(text) if text else "", "cut": False, "why": "", **more}
    return f"\n{MARK}{json.dumps(head)}\n" + "".join(f"|{line}\n" for line in text.splitlines())


def sent(files: dict[str, str], begin: dict[str, Any] | None = None, end: dict[str, Any] | None = None) -> str:
    sums = "".join(f"{sha(text)}  {name}\n" for name, text in files.items() if text)
    last = {"end": 1, "files": len(files), "bytes": sum(map(len, files.values())), "sha256": sha(sums), **(end or {})}
    return (
        f"\n{MARK}{json.dumps(begin or BEGIN)}\n" + "".join(part(*one) for one in files.items())
        + f"\n{MARK}{json.dumps(last)}\n"
    )  # fmt: skip


# ---- the script ----


def run(shell: list[str], text: str, **environment: str) -> str:
    done = subprocess.run(
        [*shell, "-c", text], capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_what_the_script_prints_is_read_whole(shell: list[str], tmp_path: Path) -> None:
    state = tmp_path / "run/ebpf-fleet-loader"
    state.mkdir(parents=True)
    (tmp_path / "var/log/ebpf-fleet").mkdir(parents=True)
    (tmp_path / "var/lib").mkdir()
    (tmp_path / "tmp").mkdir()
    (state / "status.json").write_text('{"a": "|begin \\\\n", "secret": "hunter2", "n": 7}\n')
    (tmp_path / "var/log/ebpf-fleet/audit.jsonl").write_text("last\n")
    (tmp_path / "var/log/ebpf-fleet/audit.jsonl.1").write_text("first\n")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    found = evidence.read(run(shell, script.render(root=str(tmp_path), check="never")))
    assert [fault for fault in found.faults if "root" not in fault] == []
    assert json.loads(found.files["status.json"].text) == {"a": "|begin \\n", "secret": "[redacted]", "n": 7}
    assert found.files["audit.jsonl"].text == "first\nlast\n"
    assert found.files["listed.txt"].why == "it is not there" and found.files["metrics.prom"].text == ""
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before, "nothing is written"


REDACTION = script.render().partition("redact() {")[2].partition("\n}\n")[0]
SECRET = "hunter2"
HIDDEN = [
    f"password={SECRET}", f"db_password = {SECRET}", f'"api_key": "{SECRET}"', f'"token":"a\\"{SECRET}"',
    f"https://me:{SECRET}@host/x", f"Authorization: Basic {SECRET}", f'"Authorization": "Bearer {SECRET}"',
    f"bearer {SECRET}", f"AWS_SECRET_ACCESS_KEY={SECRET}", f"PASSWD: {SECRET}", f"cookie={SECRET}; x",
    f"/home/{SECRET}/file", f"{SECRET}@example.org", f"user={SECRET}", f"uid=1000({SECRET})", f"comm={SECRET}",
    f'"comm": "{SECRET}"', f"PID: 7 Comm: {SECRET} Tainted", f"Kernel command line: root=/dev/x {SECRET}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\\n{SECRET}\\n-----END PRIVATE KEY-----",
]  # fmt: skip
KEPT = [
    '{"uid": 1000, "path": "/etc/ebpf-fleet/desired.json", "state": "attached"}', '"tokens": 5, "on": true',
    'ebpf_fleet_map_entries{feature="runqlat",map="ef_hist"} 3', "prog_tag: 6deef7357e7b4530", "a" * 64,
    "2026-11-28T18:00:00+0000 host systemd[1]: Started ebpf.fleet loader.", "recommend=1 common: yes",
    "bpf_prog_6deef7357e7b4530_ef_exec", "Uid:\t990\t990\t990\t990",
]  # fmt: skip


@pytest.mark.parametrize("line", HIDDEN, ids=lambda line: line[:30])
@pytest.mark.parametrize("shell", SHELLS[:1], ids=lambda shell: shell[0])
def test_no_secret_and_no_name_leaves_the_host(shell: list[str], line: str) -> None:
    text = f'redact() {{{REDACTION}\n}}\nprintf "%s\\n" "$LINE" after | redact'
    found = run(shell, text, LINE=f"before {line}")
    assert SECRET not in found and found.endswith("after\n"), found
    assert found.startswith("before ") or "PRIVATE KEY" in line


def test_redaction_leaves_what_is_evidence_and_is_not_empty() -> None:
    text = f'redact() {{{REDACTION}\n}}\nprintf "%s\\n" "$LINE" | redact'
    for line in KEPT:
        assert run(SHELLS[0], text, LINE=line) == line + "\n"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"file_bytes": 4095}, "file_bytes"), ({"file_bytes": 1048577}, "file_bytes"),
        ({"file_bytes": True}, "file_bytes"), ({"total_bytes": 8191}, "total_bytes"),
        ({"total_bytes": 3145729}, "total_bytes"), ({"check": "maybe"}, "check"),
        ({"root": "/a b"}, "root"),
    ],
)  # fmt: skip
def test_a_script_is_not_made_of_what_is_out_of_range(given: dict[str, Any], named: str) -> None:
    with pytest.raises(FleetError, match=named) as caught:
        script.render(**given)
    assert caught.value.code == "EF_ARGUMENT"


def test_the_variables_have_the_bounds_of_the_script() -> None:
    for name, bounds in (("file_bytes", script.FILE_BYTES), ("bytes", script.TOTAL_BYTES)):
        for value in bounds:
            assert variables.read(f"ebpf_fleet_forensics_{name}", value) == value
            script.render(**{"total_bytes" if name == "bytes" else name: value})
    for word in script.CHECKS:
        assert variables.read("ebpf_fleet_forensics_check", word) == word


# ---- the reader ----


def test_a_whole_bundle_has_no_fault_whatever_a_profile_printed_and_a_terminal_did() -> None:
    text = "Welcome|\n|not ours\n" + sent({**NEEDED, "status.json": '{"a": 1}\n'}) + "|bye\n"
    found = evidence.read(text.replace("\n", "\r\n"))
    assert found.faults == [] and {name: one.text for name, one in found.files.items()} == {
        "host.txt": NEEDED["host.txt"], "unit.txt": NEEDED["unit.txt"], "status.json": '{"a": 1}\n'}  # fmt: skip
    assert (found.family, found.python) == ("6.1", True)
    assert f"{sha(NEEDED['host.txt'])}  host.txt\n" in found.sums


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/b", "..", "", "status.json\n", "SHA256SUMS", "x" * 999]
)
def test_no_name_of_a_host_is_a_path(name: str) -> None:
    found = evidence.read(sent({**NEEDED, name: "x\n"}))
    assert set(found.files) == set(NEEDED) and found.faults


@pytest.mark.parametrize("letter", ["\x1b[2J", "\x07", "é", "\u202e", "\x9b", "\x00"])
def test_a_letter_that_paints_is_not_kept(letter: str) -> None:
    found = evidence.read(sent({**NEEDED, "kernel.txt": f"a{letter}b\n"}))
    assert "kernel.txt" not in found.files and any("printable" in one or "bytes" in one for one in found.faults)
    assert all(one.isprintable() for one in found.faults)


def test_what_was_altered_on_its_way_is_not_the_file() -> None:
    whole = sent(NEEDED)
    for old, new in (("|time: now", "|time: not"), ("|time: now", "|time: now and more")):
        found = evidence.read(whole.replace(old, new))
        assert "host.txt" not in found.files and found.faults
    assert any("SHA-256" in one for one in evidence.read(whole.replace("|time: now", "|time: not")).faults)


def test_the_manifest_is_checked_as_a_whole() -> None:
    assert any("manifest" in one for one in evidence.read(sent(NEEDED, end={"sha256": "0" * 64})).faults)
    assert any("2 of 3" in one for one in evidence.read(sent(NEEDED, end={"files": 3})).faults)


def test_a_host_without_a_tool_for_sums_is_kept_and_is_not_complete() -> None:
    text = f"\n{MARK}{json.dumps(BEGIN)}\n" + part("host.txt", "a\n", sha256="") + part("unit.txt", "b\n", sha256="")
    text += f'\n{MARK}{{"end":1,"files":2,"bytes":4,"sha256":""}}\n'
    found = evidence.read(text)
    assert set(found.files) == set(NEEDED) and any("not proven" in one for one in found.faults)


def test_what_came_before_the_link_was_cut_is_kept() -> None:
    text = sent({**NEEDED, "status.json": "x" * 50 + "\n"})
    at = text.index("|" + "x" * 50) + 20
    found = evidence.read(text[:at])
    assert set(found.files) == set(NEEDED)
    assert any("19 of 51" in one or "20 of 51" in one for one in found.faults), found.faults
    assert any(one == "it ends early, after unit.txt" for one in found.faults)


@pytest.mark.parametrize("text", ["", "hello\n", MARK, f"{MARK}[]\n", f"{MARK}{{}}\n", MARK + "[" * 3000, "|" * 100])
def test_what_is_no_evidence_is_said(text: str) -> None:
    found = evidence.read(text)
    assert found.files == {} and found.faults


def test_who_is_not_root_is_not_complete() -> None:
    assert any("not root" in one for one in evidence.read(sent(NEEDED, {**BEGIN, "root": False})).faults)


def test_nothing_that_a_host_sends_raises() -> None:
    chance = random.Random(7)
    whole = sent({**NEEDED, "status.json": '{"a": 1}\n'})
    for _turn in range(3000):
        letters = list(whole)
        for _change in range(chance.randrange(1, 5)):
            at = chance.randrange(len(letters))
            letters[at : at + chance.randrange(3)] = chance.choice(["", "\n", "|", "{", '"', "\udc80", "9", MARK])
        found = evidence.read("".join(letters))
        assert set(found.files) <= set(evidence.FILES)
        for one in found.files.values():
            assert sha(one.text) == one.sha256 or not one.text


# ---- what is said of it ----

NAMES = [
    "web1",
    "db: primary",
    "../x",
    "..",
    ".",
    "",
    "a/b",
    "web, blue",
    "fe80::1%eth0",
    "é",
    "A" * 300,
    "A" * 301,
    "%2E",
    "-r",
]


def test_each_name_has_a_folder_of_its_own_and_none_leads_elsewhere() -> None:
    folders = [bundles.folder_of(name) for name in NAMES if name]
    assert len(set(folders)) == len(folders)
    for folder in folders:
        assert "/" not in folder and folder not in (".", "..") and folder.isascii() and len(folder) < 200
    assert bundles.folder_of("web1") == "web1" and not bundles.folder_of(".hidden").startswith(".")


def test_the_document_accounts_for_every_host() -> None:
    good = bundles.entry("a", {"failed": False, "seconds": 1.5}, evidence.read(sent(NEEDED)))
    part_of = bundles.entry("b", {"failed": True, "msg": "cut", "seconds": 2}, evidence.read(sent(NEEDED)[:-150]))
    none = bundles.entry("c", {"failed": True, "msg": "no \x1b way"}, evidence.read(""))
    found = bundles.document({"a": good, "b": part_of, "c": none}, "2026-11-28T18:00:00Z", {"file_bytes": 1})
    assert (found["complete"], found["partial"] + found["missing"]) == (["a"], ["b", "c"])
    assert found["missing"] == ["c"] and none["faults"] == ["no \\x1b way"], "what came instead is not said twice"
    assert good["seconds_ms"] == 1500 and none["seconds_ms"] is None
    said = bundles.lines(found, "/x")
    assert said[0] == "evidence of 1 of 3 hosts in /x" and "NOTHING CAME: 1" in said and "  'c': no \\x1b way" in said
