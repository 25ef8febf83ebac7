"""What is said about a strategy that does not compile: the sentences, and the compiler's own words made readable.

Law: one paragraph, with the line and the cure; never a dump.
"""

import ast
import linecache
import os
import re

from engine.errors import StrategyError
from engine.kernel.source import place
from engine.kernel.strategy import Strategy

FIXED = "The state of a strategy has a fixed layout, so that it can be saved, compared and compiled"
HOLD = ("Declare `values: Array[float, 100]` in the class body (from engine.kernel.strategy import Array), or use an "
        "indicator such as Mean")  # fmt: skip
DEBUG = "To look inside, run it with compiled=False and a debugger; what happened is in the frames of the result"
MOVE = "Write plain statements, or a function of its own beside the class"
OPENS = "a `with` block. Handlers open nothing: no files, no locks, no connections."
TRIES = (
    "try/except. A fault in a handler stops the strategy and shows a traceback; test for the case with `if` instead."
)
TABLE = f"a dict. {FIXED}. Use an Array indexed by a small integer: `counts: Array[int, 16]`."
FLAGS = f"a set. {FIXED}. Use flags: `seen: Array[bool, 100]`."
WAITS = "Handlers run to their end at once; keep what must be remembered in a field and look again at the next event."

# What a handler cannot contain, and the cure.
REFUSED: dict[type[ast.AST], str] = {
    ast.List: f"an unbounded list. {FIXED}. {HOLD}, or write a tuple if it never changes.",
    ast.ListComp: f"an unbounded list. {FIXED}. {HOLD}, and fill it in a loop.",
    ast.Dict: TABLE,
    ast.DictComp: TABLE,
    ast.Set: FLAGS,
    ast.SetComp: FLAGS,
    ast.GeneratorExp: "a generator. Handlers compile to plain loops; write it out: `for i in range(n): total += ...`.",
    ast.JoinedStr: f"an f-string. Handlers know numbers only. {DEBUG}.",
    ast.Lambda: f"a lambda. {MOVE}.",
    ast.FunctionDef: f"a function inside a function. {MOVE}.",
    ast.AsyncFunctionDef: f"an async function. {MOVE}.",
    ast.ClassDef: "a class inside a function. Declare it beside the strategy, as a Record.",
    ast.Try: TRIES,
    ast.TryStar: TRIES,
    ast.With: OPENS,
    ast.AsyncWith: OPENS,
    ast.AsyncFor: f"an async loop. {WAITS}",
    ast.Await: f"an await. {WAITS}",
    ast.Yield: f"a generator. {WAITS}",
    ast.YieldFrom: f"a generator. {WAITS}",
    ast.Import: "an import inside a function. Move it to the top of the file.",
    ast.ImportFrom: "an import inside a function. Move it to the top of the file.",
    ast.Global: "a global that changes. A strategy remembers in its fields only, or history could not be repeated. "
    "Declare a field: `count: int`.",
    ast.Nonlocal: "an outer variable that changes. A strategy remembers in its fields only. Declare one: `count: int`.",
    ast.Delete: "a `del`. Fields exist from start to end; set the field to 0 instead.",
    ast.Match: "a match statement, which does not compile. Write if/elif.",
}
INSTEAD = {
    "abs": "abs(x)", "absolute": "abs(x)", "maximum": "max(a, b)", "minimum": "min(a, b)", "max": "max(a, b)",
    "min": "min(a, b)", "sign": "math.copysign(1.0, x)", "power": "a ** b", "arctan": "math.atan(x)",
    "round": "round(x)", "clip": "min(max(x, low), high)",
}  # fmt: skip

ANSI = re.compile(r"\x1b\[[0-9;]*m")
FILE_LINE = re.compile(r'File "([^"]+)", line (\d+)|at (\S[^\n]*?) \((\d+)\)')
NOISE = re.compile(
    r"Failed in nopython|During|File|Enable|This error|To find|For more|<source|Overload|- (of|argument|Resolution)"
    r"|.*Rejected|\\|\^|~|Type of variable|Invalid use of|There are \d"
)
# What numba says, and how it is said to someone who does not know numba.
SAID = (
    (r"Cannot unify (.+?) and (.+?) for '(\w+?)(?:\.\d+)?'", r"`\3` is sometimes \1, sometimes \2; give it one type"),
    (r"Unknown attribute '(\w+)' of type", r"`.\1` does not exist"),
    (r"Untyped global name '(\w+)'", r"compiled code cannot use `\1`; it can use numbers, tuples, functions"),
    (r"[Vv]ariable '(\w+)' (?:is not defined|referenced before)", r"`\1` may be read before it has a value"),
    (r"missing a required argument: '(\w+)'", r"the call lacks the argument `\1`"),
    (r"got an unexpected keyword argument '(\w+)'", r"the call has no argument `\1`"),
    (r"too many positional arguments", "the call has too many arguments"),
    (r"Type of variable '\$", "the compiler finds no type for a part of this line (a `:=` in a comparison is such); "
                               "split it into several"),
    (r"built-in function (?:get|set)item", "this cannot be indexed; an Array can, and a Window is read by value(k), "
                                           "0 being the newest"),
    (r"Cannot cast (\w+) to (?:float|int)\d+", r"`\1` stands where a number must be"),
)  # fmt: skip


def explain(strategy: type[Strategy], error: Exception) -> StrategyError:
    """What the compiler refused, as one paragraph: the user's line and the reason."""
    text = ANSI.sub("", str(error))
    cells = {f.__code__.co_filename for f in strategy.handlers.values() if f.__code__.co_filename[0] == "<"}
    spots = [(a or c, int(b or d)) for a, b, c, d in FILE_LINE.findall(text)]
    files = [
        (name if name in cells else os.path.abspath(name), n) for name, n in spots if name[0] != "<" or name in cells
    ]
    ours = [(name, line) for name, line in files if not re.search(r"engine.kernel|site-packages", name)]
    where = ""
    if ours:
        line = linecache.getline(*ours[-1]).strip()
        where = f"{place(*ours[-1])}: " + (f"`{line}`: " if line else "")
    return StrategyError(
        f"{where}{strategy.__qualname__} does not compile: {_reason(text)}. Handlers are plain Python over numbers, "
        "fields, events and ctx; compiled=False runs them as they are, for a debugger."
    )


def _reason(text: str) -> str:
    for pattern, said in SAID:
        found = re.search(pattern, text)
        if found:
            return found.expand(said)
    telling = [line for line in map(str.strip, text.splitlines()) if line and not NOISE.match(line)]
    return (telling[0] if telling else "the compiler gives no reason").rstrip(".:")[:300]
