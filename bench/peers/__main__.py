"""Build the peers' environments: `python -m bench.peers` for all, `python -m bench.peers vectorbt bt` for some.

An environment whose pins have not changed since it was built is left as it is.
"""

import subprocess
import sys
import venv
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
PINS = BENCH / "pins"
VENVS = BENCH / ".venvs"


def python(name: str) -> Path:
    """The interpreter of an environment, whether it exists or not."""
    return VENVS / name / "bin" / "python"


def ready(name: str) -> bool:
    """Whether the environment was completed with the pins of today."""
    stamp = VENVS / name / "pins.txt"
    return stamp.exists() and stamp.read_text() == (PINS / f"{name}.txt").read_text()


def build(name: str) -> None:
    """Lay the environment anew. The copy of its pins is written last, so a half-built one is never taken for ready."""
    venv.create(VENVS / name, clear=True, with_pip=True)
    pip = [str(python(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(PINS / f"{name}.txt")], check=True)
    (VENVS / name / "pins.txt").write_text((PINS / f"{name}.txt").read_text())


def main(names: list[str]) -> int:
    """Build the named environments, all when none is named; the exit code counts the failures."""
    known = sorted(path.stem for path in PINS.glob("*.txt"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.stderr.write(f"no pins for {', '.join(unknown)}; known: {', '.join(known)}\n")
        return 2
    failed = []
    for name in names or known:
        if ready(name):
            sys.stdout.write(f"{name}: ready\n")
            continue
        sys.stdout.write(f"{name}: building\n")
        sys.stdout.flush()
        try:
            build(name)
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{name}: pip ended with {error.returncode}; the environment is not usable\n")
            failed.append(name)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
