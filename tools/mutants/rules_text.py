# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults in C and in shell, by patterns over the text with comments, literals and directives masked."""

from __future__ import annotations

import re
from typing import Callable, Iterator, NamedTuple

from tools.mutants.fault import Fault


class Rule(NamedTuple):
    """Where `pattern` matches the masked text, its group "it" becomes `new` (or what it makes of the group)."""

    operator: str
    pattern: re.Pattern[str]
    new: str | Callable[[str], str]


def _rule(operator: str, pattern: str, new: str | Callable[[str], str]) -> Rule:
    return Rule(operator, re.compile(pattern, re.MULTILINE), new)


def _swaps(operator: str, around: str, *pairs: tuple[str, str]) -> list[Rule]:
    return [
        _rule(operator, around % f"(?P<it>{re.escape(old)})", new) for pair in pairs for old, new in (pair, pair[::-1])
    ]


NUMBER = r"(?<![\w.\"'])(?P<it>%s)(?:[uU]?[lL]{0,2})(?![\w.\"'])"
# As C sees them: 0 has no product, a shift's or a flag's hexadecimal number is left alone.
NUMBERS = [
    _rule("constant_plus", NUMBER % r"0|[1-9]\d*", lambda it: str(int(it) + 1)),
    _rule("constant_times", NUMBER % r"[1-9]\d*", lambda it: str(int(it) * 10)),
]
C_RULES = [
    *_swaps("boundary", r"(?<=[\w)\]] )%s(?= )", ("<", "<="), (">", ">=")),
    *_swaps("negated_condition", r"(?<= )%s(?= )", ("==", "!=")),
    *_swaps("and_or", r"%s(?=[ \n])", ("&&", "||")),
    *_swaps("arithmetic", r"(?<=[\w)\]] )%s(?= )", ("+", "-"), ("*", "/"), ("+=", "-=")),
    *_swaps("arithmetic", r"%s(?=[);\w])", ("++", "--")),
    *_swaps("swapped_boolean", r"\b%s\b", ("true", "false")),
    _rule("negated_condition", r"(?P<it>!)(?=[\w(*])", ""),
    # One line, so that its last bracket is the condition's.
    _rule(
        "negated_condition",
        r"^\s*(?:else )?(?:if|while) \((?P<it>(?!!\w+\)$)[^!=\n]*)\)(?: \{)?$",
        lambda it: f"!({it})",
    ),
    _rule("dropped_return", r"^\s*return (?P<it>(?!0;|false;|NULL;)[^;{}]+);$", "0"),
    _rule("dropped_statement", r"^\t+(?P<it>(?!return|break|goto|if|for|while|switch)\w+\([^;{}]*\);)$", ";"),
    _rule("dropped_statement", r"^\t+(?P<it>[*\w]\w*(?:->|\.|\[)[^;{}=]* [-+|&]?= [^;{}]*;)$", ";"),
    *NUMBERS,
]
SHELL_RULES = [
    *_swaps("boundary", r"(?<= )%s(?= )", ("-lt", "-le"), ("-gt", "-ge")),
    *_swaps("negated_condition", r"(?<= )%s(?= )", ("-eq", "-ne"), ("=", "!="), ("-n", "-z")),
    *_swaps("and_or", r"(?<= )%s(?=[ \n])", ("&&", "||")),
    _rule("negated_condition", r"(?P<it>(?<=\[ )! |(?<=if )! |(?<=while )! )", ""),
    _rule("negated_condition", r"\b(?:if|while|until) (?P<it>(?!!)\S)", lambda it: f"! {it}"),
    _rule("dropped_return", r"\b(?:return|exit) (?P<it>[1-9]\d*)", "0"),
    _rule("dropped_return", r"\b(?:return|exit) (?P<it>0)\b", "1"),
    _rule(
        "dropped_statement",
        r"^\t+(?P<it>(?!return|exit|if|for|while|until|case|else|done|do|fi|esac|then|break)[a-z_]+ [^()|&{};\n\\]+)$",
        ":",
    ),
    *NUMBERS,
]
C_MASKED = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^[ \t]*#(?:\\\n|[^\n])*', re.S | re.M
)
SHELL_MASKED = re.compile(r"(?:^|(?<=\s))#[^\n]*|'[^'\n]*'", re.M)


def masked(text: str, pattern: re.Pattern[str]) -> str:
    """The text with what the pattern finds blanked, every offset and line as before."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", "\x01", match.group()), text)


def _faults(path: str, text: str, rules: list[Rule], seen: str) -> Iterator[Fault]:
    found = set()
    for rule in rules:
        for match in rule.pattern.finditer(seen):
            start, end = match.span("it")
            new = rule.new if isinstance(rule.new, str) else rule.new(text[start:end])
            found.add(Fault(path, start, end, new, rule.operator))
    return iter(sorted(found))


def c_faults(path: str, text: str) -> Iterator[Fault]:
    """Every fault in a C source or header. Some will not compile; those count for nothing."""
    return _faults(path, text, C_RULES, masked(text, C_MASKED))


def shell_faults(path: str, text: str) -> Iterator[Fault]:
    """Every fault in a shell script; one that does not parse (sh -n) counts for nothing."""
    return _faults(path, text, SHELL_RULES, masked(text, SHELL_MASKED))
