"""The verbs: the only code that prints or exits, besides the programs of units."""

import importlib

import click
from click.shell_completion import CompletionItem

from recipectl.command_line import in_order, unknown_verb

# verb: (the file that has it, its line in --help), so that --help imports none of them.
_VERBS = {
    "compile": ("show", "Print the units of recipes, or write them."),
    "explain": ("show", "Print each step from a recipe to its unit, and why."),
    "show-command": ("show", "Print the command of a recipe, to paste into a shell."),
    "runtime": ("show", "Print which interpreter and engine serve a recipe."),
    "lock": ("fidelity", "Record the exact runtime of recipes, to notice any drift."),
    "versions": ("fidelity", "Compare recipe, unit, systemd, process and engine."),
    "check": ("fidelity", "Check flags and values against the installed engine."),
    "doctor": ("doctor", "Run all checks of this host, and say what to do."),
    "venv": ("venv", "Make, list, verify and remove runtimes of engines."),
    "import": ("imports", "Make recipes of what runs, a command, a unit or a file."),
    "schema": ("show", "Print the JSON Schema of a recipe."),
    "diff": ("converge", "Show what apply would do, and why."),
    "apply": ("converge", "Make the host what its recipes say."),
    "upgrade": ("upgrade", "Move a model to another runtime, or back if that fails."),
    "rollback": ("upgrade", "Take the last upgrade of a model back."),
    "canary": ("upgrade", "Ask models questions whose answers are known."),
    "edit": ("edit", "Edit a recipe, check it, and apply it."),
    "start": ("jobs", "Start models; returns when they are ready."),
    "stop": ("jobs", "Stop models; returns when their processes are gone."),
    "restart": ("jobs", "Stop models and start them again."),
    "switch": ("jobs", "Start a model, and say which models it stopped."),
    "wait": ("jobs", "Wait until models are ready, without starting them."),
    "enable": ("boot", "Start models at boot, with models.target."),
    "disable": ("boot", "Do not start models at boot any more."),
    "remove": ("removal", "Stop models, disable them and remove their units."),
    "status": ("query", "Show models as systemd sees them."),
    "list": ("listing", "List all recipes, and how host and recipe differ."),
    "fleet": ("fleet", "Check and compare many hosts."),
    "gateway": ("gateway", "Show the one address of all models, and its names."),
    "logs": ("query", "Show a model's journal."),
    "setup": ("setup", "Put man pages, completions and rules in their places."),
}


class _Verbs(click.Group):
    """Imports a verb's file only when the verb is run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, in_order(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _VERBS and not ctx.resilient_parsing:
            raise click.UsageError(unknown_verb(args, _VERBS, user=ctx.params["user"]))
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"recipectl.cli.{_VERBS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name.replace('-', '_')}_")
        return command if isinstance(command, click.Command) else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        is_verb = bool(incomplete) and "help".startswith(incomplete)
        return [*([CompletionItem("help")] if is_verb else []), *super().shell_complete(ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in _VERBS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(importlib.import_module("recipectl.cli.version").text())
        ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "color": True})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the release.",
)
@click.option("--user", is_flag=True, help="Talk to your own service manager, with your own recipes.")
@click.option(
    "-H", "--host", "remote", metavar="[USER@]HOST", help="Talk to another host's systemd, over ssh."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only results, errors and warnings.")
@click.option("--no-pager", is_flag=True, help="Do not pipe logs into a pager.")
@click.pass_context
def recipectl(ctx: click.Context, user: bool, remote: str | None, quiet: bool, no_pager: bool) -> None:
    """Compile LLM inference recipes to systemd units, and run them.

    A RECIPE is a name, looked up in the recipe folders, a pattern such as 'qwen*', or a file when it has a
    `/` or ends in .yaml, .yml or .json. The options below may also stand behind the verb.

    Exit status: 0 done, 1 the host failed, 2 a recipe or the command line is wrong, 3 not as wanted.
    """
    from recipectl.place import Place

    if remote == "" or (remote or "").startswith("-"):
        raise click.UsageError(f"-H is {remote!r}, which is no host; name one")
    if user and remote:
        raise click.UsageError("--user and -H cannot be given together; ssh to that user instead")
    ctx.obj = Place(user, remote)
