# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells without a process: who controls them, how long a job may take, and which stream is the answer to which job."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import RefusedValueError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import cell_stream, cells
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.cell_controllers import Controller, read_controllers
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.cell_stream import CellAnswerError, Stream, answers
from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_jobs

NAME = "ebpf_fleet_cell_controllers"
JOB = cells.Binding("0a1b", "20261128-1", "us-a", 2, "measure", "1" * 64, "2" * 64, ("w1", "w2"))


def controllers(**each: Any) -> dict[str, Controller]:
    return read_controllers(NAME, each)


def test_a_controller_is_behind_ssh_or_here() -> None:
    found = controllers(a={"ssh": "ops@ctl-a"}, b={"local": True}, c={"ssh": "c", "options": "-p,22", "runner": "x,y"})
    assert found == {
        "a": Controller("ops@ctl-a"),
        "b": Controller(None),
        "c": Controller("c", ("-p", "22"), ("x", "y")),
    }
    assert read_controllers(NAME, '{"a": {"local": "yes"}}') == {"a": Controller(None)}
    assert (found["a"].where, found["b"].where) == ("ops@ctl-a", "this machine")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give either ssh"),
        ({"ssh": "a", "local": True}, "give either ssh"),
        ({"local": False}, "give either ssh"),
        ({"ssh": "-oProxyCommand=x"}, "give a destination"),
        ({"ssh": "a b"}, "give a destination"),
        ({"ssh": 5}, "quote it"),
        ({"ssh": "a", "host": "b"}, "'host' (text); give only local, options, runner, ssh"),
        ({"ssh": "a", "runner": []}, "name the command"),
        ("ctl-a", "give a mapping"),
    ],
)
def test_what_is_no_controller_is_refused_by_its_cell(given: Any, said: str) -> None:
    with pytest.raises(RefusedValueError) as refused:
        controllers(a=given)
    assert f"{NAME}.a" in str(refused.value) and said in str(refused.value)


def host(name: str, cell: Any, **more: Any) -> dict[str, Any]:
    return {
        "inventory_hostname": name,
        "ebpf_fleet_cell": cell,
        NAME: {"1": {"local": True}, "b": {"ssh": "b"}},
        **more,
    }


def test_hosts_go_to_the_controller_of_their_cell_and_others_to_none() -> None:
    bare = {"inventory_hostname": "w9", "ebpf_fleet_cell": "b"}
    found = cells.by_cell([host("w1", 1), host("w2", "b"), host("w3", "c"), host("w4", "b"), bare, host("w5", None)])
    assert found == {"1": (Controller(None), ["w1"]), "b": (Controller("b"), ["w2", "w4"])}


def test_two_controllers_of_one_cell_are_refused() -> None:
    with pytest.raises(FleetError, match="cell b has two controllers, of w1 b, of w2 c; set it for the whole fleet"):
        cells.by_cell([host("w1", "b"), host("w2", "b", **{NAME: {"b": {"ssh": "c"}}})])


def test_a_job_may_take_what_its_hosts_wait_for_and_what_tasks_take() -> None:
    assert cells.seconds_of("measure", {"bake": 60, "window": 30.5}, 3, 60) == 90 + 300 + 30
    assert cells.seconds_of("measure", {}, 1, 60) == 310
    assert cells.seconds_of("deploy", {"lease": {}}, 2, 60) == 60 + 300 + 20
    assert cells.seconds_of("command", {"timeout": 180, "connect_timeout": 10}, 1, 60) == 190 + 310
    assert cells.seconds_of("lease", {"seconds": 400}, 1, 60) == 310


def test_a_binding_differs_where_anything_of_it_does() -> None:
    others = [JOB._replace(**{name: "x" if name != "batch" else 3}) for name in JOB._fields if name != "hosts"]
    digests = {one.digest() for one in (JOB, JOB._replace(hosts=("w1",)), *others)}
    assert len(digests) == len(JOB._fields) + 1


# --- a stream -------------------------------------------------------------------------------------


def line(**document: Any) -> bytes:
    return json.dumps(document).encode() + b"\n"


def event(counter: int, **more: Any) -> bytes:
    return line(counter=counter, uuid=f"a-{counter}", event="verbose", **more)


KEEPALIVE = line(event="keepalive", counter=0, uuid=0)
GOOD = [line(status="starting"), event(1), KEEPALIVE, event(2), line(status="successful")]
# 4 bytes of an archive are 8 of base64; nothing parts them from the next line.
ARCHIVE, END = line(zipfile=4) + b"AAAAAA==", line(eof=True)


