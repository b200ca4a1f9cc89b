# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults in Python, from its syntax tree: only what the interpreter runs, never texts that describe."""

from __future__ import annotations

import ast
import re
from typing import Iterator

from tools.mutants.fault import Fault

COMPARE: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
BINARY: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
}
BOUNDARIES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
# A text that the program compares or looks up, not one that a person reads.
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:/-]*\Z")
# What a module tells about itself; Ansible reads it, the program does not.
DESCRIBES = {"DOCUMENTATION", "EXAMPLES", "RETURN", "__all__", "__metaclass__"}


def faults(path: str, text: str) -> Iterator[Fault]:
    """Every fault that the rules make in the file, in the order of the text."""
    found = _Visitor(path, text)
    found.visit(ast.parse(text))
    return iter(sorted(found.faults))


class _Visitor(ast.NodeVisitor):
    def __init__(self, path: str, text: str) -> None:
        self.path, self.text, self.scope = path, text, ""
        self.faults: list[Fault] = []
        # Offsets in the tree are UTF-8 bytes within a line.
        self.lines = text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self.at(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.at(node.end_lineno, node.end_col_offset)

    def put(self, operator: str, start: int, end: int, new: str) -> None:
        self.faults.append(Fault(self.path, start, end, new, operator, self.scope))

    def replace(self, operator: str, node: ast.expr | ast.stmt, new: str) -> None:
        self.put(operator, self.start(node), self.end(node), new)

    def between(self, operator: str, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """Replace the sign between two operands, with brackets and line ends around it left as they are."""
        start, end = self.end(left), self.start(right)
        match = re.search(r"\s+".join(map(re.escape, old.split())), self.text[start:end])
        if match:
            self.put(operator, start + match.start(), start + match.end(), new)

    # What is not run: names of types, texts about the module.

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:  # noqa: N802
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)
        outer, self.scope = self.scope, f"{self.scope}.{node.name}" if self.scope else node.name
        self.body(node.body)
        self.scope = outer

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802
        outer, self.scope = self.scope, f"{self.scope}.{node.name}" if self.scope else node.name
        self.body(node.body)
        self.scope = outer

    def body(self, statements: list[ast.stmt]) -> None:
        for one in statements:
            self.visit(one)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:  # noqa: N802
        if any(isinstance(one, ast.Name) and one.id in DESCRIBES for one in node.targets):
            return
        if all(isinstance(one, (ast.Attribute, ast.Subscript)) for one in node.targets):
            self.replace("dropped_statement", node, "pass")
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        return

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:  # noqa: N802
        """Offsets within an f-string are not to be had before Python 3.12."""

    # Statements.

    def visit_Expr(self, node: ast.Expr) -> None:  # noqa: N802
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, (ast.Call, ast.Yield)):
            self.replace("dropped_statement", node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:  # noqa: N802
        self.replace("dropped_statement", node, "pass")
        pair = BINARY.get(type(node.op))
        if pair:
            self.between("arithmetic", node.target, node.value, f"{pair[0]}=", f"{pair[1]}=")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:  # noqa: N802
        self.replace("dropped_statement", node, "pass")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:  # noqa: N802
        value = node.value
        if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            self.replace("dropped_return", node, "return None")
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:  # noqa: N802
        self.replace("dropped_statement", node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:  # noqa: N802
        self.replace("dropped_statement", node, "pass")

    # Conditions.

    def negate(self, test: ast.expr) -> None:
        """A comparison of one sign is negated by its own rule; a second fault that does the same says nothing."""
        alone = isinstance(test, ast.Compare) and len(test.ops) == 1 and not isinstance(test.ops[0], BOUNDARIES)
        if not alone and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            start, end = self.start(test), self.end(test)
            self.put("negated_condition", start, end, f"(not ({self.text[start:end]}))")

    def visit_If(self, node: ast.If) -> None:  # noqa: N802
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if (
            isinstance(node.test, ast.Compare)
            and isinstance(node.test.left, ast.Name)
            and node.test.left.id == "__name__"
        ):
            return
        self.negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:  # noqa: N802
        self.negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:  # noqa: N802
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:  # noqa: N802
        for left, sign, right in zip([node.left, *node.comparators], node.ops, node.comparators):
            kind = "boundary" if isinstance(sign, BOUNDARIES) else "negated_condition"
            self.between(kind, left, right, *COMPARE[type(sign)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:  # noqa: N802
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self.between("and_or", left, right, old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:  # noqa: N802
        if isinstance(node.op, ast.Not):
            # Only the word: a bracket before the operand is not a part of it.
            word = re.compile(r"not\s*").match(self.text, self.start(node))
            assert word is not None
            self.put("negated_condition", *word.span(), "")
        self.generic_visit(node)

    # Values.

    def visit_BinOp(self, node: ast.BinOp) -> None:  # noqa: N802
        pair = BINARY.get(type(node.op))
        text = isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
        if pair and not text:
            self.between("arithmetic", node.left, node.right, *pair)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:  # noqa: N802
        value = node.value
        if isinstance(value, bool):
            self.replace("swapped_boolean", node, str(not value))
        elif isinstance(value, (int, float)):
            self.replace("constant_plus", node, f"({value} + 1)")
            if value:
                self.replace("constant_times", node, f"({value} * 1000)")
        elif isinstance(value, str) and WORD.match(value):
            self.replace("changed_word", node, '"other_word"')
