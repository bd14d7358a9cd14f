"""setup: the files of an installation that the system looks for in places of its own."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from recipectl import files
from recipectl.errors import UsageError
from recipectl.files import failures_named, write_whole
from recipectl.machine.installation import refuse_if_others_can_write
from recipectl.place import Place
from recipectl.systemd import quoting

_SHARE = Path(__file__).parents[1] / "share"
_RECIPES = Path("/etc/recipectl/recipes")  # it stays: what people put there is theirs
_PAGES = ("recipectl.1", "recipe.5", "recipectl-host.5")
_COMPLETIONS: dict[str, type[ShellComplete]] = {
    "bash-completion/completions/recipectl": BashComplete,
    "zsh/{zsh}/_recipectl": ZshComplete,
    "fish/vendor_completions.d/recipectl.fish": FishComplete,
}


@click.command("setup")
@click.option("--remove", is_flag=True, help="Take the files away again.")
@click.option(
    "--package",
    type=click.Path(path_type=Path),
    metavar="ROOT",
    help="For packagers: the places below ROOT/usr.",
)
@click.pass_obj
def setup_(place: Place, remove: bool, package: Path | None) -> None:
    """Put man pages, completions, the polkit rule and recipectl-apply.service where the system finds them.

    For an installation from a wheel or a checkout; a package of the system brings them itself.
    """
    if place.user or place.remote:
        raise UsageError("setup is for this system; run it without --user and -H, as root")
    paths = dict(_files(package))
    if not remove:
        if not package:
            refuse_if_others_can_write()  # root runs it at each boot
            with failures_named("written", _RECIPES):
                _RECIPES.mkdir(parents=True, exist_ok=True)
        write_whole(paths)
        return
    for path in [*paths]:
        files.remove(path)


def _files(package: Path | None) -> Iterator[tuple[Path, str]]:
    """The files of this installation, or of a package of the system below its root, with their content."""
    from recipectl.cli import recipectl

    if package:
        share, zsh, command = package / "usr/share", "vendor-completions", "/usr/bin/recipectl"
        rules, units = share / "polkit-1/rules.d", package / "usr/lib/systemd/system"
    else:
        share, zsh = Path("/usr/local/share"), "site-functions"
        command = os.path.abspath(shutil.which(sys.argv[0]) or sys.argv[0])  # noqa: PTH100  (a link is stable)
        rules, units = Path("/etc/polkit-1/rules.d"), Path("/etc/systemd/system")
    for page in _PAGES:
        if (file := _SHARE / page).exists():  # made by `make man`
            yield share / f"man/man{page[-1]}/{page}", file.read_text()
    for name, shell in _COMPLETIONS.items():
        yield share / name.format(zsh=zsh), shell(recipectl, {}, "recipectl", "_RECIPECTL_COMPLETE").source()
    yield rules / "50-recipectl.rules", (_SHARE / "50-recipectl.rules").read_text()
    if not package and not os.access(command, os.X_OK):
        fault = f"{command} is not a program that a unit can run"
        raise UsageError(f"{fault}; install recipectl, and run `recipectl setup`")
    service = (_SHARE / "recipectl-apply.service").read_text()
    service = service.replace("ExecStart=recipectl ", f"ExecStart={quoting.word(command)} ")
    yield units / "recipectl-apply.service", service
