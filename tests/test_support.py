"""The table of published networks, and how it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lmonnx.cli import main
from lmonnx.support import Support, supported
from zoo.names import is_cnn, names
from zoo.page import page

ROWS = supported()
DOCS = Path(__file__).resolve().parents[1] / "docs" / "models.md"


def test_rows_are_whole() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) > 0
    for row in ROWS:
        assert Support.from_json(json.loads(json.dumps(row.to_json()))) == row
        if row.verdict == "supported":
            assert row.size is not None
            assert row.nodes == sum(row.operators.values())
            assert row.masked_nodes is not None
            assert row.masked_nodes > row.nodes
            assert row.difference is not None
            assert row.tolerance is not None
            assert row.difference <= row.tolerance
            assert row.laws
        else:
            assert row.why


def test_every_network_of_the_zoo_has_a_row_and_every_cnn_is_supported() -> None:
    assert [row.name for row in ROWS] == names()
    for row in ROWS:
        assert (row.verdict == "supported") is is_cnn(row.name), row


def test_a_network_that_fails_a_check_is_no_row() -> None:
    assert not [row.name for row in ROWS if row.verdict == "defect"]


def test_the_page_is_of_the_table() -> None:
    assert DOCS.read_text(encoding="utf-8") == page(ROWS)


def test_the_command_lists_rows() -> None:
    result = CliRunner().invoke(main, ["models", "timm:*"])
    assert result.exit_code == 0
    assert result.output.splitlines() == [str(row) for row in ROWS if row.name.startswith("timm:")]
    (line,) = CliRunner().invoke(main, ["models", "resnet18", "--json"]).output.splitlines()
    assert Support.from_json(json.loads(line)).name == "resnet18"


def test_a_pattern_without_rows_is_an_error() -> None:
    result = CliRunner().invoke(main, ["models", "resnet1818"])
    assert result.exit_code == 1
    assert result.output == "error: no network that was tried matches 'resnet1818'; it may be supported all the same\n"


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            Support("a", "supported", size=(8, 9), nodes=2, masked_nodes=5, difference=3.14e-6, tolerance=1e-5),
            "a                                    2 nodes, 5 masked            off by 3e-06 at 8×9",
        ),
        (Support("b", "refused", why=("Einsum: no", "c", "d")), f"{'b':<36} refused: Einsum: no (and 2 more reasons)"),
        (Support("c", "refused", why=("no",)), f"{'c':<36} refused: no"),
    ],
)
def test_a_row_is_a_line(row: Support, text: str) -> None:
    assert str(row) == text
