"""The wire: generated code is up to date, every field is documented, and the numbers are those of the engine."""

import importlib.util
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from engine.kernel import codes
from engine.live.wire import execution_pb2, market_pb2, order_pb2, position_pb2, report_pb2, status_pb2

FILES = (execution_pb2, market_pb2, order_pb2, position_pb2, report_pb2, status_pb2)
SAME_NUMBERS = {"Action": "action", "OrderType": "type", "TimeInForce": "tif", "ReportCode": "report"}


def test_generated_code_is_up_to_date(root: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    spec = importlib.util.spec_from_file_location("generate", root / "protos" / "generate.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    found = {path.name: path.read_text() for path in (root / "engine" / "live" / "wire").glob("*.py*")}
    assert found == made.generated(), "run: python protos/generate.py"


def test_every_file_says_its_version() -> None:
    assert {file.DESCRIPTOR.package for file in FILES} == {"tandem.v1"}
    messages = [pair for file in FILES for pair in file.DESCRIPTOR.message_types_by_name.items()]
    batches = [message for name, message in messages if name.endswith("Batch")]
    assert len(batches) == 5
    assert all(m.fields_by_name["schema"].number == 1 for m in batches)


@pytest.mark.parametrize("name", SAME_NUMBERS)
def test_numbers_are_those_of_the_engine(name: str) -> None:
    enum: Any = order_pb2.DESCRIPTOR.enum_types_by_name.get(name) or report_pb2.DESCRIPTOR.enum_types_by_name[name]
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() + "_"
    words = {value.number: value.name.removeprefix(prefix).lower() for value in enum.values}
    assert words.pop(0) == "unspecified"
    assert words == codes.NAMES[SAME_NUMBERS[name]]


def test_everything_is_documented(root: Path) -> None:
    """A comment above every message, enumeration, service and call, and one beside most fields."""
    bare, fields, explained = [], 0, 0
    for path in sorted((root / "protos").glob("**/*.proto")):
        lines = path.read_text().splitlines()
        for before, line in itertools.pairwise(lines):
            if re.match(r" *(message|enum|service|rpc) ", line) and not before.lstrip().startswith("//"):
                bare.append(f"{path.name}: {line}")
            fields += bool(re.search(r"\w = \d+;", line))
            explained += bool(re.search(r"\w = \d+; +//", line))
    assert not bare
    assert explained > 0.6 * fields > 60
