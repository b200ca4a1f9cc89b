# SPDX-License-Identifier: GPL-3.0-or-later
"""capability_facts by ansible-playbook; its predictions against the loader's trial loads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runner import ROOT, run_one, run_tasks
from tests.loader.bundles import Trust, make_bundle
from tests.loader.service import contract_of, feature_of

FEATURES = tuple(sorted(path.parent.name for path in (ROOT / "bpf/features").glob("*/contract.yml")))

# A user may run the file; make test refuses one.
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the kernel answers these questions to root only")

HIDE_BTF = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh"]

PREDICT = """
import json, sys
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities, profile
contracts = json.load(sys.stdin)
facts = capabilities.gather(profile.requirements(contracts))
print(json.dumps({one["feature"]: profile.predict(one, facts) for one in contracts}))
"""


def predicted(prefix: list[str], contracts: list[dict[str, Any]]) -> dict[str, Any]:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", PREDICT],
        input=json.dumps(contracts),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@as_root
@pytest.mark.parametrize("prefix", [[], HIDE_BTF], ids=["as it is", "without BTF"])
def test_the_prediction_equals_the_loaders_trial_load(
    tmp_path: Path, loader: Path, feature_objects: Path, trust: Trust, prefix: list[str]
) -> None:
    features = {name: feature_of(feature_objects, name) for name in FEATURES}
    bundle = make_bundle(tmp_path / "bundle", trust.key, features)
    done = subprocess.run(
        [*prefix, str(loader), "check", "--attach", str(bundle.root), *trust.arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    reached = json.loads(done.stdout)["features"]
    found = predicted(prefix, [contract for contract, _objects in features.values()])
    assert set(found) == set(FEATURES)
    for name in FEATURES:
        assert found[name]["profile"] == reached[name]["profile"], (found[name], reached[name])
        assert found[name]["variant"] == reached[name]["variant"]
        if "reason_code" in reached[name]:
            assert found[name]["reason_code"] == reached[name]["reason_code"], (found[name], reached[name])


@as_root
def test_facts_and_profiles_are_returned(tmp_path: Path) -> None:
    contracts = [contract_of(name) for name in FEATURES]
    result = run_one(tmp_path, "capability_facts", "--check", contracts=contracts)
    assert (result["failed"], result["changed"]) == (False, False)
    facts = result["ansible_facts"]["ebpf_fleet_capabilities"]
    assert facts == result["capabilities"]
    assert facts["schema"] == "ebpf.fleet/capabilities/v1"
    assert facts["kernel"]["release"] == os.uname().release
    assert set(result["profiles"]) == set(FEATURES)
    assert facts["attach_points"]["tp_btf:sched_switch"]["answer"] in ("yes", "no", "unknown")


@as_root
@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13"])
@pytest.mark.sample(2)
def test_runs_on_the_pythons_of_the_fleet(tmp_path: Path, version: str) -> None:
    results, said = run_with(version, tmp_path)
    assert results["result"]["failed"] is False, said
    assert results["result"]["capabilities"]["python"].startswith(version + ".")


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
@pytest.mark.sample(2)
def test_an_old_python_gives_one_clear_message(tmp_path: Path, version: str) -> None:
    results, said = run_with(version, tmp_path)
    assert results["result"]["failed"] is True, said
    assert "older than 3.8" in results["result"]["msg"]
    assert "zip_data" not in said


def run_with(version: str, folder: Path) -> tuple[dict[str, Any], str]:
    """What capability_facts returned on a Python of this version, and what was printed."""
    interpreter = {"ansible_python_interpreter": interpreter_of(version)}
    task = {"ebpf.fleet.capability_facts": {}, "register": "result", "vars": interpreter}
    _status, results, said = run_tasks(folder, [task])
    assert results["result"] is not None, said
    return results, said


def interpreter_of(version: str) -> str:
    """A Python of this version on this machine, or skip."""
    places = [Path(f"/usr/bin/python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for place in places:
        if place.exists():
            return str(place)
    # Debian 12 has 3.11 alone; the lab's guests have 3.9 and 3.13.
    pytest.skip(f"no Python {version} on this machine")


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"contracts": [{"feature": "f"}]}, "contract f: needs a feature name and at least one variant"),
        (
            {"contracts": [{"feature": "f", "variants": [{"name": "full", "requires": ["map_type:nope"]}]}]},
            "EF_CONTRACT_MALFORMED: features/f/contract.json: variants[0].requires[0]: is 'map_type:nope'; choose",
        ),
        ({"today": "tomorrow"}, "today: 'tomorrow' is not a date"),
        ({"helpers": "some"}, "value of helpers must be one of"),
        ({"fallbacks": ["magic"]}, "value of fallbacks must be one or more of"),
    ],
)
@pytest.mark.slow
def test_bad_input_gives_one_message(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    result = run_one(tmp_path, "capability_facts", **arguments)
    assert result["failed"] is True
    assert message in result["msg"]
    code = {"contract": "EF_CONTRACT_MALFORMED", "today:": "EF_ARGUMENT"}.get(message.split()[0])
    assert code is None or result["reason_code"] == code


WATCHED = ("kernel", "net/core", "vm", "user")


def sysctls() -> dict[str, str]:
    """Every setting that can be read and does not count something."""
    found = {}
    for folder in WATCHED:
        for path in (Path("/proc/sys") / folder).rglob("*"):
            # kernel/pty/nr is how many terminals are open, by whoever else is here.
            counts = path.name.endswith(("_nr", "pid")) or path.name == "nr"
            if path.is_file() and not set(path.parts) & {"random", "keys"} and not counts:
                try:
                    found[str(path)] = path.read_text()
                except OSError:
                    continue
    return found


def kernel_log() -> list[str]:
    """All records that the kernel's log holds now, or a skip."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        # A container may hide it; then nothing can be said of it.
        pytest.skip(f"the kernel's log cannot be read here: {error}")
    records = []
    try:
        while True:
            try:
                records.append(os.read(fd, 16384).decode(errors="replace"))
            except BlockingIOError:
                return records
            except BrokenPipeError:
                continue
    finally:
        os.close(fd)


ASK_ALL = """
import json, os, sys
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities, profile
contracts = json.load(sys.stdin)
before = sorted(os.listdir("/proc/self/fd"))
capabilities.gather(profile.requirements(contracts), all_helpers=True)
assert sorted(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"
"""


@as_root
def test_no_trace_is_left() -> None:
    """All questions there are: no line in the kernel's log, no setting changed, no descriptor open."""
    settings, log = sysctls(), kernel_log()
    subprocess.run(
        [sys.executable, "-c", ASK_ALL],
        input=json.dumps([contract_of(name) for name in FEATURES]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        check=True,
    )
    new = [line for line in kernel_log() if line not in log]
    assert not [line for line in new if re.search("bpf|trace|probe|lockdown", line, re.IGNORECASE)], new
    after = sysctls()
    assert len(settings) > 100
    assert {key: (value, after.get(key)) for key, value in settings.items() if after.get(key) != value} == {}
