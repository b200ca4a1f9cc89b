# SPDX-License-Identifier: GPL-3.0-or-later
"""`make feature`: a new feature's skeleton; `make contract`: a feature against its contract."""
