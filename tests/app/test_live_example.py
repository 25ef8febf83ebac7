"""The example of live settings explains every key, and the program takes it; so it does what the README says."""

import re
import shutil
from pathlib import Path

from engine.config import keys
from engine.modes import MODES
from tests.app.explained import EXAMPLE, explained
from tests.app.test_container import Tandem, services


def test_it_explains_every_key(root: Path) -> None:
    assert (root / EXAMPLE).read_text() == explained(root), "if this is meant: python -m tests.app.explained"
    for name in keys(MODES["live"][0]):
        if name != "strategy":
            pattern = rf"^ *{name.rpartition('.')[2]}: .*# "
            assert re.search(pattern, (root / EXAMPLE).read_text(), re.MULTILINE), name


def test_the_program_takes_it(root: Path, place: Path, tandem: Tandem) -> None:
    (place / "conf").mkdir()
    shutil.copy(root / EXAMPLE, place / "conf" / "live.yaml")
    shown = (root / "README.md").read_text().partition("\n## Live\n")[2].partition("\n## ")[0]
    words = [line.split()[1:] for line in re.findall(r"^tandem [^#\n]*", shown, re.MULTILINE)]
    assert {"mode=live", "mode=replay"} <= {one[0] for one in words}
    for one in [services(root)["engine"]["command"], *words]:
        said = tandem(*one, "--cfg", "job")
        assert said.code == 0, said.err
    (place / "conf" / "live.yaml").write_text((root / EXAMPLE).read_text().replace("trading: obs", "tradnig: obs"))
    said = tandem("mode=live", "--cfg", "job")
    assert said.code == 2 and "Unknown key 'tradnig'" in said.err
