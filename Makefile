# The habits. `make VENV=.venv install` once, then any of the others.
VENV ?= .venv
PYTHON := $(VENV)/bin/python

# For `sanitize` and `fuzz`: the C++ code without its bindings, compiled to stop at the first finding.
TARGETS := fuzz/targets.cpp $(filter-out csrc/bind%,$(wildcard csrc/*.cpp))
SANITIZE := -std=c++17 -Icsrc -O1 -g -ffp-contract=off -pthread -Wall -Wextra -Werror \
	-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
TORCHLESS_TESTS := $(addprefix ../../tests/test_,kernels.py reading.py rpeaks.py prepare.py check.py corpus.py augment.py view.py)
# but for what compiles csrc/ anew and does not look at the extension
SELECTED := $(TORCHLESS_TESTS) -k "not another_c_library"
FUZZ_SECONDS ?= 600

.PHONY: install test test-all sanitize fuzz clang baseline wheel cross native lint format type stubs bench demo clean

install:  ## a virtual environment with everything that development needs
	test -x $(PYTHON) || python3 -m venv $(VENV)
	PQRST_WERROR=1 $(PYTHON) -m pip install -e ".[test,dev]"

test:
	$(PYTHON) -m pytest -n logical --dist worksteal

test-all:  ## with what takes minutes and hardly ever changes, too
	$(PYTHON) -m pytest -m ""

sanitize:  ## the tests that need no torch, then the corpus, under AddressSanitizer and UndefinedBehaviorSanitizer
	PQRST_SANITIZE=1 $(PYTHON) setup.py -q build_ext --build-lib build/sanitize --build-temp build/sanitize/temp
	cd build/sanitize && ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		$(abspath $(PYTHON)) -m pytest -q -s --no-header $(SELECTED)
	$(CXX) $(SANITIZE) fuzz/replay.cpp $(TARGETS) -o build/sanitize/replay
	build/sanitize/replay tests/corpus

fuzz:  ## looks for new inputs with libFuzzer, FUZZ_SECONDS for each target; a finding is left in build/fuzz/
	mkdir -p build/fuzz/records build/fuzz/annotations
	clang++ $(SANITIZE) -fsanitize=fuzzer fuzz/fuzzer.cpp $(TARGETS) -o build/fuzz/fuzzer
	for target in records annotations; do \
		PQRST_FUZZ_TARGET=$$target build/fuzz/fuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 \
			-malloc_limit_mb=16 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix=build/fuzz/$$target- \
			build/fuzz/$$target tests/corpus/$$target || exit 1; \
	done

clang: VARIANT := CC=clang CXX=clang++
baseline: VARIANT := PQRST_BASELINE_ONLY=1
clang baseline:  ## the same tests with the extension compiled by Clang; with no SIMD level but that of all machines
	$(VARIANT) PQRST_WERROR=1 $(PYTHON) setup.py -q build_ext --build-lib build/$@ --build-temp build/$@/temp
	cd build/$@ && $(abspath $(PYTHON)) -m pytest -q --no-header $(SELECTED)

wheel:  ## builds the wheel from the source distribution, and tries it where there are only Python, NumPy and mypy
	rm -rf build/wheel && mkdir -p build/wheel
	$(PYTHON) -m build --outdir build/wheel
	python3 -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet build/wheel/*.whl $$($(PYTHON) -m pip freeze | grep ^mypy==)
	cd build/wheel && venv/bin/python ../../tests/try_wheel.py && venv/bin/mypy --strict --config-file= ../../tests/try_wheel.py

# Clang 22 and the headers of other systems, from PyPI. macOS gets no further than its object files.
ZIG_TARGETS := x86_64-linux-gnu aarch64-linux-gnu x86_64-linux-musl aarch64-macos x86_64-macos
cross:  ## compiles all of csrc/ for other systems, warnings as errors
	mkdir -p build/cross
	for target in $(ZIG_TARGETS); do \
		for source in csrc/*.cpp; do \
			$(PYTHON) -m ziglang c++ -target $$target -std=c++17 -O3 -ffp-contract=off -fno-math-errno \
				-fvisibility=hidden -fPIC -Wall -Wextra -Werror $$($(PYTHON) -m pybind11 --includes | sed "s/-I/-isystem /g") \
				-c $$source -o build/cross/$$(basename $$source .cpp)-$$target.o || exit 1; \
		done; echo "$$target: compiled"; \
	done

native:  ## examples/predict.cpp with the signal chain and libtorch, which comes with PyTorch
	mkdir -p build/native
	torch=$$($(PYTHON) -c "import torch; print(torch.__path__[0])") && \
	$(CXX) -std=c++17 -O2 -ffp-contract=off -fno-math-errno -pthread -Wall -Wextra -Werror -Icsrc \
		-isystem $$torch/include examples/predict.cpp $(filter-out csrc/bind%,$(wildcard csrc/*.cpp)) \
		-L$$torch/lib -Wl,-rpath,$$torch/lib -ltorch_cpu -ltorch -lc10 -o build/native/predict

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror csrc/*.?pp csrc/*.inl tests/*.cpp fuzz/*.?pp examples/*.cpp

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(VENV)/bin/clang-format -i csrc/*.?pp csrc/*.inl tests/*.cpp fuzz/*.?pp examples/*.cpp

type:
	$(PYTHON) -m mypy

stubs:  ## pqrst.pyi from the docstrings and signatures of the extension
	$(PYTHON) tests/make_stub.py > pqrst.pyi.tmp && mv pqrst.pyi.tmp pqrst.pyi

bench:
	$(PYTHON) benchmarks/native.py
	$(PYTHON) benchmarks/preprocess.py
	$(PYTHON) benchmarks/batches.py

demo:
	$(PYTHON) train.py --overwrite

clean:  ## build products and caches; never data or runs
	rm -rf build dist *.egg-info *.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -exec rm -rf {} +
