"""What is wrong with a strategy as it is written: one paragraph with the line and the cure, before anything compiles.

Law 1: nothing that compiles and runs right is refused; what is not known here is left to the compiler.
Law 2: what the compiler then refuses is told in one paragraph too (`feedback.explain`).

The handlers' source is read as a tree, with every function and method of the user's that they reach. Types are
followed as far as they are evident: the arguments of a handler, fields, and locals assigned from those.
"""

import ast
import builtins
import difflib
import inspect
import math
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any, NoReturn

from engine.errors import StrategyError
from engine.kernel.events import Bar, Depth, Quote, Report, Slice, Timer, Trade
from engine.kernel.feedback import DEBUG, FIXED, HOLD, INSTEAD, REFUSED
from engine.kernel.image import methods_of
from engine.kernel.layout import PerInstrument, Record
from engine.kernel.signals import Ctx
from engine.kernel.source import Evident, Source, source_of, unset
from engine.kernel.strategy import HANDLERS, Strategy

BUILTINS = ("abs", "bool", "divmod", "enumerate", "float", "int", "len", "max", "min", "pow", "range", "reversed",
            "round", "sum", "tuple", "zip")  # fmt: skip
GROWING = {"append", "extend", "insert", "appendleft", "popleft", "setdefault"}
IMPURE = {"random", "time", "datetime", "os", "sys", "secrets", "uuid", "logging", "threading"}
WORDS = {"i8": "int", "f8": "float", "b1": "bool"}
EVENTS: dict[type[Record], str] = {Bar: "A bar", Quote: "A quote", Trade: "A trade", Depth: "A depth event",
                                   Report: "A report", Timer: "A timer", Slice: "A slice"}  # fmt: skip


def inspect_strategy(strategy: type[Strategy]) -> None:
    """Raise StrategyError for the first thing in a handler, or in what it reaches, that cannot compile."""
    done: set[Any] = set()
    for name, function in strategy.handlers.items():
        read(function, [strategy, HANDLERS[name][1], Ctx], done)


def read(function: FunctionType, types: list[Any], done: set[Any]) -> None:
    """Read a function whose first arguments have these types (as in `Evident`), once for each set of types."""
    key = (function.__code__, tuple(map(str, types)))
    source = source_of(function) if key not in done else None
    done.add(key)
    if source is not None:
        names = [a.arg for a in (*source.tree.args.posonlyargs, *source.tree.args.args)]
        lines = Lines(source, dict(zip(names, types, strict=False)), done)
        body = source.tree.body
        for statement in body[1:] if ast.get_docstring(source.tree) is not None else body:
            lines.visit(statement)
        unset(body, lines.doubtful, set(names))


