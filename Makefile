# make repro: the quick preset of every experiment, with its report.  make test: the tests.
# make mutants MODULE=solvers_bridge/adjoint.py: mutation testing of one module (without MODULE, of all: hours); it names the mutants
# that no test noticed, and mutmut show NAME prints one.
# Each sets up .venv by itself, from PYTHON (3.11) and the pinned versions in constraints.txt.

PYTHON ?= python3.11
VENV ?= .venv
OUT ?= build/repro
INSTALLED = $(VENV)/.installed
MUTANT_PROCESSES ?= 2

.PHONY: repro test mutants clean

repro: $(INSTALLED)
	$(VENV)/bin/python -m experiments run all --preset quick --fresh --out $(OUT) --checkpoints $(OUT)/checkpoints
	$(VENV)/bin/python -m experiments report --out $(OUT)

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest $(PYTEST_ARGUMENTS)

mutants: $(INSTALLED)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test,mutants]"
	$(VENV)/bin/python -m mutmut run --max-children $(MUTANT_PROCESSES) $(if $(MODULE),"$(subst /,.,$(MODULE:.py=)).*")
	$(VENV)/bin/python -m mutmut results

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build mutants
