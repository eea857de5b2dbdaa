"""A graph in every form answers as the plain one does."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxruntime
import pytest

import lmonnx
from lmonnx.errors import LmonnxError, ModelError, OptionError, VerificationError
from lmonnx.explain import explain
from lmonnx.exporters.forms import written
from lmonnx.masking import MaskRules
from lmonnx.runtime import Runner
from lmonnx.runtime.form import Form
from tests.exporters.forms import CLASSES, FORMS, HEAD, PREPROCESSING, SIZE, Exported, encoded, source
from tests.graphs import Step, build, lowered, step


@pytest.mark.parametrize("form", FORMS)
def test_every_form_answers_as_the_plain_graph(
    form: str, exported: Exported, crops: np.ndarray, masks: np.ndarray
) -> None:
    plain, runner = exported(), exported(form)
    pairs = [(1, 1), (1, 7), (7, 1), (7, 7), (2, 2), (5, 1), (1, 4)]
    for count, kept in pairs:
        logits, answer = (
            next(iter(each.run(encoded(each, crops[:count]), masks[:kept]).values())) for each in (plain, runner)
        )
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = powers / powers.sum(axis=1, keepdims=True) if runner.contract.form.softmax else logits
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-6)
    for size, (image, mask) in itertools.product((1, 3, 32), ((crops[:1], masks), (crops, masks[:1]))):
        rows = [each.probabilities(encoded(each, image), mask, size) for each in (plain, runner)]
        np.testing.assert_allclose(*rows, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_photographs_are_prepared_for_every_form(form: str, exported: Exported, masks: np.ndarray) -> None:
    photos = [*np.random.default_rng(5).integers(0, 256, (5, 31, 47, 3), dtype=np.uint8)]
    keep = [mask[0] for mask in masks[:5]]
    for some, chosen in ((photos, None), (photos[0], keep), (photos, keep), (photos, keep[2])):
        mine, theirs = (exported(name).predict(some, chosen) for name in (form, "plain"))
        assert [one.kept for one in mine] == [one.kept for one in theirs]
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("paint", [None, 128])
def test_every_form_explains_as_the_plain_graph(form: str, paint: int | None, exported: Exported) -> None:
    photo = np.random.default_rng(6).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    mine, theirs = (
        explain(exported(name), photo, target=2, samples=20, segments=8, paint=paint) for name in (form, "softmax")
    )
    np.testing.assert_allclose(mine.weights, theirs.weights, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_finished_file_is_verified_in_its_form(form: str, exported: Exported) -> None:
    runner = exported(form)
    assert lmonnx.verify(runner.path, Path(runner.path).with_name("in.onnx")).passed


@pytest.mark.parametrize("form", FORMS)
def test_a_file_in_every_form_is_inspected(form: str, exported: Exported) -> None:
    inspection = lmonnx.inspect(exported(form).path)
    options = FORMS[form]
    assert inspection.opset == options.get("opset", 18)
    assert inspection.operators["Conv"] == 2
    assert ("image" in inspection.rules) == ("image" in options)
    assert inspection.total.network.operations is not None


def test_the_file_says_its_form(exported: Exported) -> None:
    runner = exported("all at once")
    assert runner.contract.form == Form("uint8", 4, True)
    assert runner.contract.preprocessing == PREPROCESSING
    assert set(runner.contract.outputs.values()) == {"probabilities"}
    session = onnxruntime.InferenceSession(runner.path, providers=["CPUExecutionProvider"])
    assert {value.name: (value.type, value.shape) for value in session.get_inputs()} == {
        "image": ("tensor(uint8)", [4, *SIZE, 3]),
        "mask": ("tensor(bool)", [4, 1, *SIZE]),
    }
    assert [value.shape for value in session.get_outputs()] == [[4, CLASSES]]
    text = str(lmonnx.inspect(runner.path))
    assert "image uint8 [4, 24, 20, 3], pixels 0 … 255, RGB or grey" in text
    assert "the batch axes broadcast" not in text


def test_without_a_form_the_graph_is_as_it_was_lowered() -> None:
    model = lowered(build(HEAD, (3, *SIZE), 18)).model
    passes.RemoveUnusedNodesPass()(model)
    same = written(model, Form(), None, None)
    assert ir.to_proto(same).SerializeToString() == ir.to_proto(model).SerializeToString()


def test_the_lowered_graph_is_left_as_it_is() -> None:
    model = lowered(build(HEAD, (3, *SIZE), 18)).model
    before = ir.to_proto(model).SerializeToString()
    written(model, Form("uint8", 4, True), 13, PREPROCESSING)
    assert ir.to_proto(model).SerializeToString() == before


# ---- a fixed batch ----


class Spy:
    """A session that notes the shape of every pass."""

    def __init__(self, session: Any) -> None:
        self.session, self.shapes = session, []

    def run(self, names: list[str], feeds: dict[str, np.ndarray], options: Any) -> Any:
        self.shapes.append((feeds["image"].shape, feeds["mask"].shape))
        return self.session.run(names, feeds, options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def test_a_fixed_batch_is_all_that_onnxruntime_meets(
    exported: Exported, crops: np.ndarray, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = exported("batch of 3")
    spy = Spy(runner._engine.session)
    monkeypatch.setattr(runner._engine, "session", spy)
    assert runner.batch == 3
    runner.run(encoded(runner, crops[:1]), masks)
    runner.run(encoded(runner, crops[:2]), masks[:2])
    runner.probabilities(encoded(runner, crops[:1]), masks, batch_size=5)
    runner.predict(crops[0], [mask[0] for mask in masks[:4]])
    assert explain(runner, crops[0], samples=4, segments=4).settings["batch_size"] == 3
    assert set(spy.shapes) == {((3, 3, *SIZE), (3, 1, *SIZE))}
    assert len(spy.shapes) == 3 + 1 + 3 + 2 + 2


def test_every_value_has_the_fixed_batch(exported: Exported) -> None:
    graph = onnx.load(exported("batch of 3").path).graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    shapes = {name: shape for name, shape in shapes.items() if name not in {each.name for each in graph.initializer}}
    assert not [name for name, shape in shapes.items() if 0 in shape]
    assert {shape[0] for shape in shapes.values() if len(shape) == 4} == {3}


@pytest.mark.parametrize("batch", [0, -1, 2**40, 1.0, True, "4"])
def test_batches_that_are_none(batch: Any, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"batch=.* is not a number of rows, 1 … 65536"):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx", batch=batch)
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_a_batch_that_the_metadata_does_not_say(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported("batch of 3").path)
    contract = replace(exported("batch of 3").contract, form=Form(batch=4))
    onnx.helper.set_model_props(model, contract.to_props())
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(ModelError, match="the metadata's batch 4"):
        Runner(tmp_path / "changed.onnx")


# ---- probabilities ----


@pytest.mark.parametrize(
    ("steps", "holds"),
    [
        ((step("Sigmoid", "6"),), r"values of an unknown kind, \[batch, 6\]"),
        ((step("Softmax", "6", axis=1),), r"probabilities, \[batch, 6\]"),
        ((step("Unsqueeze", "6", np.array([2])),), r"logits, \[batch, 6, 1\]"),
    ],
)
def test_a_softmax_is_for_logits(steps: tuple[Step, ...], holds: str, tmp_path: Path) -> None:
    path = source(tmp_path, *HEAD, *steps)
    with pytest.raises(OptionError, match=f"output 'value7' holds {holds}; leave it out"):
        lmonnx.export(path, tmp_path / "out.onnx", softmax=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_outputs_keep_their_names(exported: Exported) -> None:
    assert list(exported("softmax").contract.outputs) == list(exported().contract.outputs) == ["value6"]


def test_the_proof_sees_a_wrong_softmax(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported("softmax").path)
    (node,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    node.attribute[0].i = 0
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(VerificationError, match="FAILED"):
        lmonnx.verify(tmp_path / "changed.onnx", Path(exported("softmax").path).with_name("in.onnx"))


# ---- another opset ----


@pytest.mark.parametrize("opset", [12, 99])
def test_opsets_that_are_not_written(opset: int, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"opset={opset} is not one that is written; choose one from 13 to 26"):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx", opset=opset)


def test_an_operator_that_is_too_young_names_the_lowest_opset(tmp_path: Path) -> None:
    steps = (*HEAD[:1], step("Gelu", "0"), step("GlobalAveragePool", "1"), step("Flatten", "2"))
    path = source(tmp_path, *steps, opset=20)
    with pytest.raises(
        OptionError, match=r"opset=17: Gelu 'node1': .* from opset 20 on; the lowest opset that works is 20"
    ):
        lmonnx.export(path, tmp_path / "out.onnx", opset=17)
    assert lmonnx.inspect(lmonnx.export(path, tmp_path / "out.onnx", verify=False).path).opset == 20


def test_forms_are_refused_before_the_source_is_looked_for(tmp_path: Path) -> None:
    for options in ({"batch": 0}, {"opset": 12}, {"image": "int8"}, {"softmax": 1}):
        with pytest.raises(OptionError):
            lmonnx.export("missing.onnx", tmp_path / "out.onnx", **options)  # type: ignore[arg-type]
    with pytest.raises(LmonnxError, match="rings"):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx", rules=MaskRules(rings="kernel"))
