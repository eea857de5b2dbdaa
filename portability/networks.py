"""The files that every runtime is asked to run, and what they should answer.

``python -m portability.networks NAME FOLDER`` puts into ``FOLDER`` a graph ``<form>-<opset>.onnx`` for each form and
opset, ``<form>/`` with the questions and the answers expected, and last of all ``facts.json``, which says what is
there.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import lmonnx
from lmonnx.errors import OptionError
from lmonnx.exporters import Export
from lmonnx.exporters.opsets import NEWEST, OLDEST
from lmonnx.exporters.sources import resolve
from lmonnx.masking import MaskRules
from portability.questions import write_questions
from portability.rows import HALF

#: The bundled network first: it is small, and evaluators written for clarity run it too.
NETWORKS = ("scenes-material", "resnet50", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "densenet121")
BUNDLED = ("scenes-material",)
#: Height and width of torchvision's networks here; the bundled one has its own.
SIZE = 128
#: Not in float16: its random weights do not bear that, which the proof of such a file says.
UNHALVED = ("resnet50",)
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    HALF: {"precision": "fp16"},
    "pixels": {"image": "uint8", "softmax": True},
    "any-size": {"size": "dynamic"},
}
"""How a graph is asked for, as options of ``lmonnx.export``."""


@dataclass(frozen=True)
class Facts:
    """What the folder of a network holds.

    Attributes:
        files: form and opset of each file.
        default: the opset that an export has when none is asked for.
        refusal: why there is no lower opset than the lowest; empty if it is the lowest of all.
        tolerance: by form, what an answer may be off.
    """

    files: tuple[tuple[str, int], ...]
    default: int
    refusal: str
    tolerance: dict[str, float]

    @classmethod
    def read(cls, folder: Path) -> Facts | None:
        """What is written in a folder; None if it is not finished."""
        path = folder / "facts.json"
        if not path.exists():
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "files": tuple((form, opset) for form, opset in values["files"])})


def file_of(folder: Path, form: str, opset: int) -> Path:
    """Where a graph lies."""
    return folder / f"{form}-{opset}.onnx"


def options(name: str) -> dict[str, Any]:
    """What a network is exported with, whatever the form."""
    return {} if name in BUNDLED else {"weights": "seed:0", "size": SIZE}


def forms(name: str) -> list[str]:
    """How a network is asked for: the bundled one in every way."""
    left_out = () if name in BUNDLED else ("pixels", "any-size", *([HALF] if name in UNHALVED else []))
    return [form for form in FORMS if form not in left_out]


def lowest(name: str, folder: Path) -> tuple[int, str]:
    """Writes the graph of the lowest opset there is; returns that, and why there is none below.

    Raises:
        OptionError: if the refusal of a lower one does not say which.
    """
    opset, refusal = OLDEST, ""
    while True:
        try:
            _export(name, folder, "plain", opset)
        except OptionError as error:
            found = re.search(r"the lowest opset that works is (\d+)", str(error))
            if not found or int(found[1]) <= opset:
                raise
            opset, refusal = int(found[1]), str(error).partition(";")[0]
        else:
            return opset, refusal


def prepare(name: str, folder: Path) -> Facts:
    """Exports a network in every form and opset, and writes down the questions and what the reference answers."""
    folder.mkdir(parents=True, exist_ok=True)
    least, refusal = lowest(name, folder)
    default = _opset(_export(name, folder, "plain", None).path)
    _export(name, folder, "plain", NEWEST)
    files, tolerance = [("plain", opset) for opset in sorted({least, default, NEWEST})], {}
    for form in forms(name):
        written = _export(name, folder, form, None)
        if (form, default) not in files:
            files.append((form, default))
        source = {key: value for key, value in options(name).items() if key != "size"}
        network = resolve(name, **source, size=None if name in BUNDLED else (SIZE, SIZE))
        runner = lmonnx.Runner(written.path, provider="cpu")
        reference, proof = network.reference(MaskRules()), written.verification if form == HALF else None
        tolerance[form] = write_questions(folder / form, runner, network.channels, network.size, reference, proof)
    facts = Facts(tuple(files), default, refusal, tolerance)
    (folder / "facts.json").write_text(json.dumps(asdict(facts)), encoding="utf-8")
    return facts


def _export(name: str, folder: Path, form: str, opset: int | None) -> Export:
    """One graph, proven where it has the default opset, which is the one that people run."""
    temporary = folder / "new.onnx"
    made = lmonnx.export(name, temporary, opset=opset, verify=opset is None, **{**options(name), **FORMS[form]})
    return replace(made, path=temporary.replace(file_of(folder, form, opset or _opset(temporary))))


def _opset(path: Path) -> int:
    import onnx

    (imported,) = onnx.load(path, load_external_data=False).opset_import
    return int(imported.version)


if __name__ == "__main__":
    torch.set_num_threads(2)
    prepare(sys.argv[1], Path(sys.argv[2]))
