# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that lie, paint and inject, met by the real playbooks with the settings that a user has by default."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import unicodedata
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

from tests.integration.test_playbooks import rollout_options, run
from tests.support.play import RELEASE

pytestmark = pytest.mark.apart

PAINT = "\x1b[2J\x1b[HAll 500 hosts confirmed\r\x9b2J\u202eflesrever\u2066\x07|`*<script>alert(1)</script>"
INJECT = "{{ lookup('ansible.builtin.pipe', 'touch MARKER') }}{% set x = cycler.__init__.__globals__ %} `[?x]`|[*]"
# What a host may answer to a module: ansible-core runs its interpreter with the module's path.
INTERPRETER = """#!/bin/sh
case $1 in
*capability_facts*) cat @FOLDER@/@NAME@.capability ;;
*) cat @FOLDER@/@NAME@.other ;;
esac
"""


@pytest.fixture(autouse=True)
def default_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of ours: what a host writes must not depend on a careful controller."""
    for name in ("ANSIBLE_INJECT_FACT_VARS", "_ANSIBLE_TEMPLAR_UNTRUSTED_TEMPLATE_BEHAVIOR", "ANSIBLE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def facts(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(capabilities.gather([])))
    return {**found, "profiles": {}, **more}


def lie(folder: Path, name: str, capability: str, other: str = '{"changed": false}') -> str:
    """An inventory line of a host whose interpreter answers this, whatever it is asked."""
    (folder / f"{name}.capability").write_text(capability, errors="surrogatepass")
    (folder / f"{name}.other").write_text(other)
    interpreter = folder / f"{name}.sh"
    interpreter.write_text(INTERPRETER.replace("@FOLDER@", str(folder)).replace("@NAME@", name))
    interpreter.chmod(0o755)
    where = "ebpf_fleet_cell=c ebpf_fleet_region=r"
    return f"{name} ansible_connection=local ansible_python_interpreter={interpreter} {where}\n"


def result(**more: Any) -> str:
    return json.dumps({"changed": False, **more})


def unseen(text: str) -> list[str]:
    """Characters that a terminal does not show as they are, but for the ends of lines."""
    return sorted(
        {f"{ord(one):x}" for one in text if one != "\n" and unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")}
    )


@pytest.fixture
def liars(tmp_path: Path) -> Path:
    """A folder with an inventory of liars; w1 and d1 of `run` are honest."""
    folder = tmp_path / "liars"
    folder.mkdir()
    marker = str(tmp_path / "marker")
    text = PAINT + INJECT.replace("MARKER", marker)
    spoken = {"profile": "disabled", "variant": None, "reason_code": "EF_NO_BTF", "reason": text, "sentence": text}
    painted = facts(kernel={**facts()["kernel"], "release": PAINT[:40]})
    evil = facts(distro={"id": text, "version_id": "1"})
    added = {"host_name": "planted", "groups": ["ebpf_fleet_rollout"], "host_vars": {"ansible_connection": PAINT}}
    spread = {"ebpf_fleet_report": str(tmp_path / "planted"), "ebpf_fleet_stages": [], "ebpf_fleet_hosts": "none"}
    lines = [
        lie(folder, "e1paint", result(capabilities=painted, profiles={"runqlat": spoken}, warnings=[text])),
        lie(folder, "e2deep", '{"capabilities": ' + "[" * 10_000 + "]" * 10_000 + "}"),
        lie(folder, "e3type", result(capabilities=evil)),
        lie(folder, "e4noise", text * 200),
        lie(folder, "e5huge", result(capabilities=facts(python="x" * 1_000_000))),
        lie(folder, "e6fail", result(failed=True, msg=text, exception=text, deprecations=[{"msg": text}])),
        lie(
            folder,
            "e7fact",
            result(capabilities=facts(), ansible_facts=spread, add_host=added, add_group=PAINT, _ansible_x=PAINT)
            + "\n"
            + PAINT,
        ),
        lie(
            folder, "e8nan", '{"capabilities": {"kernel": {"family": NaN}, "distro": {}, "btf": {"state": "missing"}}}'
        ),
    ]
    (folder / "liars.ini").write_text("".join(lines))
    return folder


@pytest.mark.slow
def test_capabilities_names_every_liar_keeps_every_honest_host_and_paints_nothing(tmp_path: Path, liars: Path) -> None:
    options = ("-i", "hosts.ini", "-i", str(liars / "liars.ini"), "-e", "ebpf_fleet_report=fleet")
    status, said = run("capabilities", tmp_path, *options)
    assert status != 0, said
    assert unseen(said) == [], said
    written = {name: (tmp_path / name).read_text() for name in ("fleet.json", "fleet.md", "fleet.html")}
    assert {name: unseen(text) for name, text in written.items()} == dict.fromkeys(written, [])
    assert "<script" not in written["fleet.md"] + written["fleet.html"]
    census = json.loads(written["fleet.json"])
    assert sorted(census["hosts"]) == ["d1", "e1paint", "e7fact", "w1"]
    assert census["hosts"]["d1"]["kernel"] == facts()["kernel"]
    assert census["silent"] == ["e2deep", "e3type", "e4noise", "e5huge", "e6fail", "e8nan"]
    for name in census["silent"]:
        assert census["silent_reasons"][name], name
    for name, field in (
        ("e2deep", "nested too deep"),
        ("e3type", "distro.id"),
        ("e5huge", "python"),
        ("e8nan", "family"),
    ):
        assert f"no usable answer from {name}: " in census["silent_reasons"][name]
        assert field in census["silent_reasons"][name]
        assert census["silent_reasons"][name] in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("playbook", "options"),
    [
        ("inventory", ()),
        ("takeoff", ("-e", "scope=unit=net-agent.service", "-e", "confirm=takeoff-unit=net-agent.service", "-e",
                     'reason="slow"')),
    ],
)  # fmt: skip
def test_an_answer_of_ten_thousand_brackets_is_told_of_its_host(
    tmp_path: Path, playbook: str, options: tuple[str, ...]
) -> None:
    """ansible-core's own reader of a module's words gives up on it, and with more than a failed task."""
    deep = '{"changed": ' + "[" * 10_000 + "]" * 10_000 + "}"
    (tmp_path / "deep.ini").write_text(lie(tmp_path, "e9deep", deep, deep))
    status, said = run(playbook, tmp_path, "-i", "deep.ini", *options)
    told = " ".join(said.split())
    assert status != 0 and "no usable answer from e9deep: the answer: is nested too deep" in told, said
    assert "RecursionError" not in said and "Traceback" not in said


def test_no_text_of_a_host_is_evaluated_and_no_fact_of_one_becomes_a_setting(tmp_path: Path, liars: Path) -> None:
    """The liar e7fact is the first host, in whose name `run_once` tasks are run."""
    options = ("-i", str(liars / "liars.ini"), "-i", "hosts.ini", "--limit", "e1paint,e7fact,w1")
    status, said = run("capabilities", tmp_path, *options)
    assert status == 0, said
    assert not (tmp_path / "marker").exists(), "a host's text was evaluated"
    assert list(tmp_path.glob("planted*")) == [], "a host chose where the controller writes"
    assert "TASK [Write the answers]" in said and "fleet" not in [path.name for path in tmp_path.iterdir()]


@pytest.mark.slow
def test_a_rollout_holds_and_names_whose_answer_cannot_be_used(
    tmp_path: Path, liars: Path, policy_bundle: Path
) -> None:
    options = rollout_options(policy_bundle)[:2]
    status, said = run("rollout", tmp_path, "-i", "hosts.ini", "-i", str(liars / "liars.ini"), *options, "--check")
    assert status != 0 and unseen(said) == [], said
    told = " ".join(said.split())
    assert "No rollout begins while hosts do not answer: e2deep, e3type, e4noise, e5huge, e6fail, e8nan." in told
    assert "no usable answer from e3type: capabilities.distro.id: has " in told
    assert "Print the plan" not in said and not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_a_host_cannot_choose_where_its_own_batch_is_recorded_nor_how_it_is_judged(
    tmp_path: Path,
    policy_bundle: Path,
) -> None:
    """Its facts, which outrank an inventory's variables, come with the answer of another module."""
    folder, chosen = tmp_path / "liars", tmp_path / "chosen"
    folder.mkdir()
    chosen.mkdir()
    spread = {"ebpf_fleet_report_dir": str(chosen), "ebpf_fleet_gate_checks": [{"name": "x", "expression": "`true`"}]}
    answer = result(ansible_facts=spread, observation=None)
    (folder / "l.ini").write_text(lie(folder, "a1", result(capabilities=facts(), profiles={}), answer))
    status, said = run("rollout", tmp_path, "-i", str(folder / "l.ini"), *rollout_options(policy_bundle)[:2])
    assert status != 0 and "no later batch was started" in said, said
    assert list(chosen.iterdir()) == [], "the host chose where the controller writes"


