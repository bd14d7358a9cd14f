PY = .venv/bin/python
SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test test-vllm test-sglang live-matrix setup setup-test lint pure live fmt golden bench man
demo: setup
	@packaging/demo
test: setup-test lint pure live
setup:
	@packaging/setup
setup-test:
	@packaging/setup test
lint:
	.venv/bin/ruff check agent tests packaging
	.venv/bin/ruff format --check agent tests packaging
	.venv/bin/mypy agent/recipectl
pure:
	$(PY) -m pytest -q
live:
	$(SUDO) $(PY) -m pytest -q -p no:cacheprovider -m boots tests/live
	$(SUDO) $(PY) tests/live/unharmed.py packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m systemd tests/live
test-vllm: setup
	@packaging/setup-vllm
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m vllm tests/live
test-sglang: setup
	@packaging/setup-sglang
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m sglang tests/live
live-matrix:
	for suite in trixie sid; do $(SUDO) packaging/matrix-root $$suite && \
	    $(SUDO) packaging/throwaway-systemd --root .build/roots/$$suite sh -c \
	    'systemctl --version | head -n 1; exec /srv/recipectl/.venv/bin/python -m pytest -q -p no:cacheprovider -m systemd tests/live' || exit 1; done
fmt:
	.venv/bin/ruff check --fix agent tests packaging; .venv/bin/ruff format agent tests packaging
golden:
	$(PY) -m pytest -q tests/test_golden.py --rewrite-golden
bench: setup
	@mkdir -p .build/bench
	$(SUDO) packaging/throwaway-systemd --keep .build/bench "$(CURDIR)/$(PY)" tests/bench.py
man:
	mkdir -p .build/man
	for page in recipectl.1 recipe.5 recipectl-host.5; do pandoc -s -t man -o .build/man/$$page docs/$$page.md; done
