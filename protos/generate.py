"""Python of the wire: `python protos/generate.py` writes engine/live/wire from protos/tandem/v1.

protoc names modules after their path below `protos`; the generated files live in a package of ours, so their imports
of each other are turned towards it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TO = HERE.parent / "engine" / "live" / "wire"
HEAD = '"""Generated from protos/tandem/v1 by protos/generate.py; a test compares."""\n'


def generated() -> dict[str, str]:
    """File name -> text, as protoc of the installed grpcio-tools writes it. Raises CalledProcessError."""
    sources = sorted(str(path) for path in HERE.glob("tandem/v1/*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={folder}",
                   f"--pyi_out={folder}", *sources]  # fmt: skip
        subprocess.run(command, check=True)
        texts = {path.name: path.read_text() for path in sorted(Path(folder).glob("tandem/v1/*.py*"))}
    own = {name: text.replace("from tandem.v1 import", "from engine.live.wire import") for name, text in texts.items()}
    return {"__init__.py": HEAD, **own}


if __name__ == "__main__":
    for name, text in generated().items():
        (TO / name).write_text(text)
        print(TO.relative_to(HERE.parent) / name)
