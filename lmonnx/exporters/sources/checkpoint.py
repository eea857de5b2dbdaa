"""Weights in a file: what ``torch.save`` and safetensors write, bare or inside the checkpoint of a training."""

from __future__ import annotations

import argparse
import difflib
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import safetensors
import safetensors.torch
import torch

from lmonnx.errors import OptionError, WeightsError
from lmonnx.exporters.sources.seeds import seed_of, seeded

State: TypeAlias = Mapping[str, Any]

#: What the names of files of weights end in.
SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar")
#: Entries of a checkpoint that may hold the weights; averages are what is evaluated, so they come first.
ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model")
#: What wrappers (data parallel, torch.compile, a training framework) put before every name.
PREFIXES = ("module.", "_orig_mod.", "model.")
#: Counters that take part in training only; older files lack the first, averages have the second.
COUNTERS = ("num_batches_tracked", "n_averaged")
#: What the names of entries that a part of a network writes itself end in.
EXTRA = "_extra_state"
SAVE = "write it again with torch.save(module.state_dict(), FILE)"
#: So many names of a kind are listed.
LISTED = 8


def is_file(weights: str) -> bool:
    """Whether ``weights`` names a file, by how the name ends."""
    return weights.lower().endswith(SUFFIXES)


def is_pretrained(weights: str) -> bool:
    """Whether ``weights`` are published ones, and neither a file's nor random."""
    return not is_file(weights) and not weights.startswith("seed:")


def require_classes(weights: str, asked: int | None, own: int) -> None:
    """Published weights have a classifier for their own number of classes.

    Raises:
        OptionError: if another number is asked for.
    """
    if asked is not None and asked != own:
        raise OptionError(
            f"the weights {weights} are for {own} classes and {asked} are asked for, whose classifier would be random; "
            "give weights of your own for it: --weights FILE or seed:N"
        )


