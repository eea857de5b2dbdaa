"""A graph in every form answers as the plain one does."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import lmonnx
from lmonnx.errors import ImageError, LmonnxError, ModelError, OptionError, PublishError, VerificationError
from lmonnx.explain import explain
from lmonnx.exporters import package
from lmonnx.exporters.forms import written
from lmonnx.exporters.proof import Inputs, images, inputs, photographs
from lmonnx.masking import MaskRules
from lmonnx.runtime import Preprocessing, Runner
from lmonnx.runtime.form import Form
from tests.cases import w
from tests.graphs import Step, build, lowered, step

SIZE = (24, 20)
PREPROCESSING = Preprocessing(
    size=SIZE, mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3), scale=254.0, channel_order="BGR", interpolation="nearest"
)
CLASSES = 6
HEAD = (
    step("Conv", "x", w(8, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    step("Relu", "0"),
    step("AveragePool", "1", kernel_shape=[3, 3]),
    step("Conv", "2", w(8, 8, 3, 3)),
    step("GlobalAveragePool", "3"),
    step("Flatten", "4"),
    step("MatMul", "5", 4 * w(CLASSES, 8).T),
)
FORMS: dict[str, dict[str, Any]] = {
    "batch of 1": {"batch": 1},
    "batch of 3": {"batch": 3},
    "pixels": {"image": "uint8"},
    "softmax": {"softmax": True},
    "oldest": {"opset": 13},
    "newest": {"opset": 26},
    "all at once": {"batch": 4, "image": "uint8", "softmax": True, "opset": 13},
}
Exported = Callable[..., Runner]


def source(folder: Path, *steps: Step, shape: tuple[int, ...] = (3, *SIZE), opset: int = 18) -> Path:
    onnx.save(build(steps or HEAD, shape, opset), folder / "in.onnx")
    return folder / "in.onnx"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports the network in a form, once, with its proof."""
    folder = tmp_path_factory.mktemp("forms")
    path = source(folder)
    made: dict[str, Runner] = {}

    def export(form: str = "plain") -> Runner:
        if form not in made:
            out = folder / f"{form}.onnx"
            options = FORMS.get(form, {})
            assert lmonnx.export(path, out, preprocessing=PREPROCESSING, **options).verification
            made[form] = Runner(out, provider="cpu", threads=1)
        return made[form]

    return export


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (7, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    keep = np.random.default_rng(4).random((7, 1, *SIZE)) < 0.6
    keep[0], keep[1] = True, False
    return keep


def encoded(runner: Runner, crops: np.ndarray) -> np.ndarray:
    return np.concatenate([*map(runner.encode, crops)])


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

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> Any:
        self.shapes.append((feeds["image"].shape, feeds["mask"].shape))
        return self.session.run(names, feeds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def test_a_fixed_batch_is_all_that_onnxruntime_meets(
    exported: Exported, crops: np.ndarray, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = exported("batch of 3")
    spy = Spy(runner._session)
    monkeypatch.setattr(runner, "_session", spy)
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


# ---- pixels ----


def test_pixels_are_normalised_to_the_last_bit(exported: Exported, crops: np.ndarray, masks: np.ndarray) -> None:
    plain, runner = exported(), exported("pixels")
    assert (runner.encode(crops[0]).dtype, runner.encode(crops[0]).shape) == (np.uint8, (1, *SIZE, 3))
    answers = [next(iter(each.run(encoded(each, crops), masks).values())) for each in (plain, runner)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("form", ["pixels", "all at once"])
def test_a_removed_pixel_may_hold_anything(form: str, exported: Exported, crops: np.ndarray, masks: np.ndarray) -> None:
    runner = exported(form)
    image, keep = encoded(runner, crops), masks.transpose(0, 2, 3, 1)
    expected = runner.run(image, masks)
    for value in (0, 1, 127, 255):
        hidden = np.where(keep, image, np.uint8(value))
        for name, output in runner.run(hidden, masks).items():
            np.testing.assert_array_equal(output, expected[name])


def test_nothing_but_a_where_reads_the_pixels(exported: Exported) -> None:
    readers = [node.op_type for node in onnx.load(exported("pixels").path).graph.node if "image" in node.input]
    assert readers == ["Where"]


def test_what_are_no_pixels_is_refused(exported: Exported, crops: np.ndarray, masks: np.ndarray) -> None:
    image = encoded(exported("pixels"), crops[:1])
    for wrong, message in (
        (
            image.astype(np.float32),
            r"image has to be uint8 \[n, 24, 20, 3\], given float32 .* normalises pixels itself",
        ),
        (image.transpose(0, 3, 1, 2), r"given uint8 \[1, 3, 24, 20\]"),
        (image.astype(np.int64), r"given int64 \[1, 24, 20, 3\]"),
    ):
        with pytest.raises(ImageError, match=message):
            exported("pixels").run(wrong, masks)
        with pytest.raises(ImageError, match=message):
            exported("pixels").probabilities(wrong, masks)


def test_grey_pixels_and_channels_last(tmp_path: Path) -> None:
    steps = (
        step("Transpose", "x", perm=[0, 3, 1, 2]), step("Conv", "0", w(5, 1, 3, 3)), step("Relu", "1"),
        step("GlobalAveragePool", "2"), step("Flatten", "3"),
    )  # fmt: skip
    grey = Preprocessing(size=SIZE, mean=(0.5,), std=(0.25,))
    path = source(tmp_path, *steps, shape=(*SIZE, 1))
    crop = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    answers = []
    for image in ("float32", "uint8"):
        runner = Runner(lmonnx.export(path, tmp_path / f"{image}.onnx", preprocessing=grey, image=image).path)  # type: ignore[arg-type]
        answers.append(next(iter(runner.run(runner.encode(crop), np.ones((1, 1, *SIZE), bool)).values())))
    assert runner.encode(crop).shape == (1, *SIZE, 1)
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (None, "nothing says what it is; give the preprocessing: mean, std and scale"),
        (replace(PREPROCESSING, scale=1e-46), "normalises in float32, which does not hold"),
        (replace(PREPROCESSING, std=(1e-46,) * 3), "normalises in float32, which does not hold"),
        (replace(PREPROCESSING, scale=1e39), "normalises in float32, which does not hold"),
    ],
)
def test_pixels_need_a_normalisation(preprocessing: Preprocessing | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx", preprocessing=preprocessing, image="uint8")
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_images_of_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="image='int8' is unknown; choose one of float32, uint8"):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx", image="int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("operand", ["mean", "scale", "order"])
def test_the_proof_sees_a_wrong_normalisation(operand: str, exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported("pixels").path)
    changes = {"mean": (PREPROCESSING.mean, 1.01), "scale": (254.0, 1.01), "order": ([2, 1, 0], None)}
    value, factor = changes[operand]
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.name.startswith("image/form/") and np.array_equal(array, np.asarray(value, array.dtype)):
            other = array[::-1] if factor is None else array * array.dtype.type(factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(other), tensor.name))
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(VerificationError, match="FAILED"):
        lmonnx.verify(tmp_path / "changed.onnx", Path(exported("pixels").path).with_name("in.onnx"))


def test_the_images_of_the_proof_are_pixels() -> None:
    mask = np.random.default_rng(0).random((2, 1, *SIZE)) < 0.5
    asked = inputs(Form("uint8"), PREPROCESSING, 3, SIZE, mask)
    assert isinstance(asked, Inputs)
    assert (asked.given.dtype, asked.given.shape) == (np.uint8, (2, *SIZE, 3))
    assert asked.given.min() == 0
    assert asked.given.max() == 255
    np.testing.assert_array_equal(asked.given, photographs(2, 3, SIZE))
    expected = (asked.given[..., ::-1] / 254.0 - np.array(PREPROCESSING.mean)) / np.array(PREPROCESSING.std)
    np.testing.assert_allclose(asked.exact, expected.transpose(0, 3, 1, 2), rtol=1e-14, atol=1e-14)
    keep = np.broadcast_to(mask.transpose(0, 2, 3, 1), asked.given.shape)
    np.testing.assert_array_equal(asked.hidden == asked.given, keep)
    plain = inputs(Form(), None, 3, SIZE, mask)
    np.testing.assert_array_equal(plain.given, images(2, 3, SIZE))
    np.testing.assert_array_equal(np.isnan(plain.hidden), ~np.broadcast_to(mask, plain.given.shape))


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


# ---- weights beside the file ----


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is too large for one file."""
    monkeypatch.setattr(package, "LARGEST", 100)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("large")
def test_large_weights_lie_beside_the_file(
    exported: Exported, tmp_path: Path, crops: np.ndarray, masks: np.ndarray
) -> None:
    path = source(tmp_path)
    result = lmonnx.export(path, tmp_path / "out.onnx", preprocessing=PREPROCESSING)
    assert result.verification
    assert names(tmp_path) == ["in.onnx", "out.onnx", "out.onnx.data"]
    runner, plain = Runner(result.path, provider="cpu", threads=1), exported()
    assert runner.contract.data == "out.onnx.data"
    assert runner.contract.verified["passed"] is True
    answers = [next(iter(each.run(encoded(each, crops), masks).values())) for each in (runner, plain)]
    np.testing.assert_array_equal(*answers)
    assert lmonnx.verify(result.path, path).passed
    inspection = lmonnx.inspect(result.path)
    assert "with the weights in out.onnx.data beside it" in " ".join(str(inspection).split())
    assert inspection.description.size == sum((tmp_path / name).stat().st_size for name in names(tmp_path)[1:])
    assert inspection.weights == lmonnx.inspect(plain.path).weights


@pytest.mark.usefixtures("large")
def test_large_weights_follow_a_moved_file_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    result = lmonnx.export(source(tmp_path), tmp_path / "out.onnx", verify=False)
    os.replace(result.path, tmp_path / "there" / "out.onnx")
    with pytest.raises(ModelError, match=r"out\.onnx: its weights are not there, in \S+out\.onnx\.data; put that file"):
        Runner(tmp_path / "there" / "out.onnx")
    whole = (tmp_path / "out.onnx.data").read_bytes()
    (tmp_path / "there" / "out.onnx.data").write_bytes(whole[:50])
    with pytest.raises(ModelError, match="that holds its weights is shorter than it was; copy both again"):
        Runner(tmp_path / "there" / "out.onnx", provider="cpu")
    assert capfd.readouterr() == ("", "")
    os.replace(tmp_path / "out.onnx.data", tmp_path / "there" / "out.onnx.data")
    Runner(tmp_path / "there" / "out.onnx")


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("stale", [True, False])
def test_an_earlier_pair_is_replaced_whole_or_not_at_all(
    stale: bool, fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = source(tmp_path), tmp_path / "out.onnx"
    if stale:
        (tmp_path / "out.onnx.data").write_bytes(b"of a model that is no more")
    lmonnx.export(path, out, verify=False)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    other = source(tmp_path, step("Conv", "x", w(8, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]), *HEAD[1:])
    before["in.onnx"] = other.read_bytes()
    real, moves = os.replace, itertools.count()

    def failing(last: int) -> Callable[..., None]:
        def replace(*paths: Any) -> None:
            if tmp_path in (Path(path).parent for path in paths) and next(moves) == last:
                raise fault
            real(*paths)

        return replace

    for last in range(4):  # two put aside, two moved
        moves = itertools.count()
        monkeypatch.setattr(package.os, "replace", failing(last))
        with pytest.raises((PublishError, KeyboardInterrupt), match=r"cannot write .*out\.onnx: No space left|^$"):
            lmonnx.export(other, out, verify=False)
        assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    monkeypatch.undo()
    monkeypatch.setattr(package, "LARGEST", 100)
    lmonnx.export(other, out, verify=False)
    assert names(tmp_path) == ["in.onnx", "out.onnx", "out.onnx.data"]
    assert (tmp_path / "out.onnx.data").read_bytes() != before["out.onnx.data"]


@pytest.mark.usefixtures("large")
def test_an_earlier_pair_that_cannot_be_put_back_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = source(tmp_path), os.replace
    lmonnx.export(path, tmp_path / "out.onnx", verify=False)
    before = {name: (tmp_path / name).read_bytes() for name in ("out.onnx", "out.onnx.data")}

    def replace(there: Path, here: Path) -> None:
        if Path(here).parent == tmp_path:
            raise OSError(5, "Input/output error")
        real(there, here)

    monkeypatch.setattr(package.os, "replace", replace)
    with pytest.raises(PublishError, match="Input/output error"):
        lmonnx.export(path, tmp_path / "out.onnx", verify=False)
    assert {file.name: file.read_bytes() for file in tmp_path.glob(".out.onnx.*/earlier/*")} == before


@pytest.mark.parametrize("own", [True, False])
def test_weights_that_a_smaller_file_has_no_use_for_go(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they are those of the file that is replaced, and nobody else's."""
    path, out = source(tmp_path), tmp_path / "out.onnx"
    monkeypatch.setattr(package, "LARGEST", 100 if own else package.LARGEST)
    lmonnx.export(path, out, verify=False)
    if not own:
        (tmp_path / "out.onnx.data").write_bytes(b"somebody's")
    monkeypatch.undo()
    lmonnx.export(path, out, verify=False)
    assert names(tmp_path) == ["in.onnx", "out.onnx", *([] if own else ["out.onnx.data"])]


@pytest.mark.usefixtures("large")
def test_nothing_is_left_of_a_pair_that_cannot_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = source(tmp_path), os.replace

    def replace(there: Path, here: Path) -> None:
        if Path(here).name == "out.onnx":
            raise OSError(5, "Input/output error")
        real(there, here)

    monkeypatch.setattr(package.os, "replace", replace)
    with pytest.raises(PublishError, match="Input/output error"):
        lmonnx.export(path, tmp_path / "out.onnx", verify=False)
    assert names(tmp_path) == ["in.onnx"]


@pytest.mark.usefixtures("large")
def test_a_failed_proof_of_a_large_network_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.mutations import one_ring_fewer

    one_ring_fewer(monkeypatch)
    with pytest.raises(VerificationError, match="first node that differs: Conv 'node0'"):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx")
    assert names(tmp_path) == ["in.onnx"]


def test_forms_are_refused_before_the_source_is_looked_for(tmp_path: Path) -> None:
    for options in ({"batch": 0}, {"opset": 12}, {"image": "int8"}, {"softmax": 1}):
        with pytest.raises(OptionError):
            lmonnx.export("missing.onnx", tmp_path / "out.onnx", **options)  # type: ignore[arg-type]
    with pytest.raises(LmonnxError, match="rings"):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx", rules=MaskRules(rings="kernel"))
