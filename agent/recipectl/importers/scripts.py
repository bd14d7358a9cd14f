"""The recipes of the engines that a script runs, and what is said of its other commands."""

import shlex
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from recipectl.compiler.relations import same_address
from recipectl.engines.registry import ENGINES
from recipectl.errors import UsageError
from recipectl.importers import shell_inline
from recipectl.importers.command import Command, NoEngineError, OtherProgramError, program_shown
from recipectl.importers.draft import Draft, redacted, unique_name
from recipectl.importers.from_command import draft_from_command
from recipectl.importers.lines import Remark, placed
from recipectl.importers.shell_branches import NOT_RUN
from recipectl.importers.shell_programs import has_effect, hidden_engine, may_run_engine, what_it_is
from recipectl.importers.unwrapping import unwrapped
from recipectl.importers.variables import keep_cache


class Imported(NamedTuple):
    """The recipes of a script, what none of them has, and why engines of it are refused."""

    drafts: list[Draft]
    not_carried_over: list[Remark]
    refusals: list[str]


def imported(commands: Iterable[Command]) -> Imported:
    """The recipes of the engines among commands."""
    result = Imported([], [], [])
    branches: list[Mapping[int, int]] = []  # of each recipe's command
    lost: list[Remark] = []  # what the script lost at commands of other programs, until the next engine
    programs: list[Remark] = []  # those that are left out
    for command in (inner for outer in commands for inner in shell_inline.opened(outer)):
        words = unwrapped(command).words
        if words and not command.refusal and not has_effect(words):
            lost += command.lost_before
            continue
        try:
            if not (command.hides_engine or may_run_engine(words)):
                raise NoEngineError(shlex.join(command.words))
            draft = _draft(command)
        except UsageError as error:
            lost += command.lost_before
            count = len(lost)
            _note_left_out(command, words or command.words, error, lost, result.refusals)
            programs += lost[count:]
            continue
        draft.not_carried_over = [*dict.fromkeys((*lost, *draft.not_carried_over))]
        lost = []
        result.drafts.append(draft)
        branches.append(command.branches)
    # Where no engine runs, only the programs are reported: one of them may start an engine.
    result.not_carried_over.extend(lost if result.drafts or result.refusals else programs)
    _set_alternatives(result.drafts, branches)
    return result


def _draft(command: Command) -> Draft:
    """The recipe of a command. The cache of another user, or of one without a network, is kept or named."""
    draft = draft_from_command(command)
    user = draft.fields.get("user", "")
    if user or "HF_HUB_OFFLINE" in draft.fields.get("env_vars", {}):
        keep_cache(draft, user, None if user else "")
    return draft


def _note_left_out(
    command: Command, words: list[str], error: UsageError, lost: list[Remark], refusals: list[str]
) -> None:
    """Note what another program is, which the next engine lacks, or why an engine is refused."""
    if isinstance(error, NoEngineError):
        refusal = None if isinstance(error, OtherProgramError) else hidden_engine(words)
        sentence = f"`{redacted(program_shown(words))}`, {what_it_is(words)}"
    else:
        refusal = str(error)
        sentence = f"`{redacted(program_shown(words or ['a command']))}`: {refusal}"
    if command.is_skipped:
        sentence = f"{refusal or sentence}; as it is, the script does not run it"
    if refusal and not command.is_skipped:
        refusals.append(placed(refusal, command.place))
    else:
        lost.append(Remark(sentence, within=command.place))


def _set_alternatives(drafts: list[Draft], branches: list[Mapping[int, int]]) -> None:
    """Let recipes of which the script ran only one stop each other; `branches` are statement -> part.

    Engines at one address and port ran one after the other, too.
    """
    for number, draft in reversed([*enumerate(drafts)]):  # `start`, and `restart`, which starts the same
        same = next((other for other in drafts[:number] if _are_same(draft, other)), None)
        if same and branches[number]:
            same.not_carried_over = _of_both(same.not_carried_over, draft.not_carried_over)
            del drafts[number], branches[number]
    names: list[str] = []
    for number, draft in enumerate(drafts):
        draft.name = unique_name(draft.name, names)
        others = [
            name
            for name, parts in zip(names, branches, strict=False)
            if any(parts.get(statement, part) != part for statement, part in branches[number].items())
        ]
        at_one_port = [
            name for name, other in zip(names, drafts, strict=False)
            if name not in others and _share_port(draft, other)
        ]  # fmt: skip
        if others or at_one_port:
            reason = "The script ran only one of them." if others else "They have one port."
            draft.set("conflicts", [*others, *at_one_port], reason)
        names.append(draft.name)


def _of_both(first: list[Remark], second: list[Remark]) -> list[Remark]:
    """Join what is said of one engine in two branches. It runs if one of the branches runs."""
    both = [*dict.fromkeys((*first, *second))]
    runs = any(all(remark.sentence != NOT_RUN for remark in remarks) for remarks in (first, second))
    return [remark for remark in both if remark.sentence != NOT_RUN] if runs else both


def _are_same(draft: Draft, other: Draft) -> bool:
    return (draft.name, draft.fields, draft.secrets) == (other.name, other.fields, other.secrets)


def _share_port(draft: Draft, other: Draft) -> bool:
    """True for two engines that listen at one port.

    A follower of several hosts listens nowhere; others have a socket, or a port of the kernel's choice.
    """
    ports, hosts = [], []
    for fields in (draft.fields, other.fields):
        extra = fields.get("extra_args", {})
        port = fields.get("port", extra.get("port", ENGINES[fields["backend"]].port))
        host = str(fields.get("host", "0.0.0.0"))  # noqa: S104  (compared)
        if "nodes" in fields or {"headless", "uds"} & {*extra} or port == 0 or "/" in host:
            return False
        ports.append(port)
        hosts.append(host)
    return ports[0] == ports[1] and same_address(*hosts)
