"""Does masking survive onnxruntime's own quantiser? Answers under masks, and speed, against float32.

    python -m benchmarks.quantised NETWORK.onnx PHOTOS --mean 0.5 --std 0.5 [--crop 224/256] [--json FILE]

``NETWORK.onnx`` is a classifier in float32 without a mask. Compared with its masked graph are four int8 ones, made by
``quantize_static`` (QDQ, one scale for each channel of the weights, smallest and largest value):

- the masked graph, of which the inputs of the network's own convolutions and matrix products are quantised, whose names
  are without ``/mask/``; calibrated on every other photograph, whole and with patches removed;
- the same with their outputs too;
- the same with all nodes that the quantiser knows;
- the network quantised first, without masks, and exported then, which ``lmonnx.Runner`` runs.

Asked are the other photographs, whole and with a quarter of the 16 px patches removed at random. Counted is how often
the class is the true one, if every file name begins with its index (``035_turtle.jpg``), and how often it is that of
the float32 graph; whether NaN under the mask changes nothing; and how long a batch of 8 takes, in rounds in which all
graphs take turns, as a ratio of medians.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import lmonnx
from benchmarks.faithfulness import SUFFIXES, patch_masks

Batch = dict[str, Any]
Run = Callable[[Batch], Any]
PATCH, REMOVED, ROUNDS, BATCH = 16, 0.25, 15, 8
OPERATORS = ("Conv", "Gemm", "MatMul")
EXPORTED = "network in int8, then exported"


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Every photograph with its masks, once."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches: Iterator[Batch] = iter(batches)

    def get_next(self) -> Batch | None:
        """The next inputs of the graph."""
        return next(self._batches, None)


def questions(runner: lmonnx.Runner, photos: Sequence[Path], draws: int, seed: int) -> list[Batch]:
    """For each photograph its image, and masks of which the first keeps everything."""
    rng = np.random.default_rng(seed)
    found = []
    for photo in photos:
        removed = patch_masks(rng, runner.size, PATCH, REMOVED, draws)
        mask = np.concatenate([np.ones_like(removed[:1]), removed])
        found.append({"image": runner.preprocessing.prepare(photo), "mask": mask})
    return found


def own(model: Path) -> list[str]:
    """Names of the network's own convolutions and matrix products."""
    nodes = onnx.load(model, load_external_data=False).graph.node
    return [node.name for node in nodes if node.op_type in OPERATORS and "/mask/" not in node.name]


def quantise(model: Path, path: Path, batches: Sequence[Batch], nodes: list[str] | None, outputs: bool = True) -> Path:
    """The int8 graph, of the nodes given or of all that the quantiser knows; of their inputs, or of outputs too."""
    quantize_static(
        model,
        path,
        Calibration(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=nodes,
        extra_options={} if outputs else {"OpTypesToExcludeOutputQuantization": list(OPERATORS)},
    )
    return path


def session(path: Path) -> Run:
    """A file in onnxruntime, with its own settings."""
    ready = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: np.asarray(ready.run(None, batch)[0])


def runner_of(path: Path) -> Run:
    """A file as lmonnx runs it."""
    ready = lmonnx.Runner(path, provider="cpu")
    return lambda batch: np.asarray(next(iter(ready.run(batch["image"], batch["mask"]).values())))


def hidden(run: Run, batch: Batch) -> bool:
    """Whether NaN under the mask changes nothing, bitwise."""
    image = np.where(batch["mask"], batch["image"], np.float32(np.nan))
    plain = np.repeat(batch["image"], len(image), axis=0)
    some, other = (run({**batch, "image": given}) for given in (plain, image))
    return bool(np.array_equal(some, other))


def times(runs: dict[str, Run], batch: Batch) -> dict[str, float]:
    """Median seconds of a batch; the graphs take turns."""
    masks = np.resize(batch["mask"][1:], (BATCH, *batch["mask"].shape[1:]))
    feeds = {"image": np.repeat(batch["image"], BATCH, axis=0), "mask": masks}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 2):
        for name, run in runs.items():
            began = time.perf_counter()
            run(feeds)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[2:]) for name, values in taken.items()}


