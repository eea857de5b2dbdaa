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
from lmonnx.runtime.batching import passes
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

    def run(self, names: list[str], feeds: dict[str, np.ndarray], options: Any) -> list[np.ndarray]:
        self.shapes.append((feeds["image"].shape, feeds["mask"].shape))
        return self.session.run(names, feeds, options)


@pytest.fixture
def spied(graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch) -> tuple[Runner, Spy]:
    runner = Runner(graph_file(), threads=1)
    spy = Spy(runner._engine.session)
    monkeypatch.setattr(runner._engine, "session", spy)
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


@pytest.mark.parametrize("batch", [1, 2, 4, 5, 8])
@pytest.mark.parametrize(("images", "count"), [(1, 1), (1, 5), (5, 1), (5, 5)])
def test_a_fixed_batch_takes_any_number_of_rows(
    graph_file: GraphFile, masks: np.ndarray, matrix: np.ndarray, batch: int, images: int, count: int
) -> None:
    image = np.random.default_rng(3).normal(size=(images, 3, H, W)).astype(np.float32)
    runner = Runner(graph_file(batch=batch), threads=1)
    assert runner.batch == batch
    output = runner.run(image, masks[:count])["scores"]
    np.testing.assert_allclose(output, linear(image, masks[:count], matrix), rtol=0, atol=1e-5)


def test_an_output_without_the_fixed_batch_is_named(graph_file: GraphFile) -> None:
    runner = Runner(graph_file(batch=2, last="ReduceSum"))
    with pytest.raises(ModelError, match=r"output 'scores' is \[1, 1\], not \[2, …\]; export the network again"):
        runner.run(np.zeros((3, 3, H, W), np.float32), np.ones((1, 1, H, W), bool))


@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (7, 7), (3, 1)])
@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_passes_of_one_size(sizes: tuple[int, int], size: int) -> None:
    some, other = (np.arange(count)[:, None] + start for count, start in zip(sizes, (0, 100), strict=True))
    found = [(feeds, count) for feeds, count in passes({"some": some, "other": other}, size)]
    assert {len(rows) for feeds, _ in found for rows in feeds.values()} == {size}
    for name, rows in (("some", some), ("other", other)):
        whole = np.concatenate([feeds[name][:count] for feeds, count in found])
        np.testing.assert_array_equal(whole, np.broadcast_to(rows, (max(sizes), 1)))


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


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_probabilities_of_many_images_under_one_mask(
    spied: tuple[Runner, Spy], masks: np.ndarray, matrix: np.ndarray, chunk: int | None
) -> None:
    runner, spy = spied
    images = np.random.default_rng(3).normal(size=(6, 3, H, W)).astype(np.float32)
    given = images if chunk is None else (images[i : i + chunk] for i in range(0, len(images), chunk))
    result = runner.probabilities(given, masks[1:2], 4)
    np.testing.assert_allclose(result, softmax(linear(images, masks[1:2], matrix)), rtol=0, atol=1e-6)
    assert set(spy.shapes) == {((4, 3, H, W), (1, 1, H, W))}


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
    with pytest.raises(ModelError, match=r"model\.onnx: output 'scores' holds neither logits nor"):
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
        (image.astype(np.uint8), masks, r"image has to be float32 \[n, 3, 8, 8\], given uint8 .* predict takes photog"),
        (image.astype(np.complex64), masks, r"image has to be float32 \[n, 3, 8, 8\], given complex64"),
        (image.astype(np.float64) * 1e300, masks, "image holds values beyond float32"),
        (image[0], masks, r"given float32 \[3, 8, 8\]"),
        (image[:, :1], masks, r"given float32 \[1, 1, 8, 8\]"),
        (image, masks.astype(np.uint8), r"mask has to be bool \[n, 1, 8, 8\], given uint8 .* astype\(bool\)"),
        (image, masks.astype(np.float32), r"given float32 \[11, 1, 8, 8\]; compare it: array >= 0.5"),
        (image, masks[..., :4], r"given bool \[11, 1, 8, 4\]"),
        (image, masks[:0], "mask is empty"),
    ]
    for wrong_image, wrong_mask, message in cases:
        with pytest.raises(ImageError, match=message):
            runner.run(wrong_image, wrong_mask)
        with pytest.raises(ImageError, match=message):
            runner.probabilities(wrong_image, wrong_mask)
    with pytest.raises(
        ImageError, match=r"image has to be an array of numpy or torch, float32 \[n, 3, 8, 8\], not list"
    ):
        runner.run(image.tolist(), masks)
    with pytest.raises(ImageError, match=r"image has to be an array of numpy or torch, float32 .*, not list"):
        runner.probabilities(image.tolist(), masks[:1])
    with pytest.raises(ImageError, match="2 images and 11 masks do not pair"):
        runner.run(np.repeat(image, 2, axis=0), masks)
    for many in (np.repeat(image, 2, axis=0), iter([image])):
        with pytest.raises(ImageError, match="many images and many masks do not pair"):
            runner.probabilities(many, masks)
    for none in ((image, iter(())), (iter(()), masks[:1])):
        with pytest.raises(ImageError, match="there is no mask and no image beside the one"):
            runner.probabilities(*none)
    for size in (0, -1, 2.5, True):
        with pytest.raises(OptionError, match="batch_size"):
            runner.probabilities(image, masks, batch_size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floating_point_is_converted(graph_file: GraphFile, masks: np.ndarray, dtype: Any) -> None:
    runner = Runner(graph_file())
    image = np.random.default_rng(4).normal(size=(1, 3, H, W)).astype(dtype)
    expected = runner.run(image.astype(np.float32), masks)["scores"]
    np.testing.assert_array_equal(runner.run(image, masks)["scores"], expected)


def test_tensors_of_torch_are_taken(graph_file: GraphFile, image: np.ndarray, masks: np.ndarray) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: there are no tensors")
    runner = Runner(graph_file())
    tensor = torch.from_numpy(image).clone().requires_grad_()
    keep = torch.from_numpy(masks)
    np.testing.assert_array_equal(runner.run(tensor, keep)["scores"], runner.run(image, masks)["scores"])
    rows = runner.probabilities(image, masks, 4)
    np.testing.assert_array_equal(runner.probabilities(tensor, keep, 4), rows)
    np.testing.assert_array_equal(runner.probabilities(tensor, (part for part in keep.split(3)), 4), rows)
    with pytest.raises(ImageError, match="image: the tensor cannot become an array of numpy"):
        runner.run(tensor.to(torch.bfloat16), keep)
    with pytest.raises(ImageError, match=r"given int32 \[11, 1, 8, 8\]; of 0 and 1, astype\(bool\)"):
        runner.run(tensor, keep.int())


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
    monkeypatch.setattr(providers, "ask_driver", providers.Driver)
    assert Runner(graph_file()).provider == "cpu"
    assert capfd.readouterr() == ("", "")


def test_cuda_is_never_silently_the_cpu(graph_file: GraphFile) -> None:
    if providers.ask_driver().devices:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(OptionError, match="provider='cuda'"):
        Runner(graph_file(), provider="cuda")
