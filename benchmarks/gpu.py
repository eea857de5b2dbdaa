"""Every check and figure that wants a GPU, as Markdown; `benchmarks/gpu.sh` runs it.

    python -m benchmarks.gpu [NETWORK...] [--provider cuda] [--batch 64] [--rounds 9] [--precision fp32,fp16]

For each network and precision: the exported graph on the GPU against the float64 reference, the laws of masking, and
masked ÷ plain. For the first network: what binding the image once, CUDA graphs, NHWC and TF32 bring, and how long
an explanation of 1,000 samples takes. A section that fails says why, and the others go on; exit code 1 tells of it.
With `--provider cpu` the same is done on a CPU, CUDA's own options left out, to see that it works.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir

import lmonnx
from lmonnx.explain import explain
from lmonnx.exporters.halves import prepared
from lmonnx.exporters.proof import prove
from lmonnx.exporters.sources import Network, resolve
from lmonnx.masking import MaskRules
from lmonnx.runtime.form import PRECISIONS
from lmonnx.runtime.providers import Provider, open_session
from lmonnx.speed import inputs
from lmonnx.speed.race import race
from lmonnx.speed.report import machine, versions

NETWORKS = ("resnet50", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "densenet121")
#: Options of onnxruntime's CUDA provider, by what they are for.
OPTIONS = {
    "as lmonnx sets it": {},
    "CUDA graph": {"enable_cuda_graph": "1"},
    "NHWC": {"prefer_nhwc": "1"},
    "NHWC, CUDA graph": {"prefer_nhwc": "1", "enable_cuda_graph": "1"},
    "TF32": {"use_tf32": "1"},
    "exhaustive search": {"cudnn_conv_algo_search": "EXHAUSTIVE"},
}
#: Seconds that an explanation of 1,000 samples of ResNet-50 should take on an H100, and masked ÷ plain.
TARGETS = 0.5, 1.25
failures: list[str] = []


@contextmanager
def section(title: str) -> Iterator[None]:
    """What goes wrong inside is printed, and remembered."""
    click.echo(f"\n### {title}\n")
    try:
        yield
    except Exception as error:  # a section of its own must not take the others along
        failures.append(title)
        click.echo(f"FAILED: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        traceback.print_exc()


def plain_run(path: Path, provider: Provider) -> Callable[[np.ndarray], Any]:
    """The plain graph, whose images move with every run, as a user without lmonnx has it."""
    session = open_session(str(path), provider, None)
    (given,) = session.get_inputs()
    return lambda images: session.run(None, {given.name: images})


def check_parity(runner: lmonnx.Runner, network: Network) -> None:
    """The proof of the export, of what this provider computes."""
    found = prove(runner, network, MaskRules())
    click.echo(f"```\n{found}\n```")
    if not found.passed:
        raise AssertionError("graph and reference differ")


def check_laws(runner: lmonnx.Runner, batch: int) -> None:
    """NaN under the mask, rows at other places, broadcasting, nothing kept; what differs is told."""
    image, mask = inputs(batch, runner.channels, runner.size)
    mask[0], mask[1] = False, True
    (name, *_) = runner.contract.outputs
    whole = runner.run(image, mask)[name]
    poisoned = runner.run(np.where(mask, image, np.float32(np.nan)), mask)[name]
    turned = runner.run(image[::-1].copy(), mask[::-1].copy())[name][::-1]
    one, repeated = runner.run(image[:1], mask)[name], runner.run(np.repeat(image[:1], batch, 0), mask)[name]
    alone = np.concatenate([runner.run(image[i : i + 1], mask[i : i + 1])[name] for i in range(4)])
    scale = float(np.std(whole))
    laws = {
        "finite for every mask": bool(np.isfinite(whole).all()),
        "NaN under the mask changes no bit": np.array_equal(whole, poisoned),
        "a row is the same bits at another place": np.array_equal(whole, turned),
        "one image broadcasts to the same bits": np.array_equal(one, repeated),
    }
    for law, holds in laws.items():
        click.echo(f"- {law}: {'yes' if holds else 'NO'}")
    click.echo(f"- a row alone differs by {np.abs(alone - whole[:4]).max() / scale:.1e} standard deviations")
    if not (laws["finite for every mask"] and laws["NaN under the mask changes no bit"]):
        raise AssertionError("a law of masking does not hold")


def compare_speed(runner: lmonnx.Runner, plain: Callable[[np.ndarray], Any], batch: int, rounds: int) -> None:
    """Masked ÷ plain, images and masks moving with every run, and one image with many masks."""
    image, mask = inputs(batch, runner.channels, runner.size)
    programs = {
        "plain": partial(plain, image),
        "masked, pairs": partial(runner.run, image, mask),
        "masked, one image": partial(runner.run, image[:1], mask),
    }
    times = race(programs, rounds)
    click.echo("| program | ms a batch | images a second | ÷ plain |\n|---|---|---|---|")
    for name in programs:
        (_, seconds, _), (low, middle, high) = times.quartiles(name), times.ratio(name, "plain")
        speed = f"{1000 * seconds:.1f} | {batch / seconds:.0f}"
        click.echo(f"| {name} | {speed} | {middle:.2f} ({low:.2f}–{high:.2f}) |")


def compare_options(path: Path, batch: int, rounds: int, provider: Provider) -> None:
    """What options of the provider bring, for a graph of a fixed batch; the largest difference to the first beside."""
    runners = {}
    for name, options in OPTIONS.items() if provider == "cuda" else [("as lmonnx sets it", {})]:
        try:
            runners[name] = lmonnx.Runner(path, provider, cuda_options=options)
            image, mask = inputs(batch, runners[name].channels, runners[name].size)
            runners[name].probabilities(image[:1], mask)
        except Exception as error:  # which options work together is what is asked
            runners.pop(name, None)
            click.echo(f"- {name}: does not work: {str(error).strip().partition(chr(10))[0]}")
    chunks = [mask] * 8
    programs = {name: partial(ask, runner, image[:1], chunks) for name, runner in runners.items()}
    (first, *_) = runners
    times = race({**programs, "session.run": partial(unbound, runners[first], image[:1], chunks)}, rounds)
    click.echo("| options | masks a second | ÷ first | largest difference |\n|---|---|---|---|")
    base = runners[first].probabilities(image[:1], mask)
    for name in times.seconds:
        (_, seconds, _), (low, middle, high) = times.quartiles(name), times.ratio(name, first)
        runner = runners.get(name, runners[first])
        apart = np.abs(runner.probabilities(image[:1], mask) - base).max()
        speed = f"{batch * len(chunks) / seconds:.0f}"
        click.echo(f"| {name} | {speed} | {middle:.2f} ({low:.2f}–{high:.2f}) | {apart:.1e} |")


def ask(runner: lmonnx.Runner, image: np.ndarray, chunks: list[np.ndarray]) -> Any:
    """Batches of masks, the image bound once."""
    return runner.probabilities(image, iter(chunks), len(chunks[0]))


def unbound(runner: lmonnx.Runner, image: np.ndarray, chunks: list[np.ndarray]) -> None:
    """The same as users of onnxruntime write it: image and masks move with every run."""
    for mask in chunks:
        runner._engine.session.run(None, {"image": np.repeat(image, len(mask), 0), "mask": mask})


def time_explanation(path: Path, rounds: int, provider: Provider, samples: int = 1000) -> None:
    """The wall time of a whole explanation, and of its passes alone, at the batch that was measured."""
    runner = lmonnx.Runner(path, provider)
    rows = runner.tune()
    photo = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    chunks = [inputs(rows, runner.channels, runner.size)[1]] * -(-samples // rows)
    image = inputs(1, runner.channels, runner.size)[0]
    times = race(
        {
            "explanation": partial(explain, runner, photo, samples=samples),
            "passes": partial(ask, runner, image, chunks),
        },
        rounds,
    )
    for name in times.seconds:
        low, middle, high = times.quartiles(name)
        click.echo(
            f"- {name}: {middle:.2f} s ({low:.2f}–{high:.2f}), {samples / middle:.0f} a second, batches of {rows}"
        )
    click.echo(f"- target: {TARGETS[0]} s for ResNet-50 on an H100")


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--provider", type=click.Choice(("cuda", "cpu")), default="cuda", show_default=True)
@click.option("--batch", default=64, show_default=True, help="Rows of a pass.")
@click.option("--rounds", default=9, show_default=True, help="Runs of every program.")
@click.option("--precision", default="fp32,fp16", show_default=True)
def main(networks: tuple[str, ...], provider: Provider, batch: int, rounds: int, precision: str) -> None:
    """Check and time NETWORKS on a GPU, five of torchvision's if none is named."""
    click.echo(f"# On {provider}\n\n{machine()}; {', '.join(f'{name} {one}' for name, one in versions().items())}; ")
    click.echo(f"batches of {batch}, {rounds} interleaved rounds; target for masked ÷ plain {TARGETS[1]}.")
    with tempfile.TemporaryDirectory() as folder:
        for name in networks or NETWORKS:
            click.echo(f"\n## {name}")
            source = resolve(name, weights="seed:0")
            for kind in precision.split(","):
                network, graph = prepared(source, PRECISIONS[kind])
                path, plain = Path(folder, f"{name}.{kind}.onnx"), Path(folder, f"{name}.{kind}.plain.onnx")
                ir.save(graph, plain)
                options: dict[str, Any] = {} if network.preprocessing else {"preprocessing": {"mean": "0", "std": "1"}}
                with section(f"{name}, {kind}: parity"):
                    lmonnx.export(name, path, weights="seed:0", verify=False, precision=kind, **options)
                    runner = lmonnx.Runner(path, provider)
                    check_parity(runner, network)
                with section(f"{name}, {kind}: laws"):
                    check_laws(runner, min(batch, 8))
                with section(f"{name}, {kind}: masked ÷ plain"):
                    compare_speed(runner, plain_run(plain, provider), batch, rounds)
                if name == (networks or NETWORKS)[0]:
                    fixed = Path(folder, f"{name}.{kind}.fixed.onnx")
                    with section(f"{name}, {kind}: options, fixed batch of {batch}"):
                        form = {"batch": batch, "precision": kind, **options}
                        lmonnx.export(name, fixed, weights="seed:0", verify=False, **form)
                        compare_options(fixed, batch, rounds, provider)
                    with section(f"{name}, {kind}: an explanation of 1,000 samples"):
                        time_explanation(path, max(3, rounds // 3), provider)
    click.echo(f"\n{'all sections ran' if not failures else 'FAILED: ' + '; '.join(failures)}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