def graphs(network: Path, place: Path, photos: Sequence[Path], seed: int, said: dict[str, Any]) -> dict[str, Path]:
    """The float32 graph and the int8 ones, by name."""
    masked, plain, ready = place / "masked.onnx", place / "plain.onnx", place / "ready.onnx"
    lmonnx.export(network, masked, preprocessing=said)
    calibration = questions(lmonnx.Runner(masked, provider="cpu"), photos, 3, seed)
    quant_pre_process(str(masked), str(ready), skip_symbolic_shape=True)
    inputs = quantise(ready, place / "inputs.onnx", calibration, own(ready), outputs=False)
    both = quantise(ready, place / "both.onnx", calibration, own(ready))
    everything = quantise(ready, place / "all.onnx", calibration, None)
    quant_pre_process(str(network), str(plain))
    name = onnx.load(network, load_external_data=False).graph.input[0].name
    first = quantise(plain, place / "first.onnx", [{name: batch["image"]} for batch in calibration], None)
    lmonnx.export(first, place / "after.onnx", preprocessing=said, verify=False)
    return {
        "float32": masked,
        "int8, inputs of own convolutions": inputs,
        "int8, their outputs too": both,
        "int8, everything": everything,
        EXPORTED: place / "after.onnx",
    }


def compared(files: dict[str, Path], asked: Sequence[Batch], truth: Sequence[int | None]) -> dict[str, dict[str, Any]]:
    """What the graphs answer, a row each."""
    runs = {name: (runner_of if name == EXPORTED else session)(file) for name, file in files.items()}
    seconds, sizes = times(runs, asked[0]), {name: file.stat().st_size for name, file in files.items()}
    answers = {name: np.stack([run(batch).argmax(axis=1) for batch in asked]) for name, run in runs.items()}
    rows = {}
    for name, run in runs.items():
        correct, same = answers[name] == np.array(truth)[:, None], answers[name] == answers["float32"]
        rows[name] = {
            "true, whole": float(correct[:, 0].mean()),
            "true, masked": float(correct[:, 1:].mean()),
            "as float32, whole": float(same[:, 0].mean()),
            "as float32, masked": float(same[:, 1:].mean()),
            "NaN changes nothing": hidden(run, asked[0]),
            "time": seconds[name] / seconds["float32"],
            "size": sizes[name] / sizes["float32"],
        }
    return rows


@click.command()
@click.argument("network", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--mean", type=float, required=True, help="Subtracted from pixels divided by 255.")
@click.option("--std", type=float, required=True, help="Divides the result.")
@click.option("--crop", help="The share of a photograph that the network sees, such as 224/256.")
@click.option("--draws", default=10, show_default=True, help="Masks of each photograph.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "to", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures there.")
def main(network: Path, folder: Path, draws: int, seed: int, to: Path | None, **said: Any) -> None:
    """Quantise NETWORK with half of the photographs in FOLDER, and compare on the others."""
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    preprocessing = {name: (value,) if isinstance(value, float) else value for name, value in said.items() if value}
    with tempfile.TemporaryDirectory() as place:
        files = graphs(network, Path(place), photos[::2], seed, preprocessing)
        asked = questions(lmonnx.Runner(files["float32"], provider="cpu"), photos[1::2], draws, seed + 1)
        rows = compared(files, asked, [_index(photo) for photo in photos[1::2]])
    click.echo(_table(rows))
    if to:
        to.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _index(photo: Path) -> int | None:
    number = re.match(r"(\d+)[_-]", photo.name)
    return int(number[1]) if number else None


def _table(rows: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(rows.values())))
    lines = ["| graph | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
