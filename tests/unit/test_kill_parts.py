# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the kill script by themselves: their functions in a real shell, and the program for python3, on values."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys

PARTS = Path(__file__).resolve().parents[2] / "plugins/module_utils/kill/parts"
# Before the parts: what prelude.sh and a render put there.
BEGIN = """\
set -u
LC_ALL=C
user=loader units=loader.service
etc=$root/etc/ebpf-fleet/kill.d run=$root/run/ebpf-fleet/kill.d
feature_list= order_list= note= holders= pins= who= detail= family= distro= witness=kallsyms
nap() { sleep 0.05; }
"""


def sh(root: Path, parts: str, body: str, whole: str = "false", features: str = "") -> str:
    """What the body prints, with the functions of these parts."""
    # What a part does by itself, behind its functions, is left out.
    texts = [(PARTS / f"{name}.sh").read_text(encoding="utf-8").partition("\n# The order comes first")[0] + "\n"
             for name in parts.split()]  # fmt: skip
    given = f'root={root}\nwhole={whole}\nfeatures="{features}"\nfamilies=\nwithin_family=false\n'
    script = given + BEGIN + "".join(texts) + body
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=20)
    assert done.stderr in ("", "Killed\n")  # the shell says so of dd
    return done.stdout.rstrip("\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("run/ebpf-fleet-loader", "run/ebpf-fleet/kill.d", "etc/ebpf-fleet/kill.d", "var/lib/ebpf-fleet"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def put_list(root: Path, text: str) -> Path:
    path = root / "run/ebpf-fleet-loader/programs"
    path.write_text(text, encoding="utf-8")
    return path


# The lists of loader and collector.


@pytest.fixture
def silent(root: Path) -> Iterator[Path]:
    """A FIFO that somebody holds open for writing and never writes to."""
    path = root / "silent"
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)
    yield path
    os.close(held)


def test_a_list_that_gives_nothing_is_not_waited_for(root: Path, silent: Path) -> None:
    """It may have become one between the test of its type and the read: dd must die, and takes no gentle signal."""
    assert sh(root, "evidence", f"read_bounded {silent}; echo on") == "on"
    os.mkfifo(root / "nobody")
    assert sh(root, "evidence", f"read_bounded {root}/nobody; echo on") == "on"


def test_a_list_is_read_to_its_32nd_kib(root: Path) -> None:
    put_list(root, "x" * 40_000)
    assert sh(root, "evidence", "read_lists") == "x" * 32_768 + "\n+"


def test_a_list_that_cannot_be_one_is_not_read(root: Path) -> None:
    assert sh(root, "evidence", "read_lists") == ""
    path = put_list(root, "1 a b c\n")
    path.rename(root / "other")
    path.symlink_to(root / "other")
    assert sh(root, "evidence", "read_lists") == "!"
    path.unlink()
    path.mkdir()
    assert sh(root, "evidence", "read_lists") == "!"


LINES = """\
12 ab12 runqlat ef_rql
13 cd34 exec_events ef_exec
!
+
14 cut
15 ab runqlat ef_x more
16 ab runqlat ef_x 7
x7 ab runqlat ef_x
17 ab run-qlat ef_x
18 ab runqlat ef;x
19 ab runqlat other.name
"""


def test_lines_that_are_not_well_formed_are_left_out(root: Path) -> None:
    def judged(**given: str) -> list[str]:
        return sh(root, "evidence", f"judge_lists <<E\n{LINES}E\n", **given).splitlines()

    assert judged(features="runqlat x") == [
        "own:12:ab12:ef_rql", "other:13:cd34:ef_exec", "!", "+", "own:16:ab:ef_x", "own:19:ab:other.name"
    ]  # fmt: skip
    assert [line for line in judged(whole="true") if line.startswith("other")] == []


def noted(root: Path, **given: str) -> list[str]:
    told = sh(root, "evidence", 'note_lists; echo "$own|$others|$listed|$note|$own_count"', **given)
    return told.split("|")


