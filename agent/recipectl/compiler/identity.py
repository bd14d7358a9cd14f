"""The user and the groups that a model's unit runs with. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # with pydantic, which an apply from the cache does not need
    from recipectl.recipe.hostfile import HostSettings
    from recipectl.recipe.schema import Recipe

DATA_GROUP = "model-data"  # for weights and caches that models share on purpose
OPERATORS_GROUP = "models"  # may start and stop models, by the polkit rule: no engine belongs there
# Earlier releases ran all models as this user; its files stay readable to those who need them.
EARLIER_USER = "recipectl"
# systemd-sysusers takes at most 31 characters, and no dot.
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,24}\Z")
_HASHED = re.compile(r".*-[0-9a-f]{8}\Z")


def own_user(name: str) -> str:
    """The user of a recipe that names none: `model-NAME`, with a digest where the name does not fit."""
    if _PLAIN.match(name) and not _HASHED.match(name) and f"model-{name}" != DATA_GROUP:
        return f"model-{name}"
    slug = re.sub(r"[^a-z0-9_-]", "-", name.lower())[:16]
    return f"model-{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def user_of(recipe: Recipe, settings: HostSettings) -> str:
    """The user of a unit: that of the recipe, else that of the host file, else one of its own."""
    return recipe.user or settings.user or own_user(recipe.name or "")


def has_own_user(recipe: Recipe, settings: HostSettings) -> bool:
    """True if nobody but this model runs as its user."""
    return not (recipe.user or settings.user)
