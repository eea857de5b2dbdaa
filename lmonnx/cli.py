"""The command line: each command parses, calls the public API, and prints."""

from __future__ import annotations

import json
import pathlib
import re
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, get_args

import click

import lmonnx
from lmonnx.errors import LmonnxError, MissingExtraError, OptionError
from lmonnx.masking import PRESETS, MaskRules
from lmonnx.runtime import Box, Prediction
from lmonnx.runtime.description import Description, describe
from lmonnx.runtime.form import ImageKind
from lmonnx.runtime.preprocessing import ChannelOrder, Interpolation
from lmonnx.support import supported

if TYPE_CHECKING:
    from lmonnx.exporters import Inspection

FILE = click.Path(path_type=pathlib.Path)
#: The size of a graph that takes images of any.
DYNAMIC = "dynamic"
#: The options of export that say how photographs become images.
DESCRIBES = ("crop", "interpolation", "mean", "std", "scale", "channel_order")


class _Numbers(click.ParamType[Any]):
    """Numbers separated by commas, of which there may be so many; ``repeated`` makes one number as many as most.

    One ``word`` may stand in their place.
    """

    def __init__(self, kind: type[int] | type[float], *counts: int, repeated: bool = False, word: str = "") -> None:
        self.kind, self.counts, self.repeated, self.word = kind, counts, repeated, word
        self.name = ",".join(["N"] * counts[-1])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...] | str:
        """The numbers, or the word."""
        if isinstance(value, tuple) or (self.word and value == self.word):
            return value  # type: ignore[no-any-return]
        try:
            numbers = tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in self.counts:
            self.fail(f"{value!r} is not of the form {self.name}{self.word and f', nor {self.word}'}", param, ctx)
        return numbers * self.counts[-1] if self.repeated and len(numbers) == 1 else numbers


def _one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What lmonnx says on purpose is one line on stderr: errors, with exit code 1 and no traceback, and warnings."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                command(*args, **kwargs)
        except LmonnxError as error:
            text = _as_typed(str(error)) if isinstance(error, OptionError) else str(error)
            click.echo(f"error: {text}", err=True)
            sys.exit(1)

    return run


def _as_typed(message: str) -> str:
    """A message in Python's words in those of the command: ``image_input='x'`` is ``--image-input x``."""
    for param in click.get_current_context().command.params:
        value = rf"\b{param.name}=('[^']*'|\([^()]*\)|-?\w[\w.]*)"
        if isinstance(param, click.Option):
            message = re.sub(value, lambda found, flag=param.opts[-1]: _typed(flag, found[1]), message)  # type: ignore[misc]
    return message


def _typed(option: str, value: str) -> str:
    """An option as it is typed; ``value`` is what Python prints."""
    parts = [part.strip() for part in value.strip("'()").split(",")]
    return option if value == "True" else f"{option} {','.join(filter(None, parts))}"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"warning: {message}", err=True)


@click.group()
@click.version_option(lmonnx.__version__)
def main() -> None:
    """CNN image classifiers as ONNX graphs that compute as if removed pixels were not there."""


