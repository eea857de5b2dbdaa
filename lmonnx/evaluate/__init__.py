"""Scenes whose deciding pixels are known, for asking what a network and an explanation look at."""

from __future__ import annotations

from lmonnx.evaluate.scenes import CLASSES, Labelling, Scene, draw

__all__ = ["CLASSES", "Labelling", "Scene", "draw"]
