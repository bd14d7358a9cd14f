PY = .venv/bin/python
SUITES = trixie sid
SUDO = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 14

.PHONY: demo test test-vllm test-nodes test-upgrade test-sglang live-matrix setup setup-test lint pure live guide boots shards vllm vllm-set vllm-alone sglang fmt golden mutants storm bench man deb dist
demo: setup  ## a real small model: recipe, unit, start, question, answer, status, stop
	@packaging/demo
test: setup-test lint  ## all tests, with a real systemd
	@$(MAKE) --no-print-directory -j3 --output-sync=target pure live
setup:
	@packaging/setup
setup-test:
	@packaging/setup test
lint:  ## ruff and mypy
	.venv/bin/ruff check agent tests packaging
	.venv/bin/ruff format --check agent tests packaging
	.venv/bin/mypy agent/recipectl
pure:  ## the tests without a system
	$(PY) -m pytest -q
live:  ## the tests on a real systemd
	@$(MAKE) --no-print-directory guide boots
	@$(MAKE) --no-print-directory shards
guide:
	$(SUDO) $(PY) -m pytest -q -p no:cacheprovider -m boots tests/live/test_guide.py
boots:
	$(SUDO) $(PY) -m pytest -q -p no:cacheprovider -m "boots and not nodes" --ignore tests/live/test_guide.py tests/live
shards:
	$(SUDO) $(PY) tests/live/unharmed.py "$(CURDIR)/$(PY)"
test-vllm: setup-test  ## the tests with real vLLM
	@packaging/setup-vllm
	@$(MAKE) --no-print-directory -j2 --output-sync=target vllm vllm-set vllm-alone
# These share no engine with the others: two lanes of about one length.
VLLM_ALONE = torch_compile or after_an_import
vllm:
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m vllm -k "not ($(VLLM_ALONE))" tests/live
vllm-alone:
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m vllm -k "$(VLLM_ALONE)" tests/live
vllm-set:
	$(SUDO) $(PY) -m pytest -q -p no:cacheprovider -m nodes -k "answers_over_two_hosts and TP" tests/live/test_vllm_nodes.py
test-nodes: setup-test  ## one model on two hosts: real vLLM, each fault many times
	@packaging/setup-vllm
	$(SUDO) env NODES_ROUNDS=50 $(PY) -m pytest -q -p no:cacheprovider -m "nodes or boots" tests/live/test_nodes.py
	$(SUDO) $(PY) -m pytest -q -p no:cacheprovider -m nodes tests/live/test_vllm_nodes.py
test-upgrade: setup-test  ## upgrades between two real vLLM
	@packaging/setup-vllm && packaging/setup-vllm 0.31.0
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m upgrade tests/live
test-sglang: setup-test  ## the tests with real SGLang
	@packaging/setup-sglang
	@$(MAKE) --no-print-directory sglang
sglang:
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" -m pytest -q -p no:cacheprovider -m sglang tests/live
live-matrix:  ## the same on other releases of Debian
	for suite in $(SUITES); do $(SUDO) packaging/matrix-root $$suite && \
	    $(SUDO) chroot .build/roots/$$suite systemctl --version | head -n 1 && \
	    $(SUDO) $(PY) tests/live/unharmed.py /srv/recipectl/.venv/bin/python .build/roots/$$suite && \
	    $(SUDO) env GUIDE_ROOT="$(CURDIR)/.build/roots/$$suite" $(PY) -m pytest -q -p no:cacheprovider -m boots tests/live/test_guide.py || exit 1; done
fmt:  ## format the code
	.venv/bin/ruff check --fix agent tests packaging; .venv/bin/ruff format agent tests packaging
golden:  ## write the golden units again
	$(PY) -m pytest -q tests/test_golden.py --rewrite-golden
storm: setup-test  ## faults, mutated scripts, random words
	PYTHONPATH=agent:tests $(PY) tests/hostile.py 1000
	SHELL_MUTATIONS=10000 $(PY) -m pytest -q tests/test_shell_oracle.py
	$(SUDO) packaging/throwaway-systemd env STORM_FAULTS=2000 RANDOM_WORDS=100000 APPLY_STEP=1 "$(CURDIR)/$(PY)" -m pytest -q \
	    -p no:cacheprovider -m systemd -k "storm or random_words or killed_at_any_step" tests/live/test_storm.py tests/live/test_quoting.py tests/live/test_convergence.py
mutants:  ## how many changes of the code no test notices
	$(PY) tests/mutants.py $(COUNT) $(SEED)
bench: setup-test  ## timings, beside something real
	@mkdir -p .build/bench
	$(SUDO) packaging/throwaway-systemd --keep .build/bench "$(CURDIR)/$(PY)" tests/bench.py
	$(PY) tests/bench_fleet.py
	$(SUDO) packaging/throwaway-systemd "$(CURDIR)/$(PY)" tests/bench_ansible.py
man:  ## the man pages
	packaging/man
deb:  ## the Debian package for this release, in .build/deb
	packaging/deb
dist: setup-test man  ## a wheel, an sdist and the collection for Ansible, in .build/dist
	$(PY) -m pip install -q build
	$(PY) -m build -q -o .build/dist .
	packaging/collection
