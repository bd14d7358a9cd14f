"""setup: the files of an installation that the system looks for in places of its own."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

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
    paths = dict(_package_files(package) if package else _local_files())
    if not remove:
        if not package:
            refuse_if_others_can_write()  # root runs it at each boot
            with failures_named("written", _RECIPES):
                _RECIPES.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with failures_named("written", path):
                path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(paths)
        return
    for path in [*paths]:
        with failures_named("removed", path), contextlib.suppress(FileNotFoundError):
            path.unlink()


def _local_files() -> Iterator[tuple[Path, str]]:
    """The files of an installation that is no package, with their content."""
    command = os.path.abspath(shutil.which(sys.argv[0]) or sys.argv[0])  # noqa: PTH100  (a link is stable)
    service = (_SHARE / "recipectl-apply.service").read_text()
    yield from _shared(Path("/usr/local/share"), zsh="site-functions")
    yield Path("/etc/polkit-1/rules.d/50-recipectl.rules"), (_SHARE / "50-recipectl.rules").read_text()
    service = service.replace("ExecStart=recipectl ", f"ExecStart={quoting.word(command)} ")
    yield Path("/etc/systemd/system/recipectl-apply.service"), service


def _package_files(root: Path) -> Iterator[tuple[Path, str]]:
    """The files of a package of the system, below a root."""
    share = root / "usr/share"
    yield from _shared(share, zsh="vendor-completions")
    yield share / "polkit-1/rules.d/50-recipectl.rules", (_SHARE / "50-recipectl.rules").read_text()
    service = (_SHARE / "recipectl-apply.service").read_text()
    service = service.replace("ExecStart=recipectl ", "ExecStart=/usr/bin/recipectl ")
    yield root / "usr/lib/systemd/system/recipectl-apply.service", service


def _shared(share: Path, *, zsh: str) -> Iterator[tuple[Path, str]]:
    from recipectl.cli import recipectl

    for page in _PAGES:
        if (file := _SHARE / page).exists():  # made by `make man`
            yield share / f"man/man{page[-1]}/{page}", file.read_text()
    for name, shell in _COMPLETIONS.items():
        yield share / name.format(zsh=zsh), shell(recipectl, {}, "recipectl", "_RECIPECTL_COMPLETE").source()
