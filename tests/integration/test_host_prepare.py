# SPDX-License-Identifier: GPL-3.0-or-later
"""The module host_prepare, run by Ansible: what it refuses, what it plans, and that it says the truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runner import ROOT, run_one

pytestmark = pytest.mark.apart

# A mount namespace in which this machine looks as if systemd had booted it; no unit is touched in it.
AS_IF_BOOTED = 'mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && exec "$@"'


def item(path: object, **more: str) -> dict[str, str]:
    return {"path": str(path), "content": "text\n", **more}


def prepare(*options: str, **arguments: Any) -> dict[str, Any]:
    """The result of one run in the namespace; what was printed, the diff above all, is its `_said`."""
    ansible = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local",
               "-e", f"ansible_python_interpreter={sys.executable}",
               "-m", "ebpf.fleet.host_prepare", "-a", json.dumps(arguments), *options]  # fmt: skip
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", AS_IF_BOOTED, "sh", *ansible],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1",
             "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert " => " in done.stdout, done.stdout + done.stderr
    document: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout.split(" => ", 1)[1])[0]
    return {**document, "_said": done.stdout}


@pytest.fixture
def namespace() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for a mount namespace in which systemd seems to run")


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"path": "etc/x"}, "path 'etc/x' is not absolute; write it from /"),
        ({"path": "/etc/x", "mode": "u=rw"}, "mode 'u=rw' of /etc/x is not octal"),
        ({"path": "/etc/x", "mode": "-644"}, "mode '-644' of /etc/x is not octal"),
        ({"path": "/etc/x", "mode": "0o644"}, "mode '0o644' of /etc/x is not octal"),
        ({"path": "/etc/x", "mode": "4755"}, "mode '4755' of /etc/x is not octal from 0 to 0777"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(tmp_path, file, says):
    result = run_one(tmp_path, "host_prepare", files=[item(tmp_path / "good"), {"content": "text\n", **file}])
    assert result["failed"] and result["msg"].startswith("EF_ARGUMENT: ") and says in result["msg"]
    assert result["reason_code"] == "EF_ARGUMENT" and result["remedy"]
    assert not (tmp_path / "good").exists()


@pytest.mark.slow
def test_a_host_without_systemd_is_told_so_and_nothing_is_written(tmp_path):
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs this machine, so its absence cannot be tried")
    result = run_one(tmp_path, "host_prepare", files=[item(tmp_path / "file")])
    assert result["failed"] and "was not booted with systemd" in result["msg"]
    assert result["reason_code"] == "EF_NO_SYSTEMD"
    assert not (tmp_path / "file").exists()


@pytest.mark.slow
def test_a_second_run_changes_nothing_and_check_mode_touches_nothing(namespace, tmp_path):
    path = tmp_path / "deep/file"
    told = prepare("--check", "--diff", files=[item(path)])
    assert told["changed"] and told["files"] == [str(path)] and not path.parent.exists()
    done = prepare("--diff", files=[item(path, mode="0600")])
    assert done["changed"] and f"--- before: {path} (absent)" in done["_said"]
    assert (path.read_text(), path.stat().st_mode & 0o777, path.stat().st_uid) == ("text\n", 0o600, 0)
    again = prepare(files=[item(path, mode="0600")])
    assert not again["changed"] and again["files"] == [] and again["actions"] == []


def test_a_control_file_that_belongs_to_another_becomes_roots_again(namespace, tmp_path):
    path = tmp_path / "allowed_signers"
    path.write_text("text\n")
    path.chmod(0o644)
    os.chown(path, 12345, 0)
    done = prepare("--diff", files=[item(path)])
    assert done["changed"] and "\n-mode 0644, of user 12345\n+mode 0644\n" in done["_said"]
    assert path.stat().st_uid == 0
    assert not prepare(files=[item(path)])["changed"]


def test_a_symlink_where_a_control_file_belongs_is_refused_with_the_remedy(namespace, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("keep")
    link.symlink_to(target)
    result = prepare(files=[item(link)])
    assert result["msg"] == f"EF_UNREADABLE: {link} is a symlink, not a regular file; remove it"
    assert target.read_text() == "keep"


@pytest.mark.slow
def test_a_snippet_that_is_to_be_applied_but_was_not_given_is_refused(namespace, tmp_path):
    result = prepare(files=[item(tmp_path / "file")], tmpfiles="other.conf")
    assert result["msg"] == "EF_ARGUMENT: 'other.conf' is to be applied but is not among files; add it"
    assert not (tmp_path / "file").exists()
