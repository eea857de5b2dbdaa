"""The proof, repeated on a finished file by whoever has the network that it was made from."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import torch

from lmonnx.errors import ModelError, OptionError, SourceError, VerificationError, WeightsError
from lmonnx.exporters.halves import prepared
from lmonnx.exporters.package import kind_of
from lmonnx.exporters.proof import prove
from lmonnx.exporters.sources import Network, resolve
from lmonnx.exporters.sources.checkpoint import is_file
from lmonnx.exporters.sources.onnx_file import sha256_of
from lmonnx.exporters.verification import Verification
from lmonnx.masking import MaskRules
from lmonnx.runtime.contract import REMEDY
from lmonnx.runtime.session import Runner


def verify(
    model: str | os.PathLike[str],
    source: str | os.PathLike[str] | torch.nn.Module,
    *,
    weights: str | os.PathLike[str] | None = None,
) -> Verification:
    """Repeats the proof on a file that ``lmonnx.export`` wrote, with or without one; the file stays as it is.

    The source is built anew, with the weights, the size, the number of classes and the rules that the file's metadata
    records. It has to be the one that the file was made from, by its hash. Then the file, as it is, is compared with
    the reference. What its metadata says of the outputs, and what a name says of preprocessing and labels, is checked
    too.

    Args:
        model: the file; the CPU runs it.
        source: the name, the ``.onnx`` file or the module that it was made from.
        weights: for names, see :func:`lmonnx.exporters.sources.resolve`; those that the file records if None. Weights
            that came from a file have to be given again.

    Returns:
        The table of differences, of a proof that holds.

    Raises:
        ModelError: if ``model`` is not a graph exported by lmonnx, or is damaged, or its metadata has been changed.
        SourceError: if the source cannot be had, or is not the one that the file was made from.
        WeightsError: likewise, of its weights alone.
        VerificationError: with the table, if file and reference differ.
    """
    runner = Runner(model, provider="cpu")
    rules = _rules(runner)
    _require_kind(runner, source)
    if _is_file(source):
        _require_file(runner, pathlib.Path(source))  # type: ignore[arg-type]
    network = resolve(
        source,
        weights=weights or _recorded_weights(runner, source),
        size=runner.size,
        dynamic=runner.contract.form.size is not None,
        classes=None if _is_file(source) or isinstance(source, torch.nn.Module) else _recorded(runner, "classes", int),
        image_input=_recorded(runner, "image_input", str) if _is_file(source) else None,
    )
    _require_weights(runner, network)
    _require_contract(runner, network)
    if "float16" in (runner.contract.form.precision, network.precision):
        network, _ = prepared(network, "float16")
    verification = prove(runner, network, rules)
    if not verification.passed:
        pair = f"{runner.path} and the reference of its source"
        head = f"{pair} differ" if verification.differs else f"{network.precision} cannot tell whether {pair} agree"
        raise VerificationError(f"{head}\n{verification}")
    return verification


def _rules(runner: Runner) -> MaskRules:
    """The rules that the file was lowered with."""
    try:
        return MaskRules(**runner.contract.rules)  # type: ignore[arg-type]
    except (OptionError, TypeError) as error:
        raise ModelError(f"{runner.path}: the metadata's lmonnx.rules cannot be used: {error}; {REMEDY}") from error


def _is_file(source: object) -> bool:
    return not isinstance(source, torch.nn.Module) and str(source).endswith(".onnx")


def _require_kind(runner: Runner, source: object) -> None:
    """A file is compared with a file, a network in PyTorch with one: their hashes are of different things."""
    recorded = runner.contract.source
    kinds = {True: "an .onnx file", False: "a network in PyTorch"}
    given, made_from = kinds[_is_file(source)], kinds[recorded.get("kind") == "onnx"]
    if given != made_from:
        raise SourceError(
            f"{runner.path} was made from {made_from}, {recorded.get('name')}, not from {given}; "
            "give what it was made from"
        )


def _require_file(runner: Runner, path: pathlib.Path) -> None:
    """``path``, if there is such a file, is the one that the graph was made from."""
    if path.is_file():
        hashes = _differing_hashes(runner, "sha256", sha256_of(path))
        if hashes:
            raise SourceError(f"{path} is not the file that {runner.path} was made from: {hashes}")


def _recorded(runner: Runner, key: str, kind: type) -> Any:
    """What the metadata says of how the source was asked for; None if nothing.

    Raises:
        ModelError: if it is not of that kind.
    """
    value = runner.contract.source.get(key)
    if value is not None and not isinstance(value, kind):
        raise ModelError(f"{runner.path}: the metadata's lmonnx.source has the {key} {value!r}; {REMEDY}")
    return value


def _recorded_weights(runner: Runner, source: object) -> str:
    """The weights to build a network by name with; a module or a file brings its own."""
    recorded = runner.contract.source
    if not isinstance(source, str) or _is_file(source):
        return "default"
    if recorded.get("kind") == "module":
        raise SourceError(
            f"{runner.path} was made from a module, {recorded.get('name')}, and not from a network by name; "
            "verify it from Python: lmonnx.verify(path, module)"
        )
    if recorded.get("name") != source:
        raise SourceError(f"{runner.path} was made from {recorded.get('name')}, not from {source}; give that name")
    weights = recorded.get("weights", "default")
    if not isinstance(weights, str):
        raise ModelError(f"{runner.path}: the metadata's lmonnx.source names no weights: {weights!r}; {REMEDY}")
    if is_file(weights):
        raise WeightsError(f"{runner.path} was made with the weights in a file {weights}; give it: --weights FILE")
    return weights


def _require_weights(runner: Runner, network: Network) -> None:
    """The weights of a network in PyTorch are those that the file was made from."""
    here, recorded = network.origin, runner.contract.source
    hashes = _differing_hashes(runner, "weights_sha256", here["weights_sha256"]) if "weights_sha256" in here else ""
    if not hashes:
        return
    mine, theirs = _named(here), _named(recorded)
    if mine == theirs and here["kind"] == "factory":
        raise WeightsError(
            f"{here['name']} gives other weights than those that {runner.path} records: {hashes}; if it draws them, "
            "save them once and export with --weights FILE"
        )
    if mine == theirs and "weights" in here:
        raise WeightsError(
            f"the weights of {mine} differ here from those that {runner.path} records: {hashes}; {REMEDY}"
        )
    raise WeightsError(
        f"the weights of {mine} are not those of {theirs}, which {runner.path} was made from: {hashes}; "
        "give what it was made from"
    )


def _require_contract(runner: Runner, network: Network) -> None:
    """What the metadata says of the outputs is so, and what it says of a network by name is that network's.

    Nothing can check the preprocessing and the labels that the exporting user said: those of a module or a file, and
    those that the source records as given.
    """
    model = ir.load(runner.path)
    here: dict[str, Any] = {"outputs": {str(value.name): kind_of(value) for value in model.graph.outputs}}
    if network.origin["kind"] not in ("module", "onnx"):
        given = _recorded(runner, "given", list) or ()
        own = {"preprocessing": network.preprocessing, "labels": network.labels}
        here |= {key: value for key, value in own.items() if key not in given}
    for key, value in here.items():
        if getattr(runner.contract, key) != value:
            raise ModelError(
                f"{runner.path}: the metadata's lmonnx.{key} has been changed, it is not that of "
                f"{_named(network.origin)}; {REMEDY}"
            )


def _named(source: Mapping[str, Any]) -> str:
    """``resnet18 made from seed:0``."""
    return " made from ".join(str(source[key]) for key in ("name", "weights") if key in source)


def _differing_hashes(runner: Runner, key: str, here: str) -> str:
    """Both hashes as text, empty if they are equal."""
    recorded = runner.contract.source.get(key)
    if not isinstance(recorded, str):
        raise ModelError(f"{runner.path}: the metadata's lmonnx.source holds no {key}; {REMEDY}")
    return "" if recorded == here else f"sha256 {here[:16]}… here, {recorded[:16]}… recorded"