def fed(*parts: bytes, size: int = 0, hosts: int = 2) -> tuple[Stream, list[bytes]]:
    stream, data = Stream(hosts), b"".join(parts)
    size = size or len(data)
    kept = [one for at in range(0, len(data), size) for one in stream.feed(data[at : at + size])]
    return stream, kept


@pytest.mark.parametrize("size", [1, 7, 0])
def test_a_whole_stream_is_kept_but_for_keepalives_and_the_archive(size: int) -> None:
    stream, kept = fed(*GOOD, ARCHIVE, END, size=size)
    stream.finish()
    assert kept == [GOOD[0], GOOD[1], GOOD[3], GOOD[4], END] and stream.ended and not stream.failed


def test_a_worker_that_could_not_work_says_why() -> None:
    stream, _kept = fed(line(status="error", job_explanation="no room\nleft on it"), END)
    assert stream.failed == "error: left on it"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([*GOOD, END, END], "answered twice"),
        ([*GOOD, END, *GOOD], "answered twice"),
        ([event(1), event(1)], "event 1 comes twice"),
        ([b"Welcome\n"], "is not JSON: Welcome"),
        ([b"[]\n"], "is not an object"),
        ([b"[" * 100_000 + b"\n"], "is not JSON"),
        ([line(event="x", counter=True, uuid="a")], "no event"),
        ([line(event="x", counter=0, uuid="a")], "no event"),
        ([line(event="x", counter=1, uuid="../a")], "no id"),
        ([line(zipfile=1 << 60)], "announces an archive"),
        ([line(zipfile=-1)], "announces an archive"),
        ([line(zipfile=True)], "announces an archive"),
    ],
)
def test_what_is_no_answer_is_refused(parts: list[bytes], said: str) -> None:
    with pytest.raises(CellAnswerError, match=said):
        fed(*parts)


@pytest.mark.parametrize("parts", [GOOD, [*GOOD, ARCHIVE], [*GOOD, line(zipfile=4) + b"AAA"], [*GOOD, END[:-1]]])
def test_a_stream_that_is_cut_is_not_whole(parts: list[bytes]) -> None:
    stream, _kept = fed(*parts)
    with pytest.raises(CellAnswerError, match="ended before its end was said"):
        stream.finish()


def test_words_behind_the_end_are_a_second_answer() -> None:
    stream, _kept = fed(*GOOD, END, b'{"st')
    with pytest.raises(CellAnswerError, match="something follows the end"):
        stream.finish()


def test_bytes_lines_and_a_line_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    status = line(status="running")
    for name, value in (("BASE_LIMIT", 0), ("HOST_LIMIT", len(status))):
        monkeypatch.setattr(cell_stream, name, value)
    fed(status * 2)
    with pytest.raises(CellAnswerError, match=f"more than {2 * len(status)} bytes"):
        fed(status * 2, b" ")
    monkeypatch.undo()
    monkeypatch.setattr(cell_stream, "BASE_LINES", 2)
    monkeypatch.setattr(cell_stream, "HOST_LINES", 1)
    fed(status * 4)
    with pytest.raises(CellAnswerError, match="more than 4 lines"):
        fed(status * 5)
    monkeypatch.undo()
    monkeypatch.setattr(cell_stream, "LINE_LIMIT", 10)
    fed(b" " * 10)
    with pytest.raises(CellAnswerError, match="a line of more than 10 bytes"):
        fed(b" " * 11)


# --- answers --------------------------------------------------------------------------------------


def told(kind: str, task: str, name: str, result: Any, action: str = "debug", ident: str = JOB.ident) -> dict[str, Any]:
    data = {"task": task, "host": name, "res": result, "task_action": action}
    return {"event": f"runner_on_{kind}", "runner_ident": ident, "event_data": data}


ECHO = told("ok", cell_stream.ECHO, "w1", {"msg": JOB.digest()})


def measured(name: str, kind: str = "ok", **result: Any) -> dict[str, Any]:
    return told(kind, "Measure", name, result, "ebpf.fleet.observation_info")


def test_each_host_has_the_answer_of_its_module() -> None:
    gone = measured("w2", "unreachable", msg="no route")
    found = answers([ECHO, measured("w1", observation={"a": 1}, invocation={"b": 2}), gone], JOB)
    assert cell_stream.result_of(found, "w1", "observation_info") == {"observation": {"a": 1}}
    assert cell_stream.result_of(found, "w2", "observation_info") == {
        "unreachable": True, "changed": False, "msg": "no route"}  # fmt: skip


