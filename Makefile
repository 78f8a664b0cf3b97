# Everything from a machine with Python >= 3.11, git and make:
#   make train         install, train a camera-driven highway policy (or go on with one that was interrupted),
#                      evaluate it here and in highway-env
#   make test          install, run the tests
# and, for those who work on it:
#   make install       create .venv with the versions in constraints.txt (the others do this by themselves)
#   make lint          ruff
#   make constraints   pin the versions that are now in .venv
#   make clean         remove .venv and caches; runs/ stays

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/highway

BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

python_version = $(shell $(PYTHON) -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])' 2>/dev/null)
python_suits = $(shell $(PYTHON) -c 'import sys; print("yes" if sys.version_info >= (3, 11) else "")' 2>/dev/null)
python_has_venv = $(shell $(PYTHON) -c 'import ensurepip, venv; print("yes")' 2>/dev/null)

.PHONY: train test install lint constraints clean

train: $(INSTALLED)
	$(BIN)/python -m train.ppo $(if $(wildcard $(RUN)/config.json),--resume $(RUN),--env highway --out $(RUN))
	$(BIN)/python -m evaluation --env highway --policy $(RUN) --out $(RUN)/evaluation
	$(BIN)/python -m evaluation --env highway-fast --backend highway-env --policy $(RUN) --episodes 100 --out $(RUN)/evaluation-highway-env
	@echo "Watch it drive: $(BIN)/python -m viewer --env highway --policy $(RUN)"

test: $(INSTALLED)
	SDL_VIDEODRIVER=dummy $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope

install: $(INSTALLED)

# torch comes first and alone: its pinned version is then in place, whichever build of it, before anything else asks for one.
$(INSTALLED): pyproject.toml constraints.txt
	$(if $(python_version),,$(error no Python at '$(PYTHON)'; install Python 3.11 or newer, or name one: make PYTHON=python3.12))
	$(if $(python_suits),,$(error lanewise needs Python 3.11 or newer and '$(PYTHON)' is $(python_version); name another: make PYTHON=python3.12))
	$(if $(python_has_venv),,$(error '$(PYTHON)' lacks the module venv or ensurepip; on Debian and Ubuntu: apt install python3-venv))
	@echo "Installing lanewise into $(VENV), once: a few minutes, most of them for torch"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check

# Written beside and renamed, so that a failure leaves the old pins in place; touched, because .venv holds these versions already.
constraints:
	$(BIN)/python .ci/constraints.py > constraints.txt.new
	mv constraints.txt.new constraints.txt
	@touch $(INSTALLED)

clean:
	rm -rf $(VENV) build lanewise.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
