"""What the runners written in Python share: they read questions, and write answers. Needs numpy and nothing else.

python RUNNER.py MODEL QUESTIONS ANSWERS [NAME…]
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable

import numpy as np

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


def answer(version: str, load: Callable[[str], tuple[Run, str]]) -> None:
    """Answers the questions that the command line asks for, all if it names none.

    Args:
        version: of the runtime.
        load: a file -> what runs it, ``(image, mask) -> output``, and what is said of that beside the version.
    """
    model, questions, answers = sys.argv[1:4]
    folder, to = pathlib.Path(questions), pathlib.Path(answers)
    shapes, error = {}, None
    try:
        run, detail = load(model)
        version = ", ".join(filter(None, (version, detail)))
        for question in json.loads((folder / "questions.json").read_text(encoding="utf-8")):
            name = question["name"]
            if len(sys.argv) == 4 or name in sys.argv[4:]:
                output = np.asarray(run(*(_read(folder, question[part]) for part in ("image", "mask"))))
                (to / (name + ".bin")).write_bytes(output.astype(np.float32).tobytes())
                shapes[name] = list(output.shape)
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    result = {"version": version, "shapes": shapes, "error": error}
    (to / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _read(folder: pathlib.Path, part: dict) -> np.ndarray:
    return np.fromfile(folder / part["file"], part["type"]).reshape(part["shape"])
