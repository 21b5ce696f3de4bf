# One command from a fresh clone: `make demo` or `make test`. `make help` lists the rest.
# Needs git, make and Python 3.10 or newer with venv (python3-venv); everything else goes into $(VENV).

PYTHON ?= python3
# Apart for each ROS installation, since it holds other packages there.
VENV ?= .venv$(if $(ROS_DISTRO),-$(ROS_DISTRO))
# What the demo plays: an image, a folder, a video, a camera device, a bag or an RGB-D folder.
# Empty: a rendered scene and photographs that need no data.
INPUT ?=
OUT ?= out
# On Linux torch's default build brings several gigabytes of CUDA libraries. An address given here is an
# additional package index; with that of torch's CPU builds, `make demo TORCH_INDEX=...` takes the small one.
TORCH_INDEX ?=
# Further arguments for pytest: make test PYTEST_ARGS="-k optics"
PYTEST_ARGS ?=
# Processes that share the files of tests, one more than cores since tests of the node wait at times;
# 0: one after the other in this one.
JOBS ?= 3
BENCH_ARGS ?=

PY := $(VENV)/bin/python
REQUIREMENTS := $(wildcard requirements/*.txt)
COMMON := -r requirements/runtime.txt -r requirements/training.txt -r requirements/demo.txt

ifdef ROS_DISTRO
# A ROS 2 installation is sourced: its rclpy and messages are used, with the NumPy they were compiled for
# (its major version decides whether they load), so not all pins of constraints.txt can hold.
VENV_FLAGS := --system-site-packages
CONSTRAINTS := $(VENV)/ros-constraints.txt
else
VENV_FLAGS :=
CONSTRAINTS := requirements/constraints.txt
COMMON += -r requirements/ros.txt
endif

# Not compiled: of 12,000 files a run imports a quarter, and Python keeps what it compiles.
PIP_INSTALL := $(PY) -m pip install --no-compile --disable-pip-version-check --no-input \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c $(CONSTRAINTS)
# The package itself, in place; its dependencies have just been installed.
SELF_INSTALL := $(PY) -m pip install --disable-pip-version-check --no-input --quiet \
	--no-deps --no-build-isolation -e .

# The ROS wheels restart Python once and mark that here; a mark inherited from another environment's Python
# would keep this one's from finding its libraries.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# Where Python may not keep what it compiles, each of hundreds of processes would compile everything again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint bench bench-gpu install clean distclean help
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

demo: $(VENV)/.demo  ## run the node on an image stream: pictures in out/, a table here; INPUT=... for your own
	$(PY) -m ddfd_demo $(if $(INPUT),--input "$(INPUT)") --out "$(OUT)"

# One process imports everything before several run the tests, so that only one compiles it. Types are checked beside
# that, since mypy takes one core; what it says is printed at the end.
test: $(VENV)/.test  ## everything that decides whether a change is good: linters, types, tests
	$(PY) -m ruff check .
	@$(PY) -m mypy >$(VENV)/types.txt 2>&1 & types=$$!; \
	$(PY) -m pytest --collect-only -q $(PYTEST_ARGS) >/dev/null 2>&1; \
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS); tests=$$?; \
	wait $$types; types=$$?; echo "mypy: $$(cat $(VENV)/types.txt)"; exit $$((tests ? tests : types))

lint: $(VENV)/.test  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: $(VENV)/.demo  ## the benchmarks that need no GPU; results in benchmarks/results
	$(PY) -m benchmarks.run_all $(BENCH_ARGS)

bench-gpu: $(VENV)/.demo  ## the benchmarks that need one
	$(PY) -m benchmarks.run_all --gpu $(BENCH_ARGS)

install: $(VENV)/.demo  ## the environment alone, for `. .venv/bin/activate`

clean:  ## remove results, builds and caches
	rm -rf "$(OUT)" build install log dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf

distclean: clean  ## and the environment
	rm -rf "$(VENV)"

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit( \
		f"expected Python 3.10 or newer, got {v[0]}.{v[1]}: make PYTHON=/path/to/python3.10 ...")'
ifndef ROS_DISTRO
	@test "$$(uname -m)" = x86_64 || { echo "expected a sourced ROS 2 installation on $$(uname -m), got none:" \
		"source /opt/ros/DISTRO/setup.bash first (the ROS wheels are for x86_64 only)"; exit 1; }
endif
	$(PYTHON) -m venv --clear $(VENV_FLAGS) $(VENV)
	touch $@

# ROS 2 brings launch_testing as a plugin of pytest, which newer ones than 7 refuse.
$(VENV)/ros-constraints.txt: $(VENV)/.created
	$(PY) -c 'import numpy; v = numpy.__version__; \
		print(f"numpy>={v},<{int(v.partition(chr(46))[0]) + 1}")' > $@
	echo 'pytest<8' >> $@
	grep -E '^(torch|lightning|torchmetrics|mypy|ruff)==' requirements/constraints.txt >> $@

$(VENV)/.demo: $(VENV)/.created $(CONSTRAINTS) $(REQUIREMENTS) setup.py setup.cfg package.xml pyproject.toml
	$(PIP_INSTALL) -r requirements/build.txt
	$(PIP_INSTALL) $(COMMON)
	$(SELF_INSTALL)
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP_INSTALL) -r requirements/dev.txt
	touch $@
