"""A model repository of Triton Inference Server for an exported file."""

from __future__ import annotations

from lmonnx.deploy.triton.repository import CONFIG, write
from lmonnx.deploy.triton.settings import Kind, Precision, Settings

__all__ = ["CONFIG", "Kind", "Precision", "Settings", "write"]
