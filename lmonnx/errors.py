"""Every error that lmonnx raises on purpose.

    LmonnxError               catch this one to catch them all
    ├── OptionError           an option has a value that is not allowed
    ├── MissingExtraError     a command needs packages that the base installation leaves out
    ├── SourceError           the network cannot be had: unknown name, missing or broken file
    │   └── WeightsError      the network is known and its weights cannot be had
    ├── UnsupportedOpError    masking is not defined for some nodes; names every one of them
    ├── VerificationError     graph and reference differ by more than the tolerance; shows the table
    ├── PublishError          the destination cannot be written
    ├── ModelError            a file is not a graph exported by lmonnx, or breaks the contract
    └── ImageError            a photograph or a mask cannot be read or does not fit

A message says what is wrong, where, and what to do; the command line prints it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LmonnxError(Exception):
    """The base of every error that lmonnx raises on purpose."""


class OptionError(LmonnxError, ValueError):
    """An option has a value that is not allowed."""


class MissingExtraError(LmonnxError, ImportError):
    """A command needs packages that the base installation leaves out."""


class SourceError(LmonnxError):
    """The network cannot be had: an unknown name, a missing or a broken file."""


class WeightsError(SourceError):
    """The network is known and its weights cannot be had."""


@dataclass(frozen=True)
class Offence:
    """One node that cannot be masked.

    Attributes:
        node: the node's name in the source graph.
        operator: its operator.
        inputs: shape of each input as text, such as ``"batch×64×56×56"``.
        why: why masking is not defined for it.
        remedy: what the reader can do about it.
    """

    node: str
    operator: str
    inputs: tuple[str, ...]
    why: str
    remedy: str = "use a network without it, or ask for a rule"

    def __str__(self) -> str:
        return f"{self.operator} {self.node!r} ({', '.join(self.inputs)}): {self.why}; {self.remedy}"


class UnsupportedOpError(LmonnxError):
    """Masking is not defined for some nodes of the network.

    The message tells offences of one operator, reason and remedy once, by the first of them and their number.

    Attributes:
        offences: every node that cannot be masked, in graph order.
    """

    def __init__(self, offences: Sequence[Offence]) -> None:
        self.offences = tuple(offences)
        alike: dict[tuple[str, str, str], list[Offence]] = {}
        for offence in self.offences:
            alike.setdefault((offence.operator, offence.why, offence.remedy), []).append(offence)
        lines = [f"{first}{f' (and {len(more)} more like it)' if more else ''}" for first, *more in alike.values()]
        count = len(self.offences)
        super().__init__("\n  ".join([f"{count} node{'s' if count != 1 else ''} cannot be masked:", *lines]))


class VerificationError(LmonnxError):
    """Graph and reference differ by more than the tolerance, or cannot be compared; an export publishes nothing."""


class PublishError(LmonnxError):
    """The destination cannot be written."""


class ModelError(LmonnxError):
    """A file is not a graph exported by lmonnx, or breaks the contract of one."""


class ImageError(LmonnxError):
    """A photograph or a mask cannot be read, or does not fit the network."""
