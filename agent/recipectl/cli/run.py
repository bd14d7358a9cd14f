"""apply, diff, start, stop, restart, switch, wait, enable, disable, remove: verbs that change something."""

import json
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import click

from recipectl import host, plan, sources, unitfile
from recipectl.bus import Manager, State
from recipectl.cli.common import Place, chosen, outcome, recipe_of, service
from recipectl.compiled import Compiled
from recipectl.errors import BusError, JobError, UsageError
from recipectl.unitfile import facts, kinds

_NAMES = click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
_SOME = click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
_DONE = {
    "create user": "created the user",
    "write": "wrote",
    "remove": "removed",
    "reload": "reloaded",
    "enable": "enabled",
    "disable": "disabled",
    "restart": "restarting",
    "start": "starting",
}


def _gone(place: Place, installed: dict[str, str]) -> dict[str, str]:
    """Unit -> why it has to go: its recipe is in no folder any more, and neither is the file it came from."""
    there = {one.name for one in sources.sources(place.folders)}
    found = {}
    for name, text in installed.items():
        recipe = facts(text).get("Recipe")
        match = re.search(r"^SourcePath=(.*)$", text, re.M)
        source = Path(match[1].replace("%%", "%")) if match else None
        ad_hoc = source and source.parent not in place.folders and source.exists()
        if recipe and recipe not in there and not ad_hoc:
            found[name] = f"its recipe {source} is gone"
    return found


def _missing_users(models: tuple[Compiled, ...]) -> set[str]:
    named = {match[1] for model in models if (match := re.search(r"^User=(.*)$", model.units[0].text, re.M))}
    return named - {entry.pw_name for entry in pwd.getpwall()}


def _plan(
    place: Place, recipes: tuple[str, ...], manager: Manager, *, restart: bool
) -> tuple[plan.Plan, dict[str, str], int]:
    """The plan for the named recipes, or for the whole host; what is installed; and the status so far."""
    models, status = chosen(outcome(place, recipes), recipes, place)
    installed = place.store.installed()
    gone = {} if recipes else _gone(place, installed)
    names = {name for model in models for name in (model.units[0].name, model.enabled_unit)}
    states = {state.name: state for state in manager.states(tuple(sorted(names)), brief=True)}
    todo = plan.decide(
        models, unitfile.shared(place.site), installed, gone, states, place.store.enabled(),
        _missing_users(models), restart=restart, reload_due=place.store.reload_due,
    )  # fmt: skip
    return todo, installed, status


def _drop_ins(place: Place, todo: plan.Plan) -> list[str]:
    """The site's own drop-ins to the units of a plan: they stay in force."""
    folders = {f"{action.unit}.d" for action in todo.actions} | {"model-.service.d"}
    return sorted(str(path) for folder in folders for path in (place.store.folder / folder).glob("*.conf"))


def _report(place: Place, todo: plan.Plan, installed: dict[str, str], status: int) -> str:
    actions = [{"verb": one.verb, "unit": one.unit, "reason": one.reason} for one in todo.actions]
    told = {"changed": bool(todo), "actions": actions, "diff": plan.diff(todo, installed)}
    return json.dumps(told | {"drop_ins": _drop_ins(place, todo), "ok": status == 0}, indent=2)


def _show(place: Place, todo: plan.Plan, installed: dict[str, str]) -> None:
    for text in plan.diff(todo, installed).values():
        click.echo(text, nl=False)
    for action in todo.actions:
        click.echo(f"would {action.verb} {action.unit}: {action.reason}")
    for path in _drop_ins(place, todo) if todo else ():
        click.echo(f"stays in force: {path}")


@click.command("diff")
@_SOME
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--no-restart", is_flag=True, help="As apply --no-restart would do.")
@click.pass_obj
def diff_(place: Place, recipes: tuple[str, ...], as_json: bool, no_restart: bool) -> int:
    """Show what apply would do, and why; exit status 3 when there is something."""
    with Manager(user=place.user) as manager:
        todo, installed, status = _plan(place, recipes, manager, restart=not no_restart)
    if as_json:
        click.echo(_report(place, todo, installed, status))
    else:
        _show(place, todo, installed)
    return status or (3 if todo else 0)


@click.command("apply")
@_SOME
@click.option("--check", is_flag=True, help="Change nothing; exit status 3 when something would.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show what would.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--no-restart", is_flag=True, help="Leave running models as they are.")
@click.pass_obj
def apply_(
    place: Place, recipes: tuple[str, ...], check: bool, dry_run: bool, as_json: bool, no_restart: bool
) -> int:
    """Make the host what its recipes say; with names, only these. Models load after it returns."""
    only_look = check or dry_run
    lock = None if only_look else place.store.lock()
    with Manager(user=place.user) as manager:
        if lock:
            place.store.sweep()
        todo, installed, status = _plan(place, recipes, manager, restart=not no_restart)
        if todo and not only_look:
            host.apply(todo, place.store, manager, _quiet if as_json else _say)
    if as_json:
        click.echo(_report(place, todo, installed, status))
    elif dry_run:
        _show(place, todo, installed)
    return status or (3 if check and todo else 0)


