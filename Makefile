# Everything runs in a virtual environment: the active one, or .venv, made where it is missing.
VENV ?= $(or $(VIRTUAL_ENV),.venv)
PYTHON ?= python3
PY = $(VENV)/bin/python

.PHONY: demo test test-slow test-without-tools coverage fuzz score drill drill-kill lint docs bench learns \
	campaign-graphs campaign-targets campaign-sanitizers campaign-kills campaign-processes campaign-disk \
	campaign-parsers

demo: $(VENV)/.addergraph-test
	$(PY) examples/digits.py

# Bytecode is kept: hundreds of processes import the package.
test test-slow: $(VENV)/.addergraph-test
	PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -q -n 2 --dist=worksteal -m "$(MARKED)"

test: MARKED = not fuzz and not slow
test-slow: MARKED = slow and not fuzz

# The tests that use compilers, linkers and emulators, as on a system that has none of them.
test-without-tools: $(VENV)/.addergraph-test
	PATH=/nonexistent $(PY) -m pytest -q $(shell grep -rl --include='*.py' 'mark\.needs' tests)

# Lines and branches, those of the processes that tests start included.
coverage: $(VENV)/.addergraph-coverage
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -q -n 2 --dist=worksteal -m "not fuzz and not slow"
	$(PY) -m coverage combine -q
	$(PY) -m coverage report --fail-under=95
	$(PY) -m coverage report --fail-under=100 --include="addergraph/ir/check.py,\
	addergraph/ir/text*.py,addergraph/files/*,addergraph/model/file.py,codegen/inspect/*,\
	codegen/export/archive.py,addergraph/cli/commands/certify.py,addergraph/cli/commands/diagnose.py"

fuzz: $(VENV)/.addergraph-test
	AG_FUZZ=1 $(PY) -m pytest -q -m fuzz

campaign-parsers: $(VENV)/.addergraph-fuzz
	$(PY) -m tests.parsers

score: $(VENV)/.addergraph-test
	$(PY) -m tests.score

drill: $(VENV)/.addergraph-test
	$(PY) -m tests.drill -j 2

drill-kill: $(VENV)/.addergraph-test
	$(PY) -m tests.drill_kill

# Hours: stop it at any time, it goes on where it was.
campaign-graphs: $(VENV)/.addergraph-test
	$(PY) -m tests.campaigns graphs --jobs 2

# The same on every target that an emulator runs here.
campaign-targets: $(VENV)/.addergraph-test
	$(PY) -m tests.campaigns targets --jobs 2

campaign-sanitizers: $(VENV)/.addergraph-test
	$(PY) -m tests.campaigns sanitizers

campaign-kills: $(VENV)/.addergraph-test
	$(PY) -m tests.campaigns kills

campaign-processes: $(VENV)/.addergraph-test
	$(PY) -m pip install -q -e '.[mpi]'
	$(PY) -m tests.campaigns processes

campaign-disk: $(VENV)/.addergraph-test
	$(PY) -m tests.campaigns disk

lint: $(VENV)/.addergraph-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# The deck's notebook is run, too. Pages work from a folder; search needs a server:
# python -m http.server -d build/site
docs: $(VENV)/.addergraph-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

bench: $(VENV)/.addergraph-test
	$(PY) -m addergraph bench

learns: $(VENV)/.addergraph-test
	$(PY) -m benchmarks.learns

$(PY):
	$(PYTHON) -m venv $(VENV)

# One stamp an extra; both depend on pyproject.toml, so that a changed dependency is installed.
$(VENV)/.addergraph-%: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@
