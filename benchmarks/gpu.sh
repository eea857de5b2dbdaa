#!/usr/bin/env bash
# Every check and figure that wants a GPU, in one command: benchmarks/gpu.sh [REPORT] [OPTION of benchmarks.gpu…]
#
# Needs Python with lmonnx's packages (pip install '.[export]' on top of a torch for CUDA, or the folders of such an
# installation on PYTHONPATH); PYTHON names the interpreter. Takes about ten minutes; the report is Markdown.
set -euo pipefail
cd "$(dirname "$0")/.."
report=${1:-gpu.md}; shift || true
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "nvidia-smi does not run here" >&2
"$python" -c 'import onnxruntime as o; getattr(o, "preload_dlls", lambda: None)(); print(o.__version__, o.get_available_providers())'
"$python" -m benchmarks.gpu "$@" | tee "$report"