def test_what_the_lists_say_is_noted_and_only_grows(root: Path) -> None:
    put_list(root, "12 ab12 runqlat ef_rql\n13 cd34 exec_events ef_exec\n12 ab12 runqlat ef_rql\n")
    assert noted(root, features="runqlat") == [" 12:ab12:ef_rql", " 13:cd34:ef_exec", "true", "", "1"]
    assert noted(root, whole="true") == [" 12:ab12:ef_rql 13:cd34:ef_exec", "", "true", "", "2"]
    again = f"note_lists; : >{root}/run/ebpf-fleet-loader/programs; note_lists; echo $own, $others"
    assert sh(root, "evidence", again, features="runqlat") == "12:ab12:ef_rql,"
    (root / "run/ebpf-fleet-loader/programs").unlink()
    assert noted(root, features="runqlat") == ["", "", "false", "", "0"]
    os.mkfifo(root / "run/ebpf-fleet-loader/programs")
    assert noted(root, features="runqlat")[2:] == [
        "false", "; the list of programs in /run is not a regular file and was not used", "0"
    ]  # fmt: skip


def test_a_thousand_programs_of_the_lists_are_noted_and_no_more(root: Path) -> None:
    put_list(root, "".join(f"{number} ab f ef\n" for number in range(1001)))
    own, _, _, _, count = noted(root, features="f")
    assert count == "1000" and len(own.split()) == 1000 and own.split()[-1] == "999:ab:ef"


# What counts as left.


@pytest.mark.parametrize(
    ("one", "whole", "more", "left"),
    [
        ("ab:ef_x:1:0", "true", "", True),
        ("ab:ef_x:1:-", "true", "", True),
        ("ab:ef_x:1:7", "true", "uid=7", True),
        ("ab:ef_x:1:8", "true", "uid=7", False),
        ("ab:x:1:0", "true", "", False),
        ("ab:x:1:7", "true", "uid=7", True),
        ("ab:x:1:7", "true", "uid=", False),
        ("ab:x:1:0", "true", 'held_tags=" cd ab"', True),
        ("ab:x:1:0", "true", 'held_tags=" abc"', False),
        ("ab:x:1:0", "true", 'own=" 5:ab:x"', True),
        ("ab:x:1:0", "true", 'own=" 5:ac:x"', False),
        # Of a feature: those that the list has for it, and those of its contract.
        ("ab:ef_x:1:0", "false", 'known=true own=" 5:ab:ef_x"', True),
        ("ab:ef_x:1:0", "false", 'known=true others=" 5:ab:ef_x"', False),
        ("ab:ef_x:1:0", "false", 'known=true names=" ef_x"', True),
        ("ab:x:1:0", "false", 'known=true names=" x"', False),
        ("ab:x:1:0", "false", 'known=true names=" x" held_tags=" ab"', True),
        ("ab:ef_y:1:0", "false", 'known=true names=" ef_x"', False),
        # Nobody knows its programs: all that have our name, but for what the list gives to others.
        ("ab:ef_x:1:0", "false", "known=false listed=true", True),
        ("ab:x:1:0", "false", "known=false listed=true", False),
        ("ab:ef_x:1:0", "false", 'known=false listed=true others=" 5:ab:ef_x"', False),
    ],
)
def test_what_counts_as_left(root: Path, one: str, whole: str, more: str, left: bool) -> None:
    body = f"uid=\n{more}\none={one} tag={one.split(':')[0]} name={one.split(':')[1]}\nis_counted && echo left\n:"
    assert sh(root, "evidence", body, whole=whole) == ("left" if left else "")


@pytest.mark.parametrize(
    ("words", "name", "found"),
    [
        (" 5:ab:ef_x", "ef_x", True),
        (" 5:ab:ef_xy", "ef_x", False),
        (" 5:ab:a_name_longer_than_15", "a_name_longer_t", True),
        (" 5:ab:a_name_longer_than_15", "a_name_longer_", False),
        (" 5:cd:ef_x 6:ab:ef_x", "ef_x", True),
        ("", "ef_x", False),
    ],
)
def test_a_program_is_known_by_its_tag_and_name_which_the_kernel_may_have_cut(
    root: Path, words: str, name: str, found: bool
) -> None:
    assert sh(root, "evidence", f'tag=ab name={name}; is_in "{words}" && echo yes; :') == ("yes" if found else "")


