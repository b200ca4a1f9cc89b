# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence over real OpenSSH: each host is accounted for, and what one does not give costs the others nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import sshhosts
from tests.support.play import Played, play

# Of the machine, such as a container that forbids namespaces: tests/holes.yml has each with its why.
pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(bool(sshhosts.why_not()), reason=sshhosts.why_not() or "can be made"),
]

BOUNDS = {"ebpf_fleet_connect_timeout": 5, "ebpf_fleet_forensics_timeout": 40}


def collect(folder: Path, hosts: sshhosts.Hosts, *arguments: str, **variables: Any) -> tuple[Played, Path]:
    """How it ended, and the folder of the run (the folder itself where there is none)."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    given = {"ebpf_fleet_forensics_dir": str(out), **BOUNDS, **variables}
    played = play("forensics", given, inventory=hosts.inventory(), arguments=arguments, timeout=200)
    return played, max(out.iterdir(), default=out)


def test_who_does_not_answer_is_named_and_what_others_gave_is_kept(tmp_path: Path) -> None:
    kinds = ("good", "noisy", "refused", "nologin", "flood", "in_login")
    with sshhosts.hosts(tmp_path, *kinds, first=700) as hosts:
        hosts.add("good", "../up, and away")
        hosts.wait()
        played, folder = collect(tmp_path, hosts)
        (name,) = hosts.of_kind("noisy")
    text = (folder / "forensics.json").read_text()
    record = json.loads(text)
    assert text == json.dumps(record, indent=1, sort_keys=True) + "\n", "two records can be compared line by line"
    assert played.rc == 2 and record["complete"] == sorted([*hosts.of_kind("good"), name]), played.text
    lost = hosts.of_kind("refused", "nologin", "flood", "in_login")
    assert record["missing"] == lost and record["partial"] == []
    said = " ".join(played.text.split())
    for one in lost:
        assert record["hosts"][one]["faults"] and f"fatal: [{one}]" in said
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["forensics.json", *(record["hosts"][one]["folder"] for one in record["complete"])]
    )
    odd = folder / record["hosts"]["../up, and away"]["folder"]
    assert odd.parent == folder and sorted(path.name for path in (tmp_path / "out").iterdir()) == [folder.name]
    for one in record["complete"]:
        place = folder / record["hosts"][one]["folder"]
        assert place.stat().st_mode & 0o777 == 0o700
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=place, check=True)


def test_check_mode_asks_no_host_and_makes_no_folder(tmp_path: Path) -> None:
    with sshhosts.hosts(tmp_path, "good", first=720) as hosts:
        played, folder = collect(tmp_path, hosts, "--check")
    assert played.rc == 0 and list(folder.iterdir()) == [] and "changed=1" not in played.text, played.text


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ebpf_fleet_forensics_dir": "/no/such/folder"}, "EF_ARGUMENT: ebpf_fleet_forensics_dir: /no/such/folder"),
        ({"ebpf_fleet_forensics_bytes": 1}, "EF_ARGUMENT: good-730: ebpf_fleet_forensics_bytes: is 1 (a number)"),
        ({"ebpf_fleet_hosts": "good-730,nobody"}, "EF_HOSTS: ebpf_fleet_hosts: 'nobody' matches no host"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, variables: dict[str, Any], words: str) -> None:
    with sshhosts.hosts(tmp_path, "good", first=730) as hosts:
        played, folder = collect(tmp_path, hosts, **variables)
    assert played.rc == 2 and words in " ".join(played.text.split()), played.text
    # A name that means no host is told when the others' evidence is kept.
    assert (folder.name != "out") == ("ebpf_fleet_hosts" in variables)


def test_another_connection_gives_the_same_evidence(tmp_path: Path) -> None:
    with sshhosts.hosts(tmp_path, "good", first=740) as hosts:
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        played, folder = collect(tmp_path, hosts, **local)
    record = json.loads((folder / "forensics.json").read_text())
    assert played.rc == 0 and record["complete"] == hosts.of_kind("good"), played.text
