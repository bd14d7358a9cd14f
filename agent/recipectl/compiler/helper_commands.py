"""The command lines with which units run the helper (helper.py) and systemctl."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from recipectl.compiler import gpus, service_settings
from recipectl.compiler.members import Member
from recipectl.compiler.model import ResolvedRecipe
from recipectl.compiler.relations import Relations
from recipectl.engines.endpoint import Endpoint
from recipectl.engines.registry import ENGINES
from recipectl.machine.distributions import ENGINE_DISTRIBUTIONS
from recipectl.machine.installation import PCI_VENDORS, Installation
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.parts import Canary, Queue, Watch
from recipectl.recipe.schema import Recipe
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import UnitNames

_NAME_TIMEOUT_SEC = 30


def _address(endpoint: Endpoint) -> tuple[str | int, ...]:
    return "--address", endpoint.connect, "--port", endpoint.port


def _option(name: str, value: str | int | None) -> tuple[str | int, ...]:
    """An option with its value; nothing for None."""
    return () if value is None else (name, value)


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


@dataclass(frozen=True)
class HelperCommands:
    """All command lines of units that run the helper or systemctl."""

    installation: Installation

    @property
    def _manager(self) -> tuple[str, ...]:
        return ("--user",) if self.installation.user else ()

    def _helper(self, verb: str, *words: str | int) -> str:
        return quoting.command_line((*self.installation.helper, verb, *map(str, words)))

    def systemctl(self, *words: str) -> str:
        """systemctl with the unit's own manager."""
        return quoting.command_line(("/usr/bin/systemctl", *self._manager, "--quiet", *words))

    def before_start(
        self, resolved: ResolvedRecipe, relations: Relations, settings: HostSettings
    ) -> list[str]:
        """The ExecStartPre= of a model: pins, lock, devices, other loads, what ran before, and its port."""
        recipe, runtime, endpoint = resolved.recipe, resolved.runtime, resolved.endpoint
        common = self._common(recipe)
        names = ENGINE_DISTRIBUTIONS[recipe.backend]
        interpreter = runtime.interpreter or runtime.command[0]
        commands = []
        if recipe.engine_version or recipe.python_version:
            # What the compiler checked may change: somebody may upgrade the venv before the next boot.
            commands.append(
                self._helper(
                    "check-pins",
                    *common,
                    *_option("--engine", recipe.engine_version),
                    *_option("--compiled-for", runtime.engine_version),
                    *_option("--python", recipe.python_version),
                    *("--interpreter", interpreter),
                    *_option("--folder", runtime.installed_in),
                    *names,
                )
            )
        if resolved.lock:
            options = ("--lock", resolved.lock, "--policy", settings.drift, "--interpreter", runtime.recorded)
            commands.append(
                self._helper(
                    "check-lock", *common, *options, *_option("--folder", runtime.installed_in), *names
                )
            )
        vendor = PCI_VENDORS[recipe.accelerator]
        has_card = vendor in self.installation.gpu_vendors
        if nodes := gpus.device_nodes(recipe, resolved.gpus, has_card=has_card):
            commands.append(self._helper("wait-for-devices", *common, "--vendor", vendor, *nodes))
        # Only one of two models has After=. The model without it waits here while the other one loads.
        loads = [UnitNames(other).service for other in relations.taking_turns if other not in relations.after]
        if loads:
            commands.append(self._helper("wait-for-loads", *common, *loads))
        if resolved.member:
            commands.append(self._helper("wait-for-set", *common, "--tie", UnitNames(resolved.name).tie_stem))
        address = ("--address", endpoint.host, "--port", endpoint.port) if endpoint.path else ()
        rivals = [UnitNames(other).service for other in relations.rivals]
        commands.append(self._helper("wait-until-free", *common, *address, *rivals))
        return commands

    def _common(self, recipe: Recipe) -> tuple[str, ...]:
        """What every command of a model's own unit is told."""
        number = service_settings.kill_signal(recipe)
        return (*self._manager, *(("--stop-signal", number) if number else ()))

    def _note(self, digest: str) -> tuple[str, ...]:
        """The digest, for a user's manager; the system's manager keeps it itself (LogExtraFields=)."""
        return ("--note", digest) if self.installation.user else ()

    def wait_until_ready(self, resolved: ResolvedRecipe, digest: str) -> str:
        """The ExecStartPost= that ends when the engine answers, and its set where it belongs to one."""
        recipe, endpoint = resolved.recipe, resolved.endpoint
        patient = ("--patient",) if recipe.service.keys() & {"TimeoutStopSec", "TimeoutSec"} else ()
        options = (*self._common(recipe), *_address(endpoint), *_option("--path", endpoint.path))
        options += (*patient, *self._note(digest))
        if resolved.member:
            options += ("--tie", UnitNames(resolved.name).tie_stem)
        return self._helper("wait-until-ready", *options)

    def wait_until_free(self, service: str) -> str:
        """The ExecStartPre= of a tie."""
        return self._helper("wait-until-free", *self._manager, service)

    def tie(self, resolved: ResolvedRecipe, member: Member, model: str, key_file: str | None) -> str:
        """The ExecStart= of a tie; that of the head asks its engine."""
        endpoint = resolved.endpoint
        asked = member.rank == 0
        return self._helper(
            "tie",
            *("--address", member.head, "--port", member.tie_port, "--rank", member.rank),
            *("--set", member.digest),
            *_option("--version", resolved.runtime.engine_version),
            *_option("--ask-address", endpoint.connect if asked else None),
            *_option("--ask-port", endpoint.port if asked else None),
            *_option("--path", endpoint.path if asked else None),
            *_option("--model", model if asked else None),
            *_option("--key-file", key_file if asked else None),
            *(f"{name}={','.join(addresses)}" for name, addresses in member.hosts),
        )

    def wait_until_idle(
        self, stopped: tuple[tuple[str, int], ...], patience_sec: int, *, at_once: bool
    ) -> str:
        """The ExecCondition= of a proxy that waits for the models which a start would stop."""
        units = [f"{UnitNames(other).service}={port}" for other, port in stopped]
        limits = (*_option("--patience-sec", patience_sec), *(("--at-once",) if at_once else ()))
        return self._helper("wait-until-idle", *self._manager, *limits, *units)

    def pass_requests(self, endpoint: Endpoint, idle_sec: int, service: str) -> str:
        """The ExecStart= of a proxy: systemd-socket-proxyd, until nobody has been connected for so long."""
        return self._helper("pass-requests", *_address(endpoint), "--idle-sec", idle_sec, service)

    def run_queue(self, queue: Queue, service: str, digest: str) -> str:
        """The ExecStart= of a queue: HAProxy."""
        limit = ("--wait-sec", queue.wait)
        return self._helper("run-queue", *self._manager, *limit, *self._note(digest), service)

    def open_queue(self, endpoint: Endpoint, *, kept: bool = False) -> str:
        """What lets the requests of a queue through; with `kept` only if they were let through before."""
        return self._helper("open-queue", *self._manager, *_address(endpoint), *(("--kept",) if kept else ()))

    def close_queue(self, queue: Queue) -> str:
        """What lets new requests wait, and waits for the end of those that run."""
        return self._helper("close-queue", *self._manager, "--drain-sec", queue.drain)

    def end_queue(self, queue: Queue) -> str:
        """The ExecStop= of a queue: HAProxy ends once its requests have."""
        return self._helper("end-queue", *self._manager, "--drain-sec", queue.drain)

    def ask_model(self, resolved: ResolvedRecipe, model: str, key_file: str | None) -> str:
        """The question whether an engine serves the model of its recipe."""
        engine, path = ENGINES[resolved.recipe.backend], resolved.recipe.model_path
        # For a model of the hub, the engine may answer with the name of the file in its cache.
        of_hub = engine.model_flag_of(path) == engine.hub_flag
        return self._helper(
            "ask-model",
            *_address(resolved.endpoint),
            *_option("--path", None if of_hub else engine.version_path),
            *_option("--model", None if of_hub and model == path else model),
            *_option("--model-path", None if of_hub else path),
            *_option("--key-file", key_file),
            *("--timeout-sec", _NAME_TIMEOUT_SEC),
        )

    def ask_canary(
        self, canary: Canary, number: int, resolved: ResolvedRecipe, model: str, key_file: str | None
    ) -> str:
        """The command of one canary: a question, or the site's own with the address put in."""
        endpoint = resolved.endpoint
        if canary.command:
            words = {"{url}": endpoint.url, "{model}": model}
            filled = (_filled(word, words) for word in canary.command)
            return quoting.command_line(("/usr/bin/timeout", "--kill-after=5", str(canary.timeout), *filled))
        return self._helper(
            "ask-canary",
            *_address(endpoint),
            *("--number", number),
            *_option("--ask", canary.ask),
            *_option("--path", canary.sent_to),
            *_option("--body", None if canary.request is None else json.dumps(canary.request)),
            *_option("--contains", canary.contains),
            *_option("--matches", canary.matches),
            *("--model", model),
            *_option("--key-file", key_file),
            *("--timeout-sec", canary.timeout),
        )

    def watch(
        self, resolved: ResolvedRecipe, watch: Watch, ask: str, key_file: str | None, service: str
    ) -> str:
        """The ExecStart= of a watch; `key_file` is the credential with the key of the API."""
        endpoint, recipe = resolved.endpoint, resolved.recipe
        model = None if ask == "health" else recipe.served_model_name or recipe.model_path
        return self._helper(
            "watch",
            *_address(endpoint),
            *("--ask", ask),
            *_option("--path", (watch.path or endpoint.path) if ask == "health" else None),
            *_option("--body", watch.body),
            *_option("--model", model),
            *_option("--key-file", key_file),
            *("--every-sec", watch.every),
            *("--timeout-sec", watch.timeout),
            *("--failures", watch.failures),
            service,
        )
