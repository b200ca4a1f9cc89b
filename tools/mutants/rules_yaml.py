# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults in playbooks, tasks and defaults of roles, and in the templates of units."""

from __future__ import annotations

import re
from typing import Iterator

import yaml

from tools.mutants.fault import Fault
from tools.mutants.rules_text import NUMBERS

# Keys whose loss lets a play go on where it should stop, or do what it should leave.
GUARDS = ("failed_when", "when", "until", "changed_when", "any_errors_fatal", "max_fail_percentage", "check_mode",
          "no_log", "run_once", "rescue", "always", "delegate_to", "become", "throttle", "retries")  # fmt: skip
CONDITIONS = ("failed_when", "when", "until", "that", "changed_when")
DESCRIBES = ("name", "description", "short_description", "fail_msg", "msg", "success_msg")
SIGNS = [("<", "<="), ("<=", "<"), (">", ">="), (">=", ">"), ("==", "!="), ("!=", "=="), ("and", "or"), ("or", "and"),
         ("not in", "in"), ("is not", "is")]  # fmt: skip
# Thousands of faults are read; libyaml is there wherever PyYAML's wheel is.
QUICK_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LITERAL = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
FILTERS = ("default", "int", "bool", "ternary", "difference", "unique", "select", "reject", "selectattr", "rejectattr",
           "max", "min", "length")  # fmt: skip
FILTER = re.compile(rf" \| (?:{'|'.join(FILTERS)})\b(?:\([^()]*\))?")
JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.S)


def faults(path: str, text: str) -> Iterator[Fault]:
    """Every fault in a YAML file; one that is not YAML any more is not given out."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    found = set(_of_node(path, text, root, "")) if root is not None else set()
    return iter(sorted(fault for fault in found if _parses(fault.apply(text))))


def template_faults(path: str, text: str) -> Iterator[Fault]:
    """Every fault in a template: a line that is gone, a condition that is negated, a number."""
    found = set()
    for match in re.finditer(r"^(?![#\[{;]|\s*$).*\n", text, re.M):
        found.add(Fault(path, match.start(), match.end(), "", "dropped_line"))
        for rule in NUMBERS:
            for number in rule.pattern.finditer(match.group()):
                start = match.start() + number.start("it")
                assert not isinstance(rule.new, str)
                new = rule.new(number.group("it"))
                found.add(Fault(path, start, start + len(number.group("it")), new, rule.operator))
    for match in re.finditer(r"\{% if (?P<it>.+?) %\}", text):
        found.add(Fault(path, *match.span("it"), f"not ({match.group('it')})", "negated_condition"))
    return iter(sorted(found))


def _parses(text: str) -> bool:
    try:
        yaml.load(text, Loader=QUICK_LOADER)
    except yaml.YAMLError:
        return False
    return True


def _of_node(path: str, text: str, node: yaml.Node, key: str) -> Iterator[Fault]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value in GUARDS:
                yield _without(path, text, name.start_mark.index, value.end_mark.index, f"dropped_{name.value}")
            if name.value not in DESCRIBES:
                yield from _of_node(path, text, value, name.value)
    elif isinstance(node, yaml.SequenceNode):
        for one in node.value:
            task = isinstance(one, yaml.MappingNode) and any(name.value == "name" for name, _ in one.value)
            if task or key in CONDITIONS:
                dash = text.rfind("-", 0, one.start_mark.index)
                if len(node.value) > 1 and "\n" not in text[dash : one.start_mark.index]:
                    operator = "dropped_task" if task else "dropped_condition"
                    yield _without(path, text, dash, one.end_mark.index, operator)
            yield from _of_node(path, text, one, key)
    elif isinstance(node, yaml.ScalarNode):
        yield from _of_scalar(path, text, node, key)


def _without(path: str, text: str, start: int, end: int, operator: str) -> Fault:
    """What begins in the middle of a line loses its text, and its line where nothing else stands on it."""
    end = start + len(text[start:end].rstrip())
    if not text[text.rfind("\n", 0, start) + 1 : start].strip():
        start = text.rfind("\n", 0, start) + 1
        end = text.find("\n", end) + 1 or len(text)
    return Fault(path, start, end, "", operator)


def _of_scalar(path: str, text: str, node: yaml.ScalarNode, key: str) -> Iterator[Fault]:
    start, end = node.start_mark.index, node.end_mark.index
    raw = text[start:end]
    if node.style in ("|", ">"):
        head = raw.find("\n") + 1
        start, raw = start + head, raw[head:]
    lead, tail = len(raw) - len(raw.lstrip()), len(raw.rstrip())
    start, raw = start + lead, raw[lead:tail]
    if node.style in ("'", '"'):
        start, raw = start + 1, raw[1:-1]
    if node.style is None and node.tag == "tag:yaml.org,2002:bool":
        yield Fault(path, start, start + len(raw), "false" if raw == "true" else "true", "swapped_boolean")
    elif node.style is None and node.tag == "tag:yaml.org,2002:int":
        yield Fault(path, start, start + len(raw), str(int(node.value) + 1), "constant_plus")
        if int(node.value):
            yield Fault(path, start, start + len(raw), str(int(node.value) * 10), "constant_times")
    elif key in CONDITIONS:
        # What is a text with a quote in it stays one: YAML has no brackets for a condition.
        yield Fault(path, start, start + len(raw), f"not ({raw})", "negated_condition")
        yield from _of_expression(path, raw, start)
    else:
        for match in JINJA.finditer(raw):
            yield from _of_expression(path, match.group(), start + match.start())


def _of_expression(path: str, raw: str, at: int) -> Iterator[Fault]:
    """Signs, words and numbers of a Jinja expression; `at` is its place in the file."""
    seen = LITERAL.sub(lambda match: "\x01" * len(match.group()), raw)
    for old, new in SIGNS:
        for match in re.finditer(rf"(?<=\s){re.escape(old)}(?=\s)", seen):
            operator = "boundary" if old[0] in "<>" else "and_or" if old in ("and", "or") else "negated_condition"
            yield Fault(path, at + match.start(), at + match.end(), new, operator)
    for match in re.finditer(r"\bnot (?!in\b)", seen):
        yield Fault(path, at + match.start(), at + match.end(), "", "negated_condition")
    for match in re.finditer(r"\b(true|false)\b", seen):
        yield Fault(
            path,
            at + match.start(),
            at + match.end(),
            "false" if match.group() == "true" else "true",
            "swapped_boolean",
        )
    for match in re.finditer(r" if (?P<it>.+?) else ", seen):
        it = raw[slice(*match.span("it"))]
        yield Fault(path, at + match.start("it"), at + match.end("it"), f"not ({it})", "negated_condition")
    for match in FILTER.finditer(seen):
        yield Fault(path, at + match.start(), at + match.end(), "", "dropped_filter")
    for rule in NUMBERS:
        for match in rule.pattern.finditer(seen):
            assert not isinstance(rule.new, str)
            yield Fault(path, at + match.start("it"), at + match.end("it"), rule.new(match.group("it")), rule.operator)