def close(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Those of the names that are close to ``name``, as text; empty if none is."""
    return ", ".join(prefix + near for near in difflib.get_close_matches(name, known, n=3))


def fill(module: torch.nn.Module, weights: str, size: tuple[int, int], **matching: Any) -> dict[str, str]:
    """Gives ``module`` random weights or those of a file.

    Args:
        module: a network as its constructor initialises it.
        weights: ``"seed:N"``, or the path of a file, see :func:`is_file`.
        size: height and width in pixels, for :func:`lmonnx.exporters.sources.seeds.seeded`.
        **matching: see :func:`restore`.

    Returns:
        What the metadata says of them: the file's name and, where there is one, the entry that was taken.

    Raises:
        WeightsError: if the file cannot be read, or does not hold the weights of this network.
    """
    if not is_file(weights):
        seeded(module, seed_of(weights), size)
        return {"weights": weights}
    path = pathlib.Path(weights)
    state, entry = read(path)
    restore(module, state, str(path), **matching)
    return {"weights": path.name} | ({"entry": entry} if entry else {})


def read(path: pathlib.Path) -> tuple[State, str]:
    """The tensors by name that a file holds, and the entry of the checkpoint that they are from, empty if none.

    Nothing in the file is run: pickles are read with ``weights_only=True``.

    Raises:
        WeightsError: if there is no such file, or it holds no weights, or code.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}; --weights takes default, seed:N or a file of weights")
    try:
        content = _unpickled(path) if path.suffix.lower() != ".safetensors" else safetensors.torch.load_file(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes unpickling raise anything
        raise WeightsError(f"{path} {_reason(path, error)}") from error
    entry = ""
    while isinstance(content, Mapping) and (inner := _entry(path, content)) is not None:
        content, entry = content[inner], f"{entry}.{inner}".lstrip(".")
    if not _is_state(content):
        raise WeightsError(f"{path} holds no weights by name; {SAVE}")
    return content, entry


def _entry(path: pathlib.Path, content: State) -> str | None:
    """The entry of a checkpoint that holds the weights: one of ``ENTRIES``, or the only one whose value is a state.

    None if ``content`` has no such entry, as weights themselves have none.

    Raises:
        WeightsError: if there are several of which none is known by its name.
    """
    known = next((name for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
    if known is not None:
        return known
    states = [str(name) for name, value in content.items() if _is_state(value) and not str(name).endswith(EXTRA)]
    if len(states) > 1:
        raise WeightsError(
            f"{path} holds several sets of weights, {some(states)}; write the one that is meant to a file of its own: "
            f"torch.save(torch.load(FILE)[{states[0]!r}], NEW)"
        )
    return next(iter(states), None)


def _is_state(content: object) -> bool:
    """Whether it is tensors by name, perhaps beside other things."""
    if not isinstance(content, Mapping):
        return False
    return any(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())


def restore(
    module: torch.nn.Module,
    state: State,
    where: str,
    *,
    renamed: Callable[[str], str] = str,
    ignored: Sequence[str] = (),
) -> None:
    """Gives ``module`` the weights of ``state``: every one, and nothing else.

    Args:
        module: the network; it stays as it is if they do not match.
        state: tensors by name, with or without the prefixes of wrappers.
        where: they come from, for messages.
        renamed: the name in the network of what an older version of it called otherwise.
        ignored: beginnings of names of parts that train the network and are not part of its answer.

    Raises:
        WeightsError: if they do not match; it lists missing, unexpected and wrongly shaped entries.
    """
    own = module.state_dict()
    found: dict[str, Any] = {}
    for name, value in state.items():
        bare = renamed(_bare(name, own))
        found[bare if bare not in found else name] = value
    for name in list(found):
        if name not in own and (name.startswith(tuple(ignored)) or name.endswith(COUNTERS)):
            del found[name]
    missing = [name for name in own if name not in found and not name.endswith(COUNTERS)]
    unexpected = [name for name in found if name not in own]
    weighty = [name for name in found if name in own and not name.endswith(COUNTERS)]
    differing = [name for name in weighty if _kind(found[name]) != _kind(own[name])]
    if missing or unexpected or differing:
        shapes = [f"{name} {_kind(found[name])} instead of {_kind(own[name])}" for name in differing]
        kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        listed = "; ".join(f"{len(names)} {kind}: {some(names)}" for kind, names in kinds.items() if names)
        remedy = "" if missing or unexpected else _classes(found, own, differing)
        raise WeightsError(
            f"{where} does not hold the weights of this network: {listed}; "
            f"{remedy or 'give the network that they were trained with'}"
        )
    module.load_state_dict(found, strict=False)  # but for counters, it matches


def _unpickled(path: pathlib.Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.serialization.safe_globals([argparse.Namespace]):  # the options of a training, beside the weights
            return torch.load(path, map_location="cpu", weights_only=True)


def _reason(path: pathlib.Path, error: Exception) -> str:
    """Why a file cannot be read, and what to do."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if code:
        return f"holds {code[1]}, which is not weights but code, and is not run; where it works, {SAVE}"
    if "TorchScript" in str(error):
        return f"is a TorchScript archive, a program and not weights; {SAVE}"
    if not path.stat().st_size:
        return "is empty; fetch or write it again"
    return "is damaged, or was written neither by torch.save nor by safetensors; fetch or write it again"


def _bare(name: str, own: State) -> str:
    """A name without the prefixes of wrappers."""
    bare = name
    while bare not in own and bare.startswith(PREFIXES):
        bare = bare.partition(".")[2]
    return bare


def _kind(value: Any) -> str:
    """``"64×3×7×7"``, with the dtype where it is not floating."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    shape = "×".join(map(str, value.shape)) or "scalar"
    return shape if value.is_floating_point() else f"{shape} {str(value.dtype).removeprefix('torch.')}"


def some(names: Sequence[str]) -> str:
    """The first of the names as text, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _classes(found: State, own: State, differing: Sequence[str]) -> str:
    """What to do if all that differs is the number of classes."""
    shapes = [(getattr(found[name], "shape", ()), own[name].shape) for name in differing]
    counts = {here[0] if here[1:] == there[1:] else None for here, there in shapes if here and there}
    count = counts.pop() if len(counts) == 1 else None
    return "" if count is None else f"if they are for {count} classes, say so: --num-classes {count}"
