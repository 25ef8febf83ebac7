"""What runs in containers: linted by real linters, its commands accepted by the program, its steps run without one."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.live import servers
from tests.app.words import Said

Tandem = Callable[..., Said]
TOOLS = Path(sys.executable).parent
MADE = "--from=build"  # a copy from the first stage; without containers both have the same disk


def lint(*words: str, place: Path) -> None:
    """A linter finds nothing."""
    found = subprocess.run([TOOLS / words[0], *words[1:]], cwd=place, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def services(root: Path) -> dict[str, Any]:
    """Those of compose.yaml."""
    found = yaml.safe_load((root / "compose.yaml").read_text())["services"]
    assert isinstance(found, dict)
    return found


def steps(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their words."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def test_linters_find_nothing(root: Path) -> None:
    lint("hadolint", "--failure-threshold", "style", "Dockerfile", place=root)
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml", place=root)
    lint("compose-lint", "check", "--fail-on", "low", "--strict-config", "compose.yaml", place=root)


def test_linters_would_find_something(root: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text((root / "Dockerfile").read_text().replace("USER 10001", "USER root"))
    (tmp_path / "compose.yaml").write_text((root / "compose.yaml").read_text().replace("pids_limit:", "pids:"))
    for words in (("hadolint", "Dockerfile"), ("compose-lint", "check", "--fail-on", "low", "compose.yaml"),
                  ("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")):  # fmt: skip
        with pytest.raises(AssertionError):
            lint(*words, place=tmp_path)


def test_services_fit_together(root: Path) -> None:
    found = services(root)
    assert set(found) == {"redis", "nats", "mlflow", "prometheus", "venue", "publisher", "engine"}
    assert "-js" in found["nats"]["command"]
    declared = yaml.safe_load((root / "compose.yaml").read_text())["volumes"]
    for service in found.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (root / source).is_file() if source.startswith(".") else source in declared
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "nothing is open to the network unasked"
        named = re.findall(r"(?:://|address=)([a-z]+):\d+", " ".join(service.get("command", ())))
        assert set(named) <= set(found), "who is called exists"
    scraped = yaml.safe_load((root / "packaging" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {t.partition(":")[0] for job in scraped for one in job["static_configs"] for t in one["targets"]}
    assert targets == {"engine", "localhost"}


def test_the_program_takes_the_commands(root: Path, tandem: Tandem) -> None:
    """Those of compose.yaml and of the Dockerfile; the engine's are taken with the example of its settings."""
    ours = [one["command"] for one in services(root).values() if one["command"][0].startswith("mode=")]
    ours += [words.split()[1:] for words in (part.strip() for step, rest in steps((root / "Dockerfile").read_text())
             for part in rest.split("&&") if step == "RUN") if words.startswith("tandem ")]  # fmt: skip
    assert {words[0] for words in ours} == {"mode=venue", "mode=publish", "mode=live", "mode=compile", "mode=backtest"}
    for words in ours:
        if words[0] != "mode=live":
            said = tandem(*words, "--cfg", "job")
            assert said.code == 0, said.err


@pytest.mark.slow
def test_the_steps_of_the_dockerfile(root: Path, tmp_path: Path) -> None:
    """All of them, on this machine, under a directory that stands for /srv; but for the user, who is this one."""
    base = tmp_path / "srv"
    place, env = base, {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    env |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
    done: list[str] = []
    for word, rest in steps((root / "Dockerfile").read_text()):
        text = rest.replace("/srv", str(base))
        if word == "ENV":
            for name, value in re.findall(r"(\w+)=(\S+)", text):
                env[name] = value.replace("$PATH", env["PATH"])
        elif word == "WORKDIR":
            place = Path(text)
            place.mkdir(parents=True, exist_ok=True)
        elif word == "COPY" and MADE not in text:
            *sources, target = text.split()
            for source in sources:
                into = place / target / source if target.endswith("/") else place / target
                copy = shutil.copytree if (root / source).is_dir() else shutil.copy
                into.parent.mkdir(parents=True, exist_ok=True)
                copy(root / source, into)
        elif word == "RUN" and not text.startswith("useradd "):
            text = re.sub(r"&& chown .*", "", text)
            run = subprocess.run(["sh", "-ec", text], cwd=place, env=env, capture_output=True, text=True, check=False)
            assert run.returncode == 0, f"{text}\n{run.stdout}{run.stderr}"
        else:
            assert word in {"FROM", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}, word
        done.append(word)
    assert {"ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"} <= set(done)
    warm = [base / "venv" / "bin" / "python", "-c", WARM, *services(root)["venue"]["command"], "--cfg", "job"]
    run = subprocess.run(warm, cwd=place, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and run.stdout.rstrip().endswith("numba: False"), run.stdout + run.stderr


WARM = """
import sys
from engine.app import main
from engine.kernel import build
from engine.live import gate
from engine.registry import find, names
from engine.session_loop import PROGRAM as SESSION, READER
from backtest.desk import PROGRAM as VENUE

assert "site-packages" in build.__file__, build.__file__
for program in (SESSION, READER, VENUE, gate.PROGRAM):
    build.program(*program)
for name in names():
    build.handlers(find(name))
code = main(sys.argv[1:])
print("numba:", "numba" in sys.modules)
sys.exit(code)
"""


@pytest.mark.skipif(servers.find("promtool") is None, reason="no promtool here: it comes with Prometheus")
def test_prometheus_takes_its_configuration(root: Path) -> None:
    subprocess.run([str(servers.find("promtool")), "check", "config", root / "packaging/prometheus.yml"], check=True)
