"""How a unit on disk and its new text differ: in words, and as a diff. Pure."""

from recipectl.systemd.unitfile import DIGEST_FIELD, InstalledUnit, Unit, parse_settings

_DIGESTS = (f"LogExtraFields={DIGEST_FIELD}=", "Digest=", "Text=")


def reason_to_write(unit: Unit, installed: InstalledUnit | None) -> str:
    """Why a unit must be written."""
    if installed is None:
        return "new"
    return "was edited by hand" if installed.edited_by_hand else changed_settings(installed.text, unit.text)


def changed_settings(before: str, after: str) -> str:
    """Which settings differ between two texts of a unit, in words."""
    old, new = parse_settings(before), parse_settings(after)
    names = dict.fromkeys(
        setting.name
        for setting in (*new, *old)
        if (setting in old) != (setting in new) and not setting.section.startswith("X-")
    )
    if len(names) > 1:  # the digest of what the unit starts changes with it
        names.pop("LogExtraFields", None)
    if names:
        return f"{', '.join(f'{name}=' for name in names)} changed"
    return "only comments, their order or recipectl's own notes changed"


def unified_diff(name: str, before: str, after: str) -> str:
    """A unified diff of a unit's file; an empty text is a file that does not exist.

    The digests change with everything else: they are shown only when nothing else changes.
    """
    return _diff(name, _without_digests(before), _without_digests(after)) or _diff(name, before, after)


def _without_digests(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(_DIGESTS))


def _diff(name: str, before: str, after: str) -> str:
    import difflib  # `apply` with nothing to do needs none

    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        fromfile=name if before else "/dev/null",
        tofile=name if after else "/dev/null",
    )
    return "".join(lines)