def test_without_a_list_it_is_said_that_all_programs_count(root: Path) -> None:
    told = "; the loader keeps no list of its programs, so all count"
    body = "one=ab:ef_x:1:0 tag=ab name=ef_x uid= known=false; is_counted; echo $note"
    assert sh(root, "evidence", body) == told
    assert sh(root, "evidence", body.replace("uid=", "uid= listed=true")) == ""


@pytest.mark.parametrize(("complete", "said"), [("true", ""), ("false", "; the kernels programs could not be listed")])
def test_a_list_of_the_kernel_that_is_not_whole_is_told_and_a_whole_one_is_not(
    root: Path, complete: str, said: str
) -> None:
    stubs = "note_lists() { :; }\nfind_group_pids() { :; }\nfind_held() { :; }\n"
    stubs += f'list_kernel() {{ complete={complete}; kernel=" ab:ef_x:1:0"; }}\n'
    body = stubs + 'witness=python3 pids= user_pids= own= uid= held_tags=; search; echo "$still|$note|$complete"'
    assert sh(root, "evidence", body, whole="true") == f" ef_x|{said}|{complete}"


BPFTOOL = """\
12: tracing  name ef_exec  tag 6deef7357e7b4530  gpl
	loaded_at 2026-01-01T00:00:00+0000  uid 0
13: cgroup_skb  tag aa  gpl
14: kprobe  name ef_b  tag bb  gpl
"""


def test_what_bpftool_shows_is_read(root: Path) -> None:
    body = f'kernel=; lines=$(cat <<E\n{BPFTOOL}E\n)\nnote_bpftool; echo "$kernel"'
    assert sh(root, "evidence", body).split() == ["6deef7357e7b4530:ef_exec:12:-", "aa:-:13:-", "bb:ef_b:14:-"]


@pytest.mark.parametrize(("n", "shown"), [(0, ""), (1, " w1"), (20, None), (21, "and 1 more"), (45, "and 25 more")])
def test_at_most_twenty_of_what_is_counted_are_shown(root: Path, n: int, shown: str | None) -> None:
    words = [f"w{at}" for at in range(1, n + 1)]
    told, _, left = sh(root, "evidence", f'still=" {" ".join(words)}"; count; echo "$shown|$left"').partition("|")
    assert left == str(n)
    assert told == (shown if n < 2 else "".join(f" {word}" for word in words[:20]) + (f" {shown}" if shown else ""))


def test_names_of_a_features_programs_come_from_its_contracts_in_both_releases(root: Path) -> None:
    for release, names in (("current", ["ef_a", "ef_b"]), ("previous", ["ef_c"])):
        folder = root / f"var/lib/ebpf-fleet/{release}/bundle/features/f"
        folder.mkdir(parents=True)
        document = {"variants": [{"programs": names, "owner": "not_one"}]}
        (folder / "contract.json").write_text(json.dumps(document), encoding="utf-8")
    body = 'succeeds_within() { shift; "$@"; }\nnote_contracts; echo "$known$names"'
    assert sh(root, "evidence", body, features="f") == "true ef_a ef_b ef_c"
    assert sh(root, "evidence", body, features="g") == "false"


# The answer, and who gives it when the work does not.

SUPERVISED = """\
deadline=2 exit_yes=0 exit_no=1 escalated=false
nap() { sleep 0.05; }
elapsed() { cs=0; }
answer() {
	echo "$1: $2"
	[ "$1" = true ] && exit "$exit_yes"
	exit "$exit_no"
}
"""


