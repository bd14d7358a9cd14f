"""The command: `recipectl`, or `python -m recipectl`."""

import gc
import os
import sys

import click

from recipectl.cli import recipectl
from recipectl.errors import RecipectlError


def main() -> None:
    """One place where errors end: a line each on standard error, and an exit status."""
    os.environ.setdefault(
        "PYDANTIC_DISABLE_PLUGINS", "__all__"
    )  # it would look for them in every distribution
    gc.disable()  # a short life: looking for garbage costs a tenth of it, and frees nothing
    try:
        sys.exit(recipectl.main(standalone_mode=False) or 0)
    except RecipectlError as error:
        click.echo(str(error), err=True)
        sys.exit(error.status)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:  # a full disk behind standard output, a folder that cannot be made
        click.echo(f"{error.filename or 'the output'}: {error.strerror}; nothing more was written", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    finally:
        gc.freeze()  # nor is everything walked once more at the end


if __name__ == "__main__":
    main()