@main.command()
@click.argument("source")
@click.option("-o", "--output", required=True, type=FILE, help="File to write.")
@click.option(
    "--weights", default="default", help="For names: default, weights by name, seed:N, or a file (.pth, .safetensors)."
)
@click.option(
    "--num-classes", "classes", type=click.IntRange(1), help="For names with weights of your own: number of classes."
)
@click.option(
    "--size",
    type=_Numbers(int, 1, 2, repeated=True, word=DYNAMIC),
    metavar="SIDE|HEIGHT,WIDTH|dynamic",
    help="Of the image, in pixels; dynamic takes images of any size. [default: what SOURCE says, or 224]",
)
@click.option(
    "--rules",
    default="",
    metavar="RULE=VALUE,…",
    help="average=valid|area and concat=all|any|majority, or authors-densenet, which is average=area,concat=majority. "
    "[default: average=valid,concat=all]",
)
@click.option("--batch", type=click.IntRange(1), help="Fix both batch axes at this number. [default: open]")
@click.option(
    "--image",
    type=click.Choice(get_args(ImageKind)),
    default="float32",
    show_default=True,
    help="uint8: the graph takes pixels [N, H, W, C], and normalises them itself.",
)
@click.option("--softmax", is_flag=True, help="The outputs are probabilities instead of logits.")
@click.option("--opset", type=int, help="Opset of the graph. [default: 18, or the source's if newer]")
@click.option("--image-input", metavar="NAME", help="For files with several inputs: which of them is the image.")
@click.option("--verify/--no-verify", default=True, help="Compare with the PyTorch reference before publishing.")
@click.option(
    "--crop",
    help="How photographs become images, in place of what SOURCE says: share of the short side that is cropped, such "
    "as 0.875 or 224/256. Where SOURCE says nothing, --mean and --std are needed beside it.",
)
@click.option("--interpolation", type=click.Choice(get_args(Interpolation)), help="Likewise: filter of the resize.")
@click.option(
    "--mean",
    type=_Numbers(float, 1, 3),
    metavar="N|N,N,N",
    help="Likewise: subtracted from the channels, after the scale.",
)
@click.option("--std", type=_Numbers(float, 1, 3), metavar="N|N,N,N", help="Likewise: divides the channels.")
@click.option("--scale", type=float, help="Likewise: divides the pixels 0 … 255. [default: 255]")
@click.option(
    "--channel-order", type=click.Choice(get_args(ChannelOrder)), help="Likewise: order of the input's channels."
)
@click.option("--labels", type=FILE, help="Class names, one a line, where SOURCE has none.")
@_one_line_errors
def export(source: str, output: pathlib.Path, rules: str, size: Any, labels: Any, **options: Any) -> None:
    """Write SOURCE as a graph with a mask input.

    SOURCE is a classifier of torchvision (resnet50), one of timm (timm:resnet50.a1_in1k), a function of your own that
    makes a network (package.module:factory), a bundled network (scenes-material, scenes-shape, …), or an .onnx file.
    `lmonnx models` lists what was tried.
    """
    described = {name: value for name in DESCRIBES if (value := options.pop(name)) is not None}
    result = lmonnx.export(
        source,
        output,
        size=size,
        rules=parse_rules(rules),
        preprocessing=described or None,
        labels=None if labels is None else read_labels(labels),
        **options,
    )
    click.echo(result.verification or "not verified")
    click.echo(f"wrote {result.path}")


@main.command()
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each network.")
@_one_line_errors
def models(pattern: str, as_json: bool) -> None:
    """List the published networks that were tried, those whose names match PATTERN such as "timm:*"."""
    rows = supported(pattern)
    if not rows:
        raise OptionError(f"no network that was tried matches {pattern!r}; it may be supported all the same")
    for row in rows:
        click.echo(_json(row.to_json()) if as_json else row)


@main.command()
@click.argument("model", type=FILE)
@click.option("--against", required=True, metavar="SOURCE", help="What the file was exported from.")
@click.option(
    "--weights", help="For names: as for export; a file has to be given again. [default: those that the file records]"
)
@_one_line_errors
def verify(model: pathlib.Path, against: str, weights: str | None) -> None:
    """Repeat the proof on MODEL, an exported file, against the network it was made from."""
    click.echo(lmonnx.verify(model, against, weights=weights))
    click.echo(f"{model} computes what {against} does, with and without removed pixels")


@main.command()
@click.argument("model", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_one_line_errors
def inspect(model: pathlib.Path, as_json: bool) -> None:
    """Print what MODEL, an exported file, says about itself, and what masking added to its graph."""
    found: Description | Inspection
    try:
        found = lmonnx.inspect(model)
    except MissingExtraError as error:
        found = describe(model)
        click.echo(f"without its graph: {error}", err=True)
    click.echo(_json(found.to_json()) if as_json else found)


@main.command()
@click.argument("model", type=FILE)
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True, type=FILE)
@click.option("--mask", type=FILE, help="Picture of what to keep, white on black, as large as the photograph.")
@click.option("--box", type=_Numbers(int, 4), metavar="X0,Y0,X1,Y1", help="Pixels to keep, the last two exclusive.")
@click.option("--mask-removes", is_flag=True, help="What is white, or in the box, is removed instead.")
@click.option("--top", default=5, type=click.IntRange(1), show_default=True, help="Number of classes to print.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each photograph.")
@_one_line_errors
def predict(
    model: pathlib.Path,
    photos: tuple[pathlib.Path, ...],
    mask: Any,
    box: Any,
    mask_removes: bool,
    top: int,
    as_json: bool,
) -> None:
    """Classify each PHOTO by MODEL, or what is left of it under a mask."""
    chosen = parse_mask(mask, box, mask_removes)
    for prediction in lmonnx.load(model).predict(photos, chosen, mask_removes=mask_removes):
        if chosen is not None and prediction.kept in (0, 1):
            lost = "removes nothing" if prediction.kept else "keeps nothing"
            click.echo(f"warning: {prediction.photo}: the mask {lost} of what the network sees", err=True)
        click.echo(_json(prediction.to_json(top)) if as_json else _table(prediction, top))


