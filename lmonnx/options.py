"""What the command line understands, and how it says what is wrong."""

from __future__ import annotations

import contextlib
import pathlib
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn

import click

from lmonnx.bar import Bar
from lmonnx.errors import LmonnxError, OptionError
from lmonnx.masking import PRESETS, MaskRules
from lmonnx.runtime import Box, Outcome

#: The exit code of what Ctrl-C ended, as shells have it.
INTERRUPTED = 130


class Numbers(click.ParamType[Any]):
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


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What lmonnx says on purpose is one line on stderr: errors, with exit code 1 and no traceback, and warnings.

    A SIGTERM ends the command as Ctrl-C does, so that it takes its temporary files along.
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with _terminable(), warnings.catch_warnings():
                warnings.showwarning = _show_warning
                command(*args, **kwargs)
        except LmonnxError as error:
            text = _as_typed(str(error)) if isinstance(error, OptionError) else str(error)
            click.echo(f"error: {text}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)

    return run


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Where a SIGTERM is an exception, unless the process ignores it or does something of its own."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL or threading.current_thread() != threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one does not stop the tidying up
    sys.exit(128 + number)


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


def run_many(job: Callable[[Bar], Outcome], label: str, rows: int, unit: str, quiet: bool) -> NoReturn:
    """Runs a job on many photographs under a :class:`Bar`, prints what came of it, and exits with 3 if one failed.

    Ctrl-C exits with 130, and says how to go on.
    """
    try:
        with Bar(label, rows, unit, quiet) as bar:
            outcome = job(bar)
    except KeyboardInterrupt:
        click.echo("interrupted; the same command goes on where this one stopped", err=True)
        sys.exit(INTERRUPTED)
    click.echo(f"{outcome}; computed on {label}")
    sys.exit(3 if outcome.failed else 0)


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
