"""The configuration of a model, against the graph itself as onnxruntime sees it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

from lmonnx.deploy.triton import Settings, write
from lmonnx.deploy.triton.prototext import Word, prototext
from lmonnx.errors import ModelError, OptionError
from tests.deploy.conftest import GraphFile
from tests.deploy.triton import parsed, refusals, session_of, type_of, warmed

FORMS: dict[str, tuple[dict[str, Any], dict[str, Any], list[list[int]], list[tuple[int, int]]]] = {
    # form of the graph, settings, dims of image, mask and scores, rows of the warm-up
    "free": ({}, {}, [[3, 8, 6], [1, 8, 6], [3]], [(1, 1), (32, 32)]),
    "fixed": ({"batch": 4}, {}, [[4, 3, 8, 6], [4, 1, 8, 6], [4, 3]], [(4, 4)]),
    "fixed at one": ({"batch": 1}, {}, [[1, 3, 8, 6], [1, 1, 8, 6], [1, 3]], [(1, 1)]),
    "pixels": ({"image": "uint8"}, {}, [[8, 6, 3], [1, 8, 6], [3]], [(1, 1), (32, 32)]),
    "pixels, fixed": ({"image": "uint8", "batch": 2}, {}, [[2, 8, 6, 3], [2, 1, 8, 6], [2, 3]], [(2, 2)]),
    "any size": ({"size": (9, 7)}, {}, [[3, -1, -1], [1, -1, -1], [3]], [(1, 1), (32, 32)]),
    "pixels of any size": (
        {"size": (9, 7), "image": "uint8"},
        {"max_batch_size": 1},
        [[-1, -1, 3], [1, -1, -1], [3]],
        [(1, 1)],
    ),
    "any size, fixed": ({"size": (9, 7), "batch": 2}, {}, [[2, 3, -1, -1], [2, 1, -1, -1], [2, 3]], [(2, 2)]),
    "one image": ({}, {"one_image": True}, [[-1, 3, 8, 6], [-1, 1, 8, 6], [-1, 3]], [(1, 1), (1, 32)]),
    "one image of any size": (
        {"size": (9, 7)},
        {"one_image": True},
        [[-1, 3, -1, -1], [-1, 1, -1, -1], [-1, 3]],
        [(1, 1), (1, 32)],
    ),
}


def write_into(tmp_path: Path, model: Path, **settings: Any) -> Path:
    return write(model, tmp_path / "models", settings=Settings(**settings))


@pytest.mark.parametrize("case", FORMS)
def test_the_backend_would_load_it_and_its_warm_up_runs(case: str, graph_file: GraphFile, tmp_path: Path) -> None:
    form, settings, dims, rows = FORMS[case]
    folder = write_into(tmp_path, graph_file(**form), **settings)
    config, session = parsed(folder), session_of(folder)
    assert (config.name, config.backend) == ("net", "onnxruntime")
    assert refusals(config, session) == []
    assert [list(each.dims) for each in (*config.input, *config.output)] == dims
    image = "TYPE_UINT8" if form.get("image") == "uint8" else "TYPE_FP32"
    assert [type_of(each) for each in (*config.input, *config.output)] == [image, "TYPE_BOOL", "TYPE_FP32"]
    assert [each.name for each in config.input] == ["image", "mask"]
    assert warmed(config, session) == rows
    batched = form.get("batch") is None and not settings.get("one_image")
    assert config.max_batch_size == (settings.get("max_batch_size", 32) if batched else 0)
    assert config.HasField("dynamic_batching") == batched
    if form.get("size"):
        sizes = {tuple(side for side in sample.inputs["mask"].dims[-2:]) for sample in config.model_warmup}
        assert sizes == {(9, 7)}


def test_what_the_backend_refuses_is_seen(graph_file: GraphFile, tmp_path: Path) -> None:
    folder = write_into(tmp_path, graph_file(batch=4))
    config, session = parsed(folder), session_of(folder)
    config.max_batch_size = 4
    assert "image: first axis 4 is not free" in refusals(config, session)
    config = parsed(folder)
    config.input[0].dims[1] = -1
    config.output[0].dims[0] = -1
    assert refusals(config, session) == ["image: [4, -1, 8, 6] for [4, 3, 8, 6]", "scores: [-1, 3] for [4, 3]"]


def test_batching(graph_file: GraphFile, tmp_path: Path) -> None:
    batching = parsed(write_into(tmp_path, graph_file())).dynamic_batching
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([], 100)
    other = graph_file("other.onnx")
    config = parsed(write_into(tmp_path, other, max_batch_size=16, preferred=(16, 4, 4), delay=0))
    batching = config.dynamic_batching
    assert config.max_batch_size == 16
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([4, 16], 0)
    assert warmed(config, session_of(tmp_path / "models" / "other")) == [(1, 1), (4, 4), (16, 16)]


@pytest.mark.parametrize(("kind", "name"), [("auto", "KIND_AUTO"), ("gpu", "KIND_GPU"), ("cpu", "KIND_CPU")])
def test_instances(kind: Any, name: str, graph_file: GraphFile, tmp_path: Path) -> None:
    config = parsed(write_into(tmp_path, graph_file(), kind=kind, instances=3))
    (group,) = config.instance_group
    assert (group.count, model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind)) == (3, name)
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    found = [(each.name, dict(each.parameters)) for each in accelerators]
    assert found == ([] if kind == "cpu" else [("cuda", {"use_tf32": "0"})])
    searches = {key: value.string_value for key, value in config.parameters.items()}
    assert searches == ({} if kind == "cpu" else {"cudnn_conv_algo_search": "1"})


@pytest.mark.parametrize(
    ("precision", "settings", "parameters"),
    [
        ("float32", {}, {"precision_mode": "FP32", "max_workspace_size_bytes": str(2**30)}),
        ("float16", {}, {"precision_mode": "FP16", "max_workspace_size_bytes": str(2**30)}),
        ("int8", {}, {"precision_mode": "INT8", "max_workspace_size_bytes": str(2**30)}),
        (None, {}, {"precision_mode": "FP32", "max_workspace_size_bytes": str(2**30)}),
        ("float32", {"tensorrt_workspace": 5}, {"precision_mode": "FP32", "max_workspace_size_bytes": "5"}),
    ],
)
def test_tensorrt(
    precision: Any, settings: dict[str, Any], parameters: dict[str, str], graph_file: GraphFile, tmp_path: Path
) -> None:
    config = parsed(write_into(tmp_path, graph_file(precision=precision), tensorrt=True, **settings))
    first, second = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (first.name, dict(first.parameters)) == ("tensorrt", parameters)
    assert (second.name, dict(second.parameters)) == ("cuda", {"use_tf32": "0"})
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator


@pytest.mark.parametrize(
    ("form", "settings", "rows", "names"),
    [
        ({}, {"preferred": (4, 16)}, [(32, 32), (1, 1), (4, 4), (16, 16)], "32 images, 32 masks"),
        ({}, {"one_image": True}, [(1, 32), (1, 1)], "1 image, 32 masks"),
        ({}, {"max_batch_size": 1}, [(1, 1)], "1 image, 1 mask"),
        ({"batch": 4}, {}, [(4, 4)], "4 images, 4 masks"),
    ],
)
def test_tensorrt_meets_the_largest_request_first(
    form: Any, settings: Any, rows: Any, names: str, graph_file: GraphFile, tmp_path: Path
) -> None:
    folder = write_into(tmp_path, graph_file(**form), tensorrt=True, **settings)
    config = parsed(folder)
    assert warmed(config, session_of(folder)) == rows
    assert config.model_warmup[0].name == names


def test_class_names_belong_to_what_has_a_score_for_each(graph_file: GraphFile, tmp_path: Path) -> None:
    folder = write_into(tmp_path, graph_file(others=("stacked", "twice"), image="uint8"))
    config = parsed(folder)
    named = {each.name: each.label_filename for each in config.output}
    assert named == {"scores": "labels.txt", "stacked": "", "twice": ""}
    assert refusals(config, session_of(folder)) == []
    folder = write_into(tmp_path, graph_file("four.onnx", labels=("a", "b", "c", "d")))
    assert [each.label_filename for each in parsed(folder).output] == [""]
    assert not (folder / "labels.txt").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("bytes", r"bytes tensor\(int8\) \[batch, 3\] is of a type that is not served"),
        ("total", r"the first axis of total float32 \[\] is not the batch; export it again"),
        ("summed", r"the first axis of summed float32 \[3\] is not the batch; export it again"),
    ],
)
def test_outputs_that_cannot_be_served(other: str, message: str, graph_file: GraphFile, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        write_into(tmp_path, graph_file(others=(other,)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_quantised_nodes_are_not_fused(graph_file: GraphFile, tmp_path: Path) -> None:
    assert parsed(write_into(tmp_path, graph_file())).optimization.graph.level == 0
    assert parsed(write_into(tmp_path, graph_file("int8.onnx", precision="int8"))).optimization.graph.level == -1
    basic, everything = (
        optimised(level, tmp_path / "optimised.onnx")
        for level in ("ORT_ENABLE_BASIC", "ORT_ENABLE_ALL")  # -1 and 0
    )
    assert "QLinearConv" in everything
    assert "DequantizeLinear" in basic
    assert "QLinearConv" not in basic


def optimised(level: str, path: Path) -> list[str]:
    """Operators of a quantised convolution as onnxruntime computes it at a level."""
    scale, zero = numpy_helper.from_array(np.float32(0.1), "scale"), numpy_helper.from_array(np.uint8(128), "zero")
    weights = numpy_helper.from_array(np.ones((4, 4, 3, 3), np.uint8), "weights")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["0"]),
        helper.make_node("DequantizeLinear", ["0", "scale", "zero"], ["1"]),
        helper.make_node("DequantizeLinear", ["weights", "scale", "zero"], ["2"]),
        helper.make_node("Conv", ["1", "2"], ["3"]),
        helper.make_node("QuantizeLinear", ["3", "scale", "zero"], ["4"]),
        helper.make_node("DequantizeLinear", ["4", "scale", "zero"], ["y"]),
    ]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 5, 5])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "quantised", values, outputs, [scale, zero, weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


def test_the_choices_are_explained(graph_file: GraphFile, tmp_path: Path) -> None:
    said = {}
    for name, (form, settings, *_) in FORMS.items():
        model = graph_file(f"{re.sub('[^a-z]+', '-', name)}.onnx", **form)
        text = (write_into(tmp_path, model, **settings) / "config.pbtxt").read_text()
        lines = [line for line in text.splitlines() if line.startswith("#")]
        assert lines
        assert max(map(len, lines)) <= 100
        said[name] = " ".join(line.removeprefix("# ") for line in lines)
    assert "a request has as many masks as images, 1 to 32" in said["free"]
    assert "fixes both batch axes at 4, and the onnxruntime backend refuses a max_batch_size above 0" in said["fixed"]
    assert "one image and any number of masks" in said["one image"]
    assert "class_count" in said["one image"]
    assert "class_count" not in said["free"]
    assert "requests of other sizes are not joined" in said["any size"]
    assert "are not joined with it" not in said["any size, fixed"]


@pytest.mark.parametrize(
    ("form", "settings", "said", "silent"),
    [
        ({"precision": "int8"}, {}, "level -1 leaves out the integer kernels", "TensorRT"),
        ({"precision": "int8"}, {"tensorrt": True}, "TensorRT fuses its own all the same", "masks a request"),
        ({}, {"tensorrt": True}, "the largest warm-up request comes first", "level -1"),
        ({}, {"tensorrt": True, "one_image": True}, "Send up to 32 masks a request", "level -1"),
        ({}, {"one_image": True}, "bring many masks", "Send up to"),
        ({}, {"kind": "cpu"}, "Warm-up is with zeros", "use_tf32"),
    ],
)
def test_what_computes_is_explained(
    form: Any, settings: Any, said: str, silent: str, graph_file: GraphFile, tmp_path: Path
) -> None:
    text = (write_into(tmp_path, graph_file(**form), **settings) / "config.pbtxt").read_text()
    comments = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert said in comments
    assert silent not in comments


@pytest.mark.parametrize(
    ("form", "settings", "message"),
    [
        ({}, {"max_batch_size": 0}, "max_batch_size=0 is not a whole number, 1 … 65536"),
        ({}, {"max_batch_size": True}, "max_batch_size=True is not a whole number"),
        ({}, {"preferred": (8, 33)}, r"preferred=\(8, 33\) are not numbers of rows, 1 … 32 \(max_batch_size\)"),
        ({}, {"preferred": 8}, "preferred=8 are not numbers of rows"),
        ({}, {"delay": -1}, "delay=-1 is not a whole number, 0 … 60000000"),
        ({}, {"instances": 0}, "instances=0 is not a whole number, 1 … 64"),
        ({}, {"instances": None}, "instances=None is not a whole number"),
        ({}, {"kind": "tpu"}, "kind='tpu' is unknown; choose one of auto, gpu, cpu"),
        ({}, {"tensorrt": True, "kind": "cpu"}, "tensorrt=True wants a GPU"),
        ({}, {"kind": None}, "kind=None is unknown"),
        ({}, {"tensorrt_workspace": 9}, "tensorrt_workspace=9 is for TensorRT; give tensorrt=True too"),
        ({}, {"one_image": True, "max_batch_size": 8}, "one_image=True joins no requests, and max_batch_size=8 is"),
        ({}, {"one_image": True, "preferred": (8,)}, r"preferred=\(8,\) is about joining them"),
        ({"batch": 4}, {"delay": 5}, "a batch fixed at 4, so requests are not joined, and delay=5 is about joining"),
        ({"batch": 4}, {"one_image": True}, "a batch fixed at 4, so it takes as many images as masks; leave one_image"),
    ],
)
def test_options_that_make_no_sense(
    form: dict[str, Any], settings: dict[str, Any], message: str, graph_file: GraphFile, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        write_into(tmp_path, graph_file(**form), **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_text_survives_any_characters() -> None:
    hostile = 'a"b\\c\nd\té🦉\x00\x7f'
    message = {
        "name": hostile,
        "input": [{"name": hostile, "data_type": Word("TYPE_BOOL"), "dims": [-1, 2]}, {"name": "empty", "dims": []}],
        "dynamic_batching": {},
        "parameters": [{"key": hostile, "value": {"string_value": hostile}}],
        "model_warmup": [{"inputs": [{"key": "x", "value": {"zero_data": True}}]}],
    }
    read = text_format.Parse(prototext(message), model_config_pb2.ModelConfig())
    assert (read.name, read.input[0].name, read.parameters[hostile].string_value) == (hostile,) * 3
    assert [list(each.dims) for each in read.input] == [[-1, 2], []]
    assert read.HasField("dynamic_batching")
    assert read.model_warmup[0].inputs["x"].WhichOneof("input_data_type") == "zero_data"


def test_the_base_installation_is_enough(graph_file: GraphFile, tmp_path: Path) -> None:
    without = ("torch", "onnx", "onnx_ir", "onnxscript", "google.protobuf", "tritonclient", "grpc")
    command = (
        f"import sys; sys.modules.update(dict.fromkeys({without}))\n"
        "from lmonnx.deploy.triton import write; write(sys.argv[1], sys.argv[2])"
    )
    arguments = [sys.executable, "-c", command, str(graph_file()), str(tmp_path / "models")]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "models" / "net" / "1" / "model.onnx").exists()