@pytest.mark.parametrize(
    ("work", "said", "code"),
    [
        ("answer true done", "true: done", 0),
        ("answer false no", "false: no", 1),
        ("exit 3", "false: not confirmed: the search on this host ended by itself with status 3", 1),
        ("exit 0", "false: not confirmed: the search on this host ended by itself with status 0", 1),
        ("kill -9 $me", "false: not confirmed: the search on this host ended by itself with status 137", 1),
        ("exec sleep 60", "false: not confirmed within @DEADLINE@ s: the search on this host did not end in time", 1),
        # A signal does not end the wait, and is known where the work is.
        ('kill -USR1 $me; sleep 0.2; answer true "$escalated"', "true: true", 0),
    ],
)
def test_one_answer_is_given_whatever_the_work_does(work: str, said: str, code: int) -> None:
    script = (
        SUPERVISED
        + (PARTS / "supervise.sh").read_text(encoding="utf-8")
        + f"work() {{ begin_work; {work}; }}\nsupervise\n"
    )
    done = subprocess.run(
        ["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=20
    )
    assert (done.stdout.splitlines(), done.returncode) == ([said], code)


def test_an_answer_that_is_out_at_the_deadline_is_not_given_twice() -> None:
    """What supervises may not run for seconds on a busy host: the end of work and the deadline meet it together."""
    # It stands still in its wait: before that it may not know yet whom it has to ask.
    stopped = "(sleep 2.5; kill -CONT $main) & sleep 0.3; kill -STOP $main; answer true done"
    script = (
        SUPERVISED
        + (PARTS / "supervise.sh").read_text(encoding="utf-8")
        + f"work() {{ begin_work; {stopped}; }}\nsupervise\n"
    )
    for _round in range(3):
        done = subprocess.run(
            ["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=20
        )
        assert (done.stdout.splitlines(), done.returncode) == (["true: done"], 0)


# Orders on disk.


def test_orders_are_placed_each_once(root: Path) -> None:
    folder = root / "new/kill.d"
    body = f'orders="global feature.x"; changed=false; place {folder}; echo "$? $changed"; '
    assert sh(root, "engage", body) == "0 true"
    assert sorted(path.name for path in folder.iterdir()) == ["feature.x", "global"]
    assert sh(root, "engage", body) == "0 false"
    (folder / "global").unlink()
    assert sh(root, "engage", body) == "0 true"
    (root / "file").touch()
    assert sh(root, "engage", body.replace(str(folder), f"{root}/file/kill.d")) == "1 false"


@pytest.mark.parametrize("persistent", ["true", "false"])
def test_orders_are_on_disk_when_each_is(root: Path, persistent: str) -> None:
    etc = root / "etc/ebpf-fleet/kill.d"
    body = f'orders="global feature.x"; persistent={persistent}; are_on_disk; echo $?'
    for name in ("global", "feature.x"):
        (etc / name).touch()
    assert sh(root, "engage", body) == "0"
    (etc / "global").unlink()
    # They may come a little later, where they are to come at all.
    late = f"(sleep 0.3; touch {etc}/global) >/dev/null & "
    assert sh(root, "engage", late + body) == ("0" if persistent == "true" else "1")


# What this host has of the kind that was named.


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("a", 1),
        ("z9_", 1),
        ("a" * 32, 1),
        ("a" * 33, 0),
        ("", 0),
        ("9a", 0),
        ("_a", 0),
        ("aB", 0),
        ("a-b", 0),
        ("A", 0),
    ],
)
def test_a_name_that_no_feature_can_have_is_not_one(root: Path, name: str, taken: int) -> None:
    told = sh(
        root, "concern", f'have= have_count=0; add_feature "{name}"; add_feature "{name}"; echo "$have_count$have"'
    )
    assert told == (f"1 {name}" if taken else "0")


def test_forty_features_are_told_and_a_thousand_are_known(root: Path) -> None:
    body = 'have= have_count=0; i=0; while [ $i -lt 1005 ]; do add_feature "f$i"; i=$((i + 1)); done\n'
    told = sh(root, "concern", body + 'echo "$have_count|$have|$feature_list"').split("|")
    assert told[0] == "1000" and told[1].split() == [f"f{at}" for at in range(1000)]
    assert json.loads(f"[{told[2]}]") == [f"f{at}" for at in range(40)]


@pytest.mark.parametrize(("before", "known"), [(999, True), (1000, False)])
def test_a_thousand_lines_of_the_lists_name_features(root: Path, before: int, known: bool) -> None:
    put_list(root, "1 a a x\n" * before + "2 b b x\n")
    assert sh(root, "evidence concern", "find_listed_features; echo $listed_features") == ("a b" if known else "a")


