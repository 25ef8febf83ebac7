"""What the source of a function says: where it stands, its tree, and the types that are evident in it.

Used to explain what is wrong with a strategy; nothing here decides what runs.
"""

import ast
import builtins
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from engine.kernel.layout import Array, Field, PerInstrument, Record

WHOLE = {"floor", "ceil", "trunc", "gcd", "factorial", "comb", "perm", "lcm", "isqrt"}
TRUTH = {"isnan", "isfinite", "isinf", "isclose"}
PLAIN = {int: "i8", float: "f8", bool: "b1", "int": "i8", "float": "f8", "bool": "b1"}


@dataclass
class Source:
    """A function's source: its tree (line 1 is its first line), its lines, and the number of the first in the file."""

    function: FunctionType
    tree: ast.FunctionDef
    lines: list[str]
    first: int

    def line(self, number: int) -> str:
        """A line of the file, stripped."""
        at = number - self.first
        return self.lines[at].strip() if 0 <= at < len(self.lines) else ""

    def place(self, number: int) -> str:
        """Where a line is, as a person looks for it."""
        return place(self.function.__code__.co_filename, number)


def place(filename: str, number: int) -> str:
    """File and line, or the line of a notebook cell."""
    return (
        f"line {number} of the cell" if "ipykernel" in filename or filename.startswith("<") else f"{filename}:{number}"
    )


def source_of(function: FunctionType) -> Source | None:
    """The source, or None where there is none: a prompt, or a file that changed under the running process."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    if not isinstance(tree, ast.FunctionDef) or tree.name != function.__name__:
        return None
    return Source(function, tree, lines, max(first, 1))


def _number(code: str) -> str:
    return "f8" if code == "f8" else "b1" if code == "b1" else "i8"


def _of_field(known: Field) -> Any:
    if known.scalar is not None:
        return _number(known.kind)
    if known.kind is Array or known.kind is PerInstrument:
        return (known.kind, known.item if isinstance(known.item, type) else _number(known.item))
    return known.kind


def _returns(function: Any) -> Any:
    hint = getattr(function, "__annotations__", {}).get("return")
    return PLAIN.get(hint) if isinstance(hint, type | str) else None


def _arithmetic(operator: ast.operator, left: Any, right: Any) -> Any:
    if not isinstance(left, str) or not isinstance(right, str):
        return None
    if isinstance(operator, ast.Div) or "f8" in (left, right):
        return "f8"
    return None if isinstance(operator, ast.Pow) else "i8"


@dataclass
class Evident:
    """The types of expressions, as far as they are evident: a record class, (Array, item), "f8", "i8", "b1", or None.

    `types` holds those of locals; `outer` the values of globals, builtins and closed-over names.
    """

    types: dict[str, Any]
    outer: dict[str, Any]
    own: set[str]
    fixed: set[str] = field(default_factory=set)

    def bind(self, name: str, kind: Any) -> None:
        """A local is assigned; with several types it is a float if they are numbers, else unknown."""
        if name in self.fixed:
            return
        known = self.types.get(name, kind)
        self.types[name] = kind if known == kind else "f8" if {known, kind} == {"i8", "f8"} else None

    def kind(self, node: ast.AST | None) -> Any:
        """The type of an expression."""
        read = getattr(self, f"_{type(node).__name__.lower()}", None)
        return read(node) if read is not None else None

    def _constant(self, node: ast.Constant) -> Any:
        return PLAIN.get(type(node.value))

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.own:
            return self.types.get(node.id)
        return PLAIN.get(type(self.outer.get(node.id)))

    def _attribute(self, node: ast.Attribute) -> Any:
        owner = self.kind(node.value)
        if isinstance(owner, type) and issubclass(owner, Record):
            if node.attr in owner.fields:
                return _of_field(owner.fields[node.attr])
            found = inspect.getattr_static(owner, node.attr, None)
            return _returns(found.fget) if isinstance(found, property) else None
        if isinstance(node.value, ast.Name) and node.value.id not in self.own:
            return PLAIN.get(type(getattr(self.outer.get(node.value.id), node.attr, None)))
        return None

    def _subscript(self, node: ast.Subscript) -> Any:
        held = self.kind(node.value)
        return held[1] if isinstance(held, tuple) else None

    def _binop(self, node: ast.BinOp) -> Any:
        return _arithmetic(node.op, self.kind(node.left), self.kind(node.right))

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        return "b1" if isinstance(node.op, ast.Not) else self.kind(node.operand)

    def _compare(self, node: ast.Compare) -> Any:
        return "b1"

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self._joined([node.body, node.orelse])

    def _namedexpr(self, node: ast.NamedExpr) -> Any:
        return self.kind(node.value)

    def _joined(self, nodes: list[ast.expr]) -> Any:
        kinds = {self.kind(n) for n in nodes}
        return kinds.pop() if len(kinds) == 1 else "f8" if kinds == {"i8", "f8"} else None

    def _call(self, node: ast.Call) -> Any:
        called = node.func
        if isinstance(called, ast.Attribute):
            owner = self.kind(called.value)
            if isinstance(owner, type):
                return _returns(inspect.getattr_static(owner, called.attr, None))
            module = self.outer.get(called.value.id) if isinstance(called.value, ast.Name) else None
            if module is math:
                return "i8" if called.attr in WHOLE else "b1" if called.attr in TRUTH else "f8"
            return _returns(getattr(module, called.attr, None))
        if not isinstance(called, ast.Name) or called.id in self.own:
            return None
        value = self.outer.get(called.id)
        if value in (int, float, bool):
            return PLAIN[value]
        if value is len or (value is round and len(node.args) == 1):
            return "i8"
        if value in (abs, min, max, builtins.round):
            return self._joined(node.args[:1] if value in (abs, builtins.round) else node.args)
        return _returns(value)


def unset(block: list[ast.stmt], read: Callable[[ast.Name], None], known: set[str]) -> set[str] | None:
    """The locals that have a value after a block, None when nothing comes after it; `read` hears of each name that is
    read beside an `if` that alone sets it, in only some of its branches. Another condition may be its equal.
    """
    have: set[str] = set(known)
    doubtful: set[str] = set()
    for statement in block:
        inner = isinstance(statement, ast.If | ast.For | ast.While)
        head: Any = getattr(statement, "test", getattr(statement, "iter", None)) if inner else statement
        for node in certain(head):
            again = isinstance(statement, ast.AugAssign) and node is statement.target
            if isinstance(node, ast.Name) and node.id in doubtful and (isinstance(node.ctx, ast.Load) or again):
                read(node)
        have |= stored(head)
        doubtful -= have
        if isinstance(statement, ast.If):
            ways = [
                w for w in (unset(part, read, have) for part in (statement.body, statement.orelse)) if w is not None
            ]
            if not ways:
                return None
            have = set.intersection(*ways)
            doubtful = (doubtful | stored(statement)) - have
        elif isinstance(statement, ast.For | ast.While):  # a loop may always run
            unset(statement.body, read, have | stored(statement))
            doubtful -= stored(statement)
        elif isinstance(statement, ast.Return | ast.Raise | ast.Continue | ast.Break):
            return None
    return have


def stored(tree: ast.AST) -> set[str]:
    """The names that a piece of code sets."""
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def certain(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of an expression or statement that are looked at whatever the values are."""
    yield tree
    if isinstance(tree, ast.BoolOp):
        yield from certain(tree.values[0])
    elif isinstance(tree, ast.IfExp):
        yield from certain(tree.test)
    else:
        for child in ast.iter_child_nodes(tree):
            yield from certain(child)
