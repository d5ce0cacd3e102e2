# `make demo` and `make test` set up everything they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

SOURCES := $(shell find crates python Cargo.toml Cargo.lock pyproject.toml \
	-name target -prune -o -name __pycache__ -prune -o -type f -print)

.PHONY: help install demo demos test storage-soak kill-soak lint bench docs fork-soak network-soak fuzz-syscalls clean

help:
	@echo "make demo     build, install into $(VENV), and run real programs in an enclave"
	@echo "make demos    every demo of demos/, one by one"
	@echo "make test     every test"
	@echo "make storage-soak  the store: each bit flipped, thousands of power cuts (minutes)"
	@echo "make kill-soak  kill -9 under sqlite writers, 200 times (minutes)"
	@echo "make install  build and install into $(VENV)"
	@echo "make lint     formatting, types and the style ratchet"
	@echo "make bench    the benchmark table"
	@echo "make fork-soak  thousands of random forking programs (SEEDS=5000)"
	@echo "make network-soak  ten thousand connects, resets and half-closes"
	@echo "make fuzz-syscalls  random system calls in an enclave for a minute"
	@echo "make docs     the documentation site, target/docs/index.html"
	@echo "make clean    remove $(VENV) and build output"

install: $(VENV)/installed

$(VENV)/requirements: requirements.txt
	@tools/prerequisites $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/installed: $(VENV)/requirements $(SOURCES)
	@tools/prerequisites $(PYTHON)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --force-reinstall .
	@touch $@

demo: install
	demos/run $(abspath $(BIN))

demos: install
	@PATH="$(abspath $(BIN)):$$PATH" demos/all

test: install
	tools/test-packages
	$(BIN)/python -m pytest

storage-soak:
	STORE_EACH_BIT=1 STORE_CRASHES=10000 cargo test --release --locked -p occlum-storage --test store

kill-soak: install
	OCCLUM_KILLS=100 $(BIN)/python -m pytest tests/cli/test_lasting.py -k kill_9

lint: install
	$(BIN)/ruff check python tests tools bench demos
	$(BIN)/mypy
	$(BIN)/python tools/tidy.py

bench: install
	$(BIN)/python bench/run.py

SEEDS ?= 5000
fork-soak: install
	$(BIN)/python bench/fork_soak.py $(SEEDS)

network-soak: install
	$(BIN)/python bench/network_soak.py

fuzz-syscalls: install
	OCCLUM_BIN=$(abspath $(BIN)) fuzz/syscalls/run 60

docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	$(BIN)/python tools/reference.py
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d target/doctrees docs target/docs
	@echo "target/docs/index.html"

clean:
	rm -rf $(VENV) target crates/boot/target
