# Everything runs in a virtual environment of its own, .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test check release demo mutations fuzz zoo portability node bench dist clean

test: .venv/ready
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Builds wheel and sdist, installs them into environments of their own, and runs what a stranger would run there.
release: .venv/ready
	$(BIN)/python -m pytest -m release

demo: .venv/ready
	$(BIN)/lmonnx demo -o demo

dist: .venv/ready
	$(BIN)/python -m build

# Which tests see which of the planted faults.
mutations: .venv/ready
	$(BIN)/python -m tests.mutations

# Ten thousand random graphs; the ordinary tests draw a hundred.
fuzz: .venv/ready
	$(BIN)/python -m pytest tests/test_random_graphs.py --numprocesses auto --hypothesis-profile fuzz

# Exports and checks every published network, and writes docs/models.md; goes on where it stopped. Takes hours.
zoo: .venv/ready
	$(BIN)/python -m zoo

# Runs the same files in every runtime that can be had, and writes docs/portability.md; goes on where it stopped. Wants
# Node.js and Chromium (apt-get install chromium), says so where they are missing, and takes half an hour.
portability: .venv/ready
	$(BIN)/python -m portability

# What the tests of Node.js and the browser need beside those; without it they are skipped.
node: .venv/ready
	$(BIN)/python -c 'from portability import runtimes; runtimes.node()'

# What a mask costs on five networks, against the plain graph and the authors' algorithm, and where that time goes;
# wants a machine to itself for a quarter of an hour.
bench: .venv/ready
	$(BIN)/python -m benchmarks.speed --profile

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[timm,dev]'
	touch $@

clean:
	rm -rf .venv demo dist build
