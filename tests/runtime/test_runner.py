from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmonnx.errors import ImageError, ModelError, OptionError
from lmonnx.runtime import providers
from lmonnx.runtime.contract import Contract
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner

GraphFile = Callable[..., Path]
H, W = 8, 8


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, 3, H, W)).astype(np.float32)


@pytest.fixture
def masks() -> np.ndarray:
    return np.random.default_rng(2).random((11, 1, H, W)) < 0.5


def linear(image: np.ndarray, masks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The logits of the graph, in float64."""
    joined = np.where(masks, image, 0).astype(np.float64)
    return joined.reshape(len(joined), -1) @ matrix.astype(np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


class Spy:
    """A session that notes the shape of every pass."""

    def __init__(self, session: Any) -> None:
        self.session, self.shapes = session, []

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.shapes.append((feeds["image"].shape, feeds["mask"].shape))
        return self.session.run(names, feeds)


@pytest.fixture
def spied(graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch) -> tuple[Runner, Spy]:
    runner = Runner(graph_file(), threads=1)
    spy = Spy(runner._session)
    monkeypatch.setattr(runner, "_session", spy)
    return runner, spy


def test_what_a_runner_says(graph_file: GraphFile, contract: Contract) -> None:
    path = graph_file()
    runner = Runner(path, provider="cpu", threads=1)
    assert (runner.contract, runner.size, runner.provider) == (contract, (H, W), "cpu")
    assert (runner.classes, runner.label(1)) == (3, "dog")
    assert runner.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_labels_classes_have_numbers(graph_file: GraphFile, contract: Contract) -> None:
    runner = Runner(graph_file(props=replace(contract, labels=None).to_props()))
    assert (runner.classes, runner.label(2)) == (3, "class 2")


@pytest.mark.parametrize(("images", "count"), [(1, 1), (1, 5), (5, 1), (5, 5)])
def test_run_broadcasts(graph_file: GraphFile, masks: np.ndarray, matrix: np.ndarray, images: int, count: int) -> None:
    image = np.random.default_rng(3).normal(size=(images, 3, H, W)).astype(np.float32)
    outputs = Runner(graph_file()).run(image, masks[:count])
    assert list(outputs) == ["scores"]
    np.testing.assert_allclose(outputs["scores"], linear(image, masks[:count], matrix), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 11, 32])
@pytest.mark.parametrize("chunk", [None, 1, 3, 4, 7, 11])
def test_probabilities_of_any_batching(
    spied: tuple[Runner, Spy],
    image: np.ndarray,
    masks: np.ndarray,
    matrix: np.ndarray,
    batch_size: int,
    chunk: int | None,
) -> None:
    runner, spy = spied
    given = masks if chunk is None else (masks[i : i + chunk] for i in range(0, len(masks), chunk))
    result = runner.probabilities(image, given, batch_size)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, softmax(linear(image, masks, matrix)), rtol=0, atol=1e-6)
    assert set(spy.shapes) == {((1, 3, H, W), (batch_size, 1, H, W))}
    assert len(spy.shapes) == -(-len(masks) // batch_size)


def test_masks_are_consumed_as_they_are_needed(spied: tuple[Runner, Spy], image: np.ndarray) -> None:
    runner, spy = spied
    ahead = []

    def endless() -> Iterator[np.ndarray]:
        for drawn in range(100):
            ahead.append(drawn - 4 * len(spy.shapes))
            yield np.ones((1, 1, H, W), bool)

    assert len(runner.probabilities(image, endless(), batch_size=4)) == 100
    assert max(ahead) < 4


def test_probabilities_pass_through(graph_file: GraphFile, contract: Contract, image: np.ndarray) -> None:
    props = replace(contract, outputs={"scores": "probabilities"}).to_props()
    runner = Runner(graph_file(props=props, last="Softmax"))
    mask = np.ones((1, 1, H, W), bool)
    np.testing.assert_array_equal(runner.probabilities(image, mask), runner.run(image, mask)["scores"])


def test_large_logits_do_not_overflow(graph_file: GraphFile, matrix: np.ndarray, image: np.ndarray) -> None:
    runner = Runner(graph_file(weights=matrix * 1e4))
    assert runner.probabilities(image, np.ones((1, 1, H, W), bool)).sum() == pytest.approx(1)


def test_removed_pixels_may_hold_anything(graph_file: GraphFile, image: np.ndarray, masks: np.ndarray) -> None:
    runner = Runner(graph_file())
    poisoned = np.where(masks[:1], image, np.float32("nan"))
    np.testing.assert_array_equal(runner.probabilities(poisoned, masks[:1]), runner.probabilities(image, masks[:1]))


def test_what_cannot_be_probabilities_is_refused(
    graph_file: GraphFile, contract: Contract, image: np.ndarray, masks: np.ndarray
) -> None:
    unknown = replace(contract, outputs={"scores": "unknown"}).to_props()
    with pytest.raises(ModelError, match=r"model\.onnx: it is not known whether output 'scores'"):
        Runner(graph_file(props=unknown)).probabilities(image, masks)
    wrong = replace(contract, outputs={"scores": "probabilities"}).to_props()
    with pytest.raises(ModelError, match="said to hold probabilities and holds"):
        Runner(graph_file(props=wrong)).probabilities(image, masks)
    few = replace(contract, labels=("cat", "dog")).to_props()
    with pytest.raises(ModelError, match="has 3 classes and the metadata names 2"):
        Runner(graph_file(props=few)).probabilities(image, masks)
    with pytest.raises(ModelError, match="holds NaN or infinity"):
        Runner(graph_file()).probabilities(image * np.float32("nan"), masks)


def test_wrong_arrays_are_named(graph_file: GraphFile, image: np.ndarray, masks: np.ndarray) -> None:
    runner = Runner(graph_file())
    cases: list[tuple[Any, Any, str]] = [
        (image.astype(np.float64), masks, r"image has to be float32 \[n, 3, 8, 8\], given float64"),
        (image[0], masks, r"given float32 \[3, 8, 8\]"),
        (image[:, :1], masks, r"given float32 \[1, 1, 8, 8\]"),
        (image.tolist(), masks, "image has to be a numpy array, float32"),
        (image, masks.astype(np.uint8), r"mask has to be bool \[n, 1, 8, 8\], given uint8"),
        (image, masks[..., :4], r"given bool \[11, 1, 8, 4\]"),
        (image, masks[:0], "mask is empty"),
    ]
    for wrong_image, wrong_mask, message in cases:
        with pytest.raises(ImageError, match=message):
            runner.run(wrong_image, wrong_mask)
        with pytest.raises(ImageError, match=message):
            runner.probabilities(wrong_image, wrong_mask)
    with pytest.raises(ImageError, match="2 images and 11 masks do not pair"):
        runner.run(np.repeat(image, 2, axis=0), masks)
    with pytest.raises(ImageError, match="image holds 2 pictures"):
        runner.probabilities(np.repeat(image, 2, axis=0), masks)
    with pytest.raises(ImageError, match="there is no mask"):
        runner.probabilities(image, iter(()))
    for size in (0, -1, 2.5, True):
        with pytest.raises(OptionError, match="batch_size"):
            runner.probabilities(image, masks, batch_size=size)  # type: ignore[arg-type]


def test_files_that_are_no_exported_graph(graph_file: GraphFile, tmp_path: Path, contract: Contract) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx: there is no such file"):
        Runner(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="is a directory"):
        Runner(tmp_path)
    for content in (b"", b"not a graph", graph_file().read_bytes()[:200]):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.onnx: "):
            Runner(tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx: not a graph exported by lmonnx"):
        Runner(graph_file(props={}))
    with pytest.raises(ModelError, match=r"model\.onnx: written by a newer lmonnx"):
        Runner(graph_file(props={**contract.to_props(), "lmonnx.format": "2"}))


def test_graphs_that_break_the_contract(graph_file: GraphFile, contract: Contract) -> None:
    with pytest.raises(ModelError, match=r"inputs are image tensor\(float\), keep tensor\(bool\)"):
        Runner(graph_file(mask_name="keep"))
    with pytest.raises(ModelError, match="fixed size"):
        Runner(graph_file(size=("h", "w")))
    with pytest.raises(ModelError, match="its preprocessing makes"):
        Runner(graph_file(props=replace(contract, preprocessing=Preprocessing((4, 4))).to_props()))
    with pytest.raises(ModelError, match="outputs are scores and the metadata describes logits"):
        Runner(graph_file(props=replace(contract, outputs={"logits": "logits"}).to_props()))


def test_wrong_options_are_named(graph_file: GraphFile) -> None:
    with pytest.raises(OptionError, match="provider='gpu' is unknown"):
        Runner(graph_file(), provider="gpu")  # type: ignore[arg-type]
    for threads in (0, -1, 1.5, True):
        with pytest.raises(OptionError, match="threads"):
            Runner(graph_file(), threads=threads)  # type: ignore[arg-type]


def test_without_a_cuda_device_auto_is_quietly_the_cpu(
    graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(providers, "_has_cuda_device", lambda: False)
    assert Runner(graph_file()).provider == "cpu"
    assert capfd.readouterr() == ("", "")


def test_cuda_is_never_silently_the_cpu(graph_file: GraphFile) -> None:
    if providers._has_cuda_device():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(OptionError, match="provider='cuda'"):
        Runner(graph_file(), provider="cuda")