class Lines(ast.NodeVisitor):
    """One function's source, statement by statement."""

    def __init__(self, source: Source, types: dict[str, Any], done: set[Any]) -> None:
        function, code = source.function, source.function.__code__
        closed = {n: c.cell_contents for n, c in zip(code.co_freevars, function.__closure__ or (), strict=False)}
        self.source, self.done = source, done
        self.outer = {**vars(builtins), **function.__globals__, **closed}
        self.own = {*code.co_varnames, *code.co_cellvars}
        self.evident = Evident(types, self.outer, self.own, set(types))
        self.kind = self.evident.kind

    def fail(self, node: ast.AST, what: str) -> NoReturn:
        number = self.source.first + getattr(node, "lineno", 1) - 1
        line, words = self.source.line(number), ast.unparse(node).splitlines()[0]
        shown = f"`{line}`" if isinstance(node, ast.stmt) or words == line else f"in `{line}`, `{words}`"
        raise StrategyError(f"{self.source.place(number)}, {self.source.function.__qualname__}: {shown} {what}")

    def generic_visit(self, node: ast.AST) -> None:
        if type(node) in REFUSED:
            self.fail(node, f"is {REFUSED[type(node)]}")
        super().generic_visit(node)

    def doubtful(self, node: ast.Name) -> None:
        if node.id in self.own:
            self.fail(node, "may be read before it has a value: only an `if` sets it, and not in all branches. Set it "
                            "before the `if`, or in an `else` too.")  # fmt: skip

    # statements

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a string of its own is a comment
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """The words of an exception are for people: they may be strings."""

    def visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.store(target, node.value, node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.store(node.target, node.value, node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.store(node.target, node.value, node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        left = ast.parse(ast.unparse(node.target), mode="eval").body
        self.store(node.target, ast.BinOp(left, node.op, node.value), node)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        held = self.kind(node.iter)
        if isinstance(held, tuple) and held[0] is PerInstrument:
            cure = "`for i in range(ctx.instruments):`"
            self.fail(node.iter, f"holds one item for each instrument; loop over the indices: {cure}.")
        call = node.iter.func if isinstance(node.iter, ast.Call) else None
        counted = isinstance(call, ast.Name) and call.id == "range"
        self.bind(node.target, "i8" if counted else held[1] if isinstance(held, tuple) else None)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def bind(self, target: ast.expr, kind: Any) -> None:
        if isinstance(target, ast.Name):
            self.evident.bind(target.id, kind)
        elif isinstance(target, ast.Tuple):
            for item in target.elts:
                self.bind(item, None)

    def store(self, target: ast.expr, value: ast.expr | None, node: ast.AST) -> None:
        """A value goes to a local, an item or a field: who may write it, and does it fit?"""
        if isinstance(target, ast.Attribute):
            owner = self.kind(target.value)
            if isinstance(owner, type):
                self.store_field(owner, target.attr, value, node)
        elif isinstance(target, ast.Subscript):
            self.visit(target.value)
            self.visit(target.slice)
            held = self.kind(target.value)
            if isinstance(held, tuple) and isinstance(held[1], type):
                self.fail(node, "writes over a whole record; write its fields one by one.")
            if isinstance(held, tuple) and held[1] != "f8" and self.kind(value) == "f8":
                self.fail(node, "puts a float among ints; declare it Array[float, ...], or wrap the value in int(...).")
        elif isinstance(target, ast.Tuple):
            parts = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) else None
            for i, item in enumerate(target.elts):
                self.store(item, parts[i] if parts else None, node)
        else:
            self.bind(target, self.kind(value))

    def store_field(self, owner: type[Record], name: str, value: ast.expr | None, node: ast.AST) -> None:
        kind = self.kind(value)
        if owner in EVENTS:
            self.fail(node, f"writes to the event. {EVENTS[owner]} is history; keep your own value in a field of self.")
        if owner is Ctx:
            self.fail(node, "writes to ctx, which is the kernel's. State a wish: ctx.target(qty), ctx.buy(qty), ...")
        if issubclass(owner, Strategy) and name in owner.params:
            word = WORDS.get(str(owner.fields[name].kind), "int")
            self.fail(node, f"writes to a parameter, and parameters are constant. Declare a field in the class body, "
                            f"`{name}_now: {word}`, and copy the parameter into it in on_start.")  # fmt: skip
        if name not in owner.fields:
            word = WORDS.get(kind, "float") if isinstance(kind, str) else "float"
            self.fail(node, f"writes to a field that {owner.__qualname__} does not have. Declare `{name}: {word}` in "
                            f"the class body.{near(name, owner.fields)}")  # fmt: skip
        field = owner.fields[name]
        if field.scalar is None:
            self.fail(node, f"writes over {name}, which is not a number; write its fields or items.")
        if field.kind != "f8" and kind == "f8":
            self.fail(node, f"puts a float into {name}, which is declared {WORDS.get(str(field.kind), 'int')}. "
                            f"Declare `{name}: float`, or wrap the value in int(...).")  # fmt: skip

    # expressions

    def visit_Constant(self, node: ast.Constant) -> None:
        if str(node.value).lower().strip("+-") in ("nan", "inf"):
            self.fail(node, "is a string; write math.nan or math.inf, with `import math` above the class.")
        if isinstance(node.value, str | bytes):
            self.fail(node, f"is a string. Handlers know numbers only; use codes of your own: `UP = 1`. {DEBUG}.")

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.own:
            return
        if node.id not in self.outer:
            known = [*self.own, *self.source.function.__globals__, *BUILTINS]
            self.fail(node, f"is not defined here.{near(node.id, known)}")
        value = self.outer[node.id]
        if isinstance(value, list | dict | set):
            what = type(value).__name__
            self.fail(node, f"is a {what} of the module, which may change; write a tuple, or an Array field.")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner, name = self.kind(node.value), node.attr
        if isinstance(owner, type) and issubclass(owner, Record) and name not in owner.fields:
            found = inspect.getattr_static(owner, name, None)
            if found is None:
                self.fail(node, absent(owner, name))
            if isinstance(found, int | float):
                self.fail(node, "is a constant of the class, which compiled code does not see. Write "
                                f"`{name} = {found!r}` above the class, or make it a parameter.")  # fmt: skip
            if isinstance(found, property):
                self.follow(found.fget, [owner])
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.slice, ast.Slice) and isinstance(self.kind(node.value), tuple):
            self.fail(node, "is a slice, which fields do not have; loop over the indices: `for i in range(2, 5):`.")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for operator, right in zip(node.ops, node.comparators, strict=True):
            whole = isinstance(right, ast.Constant) and right.value in (None, True, False)
            if isinstance(operator, ast.Is | ast.IsNot) and not whole:
                self.fail(node, "asks whether two numbers are one object, which says nothing; write == or !=, and "
                                "math.isnan(x) for what is not a number.")  # fmt: skip
        self.generic_visit(node)

    def module(self, node: ast.expr) -> ModuleType | None:
        """The module that an expression names, such as `np.random`."""
        if isinstance(node, ast.Attribute):
            above = self.module(node.value)
            found = getattr(above, node.attr, None) if above is not None else None
        else:
            found = self.outer.get(node.id) if isinstance(node, ast.Name) and node.id not in self.own else None
        return found if isinstance(found, ModuleType) else None

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Name) and called.id not in self.own:
            self.call_name(node, called.id)
        elif isinstance(called, ast.Attribute):
            self.call_attribute(node, called)
        for argument in (*node.args, *(k.value for k in node.keywords)):
            self.visit(argument)
        self.visit(called)

    def call_name(self, node: ast.Call, name: str) -> None:
        value = self.outer.get(name)
        if value is print:
            self.fail(node, f"prints, and a handler runs millions of times a second. {DEBUG}.")
        if value is super:
            self.fail(
                node, "calls the parent, which does not compile. Put the shared code in a method of another name."
            )
        if isinstance(value, type) and issubclass(value, Record):
            self.fail(
                node,
                f"makes a new {name}. Records are state: declare `one: {name}` in the class body; it starts as zeros.",
            )
        if value is not None and getattr(builtins, name, None) is value and name not in BUILTINS:
            cure = HOLD if name in ("list", "dict", "set") else f"They have {', '.join(BUILTINS)} and math"
            self.fail(node, f"calls `{name}`, which handlers do not have. {cure}.")
        self.follow(value, [self.kind(a) for a in node.args])

    def call_attribute(self, node: ast.Call, called: ast.Attribute) -> None:
        owner, types = self.kind(called.value), [self.kind(a) for a in node.args]
        module = self.module(called.value)
        if isinstance(owner, type) and issubclass(owner, Record):
            if called.attr in owner.fields:
                inner = owner.fields[called.attr].kind
                cure = f"`.{called.attr}.update(...)`" if hasattr(inner, "update") else f"`.{called.attr}`"
                self.fail(node, f"calls a field; write {cure}.")
            self.follow(inspect.getattr_static(owner, called.attr, None), [owner, *types])
        elif module is not None:
            self.call_module(node, called.attr, module, types)
        elif called.attr in GROWING:
            self.fail(node, f"grows an unbounded list. {FIXED}. {HOLD}.")

    def call_module(self, node: ast.Call, name: str, module: ModuleType, types: list[Any]) -> None:
        if module.__name__ == "numpy" and name not in ("isnan", "isfinite", "isinf", "int64", "float64"):
            cure = f"use math.{name}" if hasattr(math, name) else f"use {INSTEAD[name]}" if name in INSTEAD else HOLD
            self.fail(node, "calls numpy, whose single numbers differ from compiled ones in their last bits, and "
                            f"whose arrays have no place in a fixed state. Instead, "
                            f"{cure[0].lower()}{cure[1:]}.")  # fmt: skip
        if module.__name__.split(".")[0] in IMPURE or module.__name__ == "numpy.random":
            self.fail(node, f"asks `{module.__name__}`. A handler sees its event, ctx and its fields only, so "
                            "that history can be repeated: time is ctx.now, randomness needs a field.")  # fmt: skip
        if not hasattr(module, name):
            self.fail(node, f"does not exist in {module.__name__}.{near(name, dir(module))}")
        self.follow(getattr(module, name), types)

    def follow(self, function: Any, types: list[Any]) -> None:
        """Read a function that this one calls, if it is the user's."""
        if isinstance(function, FunctionType) and not function.__module__.startswith(("engine.", "numba.", "numpy.")):
            read(function, types, self.done)


def absent(owner: type[Record], name: str) -> str:
    """What to say of something that a record does not have."""
    if owner in EVENTS:
        homes = [r for r in (Bar, Quote, Trade, Report) if name in r.fields and r is not owner]
        cure = "".join(f" {EVENTS[r]} has {name}: write on_{r.__name__.lower()}." for r in homes[:1])
        return f"does not exist. {EVENTS[owner]} has {', '.join(owner.fields)}.{cure or near(name, owner.fields)}"
    inner = {"fault", "strategy"} if owner is Ctx else {*HANDLERS, *vars(Strategy)}
    methods = [n for n, _ in methods_of(owner) if not n.startswith("_")]
    known = [n for n in (*owner.fields, *methods) if n not in inner]
    new = f" A new one is declared in the class body: `{name}: float`." if issubclass(owner, Strategy) else ""
    what = "ctx" if owner is Ctx else owner.__qualname__
    return f"does not exist. {what} has {', '.join(known) or 'no fields'}.{near(name, known)}{new}"


def near(name: str, known: Iterable[str]) -> str:
    """A question about the nearest known name, or nothing."""
    spelled = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), list(spelled), 1)
    return f" Did you mean {spelled[found[0]]}?" if found else ""