def concern(root: Path, **given: str) -> list[str]:
    body = 'succeeds_within() { shift; "$@"; }\nfind_concern; echo "$concerned|$feature_list|$detail"'
    return sh(root, "evidence concern", body, **given).split("|")


def test_whom_an_order_concerns(root: Path) -> None:
    none = "the order is placed; this host has no release, so no feature that it could concern"
    assert concern(root, features="f") == ["false", "", none]
    (root / "var/lib/ebpf-fleet/previous/bundle/features/f").mkdir(parents=True)
    (root / "var/lib/ebpf-fleet/current/bundle/features/g").mkdir(parents=True)
    assert concern(root, features="f") == ["true", '"g","f"', ""]
    assert concern(root, features="x g") == ["true", '"g","f"', ""]
    other = "the order is placed; no release on this host has this feature, so it does not concern it"
    assert concern(root, features="x") == ["false", '"g","f"', other]
    put_list(root, "1 ab x ef_x\n")
    assert concern(root, features="x") == ["true", '"g","f","x"', ""]
    assert concern(root, features="x", whole="true") == ["true", "", ""]
    silent = 'succeeds_within() { return 1; }\nfind_concern; echo "$concerned"'
    assert sh(root, "evidence concern", silent, features="f") == "null"


def test_orders_of_both_folders_are_told_once_and_at_most_twenty(root: Path) -> None:
    run, etc = root / "run/ebpf-fleet/kill.d", root / "etc/ebpf-fleet/kill.d"
    tell = 'list_orders; echo "[$order_list]"'
    assert json.loads(sh(root, "concern", tell)) == []
    for folder, name in (
        (run, "global"),
        (etc, "global"),
        (etc, "feature.x"),
        (run, "b" * 63),
        (run, "a" * 64),
        (run, "a b"),
    ):
        (folder / name).touch()
    assert json.loads(sh(root, "concern", tell)) == ["b" * 63, "global", "feature.x"]
    for number in range(20):
        (run / f"c{number:02}").touch()
    assert len(json.loads(sh(root, "concern", tell))) == 20


# Whose processes are ours.


@pytest.mark.parametrize(
    ("passwd", "uid"),
    [("root:x:0:0::/:\nloader:x:991:5::/:\nother:x:992:5::/:\n", "991"), ("loader:x:0:0::/:\n", ""),
     ("loaders:x:5:0::/:\n", ""), ("loader:x:5a:0::/:\n", ""), ("", "")],
)  # fmt: skip
def test_the_number_of_the_loaders_user(root: Path, passwd: str, uid: str) -> None:
    (root / "etc/passwd").write_text(passwd, encoding="utf-8")
    assert sh(root, "unit", "find_uid; echo $uid") == uid


def test_the_processes_of_the_units_groups_are_found_to_the_second_level(root: Path) -> None:
    unit = root / "sys/fs/cgroup/system.slice/loader.service"
    (unit / "a/b/c").mkdir(parents=True)
    for folder, pids in (
        (unit, "0\n1\n20\n"),
        (unit / "a", "30\n20\n"),
        (unit / "a/b", "40\n"),
        (unit / "a/b/c", "50\n"),
    ):
        (folder / "cgroup.procs").write_text(pids, encoding="utf-8")
    assert sh(root, "unit", "find_groups; find_group_pids; echo $groups: $pids") == f"{unit}: 20 30 40"
    for place in ("user.slice/loader.service", "user.slice/a.slice/loader.service", "x/loader.service"):
        (root / "sys/fs/cgroup" / place).mkdir(parents=True)
    assert sh(root, "unit", "find_groups; echo $groups") == str(unit)
    (root / "sys/fs/cgroup/a.slice/b.slice/loader.service").mkdir(parents=True)
    assert len(sh(root, "unit", "find_groups; echo $groups").split()) == 2
    os.chown(unit, 12345, 0)
    assert len(sh(root, "unit", "find_groups; echo $groups").split()) == 1


