# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile small BPF objects, and run the loader where a kernel file is hidden or says something else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Mapping, Sequence

from tests.loader.bundles import Bundle, Trust, make_bundle

ROOT = Path(__file__).resolve().parents[2]

LICENSE = 'char LICENSE[] SEC("license") = "GPL";\n'


def compile_source(folder: Path, name: str, text: str, compiler: str = "clang-14") -> bytes:
    """Compile C with ef.h's helpers at hand; returns the object's bytes."""
    source, target = folder / f"{name}.bpf.c", folder / f"{name}.bpf.o"
    source.write_text(text + LICENSE)
    command = [compiler, "-target", "bpf", "-D__TARGET_ARCH_x86", "-std=gnu11", "-g", "-O2", "-Wall", "-Werror"]
    subprocess.run([*command, f"-I{ROOT / 'bpf' / 'include'}", "-c", str(source), "-o", str(target)], check=True)
    return target.read_bytes()


def plain(section: str, name: str = "ef_test") -> str:
    """The source of one program without maps that returns 0."""
    head = '#include "ef_kernel.h"\n#include <bpf/bpf_helpers.h>\n'
    return f'{head}SEC("{section}") int {name}(void *ctx) {{ return 0; }}\n'


def variant(name: str, programs: Sequence[str], requires: Sequence[str], **more: Any) -> dict[str, Any]:
    return {"name": name, "programs": list(programs), "requires": list(requires), **more}


def contract(feature: str, variants: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """The least contract of a third-party feature that the loader takes."""
    signal = {
        "name": "test",
        "kind": "counters",
        "help": "A test.",
        "map": "counts",
        "consumer": {"alert": "Test", "runbook": "docs/runbooks/test.md"},
        "retention_days": 1,
        "sample_every": 1,
        "backpressure": "aggregate",
    }
    document: dict[str, Any] = {
        "schema": "ebpf.fleet/contract/v1",
        "feature": feature,
        "data_path": "metrics",
        "lifetime": "permanent",
        "origin": "third_party",
        "accounting": "none",
        "cost_order": 50,
        "budget": {
            "cpu_millicores": 1000,
            "map_memory_bytes": 1 << 30,
            "event_rate_per_second": 0,
            "drop_ratio_ppm": 1000000,
        },
        "signals": [signal],
        "maps": [],
        "variants": [dict(each) for each in variants],
    }
    return {**document, **more}


def bundle_of(folder: Path, trust: Trust, **features: tuple[Any, Mapping[str, bytes]]) -> Bundle:
    """A signed bundle of features, each a contract and its objects by variant."""
    return make_bundle(folder / "bundle", trust.key, features)


def elsewhere(*commands: str) -> tuple[str, ...]:
    """What to put before a command so that it runs behind mounts of its own, made by these commands."""
    return ("unshare", "--mount", "sh", "-ec", "; ".join([*commands, 'exec "$@"']), "sh")


HIDE_BTF = "mount -t tmpfs none /sys/kernel/btf"


def say_security(**files: str) -> str:
    """A command that puts files of these names and contents in place of securityfs."""
    writes = " && ".join(f"printf '%s' '{text}' > /sys/kernel/security/{name}" for name, text in files.items())
    return f"mount -t tmpfs none /sys/kernel/security && {writes or 'true'}"


def say_notes(path: Path) -> str:
    """A command that puts a file in place of the kernel's ELF notes."""
    return f"mount --bind '{path}' /sys/kernel/notes"


def check(
    loader: Path, bundle: Bundle, trust: Trust, *options: str, prefix: Sequence[str] = (), expected: int = 0
) -> dict[str, Any]:
    """Run `check`; its document."""
    command = [*prefix, str(loader), "check", str(bundle.root), *trust.arguments, *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == expected, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document
