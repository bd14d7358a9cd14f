"""status, logs: what is running."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import click

from recipectl.addresses import WILDCARDS
from recipectl.cli.beside import not_running_beside, set_line, set_rows, waiting_requests
from recipectl.cli.failures import Reason, how_it_ended, reason_not_ready
from recipectl.cli.listing import shown
from recipectl.cli.names import (
    SOME_MODELS,
    complete_word,
    models_argument,
    not_applied,
    recipe_file,
    recipe_names,
    service_name,
)
from recipectl.cli.options import json_option, print_json, report_no_recipes
from recipectl.cli.terminal import print_state, table
from recipectl.command_line import unknown_option_of_logs
from recipectl.errors import RecipectlError, UsageError
from recipectl.systemd.dbus import Manager
from recipectl.systemd.store import Store
from recipectl.systemd.unitfile import UnitNames, recipe_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recipectl.place import Place
    from recipectl.systemd.states import UnitState
    from recipectl.systemd.unitfile import InstalledUnit

_COLUMNS = {
    "name": "NAME", "state_shown": "STATE", "pid": "PID", "engine": "ENGINE", "engine_version": "VERSION",
    "endpoint_shown": "ENDPOINT", "gpus": "GPUS",
}  # fmt: skip


def _row(
    state: UnitState, unit: InstalledUnit | None, store: Store | None, enabled: frozenset[str]
) -> dict[str, object]:
    """One model as systemd and its unit have it; over ssh there is no store."""
    names = UnitNames.of_service(state.name)
    return {
        "name": unit.recipe if unit else names.recipe,
        "unit": state.name,
        "state": state.word,
        "active_state": state.active_state,
        "sub_state": state.sub_state,
        "since_sec": state.since_sec,
        "pid": state.main_pid or None,
        "engine": unit.backend if unit else None,
        "engine_version": unit.engine_version if unit else None,
        "endpoint": unit.endpoint or "none" if unit else None,
        "endpoint_shown": _endpoint_shown(unit) if unit else None,
        "model": unit.model if unit else None,
        "gpus": unit.gpus if unit else None,
        "restarts": state.restarts,
        "memory_bytes": state.memory_bytes,
        "enabled": state.name in enabled or names.socket in enabled,
        "drop_ins": list(state.drop_ins),
        "unit_file": str(store.folder / state.name) if store else None,
        "ended": how_it_ended(state, unit) if state.active_state == "failed" else None,
    }


@click.command("status")
@SOME_MODELS
@json_option()
@click.pass_obj
def status_(place: Place, recipes: tuple[str, ...], as_json: bool) -> int:
    """Show models as systemd sees them; exit status 3 when a named model is not ready."""
    if place.remote and not recipes:
        raise UsageError("the recipes are on the other host; name one: `recipectl -H HOST status NAME`")
    services = tuple(map(service_name, recipes))
    store = None if place.remote else Store(place.unit_folder)
    unknown: list[str] = []
    if store:
        existing = store.services()
        unknown = [service for service in services if service not in existing]
        services = tuple(service for service in services if service in existing) if recipes else existing
    detailed = bool(recipes) or as_json
    all_names = [UnitNames.of_service(service) for service in services]
    sockets = [names.socket for names in all_names] + [names.queue_socket for names in all_names]
    with Manager(place) as manager:
        if detailed:
            states, socket_states = manager.states(services), manager.states(sockets, brief=True)
        else:
            both = manager.states([*services, *sockets], brief=True)
            states, socket_states = both[: len(services)], both[len(services) :]
        units = [store.read(state.name) if store else None for state in states]
        beside = not_running_beside(place, manager, states, units) if detailed else {}
        waiting = waiting_requests(manager, states, units) if recipes else {}
    enabled = store.enabled() if store else frozenset[str]()
    rows = []
    socket_states, queue_states = socket_states[: len(services)], socket_states[len(services) :]
    for state, socket, queue, unit in zip(states, socket_states, queue_states, units, strict=True):
        row = _row(state, unit, store, enabled)
        exists = socket.load_state not in ("unloaded", "not-found") or (
            store and (store.folder / socket.name).exists()
        )
        row["socket"] = socket.active_state if exists else None
        row["queue"] = queue.active_state if queue.load_state == "loaded" else None
        row["state_shown"] = shown(state, queue if queue.active_state == "failed" else socket)
        details = _details(place, state, unit) if recipes else {}
        if details and state.word == "stopped" and row["socket"] == "inactive":
            details["reason"] = "its socket was stopped, so no request starts it"
        if details and (reason := waiting.get(state.name)):
            details["reason"] = reason
        row["beside"] = beside.get(state.name, [])
        rows.append(row | details)
    _print_rows(place, rows, as_json=as_json, detailed=bool(recipes))
    for service in unknown:
        click.echo(str(not_applied(recipe_of(service), place)), err=True)
    if unknown:
        return 2
    return 3 if recipes and any(state.word != "ready" for state in states) else 0


def _print_rows(place: Place, rows: Sequence[Mapping[str, object]], *, as_json: bool, detailed: bool) -> None:
    """The models as JSON, each with its details, or as a table."""
    if as_json:
        print_json(rows)
    elif detailed:
        for row in rows:
            _print_details(row)
    elif not rows:
        _report_no_models(place)
    else:
        table([[str(row[key] or "") for key in _COLUMNS] for row in rows], [*_COLUMNS.values()])


def _report_no_models(place: Place) -> None:
    """One line for a host without models."""
    if names := recipe_names(place):
        count = "1 recipe is" if len(names) == 1 else f"{len(names)} recipes are"
        click.echo(f"no models yet: {count} not applied; run `{place.verb('apply')}`", err=True)
    else:
        report_no_recipes(place)


def _endpoint_shown(unit: InstalledUnit) -> str:
    """The endpoint in a table: `*` for an engine that listens at every address."""
    if unit.endpoint and unit.host in WILDCARDS:
        return f"http://*:{unit.endpoint_address[1]}"
    return unit.endpoint or "none"


def _wrong_answers(place: Place, unit: InstalledUnit) -> list[str]:
    """What the engine itself answers that its unit does not say."""
    from recipectl.audit import drift
    from recipectl.engines.ask import ask

    answer = ask(unit)
    if answer is None:
        return []
    if not answer.answers:
        return [drift.of_silence(place, unit.recipe).what]
    return [difference.what for difference in drift.of_model(place, unit, answer.models, answer.path)]


def _details(place: Place, state: UnitState, unit: InstalledUnit | None) -> dict[str, object]:
    """What only a question about one model is worth: why it is not ready, and what has changed."""
    reason = reason_not_ready(place, state, unit) or Reason("", (), "")
    changed = []
    if unit:
        from recipectl.audit import edits

        of_state = edits.of_running if state.word == "ready" else edits.since_last_run
        changed = [*of_state(place, unit, state)]
    return {
        "set": set_rows(place, unit.recipe) if unit else [],
        "answers": _wrong_answers(place, unit) if unit and state.word == "ready" else [],
        "reason": reason.sentence or None,
        "log": list(reason.log),
        "changed": changed,
        "next": reason.next_command or None,
    }


def _print_details(row: Mapping[str, Any]) -> None:
    since_sec, memory_bytes = row["since_sec"], row["memory_bytes"]
    since = time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(since_sec)) if since_sec else ""
    lines = {
        "why": row["reason"],
        "beside": row["beside"],
        "set": [*map(set_line, row["set"])],
        "log": row["log"],
        "changed": row["changed"],
        "answers": row["answers"],
        "next": row["next"],
        "state": row["state_shown"],
        "pid": row["pid"],
        "engine": f"{row['engine']} {row['engine_version']}" if row["engine"] else None,
        "endpoint": row["endpoint_shown"],
        "model": row["model"],
        "gpus": row["gpus"],
        "restarts": row["restarts"],
        "memory": f"{memory_bytes / 2**20:.0f} MiB" if memory_bytes is not None else None,
        "on demand": _socket_in_words(row["socket"]),
        "queue": _queue_in_words(row["queue"]),
        "at boot": "yes" if row["enabled"] else "no",
        "unit": row["unit_file"],
        "drop-ins": " ".join(row["drop_ins"]),
    }
    click.echo(row["name"])
    for label, value in lines.items():
        if label == "state":
            print_state(f"  {'state:':10} ", str(value), since)
        elif value not in (None, "", []):
            text = "\n             ".join(value) if isinstance(value, list) else value
            click.echo(f"  {label + ':':10} {text}")


def _socket_in_words(active_state: str | None) -> str | None:
    known = {None: None, "active": "its socket listens"}
    return known.get(active_state, f"its socket is {active_state}: no request starts it")


def _queue_in_words(active_state: str | None) -> str | None:
    known = {None: None, "active": "its socket listens: requests wait while the model is down"}
    return known.get(active_state, f"its socket is {active_state}: no request waits")


class _Logs(click.Command):
    """A verb with the options of journalctl: `-b` may have an offset, and others are left to journalctl."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        for word in args:
            if words[-1:] in (["-b"], ["--boot"]) and re.fullmatch(r"[+-]?[0-9]+|[0-9a-f]{32}", word):
                words[-1] = f"--boot={word}"
            else:
                words.append(word)
        try:
            return super().parse_args(
                ctx, ["--boot=0" if word in ("-b", "--boot") else word for word in words]
            )
        except click.NoSuchOption as error:
            raise click.UsageError(unknown_option_of_logs(ctx.obj, error.option_name), ctx) from error


