"""apply, start, stop, restart, wait, enable, disable, remove: verbs that change something."""

import signal
import subprocess
import sys
import time
from functools import partial

import click

from recipectl import host, plan
from recipectl.bus import Manager, State
from recipectl.cli.common import Place, each, service
from recipectl.errors import JobError, UsageError

_NAMES = click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")


@click.command("apply")
@_NAMES
@click.pass_obj
def apply_(user: bool, recipes: tuple[str, ...]) -> int:
    """Write the units of recipes and reload systemd once; nothing is started."""
    from recipectl import unit

    place = Place(user)
    made, status = each(recipes, place)
    wanted = tuple(unit.render(one, place.site, place.host) for one in made)
    todo = plan.decide((*wanted, *unit.shared(place.site)) if wanted else (), place.store.installed())
    if todo:
        with Manager(user=user) as manager:
            host.apply(todo, place.store, manager)
        for one in todo.write:
            click.echo(f"wrote {place.store.folder / one.name}")
    return status


def tail(place: Place, name: str, lines: int) -> list[str]:
    """The last lines of a unit's log, as many as there are."""
    words = [*place.journal.split(), name, "-o", "cat", "-n", str(lines), "--no-pager", "-q"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()  # noqa: S603  (fixed words)


def decoded(state: State) -> str:
    """How the main process ended, in words (ExecMainCode: 1 exited, 2 killed, 3 dumped)."""
    if state.result == "timeout":
        return "did not become ready within TimeoutStartSec="
    if state.exit_code in (2, 3):
        return f"was killed by {signal.Signals(state.exit_status).name}"
    own = {200: "CHDIR", 203: "EXEC", 217: "USER", 226: "NAMESPACE", 243: "CREDENTIALS"}
    if state.exit_code == 1:
        name = own.get(state.exit_status)
        return f"exited with status {state.exit_status}" + (
            f" ({name}: systemd could not run it)" if name else ""
        )
    return f"ended with result {state.result}"


def _explain(place: Place, name: str, state: State, result: str) -> JobError:
    if result == "assert" or not state.assert_result:
        what = "its AssertPathExists= is not met: `model_path` does not exist"
    elif result == "dependency":
        what = "a unit that it requires failed"
    elif result == "canceled":
        what = "the start was cancelled by a stop"
    else:
        what = f"the engine {decoded(state)}"
    if state.sub_state == "auto-restart":
        what += "; systemd tries again (`recipectl stop` ends that)"
    log = "".join(f"\n  {line}" for line in tail(place, name, 8))
    return JobError(f"{name} did not start: {what}; see {place.journal} {name}{log}")


def _known(manager: Manager, name: str) -> State:
    state = manager.states((name,))[0]
    if state.load_state == "not-found":
        raise UsageError(f"{name} is not on this host; write it with `recipectl apply` and the recipe's name")
    return state


def _progress(place: Place, name: str) -> None:
    line = (tail(place, name, 1) or [""])[0]
    width = 60
    click.echo(f"\r\033[K{int(time.monotonic() - _BEGUN):4d}s  {line[:width]}", err=True, nl=False)


_BEGUN = time.monotonic()


def _run(user: bool, verb: str, recipes: tuple[str, ...]) -> int:
    place = Place(user)
    with Manager(user=user) as manager:
        for name in map(service, recipes):
            state = _known(manager, name)
            if verb != "Stop" and state.active_state == "failed":
                manager.reset_failed(name)
                click.echo(f"{name} had failed ({state.result}); its start limit was reset", err=True)
            terminal = sys.stderr.isatty() and verb != "Stop"
            result = manager.job(verb, name, partial(_progress, place, name) if terminal else None)
            if terminal:
                click.echo("\r\033[K", err=True, nl=False)
            if result != "done":
                raise _explain(place, name, manager.states((name,))[0], result)
    return 0


@click.command("start")
@_NAMES
@click.pass_obj
def start_(user: bool, recipes: tuple[str, ...]) -> int:
    """Start models; returns when they are ready."""
    return _run(user, "Start", recipes)


@click.command("stop")
@_NAMES
@click.pass_obj
def stop_(user: bool, recipes: tuple[str, ...]) -> int:
    """Stop models; returns when their processes are gone."""
    return _run(user, "Stop", recipes)


@click.command("restart")
@_NAMES
@click.pass_obj
def restart_(user: bool, recipes: tuple[str, ...]) -> int:
    """Stop models and start them again; returns when they are ready."""
    return _run(user, "Restart", recipes)


@click.command("wait")
@_NAMES
@click.option("--timeout", type=float, default=1800, show_default=True, metavar="SECONDS")
@click.pass_obj
def wait_(user: bool, recipes: tuple[str, ...], timeout: float) -> int:
    """Wait until models are ready, without starting them."""
    end = time.monotonic() + timeout
    with Manager(user=user) as manager:
        for name in map(service, recipes):
            while (state := _known(manager, name)).word != "ready":
                if state.active_state in ("failed", "inactive"):
                    raise JobError(f"{name} is {state.word} and nobody starts it; use `recipectl start`")
                if time.monotonic() > end:
                    raise JobError(f"{name} is still {state.word} after {timeout:g} s")
                time.sleep(0.1)
    return 0


@click.command("enable")
@_NAMES
@click.pass_obj
def enable_(user: bool, recipes: tuple[str, ...]) -> int:
    """Start models at boot, with models.target."""
    with Manager(user=user) as manager:
        names = tuple(_known(manager, service(name)).name for name in recipes)
        manager.enable((*names, "models.target"))
    return 0


@click.command("disable")
@_NAMES
@click.pass_obj
def disable_(user: bool, recipes: tuple[str, ...]) -> int:
    """Do not start models at boot any more."""
    with Manager(user=user) as manager:
        manager.disable(tuple(_known(manager, service(name)).name for name in recipes))
    return 0


@click.command("remove")
@_NAMES
@click.pass_obj
def remove_(user: bool, recipes: tuple[str, ...]) -> int:
    """Stop models, disable them and remove their units; recipes stay."""
    place = Place(user)
    installed = place.store.installed()
    names = tuple(map(service, recipes))
    for name in names:
        if name not in installed:
            raise UsageError(
                f"{name} is not a unit of recipectl in {place.store.folder}; see `recipectl list`"
            )
    with Manager(user=user) as manager:
        host.apply(plan.decide((), installed, remove=names), place.store, manager)
    return 0
