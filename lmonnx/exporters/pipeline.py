"""The whole way from a source to a published file."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch

from lmonnx.errors import OptionError, SourceError, VerificationError
from lmonnx.exporters.forms import require_pixels, written
from lmonnx.exporters.graphs import weights_with
from lmonnx.exporters.halves import prepared
from lmonnx.exporters.lowering.adaptive import least_side
from lmonnx.exporters.lowering.engine import lower
from lmonnx.exporters.lowering.registry import FIXED
from lmonnx.exporters.opsets import require_opset
from lmonnx.exporters.package import contract_of, data_of, publication, stamp, write
from lmonnx.exporters.proof import prove
from lmonnx.exporters.sources import Network, resolve
from lmonnx.exporters.sources.checkpoint import some
from lmonnx.exporters.sources.described import Said
from lmonnx.exporters.trace import overflow, trace
from lmonnx.exporters.verification import CEILINGS, Verification
from lmonnx.masking import MaskRules
from lmonnx.runtime.form import PRECISIONS, Form, ImageKind
from lmonnx.runtime.session import Runner

#: From this share of the proof's ceiling on, in standard deviations of a value in float32, a node is said to differ.
TRACED = 0.1
#: Front end of the reference -> what runs the original network.
RUNS = {"aten": "PyTorch", "onnx": "onnxruntime"}


@dataclass(frozen=True)
class Export:
    """A published graph.

    Attributes:
        path: the file.
        verification: the table of differences; None if the proof was left out.
        source: what the metadata says of where the network and its weights come from.
    """

    path: pathlib.Path
    verification: Verification | None
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def export(
    source: str | os.PathLike[str] | torch.nn.Module,
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] = "default",
    classes: int | None = None,
    size: int | tuple[int, int] | Literal["dynamic"] | None = None,
    rules: MaskRules | None = None,
    verify: bool = True,
    preprocessing: Said | None = None,
    labels: tuple[str, ...] | None = None,
    image_input: str | None = None,
    batch: int | None = None,
    image: ImageKind = "float32",
    softmax: bool = False,
    opset: int | None = None,
    precision: Literal["fp32", "fp16"] = "fp32",
) -> Export:
    """Writes a network as a graph with a second input, ``mask``, that computes as if removed pixels were not there.

    Args:
        source: a network by name, an ``.onnx`` file, or a module in evaluation mode; see
            :func:`lmonnx.exporters.sources.resolve`, which takes ``weights``, ``classes`` and ``image_input`` too.
        path: the file to write. It appears whole, or not at all.
        weights: for names: ``"default"``, the name of weights, ``"seed:N"``, or a file.
        classes: for names, with a seed or a file: the number of classes.
        size: height and width of the image in pixels, or one number for both; the source's own by default.
            ``"dynamic"`` leaves both open: the graph takes images of any size. It is proven at the source's own size
            and two others, and photographs are brought to the first.
        rules: the mask rules; the defaults if None.
        verify: run the proof, and publish only if it holds. Without it the metadata says so.
        preprocessing: how photographs become images, for networks that do not say; names with published weights do.
            Or some of its fields by name, such as ``{"crop": "0.9"}``: they change what the network says, or, together
            with mean and std, say it where it does not; see :func:`lmonnx.exporters.sources.described.described`.
        labels: class names, likewise.
        image_input: which input of an ``.onnx`` file is the image, if it has several.
        batch: rows of both inputs and of the outputs in every run of the graph; any number if None.
        image: ``"uint8"`` makes the graph take pixels, 0 … 255 in RGB or grey, ``[images, H, W, C]``, and normalise
            them itself as the preprocessing says.
        softmax: put a softmax behind the outputs, which have to hold logits.
        opset: of the graph, 13 to 26; 18 if None, or the source's own if that is newer.
        precision: ``"fp16"`` makes of a float32 network one whose weights and maps are float16, and of a float16 file
            nothing else; see :mod:`lmonnx.exporters.halves`. Images and outputs are float32. ``"fp32"`` leaves every
            network in the precision that it has.

    Raises:
        SourceError: if the network cannot be had, or not in that precision.
        UnsupportedOpError: naming every node that masking is not defined for.
        VerificationError: with the table, if graph and reference differ.
        PublishError: if the destination cannot be written.
        OptionError: if an option has a value that is not allowed.
    """
    rules, form, dynamic = rules or MaskRules(), Form(image=image, batch=batch, softmax=softmax), size == "dynamic"
    if precision not in PRECISIONS:
        raise OptionError(f"precision={precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    if opset is not None:
        require_opset(opset)
    destination = pathlib.Path(path)
    if isinstance(source, (str, os.PathLike)) and destination.exists() and destination == pathlib.Path(source):
        raise OptionError(f"{path} is the source; write the graph to another file")
    sides = _sides(size)
    with publication(destination) as temporary:
        network = resolve(
            source,
            weights=weights,
            classes=classes,
            size=sides,
            dynamic=dynamic,
            preprocessing=preprocessing,
            labels=labels,
            image_input=image_input,
        )
        preparation = network.preprocessing and network.preprocessing.for_channels(network.channels)
        network = dataclasses.replace(network, preprocessing=preparation)
        require_pixels(form, preparation)
        network, plain = prepared(network, PRECISIONS[precision])
        form = dataclasses.replace(form, precision=network.precision)
        if network.smallest is not None:
            form = dataclasses.replace(form, size=network.size, smallest=_smallest(plain.graph, network))
        lowered = lower(plain, rules, layout=network.layout)
        passes.RemoveUnusedNodesPass()(lowered.model)
        model = written(lowered.model, form, opset, preparation)
        contract = contract_of(network, model, rules, {"passed": None}, form, data_of(model, temporary))
        write(model, contract, temporary)
        if not verify:
            return Export(destination, None, contract.source)
        try:
            verification = prove(Runner(temporary, provider="cpu"), network, rules)
        except VerificationError as error:
            raise VerificationError("; ".join(filter(None, (str(error), _infinite(network))))) from error
        if not verification.passed:
            raise VerificationError(_failure(verification, plain, network, rules))
        stamp(dataclasses.replace(contract, verified=verification.summary()), temporary)
    return Export(destination, verification, contract.source)


def _failure(verification: Verification, plain: ir.Model, network: Network, rules: MaskRules) -> str:
    """What an export says whose proof does not hold: the table, and where to look."""
    where, lowered = _infinite(network), lower(plain, rules, layout=network.layout, all_kept=True)
    beyond = overflow(lowered, plain, network) if network.precision == "float16" else None
    if beyond:
        head = "float16, which ends at 65504, does not hold the values of this network"
        where = f"{beyond}; export it in float32"
    elif not verification.differs:
        head = f"{network.precision} cannot tell whether graph and reference agree"
        where = where or _too_coarse(network)
    elif verification.infinite:
        head = "the network itself gives NaN or infinity where so many pixels are removed"
        where = where or "it divides by, or takes the logarithm of, what is then 0; add a small number to that in it"
    elif verification.original_alone:
        head = f"{RUNS[network.front_end]} gives another result for the original network than graph and reference do"
        where = where or "those two agree under every mask; if the original is at fault, export with --no-verify"
    else:
        head = "graph and reference differ"
        least = TRACED * CEILINGS[network.precision]
        first = next((step for step in trace(lowered, network, rules) if step.difference > least), None)
        where = where or f"first node that differs: {first or 'none of those that both have'}"
    return f"{head}; nothing was published\n{verification}\n{where}"


def _too_coarse(network: Network) -> str:
    """Why nothing can be told of a network, and what to do."""
    if network.precision == "float16":
        return "rounding its weights and maps to float16 changes its answers as much as a fault would; use float32"
    return f"its values grow beyond what {network.precision} tells apart; check the weights"


def _infinite(network: Network) -> str:
    """The weights that hold infinity, as text; a network may mean them, so nobody is told if all goes well."""
    names = weights_with(network.graph, np.isinf)
    return f"the weights hold infinity: {some(names)}" if names else ""


def _smallest(graph: ir.Graph, network: Network) -> int:
    """Pixels a side from which on a graph is the network and its windows fit into their maps.

    Raises:
        SourceError: if that is not so at the network's own size.
    """
    fitting = least_side(graph, min(network.size))
    if fitting is None:
        raise SourceError(f"a window is larger than its map at {network.size}; {FIXED}")
    return max(network.smallest or 1, fitting)


def _sides(size: int | tuple[int, int] | str | None) -> tuple[int, int] | None:
    """Height and width; None where the source says them.

    Raises:
        OptionError: if they are not positive whole numbers.
    """
    if size is None or size == "dynamic":
        return None
    if isinstance(size, str):
        raise OptionError(f"size={size!r} is neither a number of pixels nor 'dynamic'")
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise OptionError(f"size={size!r} is not a number of pixels, or (height, width)")
    return sides
