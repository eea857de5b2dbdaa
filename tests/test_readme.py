"""The README's commands, run as printed and in order; what it prints below them is what they print.

Text has to agree, and numbers to what other processors may make of them. A line of dots stands for any lines.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from lmonnx import cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?%?")
ANY = "…"
#: Commands that need more than a folder: a network connection, or a file of the reader's.
ELSEWHERE = ("resnet50", "mobilenet.onnx")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """Each command of lmonnx, without the name of the program, and the lines printed below it."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            program, _, rest = command.partition("  #")[0].partition(" ")
            if program == "lmonnx":
                found.append((rest, lines))
    return found


def close(printed: str, given: str) -> bool:
    """Whether two numbers are as near as processors differ: percentages to 2, powers of ten to one, others to 3 %."""
    if "e" in printed:
        return 0.1 <= float(given) / float(printed) <= 10
    if printed.endswith("%"):
        return given.endswith("%") and abs(float(printed[:-1]) - float(given[:-1])) <= 2
    return abs(float(printed) - float(given)) <= ("." in printed) * max(0.03, 0.03 * float(printed))


def same(printed: str, given: str) -> bool:
    numbers = zip(NUMBER.findall(printed), NUMBER.findall(given), strict=False)
    return NUMBER.sub("#", printed).split() == NUMBER.sub("#", given).split() and all(close(*pair) for pair in numbers)


def agree(printed: list[str], given: list[str]) -> bool:
    """Whether the lines are the same; those between dots in any place behind the lines before."""
    if ANY not in printed:
        return len(printed) == len(given) and all(map(same, printed, given))
    head, rest = printed[: printed.index(ANY)], printed[printed.index(ANY) + 1 :]
    if len(given) < len(head) or not all(map(same, head, given)):
        return False
    return not rest or any(agree(rest, given[start:]) for start in range(len(head), len(given) + 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize(
    ("command", "lines"), [pair for pair in commands() if not any(word in pair[0] for word in ELSEWHERE)]
)
def test_commands_print_what_the_readme_says(
    command: str, lines: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(cli.main, shlex.split(command))
    assert result.exit_code == 0, result.output
    assert agree(lines, [line.rstrip() for line in result.output.splitlines()]), f"{command} printed\n{result.output}"


def test_python_runs_as_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert blocks("python")
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


def test_every_command_and_option_that_is_named_exists() -> None:
    for command, _ in commands():
        name, *words = shlex.split(command)
        known = {option for parameter in cli.main.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, command
    options = {option for name in cli.main.commands.values() for parameter in name.params for option in parameter.opts}
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= options | {"--no-verify"}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target


def test_a_difference_is_seen() -> None:
    assert agree(["a 1.00 b", ANY, "end 5%"], ["a 1.02 b", "x", "y", "end 6%"])
    assert not agree(["a 1.00 b"], ["a 1.20 b"])
    assert not agree(["wrote x"], ["wrote y"])
    assert not agree(["5 nodes"], ["6 nodes"])
    assert not agree(["a", ANY, "end"], ["a", "x"])
    assert not agree(["1e-6"], ["1e-4"])
