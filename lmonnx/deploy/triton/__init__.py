"""A model repository of Triton Inference Server for an exported file."""

from __future__ import annotations

from lmonnx.deploy.triton.configuration import CONFIG
from lmonnx.deploy.triton.repository import write
from lmonnx.deploy.triton.settings import Kind, Settings

__all__ = ["CONFIG", "Kind", "Settings", "write"]
