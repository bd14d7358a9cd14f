"""The folders of the host that a container has, and what they mean for paths and caches."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from recipectl.errors import UsageError
from recipectl.importers.command import placeholder_in
from recipectl.importers.draft import VARIABLE_START, host_variable
from recipectl.importers.lines import Remark

# What a container needs, and a unit has.
_NOT_OF_ENGINE = re.compile(r"/(dev|proc|sys|run(?!/secrets/)|etc/(localtime|timezone|passwd|group))\b")

# The end of a volume's path in a container -> what to do with its folder on the host.
_OF_CACHES = {"/.cache/huggingface": "set HF_HOME to it", "/.cache": "set HF_HOME to `huggingface` in it"}


# Options whose values look like paths, and are names of models, or prefixes of URLs.
_NAMES = (
    "--served-model-name", "--alias", "-a", "--root-path", "--fastapi-root-path", "--api-prefix",
    "--url-prefix", "--uvicorn-access-log-exclude-prefixes",
)  # fmt: skip
_OF_SEVERAL_WORDS = ("--served-model-name", "--uvicorn-access-log-exclude-prefixes")


# The end of a cache's path in a container -> the variable of its folder, and that folder below it.
_OTHER_CACHES = {
    "/.triton": ("TRITON_CACHE_DIR", "/cache"), "/.triton/cache": ("TRITON_CACHE_DIR", ""),
    "/torchinductor_root": ("TORCHINDUCTOR_CACHE_DIR", ""), "/.cache/torch": ("TORCH_HOME", ""),
    "/.cache/torch_extensions": ("TORCH_EXTENSIONS_DIR", ""), "/.cache/outlines": ("OUTLINES_CACHE_DIR", ""),
    "/.nv": ("CUDA_CACHE_PATH", "/ComputeCache"), "/.nv/ComputeCache": ("CUDA_CACHE_PATH", ""),
}  # fmt: skip

NAME_VARIABLES = ("LLAMA_ARG_API_PREFIX", "LLAMA_ARG_ALIAS")


def names_in(words: list[str]) -> list[bool]:
    """Whether each word is a name, or the prefix of a URL."""
    option, names = "", []
    for word in words:
        is_option = word.startswith("-")
        option = word.partition("=")[0].replace("_", "-") if is_option else option
        names.append(option in _NAMES)
        has_value = "=" in word if is_option else option not in _OF_SEVERAL_WORDS
        option = "" if has_value else option
    return names


def has_cache_of_llamacpp(folder: Path) -> bool:
    """Whether models are in the folder of llama.cpp's earlier releases, and none in that of the hub.

    The present ones share the cache of the hub, unless LLAMA_CACHE= says another (its common/hf-cache.cpp).
    """
    return os.path.isdir(folder / "llama.cpp") and not os.path.isdir(folder / "huggingface/hub")  # noqa: PTH112  (no error)


@dataclass
class Mounts:
    """The mounts of a container: (path in the container, path on the host or a volume's name)."""

    base: str = ""  # where relative paths of the host begin
    pairs: list[tuple[str, str]] = field(default_factory=list)
    # A volume's name in the file -> its real name, or its folder.
    volumes: dict[str, str] = field(default_factory=dict)
    container_program: str = "docker"
    places: dict[str, str] = field(default_factory=dict)  # path in the container -> where the mount stands
    read_only: set[str] = field(default_factory=set)  # paths in the container

    def add(self, target: str, source: str, place: str, *, is_read_only: bool = False) -> None:
        """Add one mount; `place` is where the original has it."""
        if placeholder := placeholder_in(source):
            raise UsageError(f"fill in `{placeholder}`")
        target = target.rstrip("/") or target
        if is_read_only:
            self.read_only.add(target)
        if source.endswith(".volume"):  # of Quadlet
            source = f"systemd-{source.removesuffix('.volume')}"
        source = self._of_host(self.volumes.get(source, source))
        self.pairs.append((target, source.rstrip("/") or source))
        self.places[target] = place

    def _of_host(self, source: str) -> str:
        """The path of a folder that `-v ./x:/y` names; a volume's name as it is."""
        if not source.startswith(("./", "../")) and source not in (".", ".."):
            return source
        base = self.base or host_variable("FOLDER")
        return f"{base.rstrip('/')}/{source.removeprefix('.').removeprefix('/')}".rstrip("/")

    def keep_cache(self, environment: dict[str, str], model: str, program: str) -> None:
        """Set the variables of the caches that are mounted to their folders of the host."""
        caches: dict[str, str] = {}
        if not {"HF_HOME", "HF_HUB_CACHE"} & {*environment}:
            # Of a local model, too: its tokenizer, or a draft model, may come from the hub.
            caches = {"HF_HUB_CACHE": "/huggingface/hub", "HF_HOME": "/huggingface"}
        if "llama" not in program:
            caches["VLLM_CACHE_ROOT"] = "/vllm"
        elif not model.startswith("/"):
            caches["LLAMA_CACHE"] = "/llama.cpp"
        if "VLLM_USE_MODELSCOPE" in environment and not model.startswith("/"):
            caches["MODELSCOPE_CACHE"] = "/modelscope"
        self._keep_other_caches(environment)
        for target, source in self._of_folders():
            for name, folder in caches.items():
                if target.endswith(f"/.cache{folder}"):
                    environment.setdefault(name, source.rstrip("/"))
                elif target.endswith("/.cache") and name != "HF_HUB_CACHE":
                    if name == "LLAMA_CACHE" and not has_cache_of_llamacpp(Path(source)):
                        continue
                    environment.setdefault(name, source.rstrip("/") + folder)

    def _keep_other_caches(self, environment: dict[str, str]) -> None:
        for target, source in self._of_folders():
            for ending, (name, below) in _OTHER_CACHES.items():
                if target.endswith(ending):
                    environment.setdefault(name, source.rstrip("/") + below)

    def _of_folders(self) -> list[tuple[str, str]]:
        """The mounts of folders of the host; the others are volumes."""
        return [
            (target, source)
            for target, source in self.pairs
            if target and source.startswith(("/", VARIABLE_START))
        ]

    def has(self, path: str) -> bool:
        """Whether a path of the container is in a folder of the host."""
        return any(f"{path}/".startswith(f"{target.rstrip('/')}/") for target, _ in self._of_folders())

    def notes(self, used: str, lost: list[Remark]) -> list[str]:
        """Notes on the folders of the host; volumes, whose data is the container engine's, are named.

        `used` are the words and variables of the recipe: a mount of which they have nothing is named, too.
        """
        replaced = [(target, source) for target, source in self._of_folders() if target != source]
        pairs = [f"{target} is {source}" for target, source in replaced if source in used]
        for target, source in replaced:
            if source not in used and not _NOT_OF_ENGINE.match(target):
                fault = f"`{source}` at {target}, which nothing in the recipe names"
                lost.append(Remark(fault, within=self.places.get(target, "")))
        for target, source in self.pairs:
            if target and (target, source) not in self._of_folders():
                remedies = (text for ending, text in _OF_CACHES.items() if target.endswith(ending))
                remedy = next(remedies, "name it")
                command = f"`{self.container_program} volume inspect`"
                fault = f"the volume `{source or target}` at {target}, whose folder {command} tells"
                lost.append(Remark(f"{fault}; {remedy}", within=self.places.get(target, "")))
            elif target in self.read_only and "/.cache" in target:
                fault = f"`{source}` was mounted read-only, and the engine may write to its caches here"
                lost.append(Remark(fault, within=self.places.get(target, "")))
        return [f"Paths of the container are replaced by the host's: {', '.join(pairs)}."] if pairs else []

    def host_words(self, words: list[str]) -> list[str]:
        """The words with the paths of the host, but for names and prefixes of URLs."""
        return [
            word if is_name else self.host_path(word)
            for word, is_name in zip(words, names_in(words), strict=True)
        ]

    def own_paths(self, words: list[str], lost: list[Remark]) -> list[str]:
        """The words with the program's name alone where its file is the image's; such paths are named."""
        sources = [f"{source.rstrip('/')}/" for _, source in self.pairs if source]
        kept = []
        names = names_in(words)
        for index, word in enumerate(words):
            path = word if word.startswith("/") else word.partition("=")[2]
            if path.startswith("/") and not names[index] and not f"{path}/".startswith(tuple(sources)):
                lost.append(Remark(f"`{path}`, {self._whose(path)}"))
                word = PurePosixPath(path).name if index == 0 else word
            kept.append(word)
        return kept

    def _whose(self, path: str) -> str:
        """A clause about a path of the container that is in no folder of the host."""
        folders = {target for target, _ in self._of_folders()}
        volumes = (f"{target.rstrip('/')}/" for target, _ in self.pairs if target and target not in folders)
        place = "a volume" if f"{path}/".startswith(tuple(volumes)) else "the image"
        if os.path.exists(path):  # noqa: PTH110  (a closed folder is no error)
            return f"a path of {place}; this host has something else there"
        return f"a path of {place} that this host does not have"

    def own_variables(
        self, environment: dict[str, str], lost: list[Remark], places: Mapping[str, str]
    ) -> None:
        """Remove the variables that are paths of the image, which this host does not have; name them."""
        for name, value in [*environment.items()]:
            parts = value.split(":")
            are_paths = all(part.startswith("/") for part in parts) and not re.search(r"[,\s]", value)
            if name in ("PATH", *NAME_VARIABLES) or not are_paths:
                continue
            missing = [part for part in parts if not self._is_of_host_or_mounted(part)]
            for part in missing:
                shown = part if part == value else f"…{part}…"
                lost.append(Remark(f"`{name}={shown}`, {self._whose(part)}", within=places.get(name, "")))
            if missing and not name.startswith("LLAMA_ARG_"):  # an option, which may be the model
                environment[name] = ":".join(part for part in parts if part not in missing)
                if not environment[name]:
                    del environment[name]

    def _is_of_host_or_mounted(self, path: str) -> bool:
        sources = (source.rstrip("/") for _, source in self.pairs if source)
        is_mounted = any(f"{path}/".startswith(f"{source}/") for source in sources)
        return is_mounted or os.path.exists(path)  # noqa: PTH110  (a closed folder is no error)

    def host_path(self, word: str) -> str:
        """A word with the paths of the host, where a path begins: in front, after `=` and within JSON."""
        sources = {target.rstrip("/"): source.rstrip("/") for target, source in self._of_folders()}
        # The longest first: a mount may lie within another.
        targets = "|".join(re.escape(target) for target in sorted(sources, key=len, reverse=True))
        pattern = rf"(?<![^=:,\"'\s])({targets})(?=/|$|[\"',:\s])"
        return re.sub(pattern, lambda match: sources[match[1]], word) if sources else word
