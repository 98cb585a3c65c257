# The front door. Meson does the building; this file names what people type.
BUILD ?= build
PREFIX ?= /usr/local
MESON_FLAGS ?=

.PHONY: all setup run test bench fuzz lint install clean
all: setup
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) --prefix $(PREFIX) $(MESON_FLAGS)
	@ninja -C $(BUILD)

setup:
	@tools/setup

run: all
	@examples/run

test: all
	@tests/run

bench: all
	@bench/run $(LEGS)

bench-%: all
	@bench/run $*

fuzz: setup
	@tests/fuzz/run

lint: all
	@tools/lint

install: all
	@meson install -C $(BUILD) --no-rebuild

clean:
	@rm -rf $(BUILD)
