# SPDX-License-Identifier: GPL-3.0-or-later
"""libFuzzer over every parser of the loader: what was found once, what is known, then a bounded search.

EBPF_FLEET_FUZZ_SECONDS is the time of each target (5), as many at once as there are processors.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "bpf" / "fuzz"
OUT = ROOT / "build" / "fuzz"
CORPUS = Path(__file__).parent / "corpus"
REGRESSIONS = Path(__file__).parent / "regressions"
TARGETS = sorted(path.stem for path in SOURCES.glob("*.c"))
SECONDS = int(os.environ.get("EBPF_FLEET_FUZZ_SECONDS", "5"))
DICTIONARIES = {
    **dict.fromkeys(("manifest", "contract", "desired", "lease", "policy", "btfindex", "mark"), "json"),
    **dict.fromkeys(("sshsig", "sshkey", "trust"), "ssh"),
    "orders": "orders",
    "record": "record",
    "notes": "notes",
}
LIMITS = ("-timeout=10", "-rss_limit_mb=1024", "-max_len=4096")


@pytest.fixture(scope="session")
def built() -> Path:
    """The targets, freshly built; one make at a time."""
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["make", "-s", f"-j{os.cpu_count()}", "-C", str(SOURCES)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return OUT


def run(target: str, tmp: Path, *arguments: str, seconds: int = 120) -> subprocess.CompletedProcess[str]:
    """Run a target; its files go to `tmp`, and the loader's own messages nowhere."""
    return subprocess.run(
        [str(OUT / target), "-close_fd_mask=2", *LIMITS, *arguments],
        env={**os.environ, "TMPDIR": str(tmp)},
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
    )


def files_of(target: str) -> list[str]:
    found = [*(CORPUS / target).iterdir(), *((REGRESSIONS / target).glob("*"))]
    return sorted(map(str, found))


def covered(said: str) -> int:
    """How many places of the code the run had reached when it had read its corpus."""
    match = re.search(r"INITED cov: (\d+)", said)
    assert match, said[-2000:]
    return int(match[1])


def search(target: str, tmp: Path) -> subprocess.CompletedProcess[str]:
    """Look for something new; what is learnt stays in build/fuzz/corpus."""
    learnt, found = OUT / "corpus" / target, OUT / "found"
    for folder in (learnt, found):
        folder.mkdir(parents=True, exist_ok=True)
    dictionary = SOURCES / f"{DICTIONARIES[target]}.dict"
    options = (f"-max_total_time={SECONDS}", f"-dict={dictionary}", f"-artifact_prefix={found}/{target}-")
    known = [str(learnt), str(CORPUS / target)]
    return run(target, tmp, *options, *known, seconds=SECONDS + 120)


@pytest.fixture(scope="session")
def searches(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future]]:
    """All searches, side by side."""
    tmp = tmp_path_factory.mktemp("fuzz")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {target: pool.submit(search, target, tmp) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_once_is_found_no_more(built: Path, tmp_path: Path, target: str) -> None:
    done = run(target, tmp_path, *files_of(target))
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("Executed ") == len(files_of(target)), done.stderr[-2000:]


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_gets_past_the_first_check(built: Path, tmp_path: Path, target: str) -> None:
    """A target whose inputs are all refused at once would find nothing, whatever its time."""
    (tmp_path / "empty").mkdir()
    nothing = covered(run(target, tmp_path, "-runs=0", str(tmp_path / "empty")).stderr)
    corpus = covered(run(target, tmp_path, "-runs=0", str(CORPUS / target)).stderr)
    assert 2 * corpus > 3 * nothing, f"{target}: the corpus reaches {corpus} places, nothing at all {nothing}"


@pytest.mark.parametrize("target", TARGETS)
def test_a_bounded_search_finds_nothing_new(searches: dict[str, Future], target: str) -> None:
    done = searches[target].result()
    assert done.returncode == 0, f"{target}: see build/fuzz/found and tests/fuzz/README.md\n{done.stderr[-4000:]}"
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs and int(runs[1]) > 100, done.stderr[-2000:]


def test_every_target_has_a_corpus_of_small_files_and_is_documented() -> None:
    page = (Path(__file__).parent / "README.md").read_text()
    assert set(TARGETS) == set(DICTIONARIES) == {path.name for path in CORPUS.iterdir()}
    for target in TARGETS:
        assert f"`{target}`" in page, target
        for file in files_of(target):
            data = Path(file).read_bytes()
            assert len(data) < 4096 and b"PRIVATE KEY" not in data, file
    for file in REGRESSIONS.glob("*/*"):
        assert file.name in page, f"{file.name}: say what was wrong in tests/fuzz/README.md"


def test_the_sanitizers_are_awake(built: Path, tmp_path: Path) -> None:
    """Else a clean run would mean nothing."""
    source = tmp_path / "broken.c"
    source.write_text(
        "#include <stdint.h>\n#include <stdlib.h>\nint LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {\n"
        "volatile char *room = malloc(4); if (size > 1 && data[0] == 'b') room[4] = 1; free((void *)room);\n"
        "return 0; }\n"
    )
    flags = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["clang-14", *flags, str(source), "-o", str(tmp_path / "broken")], check=True)
    command = [str(tmp_path / "broken"), "-max_total_time=30", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr
