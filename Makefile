# Everything a fresh machine needs besides python3 >= 3.11, a C++ compiler and make is set up by the targets themselves.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRAS := dev,serve,mpi

MODEL  := models/stories263k.bin
DEVICE := rtl
PROMPT := Once upon a time
SIM     = $(BIN)/tsp run $(MODEL) --device $(DEVICE) --prompt "$$STORY_PROMPT"
BENCH  := $(BIN)/tsp bench $(MODEL)
BOARD  := ulx3s
SEED   :=
SWEEP  := 1
JOBS   := 2
DOCS   := $(BIN)/python -m docs.generate

# The virtual environment is current when a stamp of this name stands in it.
HASH   := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
STAMP  := $(VENV)/.metronome-$(EXTRAS)-$(HASH)

FPGA_STAMP := $(VENV)/.metronome-fpga-$(HASH)
FORMAL_STAMP := $(VENV)/.metronome-formal-$(HASH)
ORACLE_STAMP := $(VENV)/.metronome-oracle-$(HASH)
PAGE_STAMP := $(VENV)/.metronome-page-$(HASH)

.PHONY: help setup sim serve test formal bench page bitstream board board-name lint docs nightly clean
.DEFAULT_GOAL := help

help:     ## this list
	@echo "Metronome: a scaled-down Tensor Streaming Processor. Targets, each of which sets up what it needs:"
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' Makefile | expand -t 18

setup: $(STAMP) ## the virtual environment (.venv) with exact versions; the other targets do it by themselves

sim: export STORY_PROMPT = $(value PROMPT)# as it is: neither make nor the shell looks for $$ or quotes in it
sim: $(STAMP) ## simulate the chip: the RTL tells a story from the shipped model
	@$(SIM)

serve: $(STAMP) ## the chip behind an OpenAI-compatible server and a page: http://localhost:8000, DEVICE=rtl
	@$(BIN)/tsp serve $(MODEL) --device $(DEVICE)

test: $(FORMAL_STAMP) $(PAGE_STAMP) ## all tests but the nightly ones: JOBS=2
	@$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

formal: $(FORMAL_STAMP) ## prove queues, engines, streams, accumulators and the serial line, and print what was proven
	@$(BIN)/python tests/formal.py

bench: $(STAMP) ## cycles per token, roofline fraction and simulation speed
	@$(BENCH)

page: $(PAGE_STAMP) ## a web page in which the chip runs and can be watched: out/page.html, and out/page/ for a web host
	@mkdir -p out
	@$(BIN)/tsp page $(MODEL) -o out/page.html --folder out/page

bitstream: $(FPGA_STAMP) ## a board's bitstream and its report: BOARD=ulx3s|ulx3s_45f|icepi_zero|tang_primer_20k|tang_mega_138k|ulx3s_pair0|ulx3s_pair1 SEED=.. SWEEP=1 JOBS=2
	@$(BIN)/python -m fpga.flow.build $(BOARD) $(if $(SEED),--seed $(SEED)) --sweep $(SWEEP) --jobs $(JOBS)

board: $(STAMP) ## a board in Verilator behind a pseudo-terminal, for `tsp run --device`: BOARD=ulx3s
	@$(BIN)/python -m fpga.simulate --board $(BOARD)

lint: $(STAMP) ## ruff and pyright
	@$(BIN)/ruff check .
	@$(BIN)/pyright

docs: $(STAMP) ## write the generated tables of the documentation anew
	@$(DOCS)

nightly: $(FORMAL_STAMP) $(PAGE_STAMP) ## the tests that take minutes and more
	@$(BIN)/pytest -m nightly $(ARGS)

clean:    ## remove the virtual environment, caches and what the tools wrote (not ~/.cache/metronome)
	@rm -rf $(VENV) build dist out .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "make: python3 >= 3.11 is needed; apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "make: python3 >= 3.11 is needed, not $$($(PYTHON) --version); name another with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "make: this python3 cannot make virtual environments; apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing the exact versions of constraints.txt into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@rm -f $(VENV)/.metronome-*
	@touch $@

board-name: $(STAMP)
	@$(BIN)/python -m fpga.boards '$(BOARD)'

$(FPGA_STAMP): $(STAMP) | board-name
	@echo "installing yosys, nextpnr, packers and the boards' definitions into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fpga]'
	@touch $@

$(FORMAL_STAMP): $(STAMP)
	@echo "installing yosys and the solver of the proofs into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[formal]'
	@touch $@

$(ORACLE_STAMP): $(STAMP)
	@echo "installing transformers and torch, the oracles of the nightly tests, into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[oracle]'
	@touch $@

$(PAGE_STAMP): $(STAMP)
	@echo "installing the compiler to WebAssembly into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[page]'
	@touch $@
