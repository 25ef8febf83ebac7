"""What an installed package holds: setuptools is told of every data file, and takes no folder of them for a package."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

LEFT_OUT = {".py", ".pyc", ".c", ".md"}  # sources, what Python makes of them, and texts


def test_every_data_file_of_a_package_is_installed(root: Path) -> None:
    told = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    # If it were true, setuptools would warn of each folder of conf: it could be imported as a package.
    assert told["include-package-data"] is False
    wanted = told["package-data"]
    lost, found = [], set()
    for package in ("engine", "strategies", "backtest", "conf"):
        for path in (root / package).rglob("*"):
            if path.is_file() and path.suffix not in LEFT_OUT and "__pycache__" not in path.parts:
                inside = path.relative_to(root / package).as_posix()
                globs = [one for one in wanted.get(package, ()) if fnmatch("/" + inside, one.replace("**/", "*/"))]
                # A pattern of "*" is one for each package, so that it speaks of the files beside an __init__.py.
                beside = [one for one in wanted["*"] if fnmatch(path.name, one)]
                if not (globs or (beside and (path.parent / "__init__.py").exists())):
                    lost.append(f"{package}/{inside}")
                found.add(path.suffix)
    assert not lost
    assert {".yaml", ".html"} <= found
