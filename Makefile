# Everything is in xtask. A cargo that was told not to install toolchains (RUSTUP_AUTO_INSTALL=0)
# cannot even start it without the one that rust-toolchain.toml pins, so that comes first.
XTASK = cargo run -q -p xtask --

.PHONY: setup demo test bench tidy vm toolchain
setup: toolchain ; $(XTASK) setup
demo: toolchain ; $(XTASK) demo $(ARGS)
test: toolchain ; $(XTASK) test $(ARGS)
bench: toolchain ; $(XTASK) bench $(ARGS)
tidy: toolchain ; $(XTASK) tidy
vm: toolchain ; $(XTASK) vm $(ARGS)
toolchain: ; @! command -v rustup >/dev/null || rustup which cargo >/dev/null 2>&1 || rustup toolchain install
