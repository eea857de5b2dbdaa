"""Exports and checks every network of the zoo, and writes what came of it: ``make zoo``, or python -m zoo [NAME...].

For each network, with random weights from one seed: the plain graph, the masked graph, the proof against the PyTorch
reference, and the laws. Rows go to lmonnx/models.jsonl one by one, so that a sweep that was stopped goes on where it
was; a row made by other code is made again. At the end docs/models.md is written from the table.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import click

import lmonnx
from lmonnx.support import FILE, Support
from zoo.names import names
from zoo.page import page

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"
#: What a row depends on.
CODE = ("exporters", "reference", "masking.py", "runtime/session.py", "runtime/batching.py")


def code_digest() -> str:
    """A short hash of the code that lowers, defines and runs."""
    package = pathlib.Path(lmonnx.__file__).parent
    files = [file for part in CODE for file in (sorted((package / part).rglob("*.py")) or [package / part])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def attempt(name: str, code: str) -> Support:
    """The row of one network, made in a process of its own, so that one that dies is a row too."""
    command = [sys.executable, "-W", "ignore", "-m", "zoo.attempt", name, code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.splitlines() or ["nothing was said"])[-1]
        return Support(name, "defect", code=code, why=(f"the process ended with {result.returncode}: {last}",))
    return Support.from_json(json.loads(result.stdout.splitlines()[-1]))


def read() -> dict[str, Support]:
    """The table as it is now."""
    path = pathlib.Path(str(FILE))
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row.name: row for row in map(Support.from_json, map(json.loads, lines))}


def write(table: dict[str, Support], order: list[str]) -> None:
    """The table in the order of the zoo; the file appears whole."""
    path = pathlib.Path(str(FILE))
    lines = [json.dumps(table[name].to_json(), ensure_ascii=False) for name in order if name in table]
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(new, path)


@click.command()
@click.argument("only", nargs=-1)
@click.option("--jobs", default=2, show_default=True, help="Networks at once.")
@click.option("--again", is_flag=True, help="Also those whose row is of this very code.")
def main(only: tuple[str, ...], jobs: int, again: bool) -> None:
    """Sweep the zoo, or the networks ONLY, and write table and page; exit with 1 if there is a defect."""
    order, table, code = names(), read(), code_digest()
    wanted = [name for name in only or order if again or name not in table or table[name].code != code]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        started = {pool.submit(attempt, name, code): name for name in wanted}
        for done, future in enumerate(concurrent.futures.as_completed(started), start=1):
            row = future.result()
            table[row.name] = row
            write(table, order)
            click.echo(f"{time.strftime('%H:%M:%S')} {done}/{len(wanted)} {row}")
    rows = [table[name] for name in order if name in table]
    PAGE.write_text(page(rows), encoding="utf-8")
    sys.exit(any(row.verdict == "defect" for row in rows))


if __name__ == "__main__":
    main()