@click.command("logs", cls=_Logs)
@models_argument
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines.")
@click.option(
    "-n", "--lines", metavar="LINES", help="How many past lines.  [default: 100, or all since a time]"
)
@click.option("-S", "--since", metavar="TIME", help="Lines since then: '1 hour ago', 09:00, yesterday.")
@click.option("-U", "--until", metavar="TIME", help="Lines until then.")
@click.option("-b", "--boot", metavar="[BOOT]", help="Lines since the last boot, or of an earlier one: -1.")
@click.option(
    "-p", "--priority", metavar="PRIORITY", help="Lines of this priority and more urgent ones: err.",
    shell_complete=complete_word("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"),
)  # fmt: skip
@click.option("-g", "--grep", metavar="PATTERN", help="Lines that match.")
@click.option("-r", "--reverse", is_flag=True, help="The newest lines first.")
@click.option(
    "-o", "--output", metavar="FORMAT", help="As journalctl's: short-iso, cat, json.",
    shell_complete=complete_word("short", "short-iso", "short-precise", "cat", "json", "verbose"),
)  # fmt: skip
@click.pass_context
def logs_(ctx: click.Context, /, recipes: tuple[str, ...], **options: str | bool | None) -> int:
    """Show the journal of models, with journalctl and its options."""
    place: Place = ctx.obj
    services = list(map(service_name, recipes))
    for service in services if not place.remote else ():
        # A recipe without units may have had some; UsageError for no recipe.
        if service not in Store(place.unit_folder).services():
            recipe_file(recipe_of(service), place)
    if options["lines"] is None and not (options["since"] or options["boot"] or options["grep"]):
        options["lines"] = "100"
    journal_options = (
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items() if value
    )
    no_pager = options["follow"] or ctx.find_root().params["no_pager"]
    units = [word for service in services[1:] for word in ("-u", service)]
    words = [*place.journalctl, services[0], *units, *journal_options, *(["--no-pager"] if no_pager else [])]
    try:
        os.execvp(words[0], place.command(*words))  # noqa: S606  (journalctl takes over)
    except OSError as error:
        fault = f"{words[0]} cannot be run ({error.strerror})"
        raise RecipectlError(f"{fault}; install it, or correct PATH") from error