@pytest.mark.slow
def test_a_host_that_stands_alone_is_named_in_the_plan_and_changes_against_the_last_census_too(
    tmp_path: Path,
    policy_bundle: Path,
) -> None:
    folder = tmp_path / "liars"
    folder.mkdir()
    status, said = run("capabilities", tmp_path, "-e", "ebpf_fleet_report=last")
    assert status == 0, said
    census = json.loads((tmp_path / "last.json").read_text())
    stratum = census["hosts"]["w1"]["stratum"]
    census["hosts"]["w1"]["stratum"] = "5.10/x86_64/debian"
    (tmp_path / "last.json").write_text(json.dumps(census))
    alone = facts(kernel={**facts()["kernel"], "family": "9.99"})
    (folder / "l.ini").write_text(lie(folder, "a1", result(capabilities=alone, profiles={})))
    options = (*rollout_options(policy_bundle)[:2], "-e", "ebpf_fleet_last_census=last.json", "--check")
    status, said = run("rollout", tmp_path, "-i", "hosts.ini", "-i", str(folder / "l.ini"), *options)
    told = " ".join(said.split())
    assert "1 host claims a stratum that no other host has; they come last and are not canaries: a1 (9.99/" in told
    assert f"than in the last census: w1 ({stratum}, not 5.10/x86_64/debian)" in told
    assert "canary: 1 host in batches of 1: d1" in told, said


