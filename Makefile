PY = .venv/bin/python
SUITES = trixie sid
SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo test test-vllm test-sglang live-matrix setup setup-test lint pure live fmt golden mutants storm bench man dist
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
	$(SUDO) $(PY) tests/live/unharmed.py "$(CURDIR)/$(PY)"
test-vllm: setup
	@packaging/setup-vllm
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m vllm tests/live
test-sglang: setup
	@packaging/setup-sglang
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m sglang tests/live
live-matrix:
	for suite in $(SUITES); do $(SUDO) packaging/matrix-root $$suite && \
	    $(SUDO) chroot .build/roots/$$suite systemctl --version | head -n 1 && \
	    $(SUDO) $(PY) tests/live/unharmed.py /srv/recipectl/.venv/bin/python .build/roots/$$suite || exit 1; done
fmt:
	.venv/bin/ruff check --fix agent tests packaging; .venv/bin/ruff format agent tests packaging
golden:
	$(PY) -m pytest -q tests/test_golden.py --rewrite-golden
storm: setup
	PYTHONPATH=agent:tests $(PY) tests/hostile.py 1000
	SHELL_MUTATIONS=10000 $(PY) -m pytest -q tests/test_shell_oracle.py
	$(SUDO) packaging/throwaway-systemd env STORM_FAULTS=2000 RANDOM_WORDS=100000 "$(CURDIR)/$(PY)" -m pytest -q \
	    -p no:cacheprovider -m systemd -k "storm or random_words" tests/live/test_storm.py tests/live/test_quoting.py
mutants:
	$(PY) tests/mutants.py $(COUNT) $(SEED)
bench: setup
	@mkdir -p .build/bench
	$(SUDO) packaging/throwaway-systemd --keep .build/bench "$(CURDIR)/$(PY)" tests/bench.py
man:
	@command -v pandoc >/dev/null || $(SUDO) apt-get install -y -qq --no-install-recommends pandoc >/dev/null
	mkdir -p .build/man
	for page in recipectl.1 recipe.5 recipectl-host.5; do pandoc -s -t man -o .build/man/$$page docs/$$page.md; done
dist: setup
	$(PY) -m pip wheel -q --no-deps -w .build/dist .
