"""The way from a sweep to live that the README shows: what it prints, but for hashes.

`python -m tests.promote.test_readme` writes it anew.
"""

import re
import tempfile
from pathlib import Path

import pytest

from tests.app.readme import README, environment, shell

PATH = re.compile(r"(?<=## From a run to live\n\n```text\n).*?(?=^```)", re.MULTILINE | re.DOTALL)
HASH = re.compile(r"\b(?=\w*\d)[0-9a-f]{8,}\b")


def printed(block: str) -> str:
    """The block's commands with what they print now, in a directory of their own."""
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        env = environment(place)
        return "".join(f"{c}\n{shell(c[2:], place, env)}" for c in commands)


def block() -> str:
    """The README's."""
    found = PATH.search(README.read_text())
    assert found
    return found[0]


@pytest.mark.slow
def test_the_way_to_live_is_as_shown() -> None:
    shown = block()
    assert "passed" in shown and HASH.sub("0", printed(shown)) == HASH.sub("0", shown)


if __name__ == "__main__":
    README.write_text(PATH.sub(lambda found: printed(found[0]), README.read_text()))
