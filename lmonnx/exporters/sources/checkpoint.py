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
#: Entries of a checkpoint that may hold the weights.
ENTRIES = ("state_dict", "model")
#: Words in the names of entries that hold averages of the weights; these are what is evaluated, so they come first.
AVERAGED = {"ema", "swa", "average", "averaged", "avg"}
#: What other words such a name may have; an average of something else, such as an optimizer, has others.
BESIDE = {"state", "dict", "model", "net", "network", "params", "weights"}
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
        What the metadata says of them: the file's name and, where there is one, the entry that was taken, and the
        others that hold weights.

    Raises:
        WeightsError: if the file cannot be read, or does not hold the weights of this network.
    """
    if not is_file(weights):
        seeded(module, seed_of(weights), size)
        return {"weights": weights}
    path = pathlib.Path(weights)
    state, entry, others = read(path)
    restore(module, state, str(path), **matching)
    said = {"weights": path.name, "entry": entry, "other_entries": ", ".join(others)}
    return {key: value for key, value in said.items() if value}


def read(path: pathlib.Path) -> tuple[State, str, Sequence[str]]:
    """The tensors by name that a file holds, the entry of the checkpoint that they are from, and what it has beside it.

    The entry is empty where the file is the weights themselves; beside it are the entries that hold weights too.

    Nothing in the file is run: pickles are read with ``weights_only=True``.

    Raises:
        WeightsError: if there is no such file, or it holds no weights, or code.
    """
    if not path.is_file():
        raise WeightsError(f"there is no file {path}; --weights takes default, seed:N or a file of weights")
    try:
        content = safetensors.torch.load_file(path) if _is_safetensors(path) else _unpickled(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes unpickling raise anything
        raise WeightsError(f"{path} {_reason(path, error)}") from error
    entry, beside = "", list[str]()
    while isinstance(content, Mapping) and (found := _entries(path, content)):
        inner, *others = (f"{entry}.{name}".lstrip(".") for name in found)
        content, entry = content[found[0]], inner
        beside += others
    if not _is_state(content):
        raise WeightsError(f"{path} holds no weights by name; {SAVE}")
    return content, entry, beside


def _entries(path: pathlib.Path, content: State) -> list[str]:
    """The entries of a checkpoint that hold weights, the one that is meant first; weights themselves have none.

    That is an average, one of ``ENTRIES``, or the only one.

    Raises:
        WeightsError: if there are several of which none is known by its name.
    """
    ranks = {name: _rank(name) for name in content if isinstance(name, str) and not name.endswith(EXTRA)}
    unknown = len(ENTRIES)
    states = [name for name, rank in ranks.items() if _holds(content[name], nested=rank < unknown)]
    states.sort(key=ranks.__getitem__)
    if len(states) > 1 and ranks[states[0]] == unknown:
        raise WeightsError(
            f"{path} holds several sets of weights, {some(states)}; write the one that is meant to a file of its own: "
            f"torch.save(torch.load(FILE)[{states[0]!r}], NEW)"
        )
    return states


def _rank(name: str) -> int:
    """Averages are before ``ENTRIES``, and these before all others."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    if words & AVERAGED and words <= AVERAGED | BESIDE:
        return -1
    return ENTRIES.index(name) if name in ENTRIES else len(ENTRIES)


def _holds(content: object, *, nested: bool) -> bool:
    """Whether it is tensors by name, or with ``nested`` has an entry that is."""
    inner = content.values() if nested and isinstance(content, Mapping) else ()
    return _is_state(content) or any(_is_state(value) for value in inner)


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
    dense = {name: value.to_dense() if value.layout != torch.strided else value for name, value in found.items()}
    module.load_state_dict(dense, strict=False)  # but for counters, it matches


def _is_safetensors(path: pathlib.Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name: a number of 8 bytes, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _unpickled(path: pathlib.Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = torch.serialization.safe_globals([argparse.Namespace])  # those of a training, beside the weights
        with options, path.open("rb") as file:  # of a path, PyTorch believes the suffix
            return torch.load(file, map_location="cpu", weights_only=True)


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
