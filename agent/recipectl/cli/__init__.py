"""The verbs; the only code that prints or exits."""

import importlib

import click

_VERBS = {
    "compile": "show", "explain": "show", "runtime": "show", "schema": "show",
    "apply": "run", "start": "run", "stop": "run", "restart": "run", "enable": "run", "disable": "run",
    "remove": "run", "wait": "run", "status": "query", "list": "query", "logs": "query",
}  # fmt: skip


class _Verbs(click.Group):
    """Imports a verb's file only when it is asked for, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"recipectl.cli.{_VERBS[cmd_name]}")
        command = getattr(module, f"{cmd_name}_")
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "--version", package_name="recipectl", prog_name="recipectl")
@click.option("--user", is_flag=True, help="Talk to your own service manager, with your own recipes.")
@click.pass_context
def recipectl(ctx: click.Context, user: bool) -> None:
    """Compile LLM inference recipes to systemd units, and run them.

    A RECIPE is a name, looked up in the recipe folders, or a file when it has a `/` or ends in .yaml, .yml
    or .json.

    Exit status: 0 done, 1 the host failed, 2 a recipe or the command line is wrong, 3 not as wanted.
    """
    ctx.obj = user
