"""start, stop, restart, switch, wait, enable, disable: verbs that tell systemd something."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import click

from recipectl.cli.options import Place, outcome, service, warn
from recipectl.errors import BusError, JobError, RecipectlError, UsageError
from recipectl.systemd.dbus import Manager, State
from recipectl.systemd.unitfile import kinds, recipe_of

_NAMES = click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")


def tail(place: Place, name: str, lines: int, since_sec: float | None = None) -> list[str]:
    """The last lines of a unit's log (since a time of this host's clock), as many as there are."""
    words = [*place.journal, name, "-o", "cat", "-n", str(lines), "--no-pager", "-q"]
    words += [f"--since=@{since_sec:.3f}"] if since_sec and not place.remote else []
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()  # noqa: S603  (fixed words)


def decoded(state: State) -> str:
    """How the main process ended, in words (ExecMainCode: 1 exited, 2 killed, 3 dumped)."""
    if state.result == "timeout":
        return "did not become ready within `ready.timeout_sec` (TimeoutStartSec=)"
    if state.exit_code in (2, 3):
        return f"was killed by {signal.Signals(state.exit_status).name}"
    own = {200: "CHDIR", 203: "EXEC", 217: "USER", 226: "NAMESPACE", 243: "CREDENTIALS"}
    if state.exit_code == 1:
        name = own.get(state.exit_status)
        return f"exited with status {state.exit_status}" + (
            f" ({name}: systemd could not run it)" if name else ""
        )
    return f"ended with result {state.result}"


def _explain(place: Place, name: str, state: State, result: str, since_sec: float) -> str:
    """Why a start has failed: a sentence, and the last lines of the log since it was asked for."""
    if result == "done" and not state.condition_result:
        what = f"a condition of its unit is not met; see systemctl status {name}"
    elif result == "canceled":
        what = "the start was cancelled by a stop, or by the start of a model on its GPUs"
    elif result == "assert" or not state.assert_result:
        what = "its AssertPathExists= is not met: `model_path` does not exist"
    elif result == "done":
        what = "systemd says done, and it does not run"
    elif result == "dependency" and state.result == "success":
        what = "a unit that it requires failed"
    else:
        what = f"the engine {decoded(state)}"
    if state.pausing:
        what += "; systemd tries again (`recipectl stop` ends that)"
    log = "".join(f"\n  {line}" for line in tail(place, name, 8, since_sec))
    return f"{name} did not start: {what}; see {' '.join(place.journal)} {name}{log}"


def _known(manager: Manager, name: str) -> State:
    state = manager.states((name,))[0]
    if state.load_state == "not-found":
        raise UsageError(f"{name} is not on this host; write it with `recipectl apply` and the recipe's name")
    if state.load_state not in ("loaded", "masked"):
        raise JobError(
            f"{name} cannot be loaded by systemd ({state.load_state}); see systemctl status {name}"
        )
    return state


def _socket(manager: Manager, name: str) -> State:
    """The socket of a model; it is not loaded where the model is not on demand."""
    return manager.states((kinds(recipe_of(name))[1],))[0]


class _Progress:
    """One line on a terminal while a model loads: how long it takes, what the engine says; once a second."""

    def __init__(self, place: Place) -> None:
        self.place, self.begun, self.shown = place, time.monotonic(), -1
        # Over ssh each look would be a connection of its own.
        self.on = sys.stderr.isatty() and not place.remote

    def tick(self, name: str) -> None:
        elapsed = int(time.monotonic() - self.begun)
        if self.on and elapsed > self.shown:
            self.shown = elapsed
            line = (tail(self.place, name, 1) or [""])[0]
            width = shutil.get_terminal_size().columns
            click.echo(f"\r\033[K{elapsed:4d}s  {line[: width - 8]}", err=True, nl=False)

    def end(self) -> None:
        if self.on:
            click.echo("\r\033[K", err=True, nl=False)


def _run(place: Place, verb: str, recipes: tuple[str, ...]) -> int:
    """One job a model, all queued before the first is waited for; what went wrong is told of each."""
    since_sec, wrong, jobs, progress = time.time(), list[str](), dict[str, bytes](), _Progress(place)
    with Manager(user=place.user, host=place.remote) as manager:
        names = tuple(dict.fromkeys(map(service, recipes)))
        for name in names if verb != "Stop" else ():
            if not place.remote and (reason := place.store.taken(name)):
                raise UsageError(reason)
        states = [_known(manager, name) for name in names]
        for name in names if verb != "Stop" else ():
            for rival in sorted({*manager.rivals(name)} & {*names}):
                raise UsageError(f"{name} and {rival} stop each other; start one of them")
        for state in states:
            try:
                jobs[state.name] = _queued(manager, verb, state)
            except BusError as error:
                wrong.append(f"{state.name}: {error}")
        for name, job in jobs.items():
            result = manager.result(job, partial(progress.tick, name) if verb != "Stop" else None)
            progress.end()
            if verb == "Stop":
                if result != "done":
                    wrong.append(f"{name} did not stop: its job was {result}; see systemctl status {name}")
            elif result != "done" or manager.states((name,), brief=True)[0].active_state != "active":
                wrong.append(_explain(place, name, manager.states((name,))[0], result, since_sec))
    if wrong:
        raise JobError("\n".join(wrong))
    return 0


def _queued(manager: Manager, verb: str, state: State) -> bytes:
    """The job of a verb; says what somebody who types it may not expect."""
    name, socket = state.name, _socket(manager, state.name)
    demanded = socket.load_state == "loaded"
    if verb == "Stop":
        if socket.active_state == "active":
            click.echo(f"{name} starts again at the next request, for its socket still listens", err=True)
        return manager.queue(verb, name)
    if state.active_state == "failed":
        click.echo(f"{name} had failed ({state.result}); its start limit was reset", err=True)
    # Whoever starts a model means it: starts by people do not count against its limit.
    with contextlib.suppress(BusError):  # a unit that is not loaded has no count
        manager.reset_failed(name)
    if not demanded:
        # Before 257 a start waits for the end of RestartSec=; whoever types it means now.
        return manager.queue("Restart" if state.pausing else verb, name)
    # What keeps an on-demand model, or systemd would stop it as unneeded. The proxy comes with it; started
    # by itself, it would wait until rivals are idle.
    if verb == "Restart":
        manager.job("Stop", name)
    if socket.active_state != "active" and manager.job("Start", socket.name) != "done":
        told = f"{socket.name} does not listen, so no request reaches {name}"
        click.echo(f"{told}; see systemctl status {socket.name}", err=True)
    return manager.queue("Start", kinds(recipe_of(name))[3])


@click.command("start")
@_NAMES
@click.pass_obj
def start_(place: Place, recipes: tuple[str, ...]) -> int:
    """Start models; returns when they are ready."""
    return _run(place, "Start", recipes)


@click.command("stop")
@_NAMES
@click.pass_obj
def stop_(place: Place, recipes: tuple[str, ...]) -> int:
    """Stop models; returns when their processes are gone."""
    return _run(place, "Stop", recipes)


@click.command("restart")
@_NAMES
@click.pass_obj
def restart_(place: Place, recipes: tuple[str, ...]) -> int:
    """Stop models and start them again; returns when they are ready."""
    return _run(place, "Restart", recipes)


@click.command("switch")
@click.argument("recipe", metavar="RECIPE")
@click.pass_obj
def switch_(place: Place, recipe: str) -> int:
    """Start a model and say which ones it took the GPUs of."""
    name = service(recipe)
    with Manager(user=place.user, host=place.remote) as manager:
        _known(manager, name)
        rivals = manager.rivals(name)
        states = manager.states(rivals, brief=True)
        up = [state.name for state in states if state.active_state not in ("inactive", "failed")]
    begun = time.monotonic()
    _run(place, "Start", (recipe,))
    with Manager(user=place.user, host=place.remote) as manager:
        down = [
            s.name for s in manager.states(tuple(up), brief=True) if s.active_state in ("inactive", "failed")
        ]
    for one in down:
        click.echo(f"stopped {one}")
    click.echo(f"{name} is ready after {time.monotonic() - begun:.1f} s")
    return 0


@click.command("wait")
@_NAMES
@click.option("--timeout", type=float, default=1800, show_default=True, metavar="SECONDS")
@click.pass_obj
def wait_(place: Place, recipes: tuple[str, ...], timeout: float) -> int:
    """Wait until models are ready, without starting them."""
    end = time.monotonic() + timeout
    with Manager(user=place.user, host=place.remote) as manager:
        for name in map(service, recipes):
            while True:
                # A job that waits or runs may be a restart: `active` is then about what goes.
                busy = manager.has_job(name)
                state = _known(manager, name)
                if state.word == "ready" and not busy:
                    break
                if state.active_state in ("failed", "inactive") and not busy:
                    raise JobError(f"{name} is {state.word} and nobody starts it; use `recipectl start`")
                if time.monotonic() > end:
                    raise JobError(f"{name} is still {state.word} after {timeout:g} s")
                time.sleep(0.1)
    return 0


def _switches(manager: Manager, recipes: tuple[str, ...]) -> tuple[str, ...]:
    """What [Install] belongs to: the socket of an on-demand model, else its service."""
    names = [_known(manager, service(name)).name for name in recipes]
    sockets = {name: _socket(manager, name) for name in names}
    return tuple(socket.name if socket.load_state == "loaded" else n for n, socket in sockets.items())


def _undone(place: Place, recipes: tuple[str, ...], *, enabled: bool) -> None:
    """Tell which of these switches the recipes themselves will turn back."""
    said = {}
    with contextlib.suppress(RecipectlError):  # a host file that is wrong: other verbs tell it
        said = {model.name: model for model in outcome(place).models}
    for name in map(recipe_of, map(service, recipes)):
        if name in said and said[name].autostart not in (None, enabled):
            verb, file = ("disables" if enabled else "enables"), said[name].file
            warn(
                f"{file} says `autostart: {str(not enabled).lower()}`, so the next apply {verb} {name} again"
            )


@click.command("enable")
@_NAMES
@click.pass_obj
def enable_(place: Place, recipes: tuple[str, ...]) -> int:
    """Start models at boot, with models.target."""
    enabled = place.store.enabled()
    with Manager(user=place.user) as manager:
        names = _switches(manager, recipes)
        for name in names:
            for rival in set(manager.rivals(name)) & {*enabled, *names} if name.endswith(".service") else ():
                raise UsageError(
                    f"{name} and {rival} share a GPU, and only one of them would be up after a boot; "
                    f"disable {recipe_of(rival)} first"
                )
        manager.enable((*names, "models.target"))
        manager.reload()
    _undone(place, recipes, enabled=True)
    return 0


@click.command("disable")
@_NAMES
@click.pass_obj
def disable_(place: Place, recipes: tuple[str, ...]) -> int:
    """Do not start models at boot any more."""
    place.here()
    with Manager(user=place.user) as manager:
        manager.disable(_switches(manager, recipes))
        manager.reload()
    _undone(place, recipes, enabled=False)
    return 0
