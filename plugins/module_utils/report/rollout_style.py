# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report of a rollout needs beside the style of all pages: plots, folds, and a narrow screen."""

from __future__ import annotations

STYLE = """
:root { --good: #1a7f37; --bad: #b42318; --wait: #8a6100; --mark: #1f5fbf; --quiet: #6b7480; }
@media (prefers-color-scheme: dark) { :root { --good: #5fd07d; --bad: #ff8f85; --wait: #e6b84a; --mark: #7db2ff;
  --quiet: #9aa4af; } }
body { max-width: 84rem; margin: 1.5rem auto; padding: 0 1.2rem; }
h3 { font-size: 1rem; margin: 0; display: inline; } h4 { font-size: .95rem; margin: .2rem 0; }
.outcome { max-width: none; padding: .7rem .9rem; border-radius: .3rem; border: 2px solid;
  font-size: 1.05rem; overflow-wrap: anywhere; }
.tag { display: inline-block; } .tag + .tag { margin: 0; }
.none { background: var(--soft); color: var(--ink); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .4rem 1.2rem; }
.facts dt { font-size: .8em; color: var(--quiet); } .facts dd { margin: 0; overflow-wrap: anywhere; }
details { margin: .6rem 0; } summary { cursor: pointer; padding: .25rem 0; }
td, tbody th { overflow-wrap: break-word; } tbody th { white-space: normal; min-width: 5rem; font-weight: 600; }
.words { display: block; min-width: 16rem; }
.reach table, .lanes table, .plot { width: 100%; }
.reach td:last-child, .lanes td:last-child { min-width: 9rem; width: 40%; }
svg { display: block; overflow: visible; } .legend svg { display: inline-block; vertical-align: middle; }
.all { fill: var(--soft); stroke: var(--line); } .verified, .time.promoted { fill: var(--good); }
.back, .time.rolled_back { fill: var(--bad); } .open, .time { fill: var(--wait); }
.seen { stroke: var(--paper); stroke-width: 2; } .verdict { stroke: var(--paper); stroke-width: 2; fill: var(--wait); }
.verdict.pass { fill: var(--good); } .verdict.fail { fill: var(--bad); }
.compares { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 1rem 1.6rem; }
.plot { table-layout: fixed; } .plot th, .plot td { border-width: 0 0 1px; padding: .15rem .4rem; }
.plot th:first-child { width: 28%; overflow-wrap: anywhere; } .plot th, .plot tbody th { background: none; }
.plot td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.plot th:last-child { width: 30%; }
.plot small { font-weight: 400; color: var(--quiet); }
.before { fill: var(--paper); stroke: var(--mark); stroke-width: 2; } .after { fill: var(--mark); }
.control .before { stroke: var(--quiet); } .control .after { fill: var(--quiet); }
.way { stroke: var(--mark); stroke-width: 2; } .control .way { stroke: var(--quiet); }
.over .after { fill: var(--bad); } .over .before, .over .way { stroke: var(--bad); } .over small { color: var(--bad); }
.limit { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 3 2; }
@media (max-width: 44rem) { body { padding: 0 .7rem; margin: .8rem auto; }
  .plot thead { position: absolute; clip-path: inset(50%); }
  .plot tr { display: grid; grid-template-columns: repeat(3, 1fr); border-bottom: 1px solid var(--line);
    padding: .2rem 0; }
  .plot tbody th:first-child { grid-column: 1 / -1; width: auto; } .plot th, .plot td { border: 0; padding: .1rem 0; }
  .plot td[data-name]::before { content: attr(data-name) " "; font-size: .8em; color: var(--quiet); }
  .plot .marks { grid-column: 1 / -1; } }
@media print { details::details-content { content-visibility: visible; display: block; height: auto; }
  .compare, .outcome { break-inside: avoid; } svg * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
