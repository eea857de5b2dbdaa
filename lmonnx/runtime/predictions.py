"""What a network says about a photograph: probabilities with the names of the classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ModelError, OptionError
from lmonnx.runtime.arrays import Floats

TOP = 5
"""Classes that are told of, where nothing else is asked for."""

_RANGE_SLACK = 1e-3  # of probabilities that a float16 graph rounds beyond 0 … 1


@dataclass(frozen=True)
class ClassProbability:
    """One class and how probable it is.

    Attributes:
        index: of the class, in the order of the network's outputs.
        name: of the class.
        probability: 0 … 1.
    """

    index: int
    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one photograph under one mask.

    Attributes:
        probabilities: float32 ``[classes]``, 0 … 1, in the order of the network's outputs.
        labels: the name of each class.
        kept: share of the network's input that the mask keeps, 0 … 1.
        photo: path of the photograph, as given; ``None`` if it was not a file.
    """

    probabilities: Floats
    labels: tuple[str, ...]
    kept: float
    photo: str | None = None

    def top(self, count: int = TOP) -> list[ClassProbability]:
        """The most probable classes, at most ``count``, by descending probability; the lower index first of equals.

        Raises:
            OptionError: if ``count`` is not positive.
        """
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise OptionError(f"count={count!r} is not a positive number of classes")
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [ClassProbability(int(index), self.labels[index], float(self.probabilities[index])) for index in order]

    def to_json(self, count: int = TOP) -> dict[str, Any]:
        """Photo, share kept and the ``count`` most probable classes (index, name, probability) as JSON knows them.

        Raises:
            OptionError: if ``count`` is not positive.
        """
        return {"photo": self.photo, "kept": self.kept, "top": [asdict(entry) for entry in self.top(count)]}

    def __repr__(self) -> str:
        top = ", ".join(f"{entry.name} {entry.probability:.1%}" for entry in self.top(3))
        return f"<Prediction of {self.photo or 'a photograph'}, {self.kept:.1%} kept: {top}>"


def to_probabilities(output: npt.NDArray[Any], name: str, kind: str, labels: int | None) -> Floats:
    """Rows of a graph's output as probabilities, float32 ``[batch, classes]``; a softmax is done in float64.

    Args:
        output: ``[batch, classes]``.
        name: of the output.
        kind: what the contract says it holds, ``"logits"`` or ``"probabilities"``.
        labels: number of classes that the contract names; ``None`` if it names none.

    Raises:
        ModelError: if the output cannot be turned into probabilities.
    """
    if output.ndim != 2:
        raise ModelError(f"output {name!r} is {list(output.shape)}, not [batch, classes]")
    if labels is not None and labels != output.shape[1]:
        raise ModelError(
            f"output {name!r} has {output.shape[1]} classes and the metadata names {labels}; "
            "export with the right labels"
        )
    if not np.isfinite(output).all():
        raise ModelError(f"output {name!r} holds NaN or infinity; the image or the graph is broken")
    values = output.astype(np.float64)
    if kind == "logits":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    elif values.min() < -_RANGE_SLACK or values.max() > 1 + _RANGE_SLACK:
        raise ModelError(
            f"output {name!r} is said to hold probabilities and holds {values.min():.3g} … {values.max():.3g}; "
            "export it as logits"
        )
    return values.astype(np.float32)
