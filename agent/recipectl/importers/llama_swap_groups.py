"""llama-swap's groups: which models may run at the same time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipectl.errors import UsageError
from recipectl.importers.draft import Draft
from recipectl.importers.lines import Remark, place_of
from recipectl.importers.shapes import Map, mapping, sequence


@dataclass(frozen=True)
class Group:
    """A group of models, with llama-swap's defaults."""

    name: str = "(default)"
    swap: bool = True
    exclusive: bool = True
    persistent: bool = False
    place: str = ""  # in the configuration


def router_of(config: Map) -> Map:
    """The settings of llama-swap's router."""
    return mapping(mapping(config.get("routing"), "routing").get("router"), "routing.router")


def groups_of(config: Map, root: Any) -> dict[str, Group]:
    """The name of each model that is in a group -> the group."""
    router = router_of(config)
    if router.get("use") == "matrix":  # the groups do not count then
        return {}
    settings_of_router = mapping(router.get("settings"), "routing.router.settings")
    groups = mapping(config.get("groups") or settings_of_router.get("groups"), "groups")
    by_model: dict[str, Group] = {}
    keys = ("groups",) if config.get("groups") else ("routing", "router", "settings", "groups")
    for name, value in groups.items():
        settings = mapping(value, f"groups.{name}")
        group = Group(
            name=name,
            swap=_is_true(settings, "swap", name, default=True),
            exclusive=_is_true(settings, "exclusive", name, default=True),
            persistent=_is_true(settings, "persistent", name, default=False),
            place=place_of(root, *keys, str(name)),
        )
        by_model |= dict.fromkeys(
            map(str, sequence(settings.get("members"), f"groups.{name}.members")), group
        )
    return by_model


def _is_true(settings: Map, key: str, group: str, *, default: bool) -> bool:
    """A setting of a group; go-yaml takes `yes`, `no`, `on` and `off` for it, too."""
    value = settings.get(key)
    words = {"y": True, "yes": True, "on": True, "n": False, "no": False, "off": False}
    known = words.get(value.lower()) if isinstance(value, str) else default if value is None else value
    if not isinstance(known, bool):
        raise UsageError(f"`groups.{group}.{key}` is {value!r}; give `true` or `false`", "groups", group, key)
    return known


def set_conflicts(drafts: Mapping[str, Draft], groups: Mapping[str, Group]) -> None:
    """Set which models may run at the same time, as the groups say."""
    for name, draft in drafts.items():
        group = groups.get(name, Group())
        if "gpus" not in draft.fields:
            draft.set(
                "gpus", "all", "llama-swap does not name GPUs. With names, more models can run at once."
            )
        siblings = [
            other for other in drafts if other != name and groups.get(other, Group()).name == group.name
        ]
        stopped = [other for other in drafts if _stops(group, groups.get(other, Group()))]
        if not group.swap or len(stopped) + 1 < len(drafts):
            # The GPUs would let each pair of models stop each other; the groups name the pairs.
            draft.set("gpu_sharing", "free", f"Group {group.name}: `conflicts:` names the models that stop.")
            conflicts = stopped + (siblings if group.swap else [])
            if conflicts:
                draft.set("conflicts", sorted(drafts[other].name for other in conflicts))
        kept = [f"`{other}`" for other in stopped if not _unloads(group, groups.get(other, Group()))]
        if kept:
            sentence = f"`{name}` did not stop {', '.join(kept)}; here each stops the other"
            draft.not_carried_over.append(Remark(sentence, within=group.place))


def _unloads(group: Group, other: Group) -> bool:
    """Whether llama-swap ends the models of another group when it loads one of this group."""
    return group.exclusive and not other.persistent


def _stops(group: Group, other: Group) -> bool:
    """Whether models of two groups never run at once; `conflicts:` works in both directions."""
    return group.name != other.name and (_unloads(group, other) or _unloads(other, group))
