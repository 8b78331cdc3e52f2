# What a fresh machine needs is Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := bench/.venv

.PHONY: demo test soak fuzz lint bench mutations clean

demo: $(VENV)/.installed
	$(BIN)/psy run
	@$(BIN)/python -c "import pickle; table = pickle.load(open('psy-work/example/result.pkl', 'rb')); \
	print(*table, sep='\t'); [print(*row, sep='\t') for row in list(zip(*table.values()))[:5]]; \
	print('...', len(table['result']), 'rows')"

# The tests of a real Slurm go first; they and those of a real Grid Engine have a process each that mostly waits: hence
# two more than two cores. ARGS="-n 0" for none. Compiled first, since these tests start thousands of processes, and some systems forbid
# them to write bytecode.
test: $(VENV)/.tests
	@$(BIN)/python -m compileall -q src
	$(BIN)/python -m pytest -n 4 --dist loadgroup $(ARGS)

# At least 500 kills, then a mishap at every file operation; ARGS="--seed 3 --kills 100 --scenarios" for less.
# Then power cuts.
soak: $(VENV)/.tests
	$(BIN)/python tests/soak.py $(ARGS)
	$(BIN)/python tests/powercut.py --cuts 300 --seed 7
	$(BIN)/python -m pytest -m long

# Generated programs and edits of them, and random spaces, with plain Python as the oracle;
# ARGS="--programs 200 --seed 3" for fewer programs.
fuzz: $(VENV)/.tests
	$(BIN)/python tests/fuzz_programs.py $(ARGS)
	$(BIN)/python tests/fuzz_spaces.py

lint: $(VENV)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

mutations: $(VENV)/.tests
	$(BIN)/python tests/mutations.py

# psyrun beside its rivals, in an environment of its own: about 20 minutes; ARGS="--only run-1e4 --repeat 9" for less.
bench: $(BENCH)/.installed
	@$(BENCH)/bin/python -m compileall -q src bench/*.py bench/rivals
	$(BENCH)/bin/python bench/run.py $(ARGS)
	$(if $(ARGS),,$(BENCH)/bin/python bench/growth.py)

$(BENCH)/.installed: pyproject.toml bench/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --editable . --requirement bench/requirements.txt
	touch $@

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'psyrun needs Python 3.11 or later')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test --editable examples/dask-scheduler
	touch $@

$(VENV)/.lint: $(VENV)/.tests
	$(BIN)/python -m pip install --quiet --group lint
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) psy-work