def test_groups_of_the_old_freezer_are_thawed_and_those_of_nobody_else(root: Path) -> None:
    state = {}
    for unit in ("loader.service", "other.service"):
        folder = root / "sys/fs/cgroup/freezer/system.slice" / unit
        folder.mkdir(parents=True)
        state[unit] = folder / "freezer.state"
        state[unit].write_text("FROZEN\n")
    sh(root, "unit", "thaw_old_freezer")
    assert {unit: path.read_text().strip() for unit, path in state.items()} == {
        "loader.service": "THAWED", "other.service": "FROZEN"
    }  # fmt: skip


# The program for python3.


def program(**replaced: Any) -> dict[str, Any]:
    """Its functions, with some names in place of others; what it does at the end is left out."""
    head = (PARTS / "list_programs.py").read_text(encoding="utf-8").partition("\nif sys.argv")[0]
    names: dict[str, Any] = {}
    exec(compile(head, "list_programs.py", "exec"), names)  # noqa: S102
    names.update(replaced)
    return names


def run_end(names: dict[str, Any], *words: str) -> int:
    """What it does at the end; its exit status."""
    whole = (PARTS / "list_programs.py").read_text(encoding="utf-8")
    names["sys"] = SimpleNamespace(argv=["-c", *words])
    try:
        exec(compile("if sys.argv" + whole.partition("\nif sys.argv")[2], "list_programs.py", "exec"), names)  # noqa: S102
    except SystemExit as end:
        return int(str(end.code))
    return 0


class Kernel:
    """Programs {id: (tag, name, uid)}, told as bpf(2) tells them; pins are {path: id}."""

    def __init__(self, programs: dict[int, tuple[str, str, int]], pins: dict[str, int] | None = None) -> None:
        self.programs, self.pins, self.closed = programs, pins or {}, []
        self.held: dict[int, int] = {}
        self.error = 0

    def bpf(self, command: int, attributes: Any) -> int:
        if command == 11:  # BPF_PROG_GET_NEXT_ID
            (last,) = struct.unpack_from("=I", attributes.raw)
            following = [one for one in sorted(self.programs) if one > last]
            if self.error or not following:
                return self.error or -errno.ENOENT
            ctypes.memmove(ctypes.addressof(attributes) + 4, struct.pack("=I", following[0]), 4)
            return 0
        if command == 13:  # BPF_PROG_GET_FD_BY_ID
            (one,) = struct.unpack_from("=I", attributes.raw)
            if one not in self.programs:
                return -errno.ENOENT
            if self.programs[one][0] == "denied":
                return -errno.EPERM
            fd = len(self.held)  # the first is 0, as where the standard input is closed
            self.held[fd] = one
            return fd
        if command == 15:  # BPF_OBJ_GET_INFO_BY_FD
            fd, size, address = struct.unpack("=IIQ", attributes.raw)
            tag, name, uid = self.programs[self.held[fd]]
            if tag == "unknown":
                return -errno.EINVAL
            info = bytearray(size)
            info[8:16], info[48:52] = bytes.fromhex(tag), struct.pack("=I", uid)
            info[64:80] = name.encode().ljust(16, b"\0")
            ctypes.memmove(address, bytes(info), size)
            return 0
        assert command == 7, command  # BPF_OBJ_GET
        path = ctypes.string_at(struct.unpack("=QII", attributes.raw)[0]).decode()
        return 100 + self.pins[path] if path in self.pins else -errno.EACCES


def lines(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], int]:
    real_os = SimpleNamespace(close=kernel.closed.append, path=os.path, walk=os.walk, uname=os.uname)
    status = run_end(program(bpf=kernel.bpf, os=real_os))
    return capsys.readouterr().out.splitlines(), status


TAGS = ("0011223344556677", "8899aabbccddeeff")