def _quiet(_: plan.Action) -> None:
    """--json says it all at the end."""


def _say(action: plan.Action) -> None:
    click.echo(f"{_DONE[action.verb]} {action.unit}: {action.reason}")


def tail(place: Place, name: str, lines: int) -> list[str]:
    """The last lines of a unit's log, as many as there are."""
    words = [*place.journal, name, "-o", "cat", "-n", str(lines), "--no-pager", "-q"]
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


def _explain(place: Place, name: str, state: State, result: str) -> str:
    if result == "assert" or not state.assert_result:
        what = "its AssertPathExists= is not met: `model_path` does not exist"
    elif result == "dependency":
        what = "a unit that it requires failed"
    elif result == "canceled":
        what = "the start was cancelled by a stop, or by the start of a model on its GPUs"
    else:
        what = f"the engine {decoded(state)}"
    if state.sub_state == "auto-restart":
        what += "; systemd tries again (`recipectl stop` ends that)"
    log = "".join(f"\n  {line}" for line in tail(place, name, 8))
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


def _on_demand(manager: Manager, name: str) -> bool:
    socket = kinds(recipe_of(name))[1]
    return manager.states((socket,))[0].load_state == "loaded"


def _progress(place: Place, name: str, begun: float) -> None:
    line = (tail(place, name, 1) or [""])[0]
    width = shutil.get_terminal_size().columns
    click.echo(f"\r\033[K{int(time.monotonic() - begun):4d}s  {line[: width - 8]}", err=True, nl=False)


def _run(place: Place, verb: str, recipes: tuple[str, ...]) -> int:
    """One job a model, all queued before the first is waited for; what went wrong is told of each."""
    with Manager(user=place.user, host=place.remote) as manager:
        states = [_known(manager, name) for name in dict.fromkeys(map(service, recipes))]
        terminal = sys.stderr.isatty() and verb != "Stop"
        begun, wrong, jobs = time.monotonic(), [], {}
        for state in states:
            try:
                jobs[state.name] = manager.queue(verb, _wanted(manager, verb, state))
            except BusError as error:
                wrong.append(f"{state.name}: {error}")
        for name, job in jobs.items():
            result = manager.result(job, partial(_progress, place, name, begun) if terminal else None)
            if terminal:
                click.echo("\r\033[K", err=True, nl=False)
            if result != "done" and verb == "Stop":
                wrong.append(
                    f"{name} did not stop: the stop was {result}; somebody starts it, look at its status"
                )
            elif result != "done":
                wrong.append(_explain(place, name, manager.states((name,))[0], result))
    if wrong:
        raise JobError("\n".join(wrong))
    return 0


def _wanted(manager: Manager, verb: str, state: State) -> str:
    """The unit that a job is for; says what somebody who types the verb may not expect."""
    name, demanded = state.name, _on_demand(manager, state.name)
    if verb != "Stop" and state.active_state == "failed":
        manager.reset_failed(name)
        click.echo(f"{name} had failed ({state.result}); its start limit was reset", err=True)
    if verb == "Stop" and demanded:
        click.echo(f"{name} starts again at the next request, for its socket still listens", err=True)
    # What wants an on-demand model is its proxy: without it systemd would stop it as unneeded.
    return kinds(recipe_of(name))[2] if demanded and verb == "Start" else name


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
        up = [state.name for state in manager.states(rivals, brief=True) if state.active_state != "inactive"]
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
    return tuple(kinds(recipe_of(n))[1] if _on_demand(manager, n) else n for n in names)


@click.command("enable")
@_NAMES
@click.pass_obj
def enable_(place: Place, recipes: tuple[str, ...]) -> int:
    """Start models at boot, with models.target."""
    with Manager(user=place.user) as manager:
        manager.enable((*_switches(manager, recipes), "models.target"))
        manager.reload()
    return 0


@click.command("disable")
@_NAMES
@click.pass_obj
def disable_(place: Place, recipes: tuple[str, ...]) -> int:
    """Do not start models at boot any more."""
    with Manager(user=place.user) as manager:
        manager.disable(_switches(manager, recipes))
        manager.reload()
    return 0


@click.command("remove")
@_NAMES
@click.pass_obj
def remove_(place: Place, recipes: tuple[str, ...]) -> int:
    """Stop models, disable them and remove their units; recipes stay."""
    lock = place.store.lock()
    installed = place.store.installed()
    gone = dict[str, str]()
    for name in map(service, recipes):
        if name not in installed:
            raise UsageError(
                f"{name} is not a unit of recipectl in {place.store.folder}; see `recipectl list`"
            )
        gone |= {one: "removed" for one in kinds(recipe_of(name)) if one in installed}
    with lock, Manager(user=place.user) as manager:
        host.apply(plan.decide((), (), installed, gone, {}, ()), place.store, manager)
    return 0
