# make demo          a story from the built-in model
# make test          ruff, mypy, pytest
# make test-all      the same with the exhaustive tests, which take minutes
# make test-oldest   with Triton 3.6.0, NumPy 1.26.4, transformers 5.0.0
# make test-serve    alea serve, with openai's clients, LangChain, schemathesis, lm-eval
# make test-vllm     samplers.vllm inside vLLM, on a CPU
# make identity      C++ against the reference: every weight, a million rows
# make gpu-toy       bench/gpu.sh in Triton's interpreter
SHELL := /bin/bash
export TIMEFORMAT := %U s of CPU time, and %S s in the kernel
PYTHON ?= python3
ROWS ?= 1000000
BIN := .venv/bin
INSTALLED := .venv/.installed
OLDEST := .venv-oldest
SERVE := .venv-serve
CLIENTS := tests/serve_clients
VLLM := .venv-vllm
INSIDE_VLLM := tests/inside_vllm
ALL := -m "exhaustive or not exhaustive"

.PHONY: demo test checks test-all test-oldest test-serve test-vllm identity gpu-toy clean

demo: $(INSTALLED)
	@$(BIN)/alea generate -p "Once upon a time" --seed 7

test: $(INSTALLED)
	@time $(MAKE) --no-print-directory checks MARKED='$(MARKED)'

checks:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(MARKED)

test-all: MARKED = $(ALL) --durations=40
test-all: test

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -n 2 --dist worksteal --disable-warnings -k "triton or however_many" tests/samplers/identity/test_draws.py
	$(OLDEST)/bin/python -m pytest -n 2 --dist worksteal --disable-warnings -k "(test_draw or test_weights) and triton" tests/samplers/test_golden.py
	$(OLDEST)/bin/python -m pytest -n 2 --dist worksteal --disable-warnings $(ALL) tests/bench/kernels/test_kernels.py tests/samplers/hf

test-serve: $(INSTALLED) $(SERVE)/.installed
	ALEA_PYTHON=$(abspath $(BIN)/python) $(SERVE)/bin/python -m pytest --config-file $(CLIENTS)/pytest.ini --durations 5 $(CLIENTS)

test-vllm: $(INSTALLED) $(VLLM)/.installed
	$(VLLM)/bin/python -m pytest --config-file $(INSIDE_VLLM)/pytest.ini --durations 5 $(INSIDE_VLLM)/v1
	$(VLLM)/bin/python -m pytest --config-file $(INSIDE_VLLM)/pytest.ini --durations 5 $(INSIDE_VLLM)/v2

identity: $(INSTALLED)
	$(BIN)/alea bench identity --rows $(ROWS) --save

gpu-toy: $(INSTALLED)
	PYTHON=$(BIN)/python bash bench/gpu.sh --toy

$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard csrc/* csrc/model/*)
	$(PYTHON) -m venv .venv
	rm -f samplers/_native*.so model/_native*.so
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# Installs without a compiler, so that the extensions of .venv stay as they are.
$(OLDEST)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	CC=no-compiler CXX=no-compiler ALEA_REQUIRE_NATIVE=0 $(OLDEST)/bin/python -m pip install \
		--disable-pip-version-check --quiet --constraint constraints.txt triton==3.6.0 numpy==1.26.4 transformers==5.0.0 --editable '.[test]'
	@touch $@

# The clients alone: the server that they talk to runs in .venv.
$(SERVE)/.installed: $(CLIENTS)/requirements.txt $(CLIENTS)/package.json
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/python -m pip install --disable-pip-version-check --quiet --no-compile --requirement $(CLIENTS)/requirements.txt
	if command -v npm; then npm install --prefix $(CLIENTS) --no-package-lock --no-audit --no-fund --loglevel error; fi
	@touch $@

# vLLM brings what alea needs. These three are for another torch, and fail when they are imported.
$(VLLM)/.installed: $(INSIDE_VLLM)/requirements.txt pyproject.toml setup.py
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --disable-pip-version-check --quiet --requirement $(INSIDE_VLLM)/requirements.txt
	$(VLLM)/bin/python -m pip uninstall --disable-pip-version-check --quiet --yes torchvision torchaudio torchcodec
	CC=no-compiler CXX=no-compiler ALEA_REQUIRE_NATIVE=0 $(VLLM)/bin/python -m pip install \
		--disable-pip-version-check --quiet --no-deps --editable .
	@touch $@

clean:
	rm -rf .venv $(OLDEST) $(SERVE) $(VLLM) $(CLIENTS)/node_modules build *.egg-info samplers/_native*.so model/_native*.so
