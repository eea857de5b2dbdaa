"""The definition of layer masking in PyTorch: one table of masked functions, two front ends.

`mask_aware` takes a PyTorch module, `mask_aware_nodes` the nodes of an ONNX graph. Both give a function
`(image, mask) -> outputs` that reads like the specification and is not optimised: exported graphs are
measured against it.
"""

from lmonnx.reference.activation import Masked
from lmonnx.reference.aten import MaskAware, mask_aware
from lmonnx.reference.onnx_call import Node
from lmonnx.reference.onnx_nodes import NodeProgram, mask_aware_nodes
from lmonnx.reference.onnx_operators import ONNX_OPERATORS

__all__ = ["ONNX_OPERATORS", "MaskAware", "Masked", "Node", "NodeProgram", "mask_aware", "mask_aware_nodes"]