def test_a_host_without_an_answer_is_unknown_and_one_that_failed_has_failed() -> None:
    refused = told("failed", "Refuse a host without trust", "w2", {"msg": "no trust"}, "ansible.builtin.assert")
    found = answers([ECHO, refused], JOB)
    assert cell_stream.result_of(found, "w1", "observation_info") is None
    assert cell_stream.result_of(found, "w2", "observation_info") == {"msg": "no trust", "failed": True}
    found = answers([ECHO, measured("w1", "failed", msg="x")], JOB)
    assert cell_stream.result_of(found, "w1", "observation_info") == {"msg": "x", "failed": True}


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([ECHO, ECHO], "names its job twice"),
        ([told("ok", cell_stream.ECHO, "w1", {"msg": JOB._replace(batch=1).digest()})], "is not the one"),
        ([told("ok", cell_stream.ECHO, "w1", "no")], "is not the one"),
        ([{**ECHO, "runner_ident": "other"}], "of the job other"),
        ([ECHO, measured("w1"), measured("w1")], "w1 answers observation_info twice"),
        ([ECHO, measured("w3")], "answers for w3"),
        ([{"event": "verbose"}], "of the job"),
    ],
)
def test_an_answer_of_another_job_is_refused(events: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(CellAnswerError, match=said):
        answers(events, JOB)


def test_a_job_that_was_not_begun_is_lost_with_its_last_words() -> None:
    with pytest.raises(FleetError, match="did not begin the job; its last words: no such command") as lost:
        answers([{"event": "verbose", "runner_ident": JOB.ident, "stdout": "no such\ncommand"}], JOB)
    assert lost.value.code == "EF_CELL_LOST"
    with pytest.raises(FleetError, match="its last words: nothing"):
        answers([], JOB)


def test_a_command_answers_for_exactly_its_hosts() -> None:
    job = JOB._replace(step="command")
    echo = told("ok", cell_stream.ECHO, "w1", {"msg": job.digest()})
    good = told("ok", "Run it", "w1", {"hosts": {"w1": {"rc": 0}, "w2": {"rc": 1}}}, "ebpf.fleet.fan_out")
    assert answers([echo, good], job).command == {"w1": {"rc": 0}, "w2": {"rc": 1}}
    for wrong in ([good, good], [told("ok", "Run it", "w1", {"hosts": {"w1": {}}}, "ebpf.fleet.fan_out")]):
        with pytest.raises(CellAnswerError, match="are not once those of the job"):
            answers([echo, *wrong], job)


def test_the_sentences_name_cell_controller_and_what_becomes_of_hosts() -> None:
    lost = cells.lost("us-a", Controller("ctl-a"), "hung")
    assert lost.startswith("EF_CELL_LOST: cell us-a: its controller (ctl-a) hung; ") and "lease" in lost
    refused = cells.refused("us-a", Controller(None), "it answered twice")
    assert "EF_CELL_ANSWER: cell us-a: its controller (this machine) answered with what is not believed" in refused


def test_a_job_that_cannot_even_be_made_is_told_of_its_cell_alone(tmp_path: Path) -> None:
    (tmp_path / JOB.ident).write_text("in the way of the job's folder")
    job = cell_jobs.Job(cell_jobs.Work(tmp_path, {}, {}, False, 5, ""), Controller("ops@ctl-a"), JOB, 5)
    job._run()
    assert job.answers is None and job.took is not None
    told = "EF_CELL_LOST: cell us-a: its controller (ops@ctl-a) could not be asked (FileExistsError: "
    assert job.sentence.startswith(told) or job.sentence.startswith(told.replace("FileExists", "NotADirectory"))


def test_a_worker_that_is_there_and_does_not_come_to_an_end_is_ended(tmp_path: Path) -> None:
    """It says that it lives twice a second, so that no silence tells it; what it has begun ends with it."""
    alive = f'echo $$ >{tmp_path}/pid; while :; do echo \'{{"event": "keepalive"}}\'; sleep 0.5; done'
    hosts: dict[str, dict[str, Any]] = {"w1": {}, "w2": {}}
    work = cell_jobs.Work(tmp_path, hosts, {}, False, 60, "")
    job = cell_jobs.Job(work, Controller(None, (), ("sh", "-c", alive, "sh")), JOB, 4)
    cell_jobs.run([job])
    assert job.answers is None
    assert job.sentence.startswith(
        "EF_CELL_LOST: cell us-a: its controller (this machine) did not end the step measure"
    )
    assert "within 4 s" in job.sentence
    pid = int((tmp_path / "pid").read_text())
    for _attempt in range(200):
        if not runs(pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} runs on")


def runs(pid: int) -> bool:
    """Whether it lives; one that has ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
