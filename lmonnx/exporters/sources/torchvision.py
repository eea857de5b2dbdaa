"""Networks by torchvision's names, with torchvision's weights, preprocessing and class names."""

from __future__ import annotations

import importlib
from types import ModuleType
from unittest import mock


def import_torchvision() -> ModuleType:
    """Imports torchvision, also where its compiled operators do not load.

    torchvision's wheels are linked against a CUDA build of torch. With a CPU build their operators stay
    undeclared, and `import torchvision` fails where it registers fake kernels and gradients for them
    ("operator torchvision::nms does not exist"). The classifiers use none of those operators, so in that case
    the import is repeated with the two registration functions of torch.library doing nothing. They are put
    back at once, and nothing is declared in torch.

    Raises:
        ImportError: if torchvision is not installed, or fails for any other reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    with (
        mock.patch("torch.library.register_fake", lambda *_, **__: lambda kernel: kernel),
        mock.patch("torch.library.register_autograd", lambda *_, **__: None),
    ):
        return importlib.import_module("torchvision")
