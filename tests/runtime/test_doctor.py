from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from lmonnx.runtime import doctor, probe
from lmonnx.runtime.doctor import Facts, Package, report
from lmonnx.runtime.probe import Attempt, reason
from lmonnx.runtime.providers import CUDA, Driver

CPU_ONLY = Attempt(None, ("CPUExecutionProvider",))
FOR_CUDA = Attempt(None, (CUDA, "CPUExecutionProvider"), "13.0")
GPU_BUILD = (Package("onnxruntime-gpu", "1.31.1", "1.20"),)
CPU_BUILD = (Package("onnxruntime", "1.31.1", "1.20"),)
GPU = Driver(1, (13, 0))
WELL = Facts(
    lmonnx="0.1.0",
    python="3.11.9",
    platform="Linux x86_64",
    packages=(Package("numpy", "2.4.6", "1.26"), Package("torch", None, "2.7", "export")),
    onnxruntime=GPU_BUILD,
    fitting="onnxruntime-gpu",
    driver=Driver(),
    cpu=FOR_CUDA,
    cuda=None,
)

#: What is different from a machine where all is well -> the problems it has.
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no GPU": ({}, []),
    "a driver without a GPU": ({"driver": Driver(0, (12, 4))}, []),
    "a GPU that works": ({"driver": GPU, "cuda": FOR_CUDA}, []),
    "a GPU on a platform without a build for it": (
        {"driver": GPU, "fitting": "onnxruntime", "onnxruntime": CPU_BUILD, "cpu": CPU_ONLY},
        [],
    ),
    "an extra that is too old": ({"packages": (Package("torch", "2.5", "2.7", "export"),)}, []),
    "a dependency that is too old": (
        {"packages": (Package("pillow", "9.5.0", "10.3"),)},
        ["pillow is 9.5.0, lmonnx needs 10.3; run: pip install 'pillow>=10.3'"],
    ),
    "a dependency that is missing": (
        {"packages": (Package("scikit-learn", None, "1.4"),)},
        ["scikit-learn is not installed; run: pip install 'scikit-learn>=1.4'"],
    ),
    "an onnxruntime that is too old": (
        {"onnxruntime": (Package("onnxruntime", "1.9.0", "1.20"),)},
        ["onnxruntime is 1.9.0, lmonnx needs 1.20; run: pip install 'onnxruntime>=1.20'"],
    ),
    "no onnxruntime": (
        {"onnxruntime": (), "cpu": Attempt("No module named 'onnxruntime'")},
        ["onnxruntime is not installed; run: pip install onnxruntime-gpu"],
    ),
    "an onnxruntime from elsewhere": ({"onnxruntime": ()}, []),
    "an onnxruntime that crashes": (
        {"cpu": Attempt("the process that tried it ended with code -4"), "driver": GPU},
        [
            "onnxruntime does not work on the CPU: the process that tried it ended with code -4; "
            "run: pip uninstall onnxruntime-gpu, then: pip install onnxruntime-gpu"
        ],
    ),
    "two onnxruntimes": (
        {"onnxruntime": CPU_BUILD + GPU_BUILD, "driver": GPU, "cpu": CPU_ONLY},
        [
            "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are installed together and overwrite each other's files; "
            "run: pip uninstall onnxruntime onnxruntime-gpu, then: pip install onnxruntime-gpu"
        ],
    ),
    "a GPU and an onnxruntime for CPUs": (
        {"driver": GPU, "onnxruntime": CPU_BUILD, "cpu": CPU_ONLY},
        [
            "there is an NVIDIA GPU and this onnxruntime is not for it; "
            "run: pip uninstall onnxruntime, then: pip install onnxruntime-gpu"
        ],
    ),
    "a GPU without libraries": (
        {"driver": Driver(2, (12, 4)), "cpu": replace(FOR_CUDA, cuda="12.8"), "cuda": Attempt("these are missing")},
        ["CUDA does not work: these are missing; run: pip install 'onnxruntime-gpu[cuda,cudnn]'"],
    ),
    "a driver that is too old": (
        {"driver": Driver(1, (12, 4)), "cuda": Attempt("CUDA failure 35")},
        [
            "CUDA does not work: the NVIDIA driver supports CUDA up to 12.4 and onnxruntime was built for 13.0; "
            "update the driver"
        ],
    ),
    "a driver that fails": (
        {"driver": Driver(0, (12, 4), 803)},
        [
            "the NVIDIA driver fails with error 803 (cuInit); restart the machine if the driver was updated, else "
            "install the driver again"
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_problems_follow_from_the_facts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmonnx.runtime.distributions.fitting", lambda: "onnxruntime-gpu")
    changed, problems = CASES[name]
    diagnosis = report(replace(WELL, **changed))
    assert list(diagnosis.problems) == problems
    text = str(diagnosis)
    assert text.endswith("\nall is well") == (not problems)
    assert all(problem in text for problem in problems)
    assert json.loads(json.dumps(diagnosis.to_json()))["problems"] == problems


def test_the_report_says_what_was_found() -> None:
    found = report(replace(WELL, driver=Driver(1, (12, 4)), cuda=Attempt("no libcudnn"))).to_json()["sections"]
    assert found["environment"] == {"lmonnx": "0.1.0", "Python": "3.11.9", "platform": "Linux x86_64"}
    assert found["packages"] == {"numpy": "2.4.6"}
    assert found["extra: export"] == {"torch": "not installed; pip install 'lmonnx[export]' brings it"}
    assert found["onnxruntime"] == {
        "installed": "onnxruntime-gpu 1.31.1",
        "built for": "CUDAExecutionProvider, CPUExecutionProvider (CUDA 13.0)",
        "NVIDIA driver": "GPUs: 1, up to CUDA 12.4",
        "CPU": "works",
        "CUDA": "does not work: no libcudnn",
    }
    old = report(replace(WELL, packages=(Package("torch", "2.5.1+cpu", "2.7", "export"),))).to_json()["sections"]
    assert "2.5.1+cpu, older than 2.7" in old["extra: export"]["torch"]


@pytest.mark.parametrize(
    ("version", "least", "too_old"),
    [
        ("2.10.0", "2.9", False),
        ("2.9", "2.10", True),
        ("2.7", "2.7.0", False),
        ("2.7.0+cpu", "2.7", False),
        ("2.7.0rc1", "2.8", True),
        ("1", None, False),
        (None, "1", False),
    ],
)
def test_versions_are_compared_by_number(version: str | None, least: str | None, too_old: bool) -> None:
    assert Package("x", version, least).too_old == too_old


def test_this_machine() -> None:
    facts = doctor.observe()
    assert facts.cpu.error is None
    assert "CPUExecutionProvider" in facts.cpu.providers
    names = {package.name: package for package in facts.packages}
    assert {"click", "numpy", "pillow", "scikit-image", "scikit-learn", "torch", "timm"} <= set(names)
    assert len(names) == len(facts.packages)
    assert (names["timm"].extra, names["torch"].extra, names["numpy"].extra) == ("timm", "export", None)
    assert names["numpy"].least is not None
    assert not {"pytest", "lmonnx"} & set(names)
    assert [package.least for package in facts.onnxruntime] == ["1.20"]
    if not facts.driver.devices:
        assert facts.cuda is None
        assert report(facts).problems == ()


def test_a_provider_that_does_not_work_says_why() -> None:
    if doctor.ask_driver().devices:
        pytest.skip("this machine has a CUDA device")
    failed = probe.attempt("cuda")
    assert failed.error is not None
    if CUDA in failed.providers:
        assert "libraries do not load: lib" in failed.error
    else:
        assert "not in this onnxruntime" in failed.error


def test_an_onnxruntime_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libx.so: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    assert probe.attempt("cpu") == Attempt("libx.so: cannot open")


def test_a_process_that_dies_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.sys, "executable", "/bin/false")
    assert probe.attempt("cpu").error == "the process that tried it ended with code 1"
    monkeypatch.setattr(probe.sys, "executable", "/nowhere/python")
    assert "it cannot be tried" in str(probe.attempt("cpu").error)


def test_a_process_that_hangs_is_ended() -> None:
    assert probe.attempt("cpu", timeout=0.01).error == "it gave no answer within 0.01 s"


LOG = (
    "\x1b[1;31m2026-01-01 05:01:51.67 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] /core/x.cc:2043 "
    "Provider::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library /x/libonnxruntime_providers_cuda.so with "
    "error: libcublasLt.so.13: cannot open shared object file: No such file or directory\n\x1b[m\n"
    "\x1b[0;93m2026-01-01 05:01:51.67 [W:onnxruntime:Default, state.cc:1295 Create] Failed to create it.\x1b[m"
)


def test_reasons_are_taken_from_the_log() -> None:
    assert reason(LOG) == "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    preload = "Failed to load libcublas.so.13: no file\nFailed to load libcurand.so.10: no file\nPlease follow it\n"
    assert reason(preload + LOG) == "these libraries do not load: libcublas.so.13, libcurand.so.10"
    assert reason("1 [E:onnxruntime:Default, cuda.cc:1 Call] CUDA failure 35: too old\n") == "CUDA failure 35: too old"
    assert reason("something else") == ""


def test_the_model_is_a_convolution_of_its_input_with_itself() -> None:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "x"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert onnx.load_model_from_string(probe.MODEL) == model, base64.b64encode(model.SerializeToString())
