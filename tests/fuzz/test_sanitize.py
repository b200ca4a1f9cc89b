# SPDX-License-Identifier: GPL-3.0-or-later
"""The build with ASan and UBSan says what it finds; the suite `sanitize` runs the loader's tests with it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.loader.conftest import run_make

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("__asan_report_load1", "__ubsan_handle_add_overflow", "__ubsan_handle_pointer_overflow")


def test_the_build_has_both_sanitizers_and_runs() -> None:
    run_make("asan")
    binary = ROOT / "build" / "loader-asan" / "ebpf-loader"
    symbols = subprocess.run(["nm", str(binary)], check=True, capture_output=True, text=True).stdout
    assert all(f" {name}\n" in symbols for name in NEEDED), symbols[:2000]
    done = subprocess.run(
        [str(binary), "version"],
        env={**os.environ, "ASAN_OPTIONS": "verbosity=1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "AddressSanitizer Init done" in done.stderr


def test_a_report_lands_where_the_suite_looks(tmp_path: Path) -> None:
    """Else a clean suite would mean nothing."""
    source = tmp_path / "broken.c"
    source.write_text("int main(int n, char **v) { int a[2] = {1, 2}; (void)v; return a[n + 1] + (n << 31); }\n")
    wanted = re.search(r"^SANITIZE := (.*)$", (ROOT / "bpf" / "loader" / "Makefile").read_text(), re.M)
    assert wanted
    flags = ["-g", "-O0", *wanted[1].split()]
    subprocess.run(["gcc", *flags, str(source), "-o", str(tmp_path / "broken")], check=True)
    where = f"log_path={tmp_path}/report:"
    options = {"ASAN_OPTIONS": where + "detect_leaks=1", "UBSAN_OPTIONS": where + "print_stacktrace=1"}
    done = subprocess.run([str(tmp_path / "broken")], env={**os.environ, **options}, check=False, capture_output=True)
    reports = [path.read_text() for path in tmp_path.glob("report*")]
    assert done.returncode != 0 and len(reports) == 1 and "broken.c:1" in reports[0], reports
