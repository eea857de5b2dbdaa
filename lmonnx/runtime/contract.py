"""What an exported graph says about itself in its ``metadata_props``: the exporter writes, the runtime reads.

Flat keys that begin with ``lmonnx.``; every value is text, JSON where it has structure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from lmonnx.errors import ModelError, OptionError
from lmonnx.runtime.form import Form
from lmonnx.runtime.preprocessing import Preprocessing

FORMAT = 1
"""Version of the keys and of what they mean. A reader refuses a higher one."""

OutputKind: TypeAlias = Literal["logits", "probabilities", "unknown"]

_KEEP = {"keep": True}
#: What holds of files that lmonnx wrote before there were other forms.
_BEFORE_FORMS = {"lmonnx.form": json.dumps(Form().to_json()), "lmonnx.data": "null"}
REMEDY = "export the network again"


@dataclass(frozen=True)
class Contract:
    """What a stranger needs to know to run an exported graph.

    Attributes:
        version: the lmonnx that wrote the graph.
        outputs: what each output of the graph holds, by name.
        preprocessing: how a photograph becomes ``image``; ``None`` if it is not known.
        labels: names of the classes, in the order of the outputs; ``None`` if they are not known.
        rules: the mask rules that the graph was lowered with.
        source: where the network and its weights come from.
        verified: how the graph was compared with the reference; ``"passed"`` is true, false, or null if it
            was not compared.
        versions: the packages that took part in the export.
        form: how the graph takes images and masks, and how it answers.
        data: name of the file beside the graph that holds its weights; ``None`` if the graph holds them itself.
        format: version of the metadata.

    Raises:
        OptionError: if an output is of an unknown kind, or the labels are not text.
    """

    version: str
    outputs: Mapping[str, str]
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    verified: Mapping[str, Any] = field(default_factory=lambda: {"passed": None})
    versions: Mapping[str, str] = field(default_factory=dict)
    form: Form = field(default_factory=Form)
    data: str | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if not self.outputs:
            raise OptionError("outputs is empty; name every output of the graph and what it holds")
        for name, kind in self.outputs.items():
            if kind not in get_args(OutputKind):
                allowed = ", ".join(get_args(OutputKind))
                raise OptionError(f"output {name!r} holds {kind!r}, which is unknown; choose one of {allowed}")
        if self.labels is not None and not all(map(_is_writable, self.labels)):
            raise OptionError("labels are not all text that UTF-8 can hold")

    def to_props(self) -> dict[str, str]:
        """The contract as ``metadata_props``.

        Raises:
            OptionError: if a value cannot be written as JSON (NaN and infinities cannot).
        """
        structured: dict[str, Any] = {
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_json(),
            "labels": None if self.labels is None else list(self.labels),
            "outputs": dict(self.outputs),
            "mask": _KEEP,
            "rules": dict(self.rules),
            "source": dict(self.source),
            "verified": dict(self.verified),
            "versions": dict(self.versions),
            "form": self.form.to_json(),
            "data": self.data,
        }
        props = {"lmonnx.format": str(self.format), "lmonnx.version": self.version}
        for key, value in structured.items():
            try:
                props[f"lmonnx.{key}"] = json.dumps(value, allow_nan=False, ensure_ascii=False)
            except (TypeError, ValueError) as error:
                raise OptionError(f"the contract's {key} cannot be written as JSON: {error}") from error
        return props

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> Contract:
        """Reads the ``metadata_props`` of a graph.

        Raises:
            ModelError: if the graph was not written by lmonnx, or by a newer one, or its metadata is damaged.
        """
        if "lmonnx.format" not in props:
            raise ModelError("not a graph exported by lmonnx; export the network first with `lmonnx export`")
        _require_format(props["lmonnx.format"])
        preprocessing = _value(props, "preprocessing", _optional(dict))
        labels = _value(props, "labels", _optional(list))
        props = {**_BEFORE_FORMS, **props}
        if _value(props, "mask", _is(dict)) != _KEEP:
            raise ModelError(f"the metadata's lmonnx.mask is not {json.dumps(_KEEP)}; {REMEDY}")
        try:
            return cls(
                version=_text(props, "version"),
                outputs=_value(props, "outputs", _is_texts),
                preprocessing=None if preprocessing is None else Preprocessing.from_json(preprocessing),
                labels=None if labels is None else tuple(labels),
                rules=_value(props, "rules", _is_texts),
                source=_value(props, "source", _is(dict)),
                verified=_value(props, "verified", _is(dict)),
                versions=_value(props, "versions", _is_texts),
                form=Form.from_json(_value(props, "form", _is(dict))),
                data=_value(props, "data", _optional(str)),
            )
        except OptionError as error:
            raise ModelError(f"the metadata is damaged: {error}; {REMEDY}") from error


def _require_format(text: str) -> None:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise ModelError(f"the metadata's lmonnx.format is {text!r}, not a number; {REMEDY}")
    if int(text) > FORMAT:
        raise ModelError(f"written by a newer lmonnx: format {text}, this one reads {FORMAT}; upgrade lmonnx")


def _text(props: Mapping[str, str], key: str) -> str:
    try:
        return props[f"lmonnx.{key}"]
    except KeyError:
        raise ModelError(f"the metadata lacks lmonnx.{key}; {REMEDY}") from None


def _value(props: Mapping[str, str], key: str, allowed: Callable[[Any], bool]) -> Any:
    text = _text(props, key)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise ModelError(f"the metadata's lmonnx.{key} is not JSON ({error}); {REMEDY}") from error
    if not allowed(value):
        raise ModelError(f"the metadata's lmonnx.{key} has a wrong form: {text[:80]}; {REMEDY}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _optional(kind: type) -> Callable[[Any], bool]:
    return lambda value: value is None or isinstance(value, kind)


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_writable(value: Any) -> bool:
    """Whether it is text, without the halves of characters that JSON lets through and no file takes."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
