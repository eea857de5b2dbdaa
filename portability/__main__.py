"""Runs the same files in every runtime, and writes what came of it: ``make portability``, or python -m portability.

Files and questions go to build/portability, and so does what the runtimes need. Rows go to portability/rows.jsonl one
by one, so that a sweep that was stopped goes on where it was; a row made by other code, or of another version of a
runtime, is made again. docs/portability.md is written from the table after each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import lmonnx
from lmonnx.exporters.verification import CEILINGS, FLOOR
from portability.networks import FORMS, NETWORKS, Facts, file_of
from portability.page import page
from portability.rows import Row, judge, read, write
from portability.runtimes import BUILD, ROOT, RUNTIMES, InstallError, MissingError, Runtime, environment

PAGE = ROOT / "docs" / "portability.md"
BY_KEY = {runtime.key: runtime for runtime in RUNTIMES}
HERE = Path(__file__).parent
PACKAGE = Path(lmonnx.__file__).parent
#: What a file and its questions depend on, and what its answers do beside.
MADE_BY = (
    *(PACKAGE / name for name in ("exporters", "reference", "masking.py", "runtime/session.py", "runtime/batching.py")),
    *(HERE / name for name in ("networks.py", "questions.py")),
)
ASKED_BY = tuple(HERE / name for name in ("browser.py", "rows.py", "runtimes.py", "runners"))
#: Seconds that a runtime has for all questions about one file.
PATIENCE = 900


def digest(parts: tuple[Path, ...]) -> str:
    """A short hash of files, and of those in folders."""
    every = [file for part in parts for file in (sorted(part.rglob("*.*")) if part.is_dir() else [part])]
    code = [file.read_bytes() for file in every if file.is_file() and file.suffix != ".pyc"]
    return hashlib.sha256(b"".join(code)).hexdigest()[:12]


def prepared(network: str, made_by: str) -> tuple[Path, Facts | str]:
    """The folder of a network, with its files and questions, and what is in it, or why it is not there."""
    folder = BUILD / "files" / made_by / network
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


def asked(row: Row, runtime: Runtime, folder: Path, proven: float) -> Row:
    """The row of one file in one runtime; whatever goes wrong is the row, not an exception.

    Args:
        row: which file in which runtime.
        runtime: that one.
        folder: of the network.
        proven: what an answer may be off in the precision of the file.
    """
    if runtime.networks is not None and row.network not in runtime.networks:
        return dataclasses.replace(row, why="too slow for a network of this size")
    if row.form in runtime.unasked:
        return dataclasses.replace(row, why=runtime.unasked[row.form])
    try:
        command = runtime.command()
    except MissingError as error:
        return dataclasses.replace(row, why=str(error))
    except InstallError as error:
        return dataclasses.replace(row, verdict="failed", why=str(error))
    model, questions = file_of(folder, row.form, row.opset), folder / row.form
    with tempfile.TemporaryDirectory() as answers:
        began = time.perf_counter()
        arguments = [*command, str(model), str(questions), answers, *runtime.questions]
        try:
            process = subprocess.run(
                arguments, capture_output=True, text=True, env=environment(runtime), timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return dataclasses.replace(row, verdict="failed", why=f"not ready after {PATIENCE} seconds")
        seconds = round(time.perf_counter() - began, 1)
        written = Path(answers) / "result.json"
        if not written.exists():
            last = (process.stderr.strip().splitlines() or ["nothing was said"])[-1]
            return dataclasses.replace(row, verdict="failed", why=f"the process ended: {last}", seconds=seconds)
        result = json.loads(written.read_text(encoding="utf-8"))
        row = dataclasses.replace(row, version=result["version"], seconds=seconds)
        if result["error"]:
            return dataclasses.replace(row, verdict="refused", why=_short(result["error"], model))
        given = _answers(Path(answers), result["shapes"])
    with np.load(questions / "expected.npz") as expected:
        coarser = runtime.coarser(row.form)
        allowed, rounding = (CEILINGS["float16"], CEILINGS["float16"]) if coarser else (proven, FLOOR)
        return dataclasses.replace(row, **judge(given, expected, allowed, rounding, runtime.questions))


def _answers(folder: Path, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """Those that have the size that the runtime says."""
    arrays = {name: np.fromfile(folder / f"{name}.bin", "<f4") for name in shapes if (folder / f"{name}.bin").exists()}
    return {
        name: array.reshape(shapes[name]) for name, array in arrays.items() if array.size == math.prod(shapes[name])
    }


def _short(error: str, model: Path) -> str:
    """An error message in one line, without folders of this machine."""
    text = " ".join(error.replace(str(model), model.name).split())
    return text if len(text) <= 400 else text[:400] + "…"


def wanted(row: Row, old: Row | None, runtime: Runtime) -> bool:
    """Whether a row has to be made."""
    current = old is not None and old.code == row.code and old.version.startswith(runtime.version())
    return not current or (old is not None and old.verdict in ("failed", "not run"))


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--runtime", "only", multiple=True, help="These runtimes only, by their key.")
@click.option("--again", is_flag=True, help="Also rows of this very code and version.")
@click.option("--page-only", is_flag=True, help="Write the page from the table as it is.")
def main(networks: tuple[str, ...], only: tuple[str, ...], again: bool, page_only: bool) -> None:
    """Ask every runtime about every file, or about those of NETWORKS.

    Exits with 1 if a file is not exported, or a runtime that is here does not do with one what is promised.
    """
    made_by, code, failures = digest(MADE_BY), digest((*MADE_BY, *ASKED_BY)), []
    table = {key: row for key, row in read().items() if row.network in NETWORKS and row.runtime in ("export", *BY_KEY)}
    BUILD.mkdir(parents=True, exist_ok=True)
    for network in () if page_only else networks or NETWORKS:
        folder, facts = prepared(network, made_by)
        if isinstance(facts, str):
            failures.append(f"{network}: not exported: {facts}")
            continue
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
                row = asked(new, runtime, folder, facts.tolerance[form])
                table[row.key] = row
                publish(table)
                click.echo(
                    f"{time.strftime('%H:%M:%S')} {network} {form} {opset} {runtime.key}: {row.verdict} {row.why}"
                )
    rows = [row for row in publish(table) if row.runtime in BY_KEY]
    for key, why in dict.fromkeys((row.runtime, row.why) for row in rows if row.verdict == "not run"):
        click.echo(f"not run, {key}: {why}")
    failures += [f"{' '.join(map(str, row.key))}: {row.verdict}" for row in rows if BY_KEY[row.runtime].fails(row)]
    for failure in failures:
        click.echo(failure, err=True)
    sys.exit(bool(failures))


def publish(table: dict[tuple[str, str, int, str], Row]) -> list[Row]:
    """Writes the table and the page; returns the rows in their order."""
    rows = ordered(table)
    write(rows)
    PAGE.write_text(page(rows), encoding="utf-8")
    return rows


def ordered(table: dict[tuple[str, str, int, str], Row]) -> list[Row]:
    """The rows by network, form, opset and runtime."""
    keys = ["export", *BY_KEY]
    forms = list(FORMS)

    def place(row: Row) -> tuple[int, int, int, int]:
        return NETWORKS.index(row.network), forms.index(row.form), row.opset, keys.index(row.runtime)

    return sorted(table.values(), key=place)


if __name__ == "__main__":
    main()
