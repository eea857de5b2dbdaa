"""The graph under construction: equal calls are one node, every node knows who made it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import GraphBuilder

from lmonnx.masking import MaskRules

#: Metadata keys of a node that the lowering made: the rule, and the node of the source it was made for.
RULE_KEY, SOURCE_KEY = "lmonnx.rule", "lmonnx.source"
#: The rule of what joins image and mask.
CONTRACT = "contract"


#: The end of a Slice up to the last entry, whatever the extent.
LAST = 2**63 - 1


class UnknownShapeError(ValueError):
    """A shape that a rule has to know was not inferred."""


class Op:
    """Builds nodes of the default domain: ``op.Relu(x)`` is the output of a Relu of x.

    Calls are memoised on (operator, inputs, attributes), so an expression that is written twice is computed
    once: the mask arithmetic of a block is shared with every block that has the same mask.
    Inputs are values of the graph, None for an optional input left out, or numpy arrays, which become shared
    initializers.

    Attributes:
        rules: the mask rules that the graph is built for.
        wide: dtype of the mask arithmetic: float32, or float64 in a float64 graph. Counts, reciprocals and
            epsilons do not fit into float16, where 1e-8 is 0 and 1 / 1e-5 infinite.
        half: whether the graph is of float16 otherwise, so that a runtime may put the mask arithmetic into it as well;
            nothing may be infinite or NaN there then.
    """

    def __init__(
        self, graph: ir.Graph, rules: MaskRules, wide: ir.DataType, half: bool, taken: Iterable[str] = ()
    ) -> None:
        """Builds into ``graph``; names in ``taken`` are left to the source's own nodes and values."""
        self.rules = rules
        self.wide = wide
        self.half = half
        self._graph = graph
        self._builder = GraphBuilder(graph)
        self._memo: dict[tuple[Any, ...], ir.Value | Sequence[ir.Value]] = {}
        self._taken = set(taken)
        self._counts: dict[str, int] = {}
        self._source, self._rule = "", CONTRACT

    @contextmanager
    def made_by(self, rule: str, source: str) -> Iterator[None]:
        """Nodes built inside are named ``<source>/mask/…`` and recorded as made by ``rule``."""
        before = self._source, self._rule
        self._source, self._rule = source, rule
        try:
            yield
        finally:
            self._source, self._rule = before

    def __getattr__(self, operator: str) -> Callable[..., ir.Value]:
        if not operator[0].isupper():
            raise AttributeError(operator)
        return functools.partial(self.call, operator)

    def call(self, operator: str, *inputs: ir.Value | np.ndarray | None, **attributes: Any) -> Any:
        """One node: its output value, or the list of them when ``_outputs`` asks for several."""
        values = [self.constant(x) if isinstance(x, np.ndarray) else x for x in inputs]
        count = attributes.pop("_outputs", 1)
        key = (operator, *map(id, values), count, *sorted((k, _frozen(v)) for k, v in attributes.items()))
        if key not in self._memo:
            self._memo[key] = self._build(operator, values, attributes, count)
        return self._memo[key]

    def constant(self, array: np.ndarray) -> ir.Value:
        """An initializer that holds ``array``; equal arrays are one initializer."""
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._memo:
            self._memo[key] = self.own(array)
        return self._memo[key]  # type: ignore[return-value]

    def own(self, array: np.ndarray) -> ir.Value:
        """An initializer that holds ``array`` and is shared with nobody, nor is what is computed from it."""
        return self.initializer(self._fresh("mask/constant"), ir.tensor(array))

    def number(self, value: float) -> np.ndarray:
        """``value`` in the dtype of the mask arithmetic, rank 0."""
        return np.array(value, self.wide.numpy())

    def cast_like(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """``value`` in the dtype of ``like``."""
        assert like.dtype is not None
        return value if value.dtype == like.dtype else self.Cast(value, to=like.dtype)

    def divisor(self, value: ir.Value) -> ir.Value:
        """``value``, or 1 where it is 0: what a 0 is divided by in a float16 graph, where an epsilon may be 0."""
        assert value.dtype is not None
        zero, one = (np.array(number, value.dtype.numpy()) for number in (0, 1))
        return self.Where(self.Greater(value, zero), value, one)

    def widened(self, value: ir.Value) -> ir.Value:
        """``value``, or float32 if it is float16: what sums are made of."""
        return self.Cast(value, to=ir.DataType.FLOAT) if value.dtype == ir.DataType.FLOAT16 else value

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """An initializer of the graph under its own name."""
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value

    def _build(
        self, operator: str, values: Sequence[ir.Value | None], attributes: dict[str, Any], count: int
    ) -> ir.Value | Sequence[ir.Value]:
        name = self._fresh(f"{self._source}/mask/{operator}" if self._source else f"mask/{operator}")
        version = self._graph.opset_imports[""]
        result = self._builder.call_op(operator, values, attributes, version=version, outputs=count, name=name)
        outputs = [result] if isinstance(result, ir.Value) else list(result)
        for i, output in enumerate(outputs):
            output.name = name if len(outputs) == 1 else f"{name}:{i}"
        node = outputs[0].producer()
        assert node is not None
        node.metadata_props.clear()
        node.metadata_props.update({RULE_KEY: self._rule, SOURCE_KEY: self._source})
        return result

    def _fresh(self, name: str) -> str:
        while True:
            count = self._counts[name] = self._counts.get(name, 0) + 1
            unique = name if count == 1 else f"{name}_{count}"
            if unique not in self._taken:
                return unique


def _frozen(attribute: Any) -> Any:
    """A hashable stand-in for an attribute: equal attributes have equal ones."""
    if isinstance(attribute, ir.Attr):
        attribute = attribute.value
    if isinstance(attribute, ir.TensorProtocol):
        array = attribute.numpy()
        return array.dtype.str, array.shape, array.tobytes()
    if isinstance(attribute, (ir.Graph, dict)):
        return id(attribute)
    return tuple(attribute) if isinstance(attribute, (list, tuple)) else attribute


def ints(values: Iterable[int]) -> np.ndarray:
    """``values`` as an int64 array of rank 1, the type of axes and shapes."""
    return np.array(list(values), np.int64)


def scalar(value: float, like: ir.Value) -> np.ndarray:
    """``value`` as a rank-0 array of the dtype of ``like``."""
    assert like.dtype is not None
    return np.array(value, like.dtype.numpy())


def sides(value: ir.Value) -> tuple[int | str | None, ...]:
    """The shape of ``value``: an open extent by its name, equal names being equal extents, None if it has none."""
    if value.shape is None:
        raise UnknownShapeError(f"the shape of {value.name!r} is not known")
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def extents(value: ir.Value) -> tuple[int | None, ...]:
    """The shape of ``value``, None where an extent is not known."""
    if value.shape is None:
        raise UnknownShapeError(f"the shape of {value.name!r} is not known")
    return tuple(d if isinstance(d, int) else None for d in value.shape)
