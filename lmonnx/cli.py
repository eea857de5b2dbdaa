"""The command line: each command parses, calls the public API, and prints."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
from typing import TYPE_CHECKING, Any, get_args

import click

import lmonnx
from lmonnx.deploy.triton import CONFIG, Kind, Settings, write
from lmonnx.errors import MissingExtraError, OptionError
from lmonnx.options import Numbers, one_line_errors, parse_mask, parse_rules, read_labels, run_many
from lmonnx.runtime import Prediction, predict_many
from lmonnx.runtime.description import Description, describe
from lmonnx.runtime.finding import is_many, listed
from lmonnx.runtime.form import PRECISIONS, ImageKind
from lmonnx.runtime.preprocessing import ChannelOrder, Interpolation
from lmonnx.support import supported

if TYPE_CHECKING:
    from lmonnx.exporters import Inspection

FILE = click.Path(path_type=pathlib.Path)
#: The size of a graph that takes images of any.
DYNAMIC = "dynamic"
#: The options of export that say how photographs become images.
DESCRIBES = ("crop", "interpolation", "mean", "std", "scale", "channel_order")


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
    type=Numbers(int, 1, 2, repeated=True, word=DYNAMIC),
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
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    default="fp32",
    show_default=True,
    help="fp16: weights and maps of a float32 network become float16; image, outputs, sums and counts stay float32.",
)
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
    type=Numbers(float, 1, 3),
    metavar="N|N,N,N",
    help="Likewise: subtracted from the channels, after the scale.",
)
@click.option("--std", type=Numbers(float, 1, 3), metavar="N|N,N,N", help="Likewise: divides the channels.")
@click.option("--scale", type=float, help="Likewise: divides the pixels 0 … 255. [default: 255]")
@click.option(
    "--channel-order", type=click.Choice(get_args(ChannelOrder)), help="Likewise: order of the input's channels."
)
@click.option("--labels", type=FILE, help="Class names, one a line, where SOURCE has none.")
@one_line_errors
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
    if others := result.source.get("other_entries"):
        click.echo(f"the weights are {result.source['entry']} of {result.source['weights']}, which holds {others} too")
    click.echo(f"wrote {result.path}")


@main.command()
@click.argument("pattern", default="*")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each network.")
@one_line_errors
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
@one_line_errors
def verify(model: pathlib.Path, against: str, weights: str | None) -> None:
    """Repeat the proof on MODEL, an exported file, against the network it was made from."""
    click.echo(lmonnx.verify(model, against, weights=weights))
    click.echo(f"{model} computes what {against} does, with and without removed pixels")


@main.command()
@click.argument("model", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_line_errors
def inspect(model: pathlib.Path, as_json: bool) -> None:
    """Print what MODEL, an exported file, says about itself, and what masking added to its graph."""
    found: Description | Inspection
    try:
        found = lmonnx.inspect(model)
    except MissingExtraError as error:
        found = describe(model)
        click.echo(f"without its graph: {error}", err=True)
    click.echo(_json(found.to_json()) if as_json else found)


def many(command: Any) -> Any:
    """The options of commands that work through folders of photographs."""
    options = (
        click.option("--batch", "batch_size", type=click.IntRange(1), help="Rows in one run. [default: measured]"),
        click.option("--workers", type=click.IntRange(0), help="Processes that decode photographs of folders."),
        click.option("--quiet", is_flag=True, help="Show no progress."),
    )
    return functools.reduce(lambda made, option: option(made), reversed(options), command)


@main.command()
@click.argument("model", type=FILE)
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, help="Folder to write a line of JSON for each photograph to.")
@click.option("--mask", type=FILE, help="Picture of what to keep, white on black, as large as the photograph.")
@click.option("--box", type=Numbers(int, 4), metavar="X0,Y0,X1,Y1", help="Pixels to keep, the last two exclusive.")
@click.option("--mask-removes", is_flag=True, help="What is white, or in the box, is removed instead.")
@click.option("--top", default=5, type=click.IntRange(1), show_default=True, help="Number of classes to print.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each photograph.")
@many
@one_line_errors
def predict(
    model: pathlib.Path,
    photos: tuple[str, ...],
    output: pathlib.Path | None,
    mask: Any,
    box: Any,
    mask_removes: bool,
    top: int,
    as_json: bool,
    batch_size: int | None,
    workers: int | None,
    quiet: bool,
) -> None:
    """Classify each PHOTO by MODEL, or what is left of it under a mask.

    PHOTO may be a folder, or a pattern such as 'photos/**/*.jpg'. With -o, a photograph that cannot be read stops
    nothing (exit code 3 at the end), and the same command run again goes on where it stopped.
    """
    chosen = parse_mask(mask, box, mask_removes)
    if output is not None and as_json:
        raise OptionError("--json says how results are printed; what -o writes is JSON without it, leave it out")
    runner = lmonnx.load(model)
    if output is not None:
        options: dict[str, Any] = {"mask_removes": mask_removes, "top": top, "batch_size": batch_size}
        job = functools.partial(predict_many, runner, photos, output, mask=chosen, workers=workers, **options)
        run_many(lambda bar: job(progress=bar), runner.device, 1, "photographs", quiet)
    for prediction in runner.predict(listed(photos), chosen, mask_removes=mask_removes, batch_size=batch_size):
        if chosen is not None and prediction.kept in (0, 1):
            lost = "removes nothing" if prediction.kept else "keeps nothing"
            click.echo(f"warning: {prediction.photo}: the mask {lost} of what the network sees", err=True)
        click.echo(_json(prediction.to_json(top)) if as_json else _table(prediction, top))


@main.command()
@click.argument("model", type=FILE)
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=FILE, help="Folder to write to.")
@click.option("--target", type=int, help="Index of the class to explain. [default: the most probable]")
@click.option("--samples", default=1000, type=click.IntRange(2), show_default=True, help="Number of masks.")
@click.option("--segments", default=50, type=click.IntRange(2), show_default=True, help="Number of superpixels, about.")
@click.option("--seed", default=0, show_default=True, help="Seed of the masks.")
@click.option(
    "--paint", type=click.IntRange(0, 255), help="For comparison: do not mask, paint with this grey, 0 … 255."
)
@many
@one_line_errors
def explain(
    model: pathlib.Path, photos: tuple[str, ...], output: pathlib.Path, workers: Any, quiet: bool, **options: Any
) -> None:
    """Explain what MODEL sees in each PHOTO: LIME over superpixels that are really removed.

    PHOTO may be a folder, or a pattern such as 'photos/**/*.jpg'. Then each is explained in a folder of its own, a
    photograph that cannot be read stops nothing (exit code 3 at the end), and the same command run again goes on where
    it stopped.
    """
    from lmonnx.explain import explain as one
    from lmonnx.explain import explain_many

    runner = lmonnx.load(model)
    if is_many(photos):
        job = functools.partial(explain_many, runner, photos, output, workers=workers, **options)
        run_many(lambda bar: job(progress=bar), runner.device, options["samples"], "masks", quiet)
    explanation = one(runner, photos[0], **options)
    folder = explanation.save(output)
    click.echo(f"{explanation.name} ({explanation.probability:.1%}), R² of the surrogate {explanation.score:.2f}")
    click.echo(f"wrote {folder}, computed on {runner.device}")


@main.command()
@click.argument("source")
@click.option("--weights", default="default", help="As for export; seed:0 downloads nothing and takes as long.")
@click.option("--size", type=Numbers(int, 1, 2, repeated=True), metavar="SIDE|HEIGHT,WIDTH", help="As for export.")
@click.option("--rules", default="", metavar="RULE=VALUE,…", help="As for export.")
@click.option("--opset", type=int, help="As for export.")
@click.option(
    "--batch",
    "batches",
    type=Numbers(int, 1, 2, 3, 4),
    default=(8, 32),
    metavar="N,…",
    help="Images in a run; up to four numbers. [default: 8,32]",
)
@click.option("--rounds", default=15, type=click.IntRange(1), show_default=True, help="Runs of every program.")
@click.option("--threads", type=click.IntRange(1), help="Of every program. [default: as many as processors]")
@click.option("--profile", is_flag=True, help="Also where the masked graph spends its time, at the largest batch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@one_line_errors
def bench(source: str, rules: str, as_json: bool, **options: Any) -> None:
    """Time SOURCE on the CPU: its plain graph, its masked graph, and PyTorch, in turns in one process.

    SOURCE is what `lmonnx export` takes. Ratios are what to compare: the seconds of a busy machine vary.
    """
    report = lmonnx.bench(source, rules=parse_rules(rules), **options)
    click.echo(_json(report.to_json()) if as_json else report)


@main.command()
@click.option("-o", "--output", default="demo", show_default=True, type=FILE, help="Folder to write to.")
@click.option(
    "--scene",
    "seed",
    type=int,
    help="Seed of a scene, from 1000000000 on one not trained on. [default: 1000000000]",
)
@one_line_errors
def demo(output: pathlib.Path, **options: Any) -> None:
    """Export a bundled network, explain a scene by masking and by painting, and score both against the true object."""
    from lmonnx.demo import run

    click.echo(run(output, **{name: value for name, value in options.items() if value is not None}))


@main.command()
@one_line_errors
def doctor() -> None:
    """Print versions and providers; exit with 1 if something of the installation is wrong, and say what to do."""
    from lmonnx.runtime.doctor import diagnose

    diagnosis = diagnose()
    click.echo(diagnosis)
    sys.exit(1 if diagnosis.problems else 0)


@main.group()
def deploy() -> None:
    """Write what a production runtime needs beside an exported file."""


@deploy.command()
@click.argument("model", type=FILE)
@click.option(
    "--repository", required=True, type=click.Path(), metavar="DIR", help="Folder that Triton is started with."
)
@click.option("--name", help="Of the model. [default: name of the file]")
@click.option("--version", default=1, type=click.IntRange(1), show_default=True, help="Of the model.")
@click.option("--overwrite", is_flag=True, help="Replace the version, configuration and labels if they exist.")
@click.option(
    "--one-image",
    is_flag=True,
    help="A request has one image and any number of masks; Triton does not join requests then.",
)
@click.option("--max-batch-size", type=int, help="Rows of a request, and of joined ones, at most. [default: 32]")
@click.option(
    "--preferred",
    type=Numbers(int, *range(1, 17)),
    default=(),
    metavar="N,…",
    help="Rows that are computed at once as soon as there are so many. [default: Triton's choice]",
)
@click.option("--delay", type=int, help="Microseconds that a request waits for others to be joined. [default: 100]")
@click.option("--instances", default=1, type=int, show_default=True, help="Of the model, on each GPU or on the CPU.")
@click.option(
    "--kind",
    type=click.Choice(get_args(Kind)),
    default="auto",
    show_default=True,
    help="What computes; auto takes all GPUs, or the CPU if there are none.",
)
@click.option(
    "--tensorrt",
    is_flag=True,
    help="What TensorRT knows is computed by it, in the precision of MODEL; the proof was made without.",
)
@click.option("--tensorrt-workspace", type=int, metavar="BYTES", help="Memory for TensorRT. [default: 1 GiB]")
@one_line_errors
def triton(
    model: pathlib.Path, repository: str, name: str | None, version: int, overwrite: bool, **options: Any
) -> None:
    """Write MODEL, an exported file, into a model repository of Triton Inference Server, whole or not at all."""
    settings = Settings(**options)
    folder = write(model, repository, name=name, version=version, overwrite=overwrite, settings=settings)
    click.echo(f"wrote {folder / str(version)} and {folder / CONFIG}")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _table(prediction: Prediction, top: int) -> str:
    """A prediction for people: a line for the photograph, and one for each class."""
    rows = [f"{entry.probability:8.1%}  {entry.name}" for entry in prediction.top(top)]
    return "\n".join([f"{prediction.photo}, {prediction.kept:.1%} kept", *rows])


if __name__ == "__main__":
    main()
