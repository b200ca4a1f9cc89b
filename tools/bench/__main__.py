# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`."""

import sys

from tools.bench.run import main

sys.exit(main(sys.argv[1:]))