def test_every_program_is_told_with_tag_name_id_and_uid(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = Kernel({3: (TAGS[0], "ef_x", 0), 70_000: (TAGS[1], "", 991), 70_001: (TAGS[1], "a" * 15, 2**32 - 1)})
    assert lines(kernel, capsys) == (
        [f"{TAGS[0]} ef_x 3 0", f"{TAGS[1]} - 70000 991", f"{TAGS[1]} {'a' * 15} 70001 {2**32 - 1}"], 0
    )  # fmt: skip
    assert kernel.closed == [0, 1, 2]
    assert lines(Kernel({}), capsys) == ([], 0)
    assert lines(Kernel({1: (TAGS[0], "first", 0)}), capsys) == ([f"{TAGS[0]} first 1 0"], 0)


def test_a_list_that_the_kernel_does_not_give_whole_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    refused = Kernel({3: (TAGS[0], "ef_x", 0)})
    refused.error = -errno.EPERM
    assert lines(refused, capsys) == ([], 1)
    for word in ("denied", "unknown"):
        assert lines(Kernel({3: (TAGS[0], "ef_x", 0), 4: (word, "y", 0)}), capsys) == ([f"{TAGS[0]} ef_x 3 0"], 1)


def test_a_program_that_went_meanwhile_is_counted_out(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = Kernel({3: (TAGS[0], "ef_x", 0)})
    names = program(bpf=kernel.bpf)
    names["show"](5)
    assert capsys.readouterr().out == ""


def pinned(
    kernel: Kernel, files: list[str], capsys: pytest.CaptureFixture[str], moments: list[float] | None = None
) -> list[str]:
    """What "pins" tells of these files below /b c, which is a bpffs; /x is none."""
    mounts = [b"bpf /b\\040c bpf rw 0 0\n", b"x /x tmpfs rw 0 0\n"]
    clock = iter(moments or [])

    def opened(path: str, mode: str = "r") -> Any:
        if path == "/proc/self/mounts":
            return _Lines(mounts)
        return _Lines(["pos:\t0\n", f"prog_id:\t{int(path.rpartition('/')[2]) - 100}\n"])

    def walk(top: bytes) -> Iterator[tuple[bytes, list[bytes], list[bytes]]]:
        assert top == b"/b c"
        yield top, [], [name.encode() for name in files]

    names = program(
        bpf=kernel.bpf, open=opened, os=SimpleNamespace(close=kernel.closed.append, path=os.path, walk=walk),
        time=SimpleNamespace(monotonic=lambda: next(clock, 0.0)),
    )  # fmt: skip
    assert run_end(names, "pins") == 0
    return capsys.readouterr().out.splitlines()


class _Lines(list):  # type: ignore[type-arg]
    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_pins_are_told_with_a_path_that_a_shell_can_take(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = Kernel({3: (TAGS[0], "ef_x", 0)}, {"/b c/a;b$é": 3, "/b c/" + "n" * 300: 3})
    assert pinned(kernel, ["none", "a;b$é", "n" * 300], capsys) == [
        f"{TAGS[0]} ef_x 3 /b?c/a?b???", f"{TAGS[0]} ef_x 3 /b?c/" + "n" * 195
    ]  # fmt: skip


@pytest.mark.parametrize(("before", "told"), [(4999, 1), (5000, 0)])
def test_five_thousand_files_are_looked_at(capsys: pytest.CaptureFixture[str], before: int, told: int) -> None:
    kernel = Kernel({3: (TAGS[0], "ef_x", 0)}, {"/b c/last": 3})
    assert len(pinned(kernel, ["none"] * before + ["last"], capsys)) == told


@pytest.mark.parametrize(("moment", "told"), [(2.0, 1), (2.1, 0)])
def test_pins_are_looked_for_two_seconds_long(capsys: pytest.CaptureFixture[str], moment: float, told: int) -> None:
    kernel = Kernel({3: (TAGS[0], "ef_x", 0)}, {"/b c/last": 3})
    assert len(pinned(kernel, ["last"], capsys, [0.0, moment])) == told


def test_the_number_of_the_system_call_is_that_of_the_modules() -> None:
    """armv7l and i686 are names of uname; the modules tell a kernel by its machine and the size of a pointer."""
    numbers = {machine: number for (machine, bits), number in bpfsys.BPF_NUMBERS.items() if bits == 8}
    found = program()["NUMBERS"]
    assert {machine: found[machine] for machine in found if machine in numbers} == {
        machine: number for machine, number in numbers.items() if machine in found
    }
    assert found == {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351, "armv7l": 386,
                     "i686": 357}  # fmt: skip


def test_an_error_of_the_kernel_is_told_by_its_number() -> None:
    assert program()["bpf"](9999, ctypes.create_string_buffer(16)) in (-errno.EINVAL, -errno.EPERM)
