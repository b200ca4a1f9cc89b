#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector: runs, on a host without BTF, what the loader could not.

`run` is the service (docs/bcc.md). It has the bundle verified by the release's loader, compiles
only bytes whose hash the signed manifest names, and obeys the loader's kill orders. `compile` is
its child: it alone loads BCC and LLVM, hands the descriptors over and ends, so that what stays
is small. Nothing is pinned: all that is in the kernel hangs on descriptors of these processes.

Its parts are fleet_bcc beside this file, and a few files of module_utils; a bundle has all of them
in lib/ beside this file. Python 3.8's standard library; `bcc` (Debian's python3-bpfcc) in the child only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Without symlinks: when `current` turns to another release, this process stays with its own.
ENTRY = Path(__file__).resolve()
# Sources only: what runs is what the manifest names, never a compiled file that lies beside it.
sys.pycache_prefix = os.devnull
sys.path.insert(0, str(ENTRY.parent / "lib"))

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], ENTRY))
