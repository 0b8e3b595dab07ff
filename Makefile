# Everything runs from a fresh clone: the first target that is asked for makes .venv and installs into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	$(BIN)/timecolor demo --out out/demo

# One process a core, so one thread each.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/finish.py

# pip 25.1 is the first that knows dependency groups. constraints.txt takes the CPU build of torch.
$(VENV)/.installed: Makefile pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev -e ".[cogvideox,int8,art]"
	touch $@

clean:
	rm -rf $(VENV) out