@main.command()
@click.argument("model", type=FILE)
@click.argument("photo", type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="Folder to write to.")
@click.option("--target", type=int, help="Index of the class to explain. [default: the most probable]")
@click.option("--samples", default=1000, type=click.IntRange(2), show_default=True, help="Number of masks.")
@click.option("--segments", default=50, type=click.IntRange(2), show_default=True, help="Number of superpixels, about.")
@click.option("--seed", default=0, show_default=True, help="Seed of the masks.")
@click.option(
    "--batch",
    "batch_size",
    default=32,
    type=click.IntRange(1),
    show_default=True,
    help="Masks in one run of the graph.",
)
@click.option(
    "--paint", type=click.IntRange(0, 255), help="For comparison: do not mask, paint with this grey, 0 … 255."
)
@_one_line_errors
def explain(model: pathlib.Path, photo: pathlib.Path, output: pathlib.Path, **options: Any) -> None:
    """Explain what MODEL sees in PHOTO: LIME over superpixels that are really removed."""
    from lmonnx.explain import explain as run

    explanation = run(model, photo, **options)
    folder = explanation.save(output)
    click.echo(f"{explanation.name} ({explanation.probability:.1%}), R² of the surrogate {explanation.score:.2f}")
    click.echo(f"wrote {folder}")


@main.command()
@click.option("-o", "--output", default="demo", show_default=True, type=FILE, help="Folder to write to.")
@click.option(
    "--scene",
    "seed",
    type=int,
    help="Seed of a scene, from 1000000000 on one not trained on. [default: 1000000000]",
)
@_one_line_errors
def demo(output: pathlib.Path, **options: Any) -> None:
    """Export a bundled network, explain a scene by masking and by painting, and score both against the true object."""
    from lmonnx.demo import run

    click.echo(run(output, **{name: value for name, value in options.items() if value is not None}))


@main.command()
@_one_line_errors
def doctor() -> None:
    """Print versions and providers; exit with 1 if something of the installation is wrong, and say what to do."""
    from lmonnx.runtime.doctor import diagnose

    diagnosis = diagnose()
    click.echo(diagnosis)
    sys.exit(1 if diagnosis.problems else 0)


def parse_rules(text: str) -> MaskRules:
    """``"average=area,concat=any"``, or the name of a preset, as rules.

    Raises:
        OptionError: if it does not have that form, or names an unknown rule.
    """
    if text in PRESETS:
        return PRESETS[text]
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    names = [name for name, _, _ in pairs]
    unknown = [name for name in names if name not in ("average", "concat")]
    if unknown:
        presets = " or ".join(PRESETS)
        raise OptionError(
            f"rule {unknown[0]!r} is unknown; write average=valid|area,concat=all|any|majority, or {presets}"
        )
    if len(set(names)) < len(names):
        raise OptionError(f"rules {text!r} say one rule twice; write average and concat once each")
    return MaskRules(**{name: value for name, _, value in pairs})  # type: ignore[arg-type]


def parse_mask(mask: pathlib.Path | None, box: tuple[int, ...] | None, removes: bool) -> pathlib.Path | Box | None:
    """What is kept, or removed, of every photograph; None if nothing is said.

    Raises:
        OptionError: if mask and box are both given, or neither and it is said to remove.
    """
    if mask is not None and box is not None:
        raise OptionError("--mask and --box both say what is kept; give one of them")
    if removes and mask is None and box is None:
        raise OptionError("--mask-removes says what --mask or --box means; give one of them")
    return mask if box is None else Box(*box)


def read_labels(path: pathlib.Path) -> tuple[str, ...]:
    """Class names, one a line.

    Raises:
        OptionError: if the file cannot be read.
    """
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read the labels in {path}: {error}") from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _table(prediction: Prediction, top: int) -> str:
    """A prediction for people: a line for the photograph, and one for each class."""
    rows = [f"{entry.probability:8.1%}  {entry.name}" for entry in prediction.top(top)]
    return "\n".join([f"{prediction.photo}, {prediction.kept:.1%} kept", *rows])


if __name__ == "__main__":
    main()
