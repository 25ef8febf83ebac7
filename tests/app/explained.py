"""The example of a live configuration: `python -m tests.app.explained` writes it anew, from the settings themselves."""

import textwrap
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from engine.config import Settings, allowed, hints, spoken
from engine.guide import value
from engine.modes import MODES
from engine.registry import find

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = "packaging/live.yaml"
HEAD = """\
# tandem mode=live, every key explained: a copy of this file as conf/live.yaml of the working directory is the
# configuration, and what the command line says comes after it. Durations end in _s (seconds) or _ms.
# For another strategy put its name into defaults and its parameters below strategy.
# Presets stand for whole groups: {groups}.
"""
CHOICES = {"strategy": "market_making", "data": "ticks"}
COMMENT = 48  # column of the comments


def explained(root: Path = ROOT) -> str:
    """The file's text."""
    kind = MODES["live"][0]
    groups = [f.name for f in fields(kind) if (root / "conf" / f.name).is_dir()]
    text = HEAD.format(groups=", ".join(f"{name}=…" for name in groups))
    text += "defaults:\n" + "".join(f"  - {name}: {CHOICES.get(name, 'default')}\n" for name in groups)
    return text + "  - _self_\n\n" + "\n".join(lines(kind, "")) + "\n"


def lines(kind: type[Settings], indent: str) -> list[str]:
    """A group of settings, a key on a line with its default, range and meaning."""
    found: list[str] = []
    for field in fields(kind):
        name = spoken(field.name)
        hint: Any = hints(kind)[name]
        if isinstance(hint, type) and issubclass(hint, Settings):
            found += ["", *comment(indent, str(field.metadata["doc"])), f"{indent}{name}:"]
            found += lines(hint, indent + "  ")
        elif field.name == "strategy":
            made = find(CHOICES["strategy"])
            found += [*comment(indent, f"{field.metadata['doc']}; these are {CHOICES['strategy']}'s"), "strategy:"]
            found += [line(f"  {name}: {value(one.default)}", one.doc) for name, one in made.params.items()]
        else:
            about, limits = str(field.metadata["doc"]), allowed(field.metadata.get("bounds", {}))
            default = {} if field.default is MISSING else field.default
            default = CHOICES["data"] if field.name == "source" else default
            found.append(line(f"{indent}{name}: {written(default)}", about + (f"; {limits}" if limits else "")))
    return found


def written(default: Any) -> str:
    """A default as YAML."""
    if isinstance(default, tuple):
        return "[" + ", ".join(f'"{one}"' for one in default) + "]"
    return ".inf" if default == float("inf") else value(default)


def line(text: str, about: str) -> str:
    """A key with its meaning."""
    return f"{text:<{COMMENT}}# {about}" if len(text) < COMMENT else f"{text}  # {about}"


def comment(indent: str, about: str) -> list[str]:
    """What a group is, above it."""
    return textwrap.wrap(about, 110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


if __name__ == "__main__":
    (ROOT / EXAMPLE).write_text(explained(), encoding="utf-8")
