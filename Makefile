# make demo   a story from the built-in model        make test   ruff, mypy, pytest
PYTHON ?= python3
ROWS ?= 1000000
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test identity clean

demo: $(INSTALLED)
	@$(BIN)/alea generate -p "Once upon a time" --seed 7

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

identity: $(INSTALLED)
	$(BIN)/alea bench identity --rows $(ROWS) --save

$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard csrc/*)
	$(PYTHON) -m venv .venv
	rm -f samplers/_native*.so
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info samplers/_native*.so
