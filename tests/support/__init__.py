# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of several suites and tools share: hosts, not assertions. No test lives here."""
