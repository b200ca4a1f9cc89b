# SPDX-License-Identifier: GPL-3.0-or-later
"""Small faults planted by rule, to see which ones no test notices: `make mutants`, docs in README.md beside this.

Rules make the faults (`rules_*`), `choose` draws from them, `seen` knows which tests can see one, `copy` plants it
and runs them, `report` judges. Nothing here knows what the product does.
"""
