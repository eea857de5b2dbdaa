"""The command line: each command parses, calls the public API, and prints."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

import lmonnx
from lmonnx import Preprocessing
from lmonnx.errors import LmonnxError, OptionError
from lmonnx.masking import MaskRules


class _Numbers(click.ParamType[Any]):
    """Numbers separated by commas."""

    def __init__(self, kind: type[int] | type[float], *counts: int) -> None:
        self.kind, self.counts = kind, counts
        self.name = ",".join(["N"] * counts[-1])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """The numbers, a single one repeated where more are wanted."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in self.counts:
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return numbers * self.counts[-1] if len(numbers) == 1 else numbers


def _one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """An error that lmonnx raises on purpose is its message on stderr and exit code 1, not a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except LmonnxError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)

    return run


@click.group()
@click.version_option(lmonnx.__version__)
def main() -> None:
    """CNN image classifiers as ONNX graphs that compute as if removed pixels were not there."""


@main.command()
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=pathlib.Path), help="File to write.")
@click.option("--weights", default="default", help="For names: default, one of torchvision's, or seed:N.")
@click.option("--size", type=_Numbers(int, 1, 2), help="Height and width of the image in pixels, or one number.")
@click.option("--rules", default="", help="Mask rules, such as average=area,concat=majority.")
@click.option("--verify/--no-verify", default=True, help="Compare with the PyTorch reference before publishing.")
@click.option("--resize", type=int, help="For files: short side of a photograph before the crop, in pixels.")
@click.option("--mean", type=_Numbers(float, 1, 3), help="For files: subtracted from the channels, after the scale.")
@click.option("--std", type=_Numbers(float, 1, 3), help="For files: divides the channels.")
@click.option("--scale", type=float, help="For files: divides the pixels 0 … 255. [default: 255]")
@click.option("--labels", type=click.Path(path_type=pathlib.Path), help="For files: class names, one a line.")
@_one_line_errors
def export(
    source: str,
    output: pathlib.Path,
    weights: str,
    size: Any,
    rules: str,
    verify: bool,
    labels: Any,
    **pixels: Any,
) -> None:
    """Write SOURCE, a classifier of torchvision or an .onnx file, as a graph with a mask input."""
    result = lmonnx.export(
        source,
        output,
        weights=weights,
        size=size,
        rules=parse_rules(rules),
        verify=verify,
        preprocessing=parse_preprocessing(size, pixels),
        labels=None if labels is None else read_labels(labels),
    )
    click.echo(result.verification or "not verified")
    click.echo(f"wrote {result.path}")


@main.command()
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@click.argument("photo", type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=pathlib.Path), help="Folder to write to.")
@click.option("--target", type=int, help="Index of the class to explain. [default: the most probable]")
@click.option("--samples", default=1000, show_default=True, help="Number of masks.")
@click.option("--segments", default=50, show_default=True, help="Number of superpixels, about.")
@click.option("--seed", default=0, show_default=True, help="Seed of the masks.")
@click.option("--batch", "batch_size", default=32, show_default=True, help="Masks in one run of the graph.")
@_one_line_errors
def explain(model: pathlib.Path, photo: pathlib.Path, output: pathlib.Path, **options: Any) -> None:
    """Explain what MODEL sees in PHOTO: LIME over superpixels that are really removed."""
    from lmonnx.explain import explain as run

    explanation = run(model, photo, **options)
    folder = explanation.save(output)
    click.echo(f"{explanation.name} ({explanation.probability:.1%}), R² of the surrogate {explanation.score:.2f}")
    click.echo(f"wrote {folder}")


def parse_rules(text: str) -> MaskRules:
    """``"average=area,concat=any"`` as rules.

    Raises:
        OptionError: if it does not have that form, or names an unknown rule.
    """
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    unknown = [name for name, _, _ in pairs if name not in ("average", "concat")]
    if unknown:
        raise OptionError(f"rule {unknown[0]!r} is unknown; write average=valid|area,concat=all|any|majority")
    return MaskRules(**{name: value for name, _, value in pairs})  # type: ignore[arg-type]


def parse_preprocessing(size: tuple[int, int] | None, given: dict[str, Any]) -> Preprocessing | None:
    """The preprocessing that the options describe; None if they say nothing.

    Raises:
        OptionError: if they say something and not the size.
    """
    known = {name: value for name, value in given.items() if value is not None}
    if not known:
        return None
    if size is None:
        raise OptionError(f"--{next(iter(known))} describes how photographs become images; give --size too")
    return lmonnx.Preprocessing(size=size, **known)


def read_labels(path: pathlib.Path) -> tuple[str, ...]:
    """Class names, one a line.

    Raises:
        OptionError: if the file cannot be read.
    """
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read the labels in {path}: {error}") from error


if __name__ == "__main__":
    main()
