from __future__ import annotations

from dataclasses import replace

import pytest

from lmonnx.errors import ModelError, OptionError
from lmonnx.runtime.contract import Contract
from lmonnx.runtime.preprocessing import Preprocessing

FULL = Contract(
    version="0.1.0",
    outputs={"logits": "logits", "features": "unknown"},
    preprocessing=Preprocessing(
        (224, 160), 256, "bicubic", mean=(0.1, 0.2, 0.3), std=(1, 2, 3), scale=1, channel_order="BGR"
    ),
    labels=("tench", "Eichhörnchen"),
    rules={"average": "valid", "concat": "all"},
    source={"kind": "torchvision", "name": "resnet50"},
    verified={"passed": True, "largest": 1e-6},
    versions={"torch": "2.13.0"},
)


@pytest.mark.parametrize("contract", [FULL, Contract(version="0.1.0", outputs={"logits": "unknown"})])
def test_a_contract_survives_the_file(contract: Contract) -> None:
    props = contract.to_props()
    assert all(isinstance(value, str) for value in props.values())
    assert Contract.from_props({**props, "something": "else"}) == contract


def test_keys_are_the_published_ones() -> None:
    keys = [
        "format",
        "version",
        "preprocessing",
        "labels",
        "outputs",
        "mask",
        "rules",
        "source",
        "verified",
        "versions",
        "form",
        "data",
    ]
    assert set(FULL.to_props()) == {f"lmonnx.{key}" for key in keys}


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("format", None, "not a graph exported by lmonnx"),
        ("format", "2", "newer lmonnx: format 2"),
        ("format", "9" * 5000, "not a number"),
        ("format", "one", "not a number"),
        ("version", None, "lacks lmonnx.version"),
        ("labels", None, "lacks lmonnx.labels"),
        ("labels", "[1, 2]", "labels are not all text"),
        ("labels", '["\\ud800"]', "labels are not all text that UTF-8 can hold"),
        ("labels", '"cat"', "lmonnx.labels has a wrong form"),
        ("rules", '{"average": 1}', "lmonnx.rules has a wrong form"),
        ("outputs", "{}", "outputs is empty"),
        ("outputs", '{"y": "scores"}', "output 'y' holds 'scores'"),
        ("outputs", "{", "lmonnx.outputs is not JSON"),
        ("verified", '{"largest": NaN}', "lmonnx.verified is not JSON"),
        ("mask", '{"keep": false}', "lmonnx.mask is not"),
        ("preprocessing", '{"size": [224, 224]}', "missing or unknown fields: channel_order"),
        ("preprocessing", "[]", "lmonnx.preprocessing has a wrong form"),
        ("form", '{"image": "uint8"}', "form has missing or unknown fields: batch, layout, softmax"),
        ("form", '{"image": "uint8", "layout": "NCHW", "batch": null, "softmax": false}', "an image of uint8 is NHWC"),
        ("form", '{"image": "int8", "layout": "NCHW", "batch": null, "softmax": false}', "image='int8' is unknown"),
        ("form", '{"image": "uint8", "layout": "NHWC", "batch": 0, "softmax": false}', "batch=0 is not a number of"),
        ("form", '{"image": "uint8", "layout": "NHWC", "batch": 1, "softmax": 1}', "softmax=1 is not True or False"),
        ("data", "3", "lmonnx.data has a wrong form"),
    ],
)
def test_damage_is_named(key: str, text: str | None, message: str) -> None:
    props = FULL.to_props()
    del props[f"lmonnx.{key}"]
    if text is not None:
        props[f"lmonnx.{key}"] = text
    with pytest.raises(ModelError, match=message):
        Contract.from_props(props)


def test_files_from_before_there_were_forms() -> None:
    props = {key: text for key, text in FULL.to_props().items() if key not in ("lmonnx.form", "lmonnx.data")}
    assert Contract.from_props(props) == FULL


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_refused_before_it_is_written(value: object) -> None:
    with pytest.raises(OptionError, match="verified cannot be written as JSON"):
        replace(FULL, verified={"largest": value}).to_props()
