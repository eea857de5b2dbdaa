"""JSON and files as they are written down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def to_text(value: Any, indent: int | None = None) -> str:
    """JSON, with letters as they are; but escaped throughout where a file's name is not of valid text.

    Raises:
        ValueError: if it holds NaN or infinity.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair stands for a byte of such a name
        return json.dumps(value, allow_nan=False, indent=indent)
    return text


def replace_text(file: Path, text: str) -> None:
    """Writes a file that is there whole, or as it was before.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = file.with_name(f".lmonnx-{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
