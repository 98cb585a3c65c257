# The front door. Meson does the building; this file names what people type.
BUILD ?= build
PREFIX ?= /usr/local
MESON_FLAGS ?=

.PHONY: all setup run test test-kvm test-sanitize bench fuzz fault lint install clean
all: setup
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) --prefix $(PREFIX) $(MESON_FLAGS)
	@ninja -C $(BUILD)

setup:
	@tools/setup

run: all
	@examples/run

test: all
	@tests/run

# What of the hardware engine takes too long for `make test`; PARTS="boots debian".
test-kvm: all
	@tests/system/kvm/full $(BUILD) $(PARTS)

# The unit tests again, under the address and undefined-behaviour sanitizers.
test-sanitize: setup
	@test -f build-sanitize/build.ninja || meson setup build-sanitize -Db_sanitize=address,undefined -Db_lundef=false
	@ninja -C build-sanitize
	@BUILD=build-sanitize UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 tests/run --suite unit

bench: all
	@bench/run $(LEGS)

bench-%: all
	@bench/run $*

fuzz: all
	@tests/fuzz/run
	@tests/conform/fuzz
	@ACCESSES=10000000 tests/system/hostile/hostile.py build rv64 build/tests/system/hostile_rv64

# Killed stores, disks that fail, power cuts; `make test` does a little of each.
fault: all
	@tests/fault/run

lint: all
	@tools/lint

install: all
	@$(if $(filter-out file,$(origin PREFIX)),meson configure $(BUILD) --prefix $(PREFIX) && ninja -C $(BUILD))
	@meson install -C $(BUILD) --no-rebuild

clean:
	@rm -rf $(BUILD)
