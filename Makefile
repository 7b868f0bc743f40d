# make repro: what the kept weights give, then the quick presets of most experiments, with their report.
# make test: lint, types and tests, the strict build of the site among them.  make lint, make types: these alone.  make format: what lint can repair.
# make test-lowest: the tests with the lowest versions that setup.cfg allows.  make wheel: a wheel into build/wheel.
# make mutants MODULE=solvers_bridge/adjoint.py TESTS="test_tolerances or test_jumps": mutation testing of one module by the files of
# tests named (without TESTS by all, hours); it names the mutants that no test noticed, and mutmut show NAME prints one.
# make report: the report on the committed records, as results/report.html too.  make docs: a site of README and docs/ into site/.
# Each sets up .venv by itself, from PYTHON (3.11) and the pinned versions in constraints.txt.

PYTHON ?= python3.11
VENV ?= .venv
LOWEST_VENV ?= .venv-lowest
OUT ?= build/repro
INSTALLED = $(VENV)/.installed
LOWEST_INSTALLED = $(LOWEST_VENV)/.installed
MUTANT_PROCESSES ?= 2
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check

# An environment that a move, another Python or a full disk has damaged is not out of date, and make would not see it.
NEEDED = import importlib.util as u, autograd, matplotlib, numpy, pytest, scipy.integrate; assert u.find_spec("tensorflow")
SOUND = @$(1)/bin/python -c '$(NEEDED)' 2> /dev/null || \
	{ echo "$(1) is damaged: 'make clean' removes it, and the next make builds it anew" >&2; exit 1; }

.PHONY: repro report docs test lint types format test-lowest wheel mutants clean sound

repro: sound
	$(VENV)/bin/python -m experiments evaluate all --out $(OUT)
	$(VENV)/bin/python -m experiments run all --preset quick --fresh --out $(OUT) --checkpoints $(OUT)/checkpoints
	$(VENV)/bin/python -m experiments report --out $(OUT)

report: sound
	$(VENV)/bin/python -m experiments report

docs: sound
	$(VENV)/bin/python -m mkdocs build --strict

# Two halves of about as many CPU seconds side by side, a core each; the second's report comes last.
FIRST_HALF = tests/solvers_bridge
test: lint types
	@mkdir -p build
	$(VENV)/bin/python -m pytest $(PYTEST_ARGUMENTS) $(FIRST_HALF:%=--ignore=%) > build/tests-of-the-rest.txt 2>&1 & rest=$$!; \
	$(VENV)/bin/python -m pytest $(PYTEST_ARGUMENTS) $(FIRST_HALF); first=$$?; \
	wait $$rest; rest=$$?; cat build/tests-of-the-rest.txt; exit $$((first | rest))

lint: sound
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

types: sound
	$(VENV)/bin/python -m mypy

format: sound
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/python -m ruff format .

test-lowest: $(LOWEST_INSTALLED)
	$(call SOUND,$(LOWEST_VENV))
	$(LOWEST_VENV)/bin/python -m pytest $(PYTEST_ARGUMENTS)

wheel: sound
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .

mutants: sound
	$(VENV)/bin/python $(PIP_INSTALL) --constraint constraints.txt --editable ".[test,mutants]"
	$(if $(TESTS),PYTEST_ADDOPTS="-k '$(TESTS)'") $(VENV)/bin/python -m mutmut run --max-children $(MUTANT_PROCESSES) $(if $(MODULE),"$(subst /,.,$(MODULE:.py=)).*")
	$(VENV)/bin/python -m mutmut results

sound: $(INSTALLED)
	$(call SOUND,$(VENV))

$(INSTALLED): setup.cfg setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --constraint constraints.txt --editable ".[test,lint,docs]"
	touch $@

$(LOWEST_INSTALLED): setup.cfg setup.py pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python $(PIP_INSTALL) --constraint constraints-lowest.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST_VENV) build mutants
