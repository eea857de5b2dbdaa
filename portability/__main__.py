"""Runs the same files in every runtime, and writes what came of it: ``make portability``, or python -m portability.

Files and questions go to build/portability, and so does what the runtimes need. Rows go to portability/rows.jsonl one
by one, so that a sweep that was stopped goes on where it was; a row made by other code, or of another version of a
runtime, is made again. At the end docs/portability.md is written from the table.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import lmonnx
from lmonnx.exporters.verification import CEILINGS
from portability.networks import FORMS, NETWORKS, Facts, file_of
from portability.page import page
from portability.rows import Row, judge, read, write
from portability.runtimes import BUILD, ROOT, RUNTIMES, MissingError, Runtime, environment

PAGE = ROOT / "docs" / "portability.md"
#: What a file depends on, of the package.
CODE = ("exporters", "reference", "masking.py", "runtime/session.py", "runtime/batching.py")
#: Seconds that a runtime has for all questions about one file.
PATIENCE = 900


def code_digest() -> str:
    """A short hash of the code that lowers, defines, and asks."""
    package = Path(lmonnx.__file__).parent
    files = [file for part in CODE for file in (sorted((package / part).rglob("*.py")) or [package / part])]
    files += [Path(__file__).parent / name for name in ("networks.py", "questions.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def prepared(network: str, code: str) -> tuple[Path, Facts | str]:
    """The folder of a network, with its files and questions, and what is in it, or why it is not there."""
    folder = BUILD / "files" / code / network
    facts = Facts.read(folder)
    if facts is None:
        # In a process of its own, whose memory is free afterwards.
        command = [sys.executable, "-W", "ignore", "-m", "portability.networks", network, str(folder)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            return folder, (result.stderr.strip().splitlines() or ["nothing was said"])[-1]
        facts = Facts.read(folder)
        assert facts is not None
    return folder, facts


def asked(row: Row, runtime: Runtime, folder: Path, allowed: float) -> Row:
    """The row of one file in one runtime; whatever goes wrong is the row, not an exception."""
    if runtime.networks is not None and row.network not in runtime.networks:
        return dataclasses.replace(row, why="too slow for a network of this size")
    if row.form in runtime.unasked:
        return dataclasses.replace(row, why=runtime.unasked[row.form])
    try:
        command = runtime.command()
    except MissingError as error:
        return dataclasses.replace(row, why=str(error))
    model, questions = file_of(folder, row.form, row.opset), folder / row.form
    with tempfile.TemporaryDirectory() as answers:
        began = time.perf_counter()
        arguments = [*command, str(model), str(questions), answers, *runtime.questions]
        try:
            process = subprocess.run(
                arguments, capture_output=True, text=True, env=environment(runtime), timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return dataclasses.replace(row, why=f"not ready after {PATIENCE} seconds")
        seconds = round(time.perf_counter() - began, 1)
        written = Path(answers) / "result.json"
        if not written.exists():
            last = (process.stderr.strip().splitlines() or ["nothing was said"])[-1]
            return dataclasses.replace(row, verdict="refused", why=f"the process ended: {last}", seconds=seconds)
        result = json.loads(written.read_text(encoding="utf-8"))
        row = dataclasses.replace(row, version=result["version"], seconds=seconds)
        if result["error"]:
            return dataclasses.replace(row, verdict="refused", why=_short(result["error"], model))
        given = _answers(Path(answers), result["shapes"])
    with np.load(questions / "expected.npz") as expected:
        return dataclasses.replace(row, **judge(given, expected, allowed))


def _answers(folder: Path, shapes: dict[str, list[int]]) -> dict[str, Any]:
    return {name: np.fromfile(folder / f"{name}.bin", "<f4").reshape(shape) for name, shape in shapes.items()}


def _short(error: str, model: Path) -> str:
    """An error message in one line, without folders of this machine."""
    text = " ".join(error.replace(str(model), model.name).split())
    return text if len(text) <= 400 else text[:400] + "…"


def wanted(row: Row, old: Row | None, runtime: Runtime) -> bool:
    """Whether a row has to be made."""
    current = old is not None and old.code == row.code and old.version.startswith(runtime.version())
    return not current or (old is not None and old.verdict == "not run")


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--runtime", "only", multiple=True, help="These runtimes only, by their key.")
@click.option("--again", is_flag=True, help="Also rows of this very code and version.")
@click.option("--page-only", is_flag=True, help="Write the page from the table as it is.")
def main(networks: tuple[str, ...], only: tuple[str, ...], again: bool, page_only: bool) -> None:
    """Ask every runtime about every file, or about those of NETWORKS; exit with 1 if one differs in what it is of."""
    code, table = code_digest(), read()
    BUILD.mkdir(parents=True, exist_ok=True)
    for network in () if page_only else networks or NETWORKS:
        folder, facts = prepared(network, code)
        if isinstance(facts, str):
            click.echo(f"{network}: not exported: {facts}", err=True)
            sys.exit(2)
        table = {key: row for key, row in table.items() if key[0] != network or key[1:3] in facts.files}
        if facts.refusal:
            refused = Row(
                network, "plain", facts.files[0][1], "export", verdict="refused", why=facts.refusal, code=code
            )
            table[refused.key] = refused
        for form, opset in facts.files:
            for runtime in RUNTIMES:
                new = Row(network, form, opset, runtime.key, code=code)
                if (only and runtime.key not in only) or not (again or wanted(new, table.get(new.key), runtime)):
                    continue
                allowed = CEILINGS["float16"] if runtime.coarser(form) else facts.tolerance[form]
                row = asked(new, runtime, folder, allowed)
                table[row.key] = row
                publish(table)
                click.echo(
                    f"{time.strftime('%H:%M:%S')} {network} {form} {opset} {runtime.key}: {row.verdict} {row.why}"
                )
    sys.exit(any(row.verdict == "differs" and not computed(row).coarser(row.form) for row in publish(table)))


def computed(row: Row) -> Runtime:
    """What made a row."""
    (runtime,) = [runtime for runtime in RUNTIMES if runtime.key == row.runtime]
    return runtime


def publish(table: dict[tuple[str, str, int, str], Row]) -> list[Row]:
    """Writes the table and the page; returns the rows in their order."""
    rows = ordered(table)
    write(rows)
    PAGE.write_text(page(rows), encoding="utf-8")
    return rows


def ordered(table: dict[tuple[str, str, int, str], Row]) -> list[Row]:
    """The rows by network, form, opset and runtime."""
    keys = ["export", *(runtime.key for runtime in RUNTIMES)]
    forms = list(FORMS)

    def place(row: Row) -> tuple[int, int, int, int]:
        return NETWORKS.index(row.network), forms.index(row.form), row.opset, keys.index(row.runtime)

    return sorted(table.values(), key=place)


if __name__ == "__main__":
    main()