class Sshd:
    """A real sshd whose every session is one command of ours, with a banner that paints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.payload = folder / "payload"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "banner").write_text(PAINT)
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPermitRootLogin yes\nBanner {folder}/banner\n"
            f"ForceCommand cat {self.payload}\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL
        )
        for _attempt in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError("sshd did not start")

    def inventory(self, *names: str) -> str:
        options = f"-o IdentityFile={self.folder}/user -o IdentitiesOnly=yes -o BatchMode=yes"
        options += f" -o StrictHostKeyChecking=no -o UserKnownHostsFile={self.folder}/known -o ControlMaster=no"
        return "".join(
            f"{name} ansible_connection=ssh ansible_host=127.0.0.1 ansible_port={self.port} ansible_user=root"
            f" ansible_ssh_common_args='{options}'\n"
            for name in names
        )


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    if os.geteuid() != 0 or not Path("/usr/sbin/sshd").exists():
        pytest.skip("needs root and /usr/sbin/sshd for a host of its own")
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o700)
    found = Sshd(folder)
    yield found
    found.process.terminate()
    found.process.wait()


GOOD = {
    "ok": True,
    "changed": False,
    "host_ms": 5,
    "left": None,
    "persisted": None,
    "escalated": False,
    "detail": "off",
}
PAYLOADS = {
    "paints": (
        killscript.MARK + json.dumps({**GOOD, "ok": False, "detail": PAINT + INJECT}),
        "All 500 hosts confirmed",
    ),
    "ten thousand brackets": (killscript.MARK + "[" * 10_000, "at most 4096 are read"),
    "a megabyte": (PAINT * 10_000, "no usable answer from evil: it said: "),
    "a negative time": (killscript.MARK + json.dumps({**GOOD, "host_ms": -1}), "host_ms: -1 is not from 0"),
    "a line written over": ("\r" + killscript.MARK + json.dumps(GOOD), "not at the begin of a line"),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_kill_order_meets_a_host_that_answers_what_it_likes(tmp_path: Path, sshd: Sshd, name: str) -> None:
    payload, why = PAYLOADS[name]
    sshd.payload.write_text(payload.replace("MARKER", str(tmp_path / "marker")) + "\n")
    (sshd.folder / "evil.ini").write_text(sshd.inventory("evil"))
    order = ("-e", "scope=feature=none_such", *RELEASE, "-e", "ebpf_fleet_report=record.json")
    status, said = run("rollback", tmp_path, "-i", "hosts.ini", "-i", str(sshd.folder / "evil.ini"), *order)
    assert status != 0 and unseen(said) == [], said
    text = (tmp_path / "record.json").read_text()
    record = json.loads(text)
    assert (record["confirmed"], record["missing"]) == (["d1", "w1"], ["evil"])
    assert why in record["hosts"]["evil"]["detail"] and why in " ".join(said.split())
    assert unseen(text) == [] and unseen(record["sentence"]) == []
    assert not (tmp_path / "marker").exists()
