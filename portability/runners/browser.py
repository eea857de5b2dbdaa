"""onnxruntime-web in headless Chromium: python browser.py MODEL QUESTIONS ANSWERS, NODE_PATH naming the packages."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

from portability import browser


def main(model: str, questions: str, answers: str) -> None:
    """Serves file, questions and packages to the page that answers them."""
    program = browser.find()
    assert program is not None
    folders = {
        "model.onnx": Path(model),
        "questions": Path(questions),
        "packages": Path(os.environ["NODE_PATH"]),
        "page.html": Path(__file__).with_suffix(".html"),
    }
    with browser.serving(folders) as address, browser.Page(program, timeout=600) as page:
        page.open(f"{address}/page.html")
        result = page.evaluate("answer()")
    result["version"] += f", Chromium {browser.version(program)}"
    for name, text in result.pop("answers").items():
        (Path(answers) / f"{name}.bin").write_bytes(base64.b64decode(text))
    (Path(answers) / "result.json").write_text(json.dumps(result), encoding="utf-8")


main(*sys.argv[1:4])
