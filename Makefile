# The front door. `make run` and `make test` do everything on a bare Debian 12 machine; the rest are
# for people who work here. CMake and Ninja do the building.
BUILD ?= build
VENV  := .venv
# Tests run at a time: more than there are cores, for they wait as well as compute, clusters more.
CTEST := ctest --output-on-failure -j $(shell expr $$(nproc) + 1)
# A file's tests share a cluster, so they stay together.
PYTEST := $(VENV)/bin/pytest -q -n $(shell expr $$(nproc) + 2) --dist loadfile tests

.PHONY: help run test build unit e2e asan asan-build tsan tsan-build fuzz soak mutants bench peers numbers results reality tidy install clean setup setup-test configure model

help:
	@echo 'make run      install what is missing, build, fetch a small real model, serve it'
	@echo 'make test     the same set-up, then every test'
	@echo 'make build    the binary: $(BUILD)/bin/yolk'
	@echo 'make asan | tsan   the unit tests under sanitizers'
	@echo 'make fuzz     run each fuzz target for FUZZ_SECONDS (default 30) with libFuzzer'
	@echo 'make soak     clusters under faults, real and simulated, for SOAK_SECONDS (default 1200); SOAK=transfer: that layer only'
	@echo 'make mutants  plants bugs in the store and says which tests notice (four minutes)'
	@echo 'make bench    every bench, as JSON, into $(BUILD)/bench/'
	@echo 'make peers    transfer engine and store beside PyPI'"'"'s Mooncake, in one run'
	@echo 'make numbers  what bench and peers measured, into docs/numbers.md and README.md'
	@echo 'make results  what the papers measured, simulated, into docs/results/ (needs public traces)'
	@echo 'make reality  the simulator against the live cluster, into docs/results/ (a quiet machine, 14 minutes)'
	@echo 'make tidy     layers, names, banned calls, formatting'
	@echo 'make install  into PREFIX (default /usr/local)'

run: build model
	@exec $(BUILD)/bin/yolk serve smollm2 $(ARGS)

test: unit
	$(PYTEST) $(PYTEST_ARGS)

unit: setup-test configure model
	@cmake --build $(BUILD)
	cd $(BUILD) && $(CTEST)

e2e: setup-test build model
	$(PYTEST) $(PYTEST_ARGS)

setup:
	@tools/setup.sh build

setup-test:
	@tools/setup.sh test

configure: setup
	@cmake -S . -B $(BUILD) -G Ninja $(CMAKE_ARGS) >/dev/null

build: configure
	@cmake --build $(BUILD) --target yolk

model: build
	@$(BUILD)/bin/yolk model fetch smollm2

# Sanitizer builds run the unit tests, fuzz replays and simulations; the address build includes
# leaks and undefined behaviour. Simulations and the layers that are pure or run on one loop have one
# thread, so the thread sanitizer is given only the tests that have more.
THREADED := $(foreach layer,base transfer infer serve,$(wildcard src/$(layer)/*_test.c))
THREADED := $(filter-out %_sim_test %golden_test gateway% api%,$(notdir $(THREADED:.c=))) study_test store_real_test gateway_read_test
empty :=
space := $(empty) $(empty)

asan-build: setup-test
	@cmake -S . -B build-asan -G Ninja -DYOLK_SANITIZE=address,undefined $(ASAN_ARGS) >/dev/null
	@cmake --build build-asan

asan: asan-build model
	cd build-asan && $(CTEST)

tsan-build: setup-test
	@cmake -S . -B build-tsan -G Ninja -DYOLK_SANITIZE=thread >/dev/null
	@cmake --build build-tsan --target $(THREADED)

tsan: tsan-build model
	cd build-tsan && $(CTEST) -R '/($(subst $(space),|,$(THREADED)))$$'

FUZZ_SECONDS ?= 30
fuzz:
	@tools/setup.sh fuzz
	@tools/fuzz.sh $(FUZZ_SECONDS)

SOAK_SECONDS ?= 1200
soak: setup-test configure model
	@cmake --build $(BUILD)
	@tools/soak.sh $(BUILD) $(SOAK_SECONDS) $(SOAK)

mutants: setup-test
	@tools/mutants.py

bench: build model
	@mkdir -p $(BUILD)/bench
	@for name in engine serve gateway store transfer conductor sim; do \
	  $(BUILD)/bin/yolk bench $$name --json >$(BUILD)/bench/$$name.json || exit 1; \
	  cat $(BUILD)/bench/$$name.json; done

peers: build
	@mkdir -p $(BUILD)/bench
	@python3 bench/peers/mooncake.py --yolk $(BUILD)/bin/yolk --json $(BUILD)/bench/peers.json
	@python3 bench/peers/mooncake_store.py --yolk $(BUILD)/bin/yolk --json $(BUILD)/bench/peers_store.json

numbers:
	@python3 tools/bench_page.py --from $(BUILD)/bench

results: build
	@python3 tools/results.py --yolk $(BUILD)/bin/yolk

reality: build model
	@python3 tools/reality.py --yolk $(BUILD)/bin/yolk

tidy:
	@python3 tools/tidy.py

PREFIX ?= /usr/local
install: build
	@cmake --build $(BUILD) --target yolk_library
	@cmake --install $(BUILD) --prefix $(PREFIX) --strip

clean:
	rm -rf build build-*
