"""The command: `recipectl`, or `python -m recipectl`."""

import gc
import importlib
import os
import sys
from types import ModuleType

gc.disable()  # a short life: looking for garbage costs a tenth of it, and frees nothing

import click  # noqa: E402

from recipectl.cli import recipectl  # noqa: E402
from recipectl.errors import RecipectlError  # noqa: E402


def _without_plugins() -> None:
    """Spare pydantic the look for its plugins, for which it imports importlib.metadata: 9 ms."""

    def real(name: str) -> object:
        if name.startswith("__"):  # the import itself asks for these
            raise AttributeError(name)
        del sys.modules[loader.__name__]
        return getattr(importlib.import_module(loader.__name__), name)

    loader = ModuleType("pydantic.plugin._loader")
    loader.__dict__.update(get_plugins=tuple, __getattr__=real)
    sys.modules[loader.__name__] = loader


def main() -> None:
    """One place where errors end: a line each on standard error, and the exit status of the process."""
    _without_plugins()
    try:
        status = recipectl.main(standalone_mode=False) or 0
    except RecipectlError as error:
        click.echo(str(error), err=True)
        status = error.status
    except click.ClickException as error:
        error.show()
        status = 2
    except OSError as error:  # a full disk behind standard output, a folder that cannot be made
        remedy = "are you root?" if isinstance(error, PermissionError) else "nothing more was written"
        click.echo(f"{error.filename or 'the output'}: {error.strerror}; {remedy}", err=True)
        status = 1
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.stdout.flush()
    os._exit(status)  # nothing is open any more: to take the interpreter apart only costs time


if __name__ == "__main__":
    main()
