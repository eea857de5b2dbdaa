"""The linear model that stands in for the network around one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmonnx.explain.sampling import Bools

Doubles = npt.NDArray[np.float64]

KERNEL_WIDTH = 0.25
ALPHA = 1.0


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A linear model of a class's probability in the segments that are kept.

    Attributes:
        weights: float64 ``[segments]``: what keeping each segment adds to the probability.
        intercept: the probability where no segment is kept.
        score: weighted R² on the samples it was fitted to, 1 at best.
    """

    weights: Doubles
    intercept: float
    score: float


def proximity(keep: Bools, width: float = KERNEL_WIDTH) -> Doubles:
    """How much each sample counts: sqrt(exp(−d² / width²)) of its cosine distance d to the whole picture.

    For n segments of which k are kept, the cosine of the keep-vector and the vector of ones is
    k / (√k·√n) = √(k/n), so d = 1 − √(k/n); where none is kept, d = 1. Kernel and width are those of the
    image explainer by Ribeiro et al. (KDD 2016).

    Args:
        keep: bool ``[samples, segments]``, True = keep.
        width: of the kernel.

    Returns:
        float64 ``[samples]``, in 0 … 1.
    """
    distance = 1.0 - np.sqrt(keep.mean(axis=1))
    weight: Doubles = np.sqrt(np.exp(-(distance**2) / width**2))
    return weight


def fit(keep: Bools, probabilities: npt.NDArray[np.floating], alpha: float = ALPHA) -> Surrogate:
    """Fits LIME's surrogate: ridge regression, samples weighted by :func:`proximity`.

    Args:
        keep: bool ``[samples, segments]``, True = keep.
        probabilities: ``[samples]``: the class's probability in each sample.
        alpha: strength of the ridge penalty on the weights.
    """
    from sklearn.linear_model import Ridge

    features, targets, weight = keep.astype(np.float64), probabilities.astype(np.float64), proximity(keep)
    model = Ridge(alpha=alpha).fit(features, targets, sample_weight=weight)
    score = model.score(features, targets, sample_weight=weight)
    return Surrogate(np.asarray(model.coef_, np.float64), float(model.intercept_), float(score))
