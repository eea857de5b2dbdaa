"""How photographs become images, where a user says a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeAlias

from lmonnx.errors import OptionError
from lmonnx.runtime.preprocessing import Preprocessing, short_side

#: A whole :class:`Preprocessing`, or some of its fields by name, see :func:`described`.
Said: TypeAlias = Preprocessing | Mapping[str, Any]
#: Without these two the values that enter a network are not known.
NEEDED = ("mean", "std")
FIELDS = ("crop", *(field.name for field in fields(Preprocessing) if field.name != "size"))


def described(said: Said, known: Preprocessing | None, size: tuple[int, int], source: str) -> Preprocessing:
    """What a user says of the preprocessing, over what the source knows of it.

    A whole preprocessing replaces what is known. Fields change what is known and leave the rest of it; where nothing
    is known, mean and std have to be among them, and the others have the defaults of :class:`Preprocessing`.

    Args:
        said: a preprocessing, or fields of one by name, without ``size``; in place of ``resize`` there may be
            ``crop``, the share of the photograph's short side, see :func:`short_side`.
        known: what the source brings.
        size: height and width of the network's image, in pixels.
        source: what it is, for messages.

    Raises:
        OptionError: if a field is unknown, has a value that is not allowed, or is missing.
    """
    if isinstance(said, Preprocessing):
        return said
    if odd := [name for name in said if name not in FIELDS]:
        raise OptionError(f"preprocessing has no field {odd[0]!r} to change; its fields are {', '.join(FIELDS)}")
    changes = dict(said)
    if "crop" in changes:
        changes["resize"] = short_side(size, changes.pop("crop"))
    if known is not None:
        return replace(known, **changes)
    if missing := [name for name in NEEDED if name not in said]:
        name, value = next(iter(said.items()))
        raise OptionError(
            f"{name}={value!r} is a part of how photographs become images, and {source} does not say the rest; "
            f"give {' and '.join(f'--{name}' for name in missing)} too"
        )
    return Preprocessing(size=size, **changes)
