"""Execute the README: `python -m tests.app.readme` in the repository writes what its commands print into it.

A block `console` holds commands after `$ ` and what they print; a block `python` is a file if it begins with
`# file: NAME`, else a program, and the block `text` after it is what it prints. All of it runs in one directory.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
CHANGING = (
    (re.compile(r"\d{8}T\d{6}\.\d{3}Z"), "20240102T030405.678Z"),
    (re.compile(r"(?<=run )[0-9a-f]{8}\b"), "0a1b2c3d"),
    (re.compile(r"\d+\.\d s\)"), "1.2 s)"),
)


def environment(place: Path) -> dict[str, str]:
    """Where `tandem` is this source."""
    tools = place / ".tools"
    tools.mkdir()
    (tools / "tandem").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m engine.app "$@"\n')
    (tools / "tandem").chmod(0o755)
    known = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    return {**known, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{place}", "COLUMNS": "120",
            "TANDEM_DATA": str(place / "data")}  # fmt: skip


def shell(command: str, place: Path, env: dict[str, str]) -> str:
    """What a command prints, with times and run numbers that are always the same. `make NAME` runs what it runs."""
    if command.startswith("make "):
        recipe = re.search(
            rf"^{command.split()[1]}: .*?\n\t@?\$\(BIN\)/(.*?)$", (ROOT / "Makefile").read_text(), re.MULTILINE
        )
        assert recipe, f"{command}: the Makefile has no such target"
        command = recipe[1]
    done = subprocess.run(["bash", "-c", command], cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=300, check=False)  # fmt: skip
    lines = [line.rstrip() for line in done.stdout.splitlines() if "compiling the" not in line]
    text = "".join(line + "\n" for line in lines)
    for pattern, constant in CHANGING:
        text = pattern.sub(constant, text)
    return text


def executed(text: str) -> str:
    """The text with the outputs that its commands and programs have now."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        env = environment(place)

        def run(match: "re.Match[str]") -> str:
            kind, body, _ = match.groups()
            if kind == "console":
                commands = [line for line in body.splitlines() if line.startswith("$ ")]
                return "```console\n" + "".join(f"{c}\n{shell(c[2:], place, env)}" for c in commands) + "```\n"
            if body.startswith("# file: "):
                (place / body.split("\n")[0].removeprefix("# file: ")).write_text(body)
                return match[0]
            (place / "program.py").write_text(body)
            out = shell(f"{sys.executable} program.py", place, env)
            return f"```python\n{body}```\n" + (f"\n```text\n{out}```\n" if out else "")

        return BLOCK.sub(run, text)


if __name__ == "__main__":
    README.write_text(executed(README.read_text()))
