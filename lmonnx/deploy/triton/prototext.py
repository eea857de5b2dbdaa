"""Protocol buffers as text, as much of it as a model's configuration needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias, Union


class Word(str):
    """A name of an enumeration, which stands without quotation marks."""

    __slots__ = ()


Value: TypeAlias = Union[str, int, bool, "Message", Sequence["Value"]]
Message: TypeAlias = Mapping[str, Value]
"""Fields by name: a number, text, an enumeration's name, a message, or a sequence of one of them where it repeats."""


def prototext(message: Message) -> str:
    """The fields of a message, a line each; sequences of messages become a block each, others a list.

    The format is that of https://protobuf.dev/reference/protobuf/textformat-spec.
    """
    return "".join(f"{line}\n" for line in _fields(message))


def _fields(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield from _block(name, value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            blocks = [each for each in value if isinstance(each, Mapping)]
            for each in blocks:
                yield from _block(name, each)
            if not blocks:
                yield f"{name}: [{', '.join(map(_scalar, value))}]"
        else:
            yield f"{name}: {_scalar(value)}"


def _block(name: str, message: Message) -> Iterator[str]:
    yield f"{name} {{"
    yield from (f"  {line}" for line in _fields(message))
    yield "}"


def _scalar(value: Value) -> str:
    if isinstance(value, Word):
        return value
    if isinstance(value, str):
        return f'"{"".join(map(_character, value.encode()))}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _character(byte: int) -> str:
    """A byte of a text in UTF-8; in octal what is no printable ASCII or means something between quotation marks."""
    return chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}"
