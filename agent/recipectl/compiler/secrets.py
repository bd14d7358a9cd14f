"""The secrets of a recipe: how the unit reads them, and what looks like one where everybody can read it."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from recipectl.engines.registry import ENGINES
from recipectl.recipe.schema import HF_TOKENS, Recipe
from recipectl.text import TOKEN

SECRETS_FOLDER = "/etc/recipectl/secrets"
LINES_ENDING = ".env"  # a token's file with this ending has a line `HF_TOKEN=…`
_FILE_ENDINGS = ("_FILE", "_PATH")
_SECRET_NAME = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|_PASS|_PWD|_PAT|_AUTH|API_?KEYS?|PRIVATE_KEY|ACCESS_KEY|CREDENTIALS?)(_ID)?\Z",
    re.I,
)
_SWITCHES = ("0", "1", "true", "false", "yes", "no", "on", "off", "none")
# User and password before an `@`. Both searches take time in proportion to the length of the value.
_PASSWORD_IN_URL = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@|[?&](?:api_?key|key|token|secret|password)=[^&\s]", re.I
)
# A value of JSON under the name of a secret.
_SECRET_IN_JSON = re.compile(
    r'"[\w-]*(?:token|secret|passw(?:or)?d|api_?key|access_key|authorization|credential)[\w-]*"\s*:\s*"[^"]',
    re.I,
)
_BEARER = re.compile(r"Bearer\s+\S{8,}", re.I)


class Credential(NamedTuple):
    """A secret that is read from a file: the credential's name, and its source for LoadCredential=."""

    name: str
    source: str

    @property
    def setting(self) -> str:
        """The line of a unit that reads it."""
        encrypted = self.source.endswith(".cred")
        return f"LoadCredential{'Encrypted' if encrypted else ''}={self.name}:{self.source}"


def credentials(recipe: Recipe) -> dict[str, Credential]:
    """Variable that names the file -> credential, for the secrets that an engine reads from a file."""
    result = {}
    for variable, source in recipe.secrets.items():
        if file_variable := _file_variable(variable, source):
            result[file_variable] = Credential(variable.lower(), source)
    return result


def _file_variable(variable: str, source: str) -> str | None:
    """What tells an engine the file of a secret; None where the engine reads the variable itself.

    huggingface_hub reads the token from the file that HF_TOKEN_PATH= names. llama.cpp has no such library.
    """
    if variable in HF_TOKENS:
        return None if source.endswith(LINES_ENDING) else "HF_TOKEN_PATH"
    return variable if variable.endswith(_FILE_ENDINGS) else None


def environment_files(recipe: Recipe) -> dict[str, str]:
    """Variable -> EnvironmentFile= for the secrets that an engine reads from its environment alone."""
    sources = recipe.secrets.items()
    return {variable: source for variable, source in sources if not _file_variable(variable, source)}


def api_key(recipe: Recipe) -> Credential | None:
    """The key of an engine's API, for whatever asks it; None without one."""
    variables = (name for name in ENGINES[recipe.backend].key_variables if name in recipe.secrets)
    return next((Credential("api-key", recipe.secrets[name]) for name in variables), None)


def unit_lines(recipe: Recipe) -> list[str]:
    """The lines of the unit that read the secrets."""
    lines = [credential.setting for credential in credentials(recipe).values()]
    files = dict.fromkeys(environment_files(recipe).values())
    return lines + [f"EnvironmentFile={source}" for source in files]


@lru_cache(maxsize=8192)
def looks_secret(name: str, value: str) -> bool:
    """True if a variable is likely a secret, by its name or by the shape of its value."""
    if not value or value.lower() in _SWITCHES:
        return False
    by_name = _SECRET_NAME.search(name) and not name.startswith("TOKENIZERS_")
    return bool(by_name or TOKEN.match(value) or has_secret(value))


def has_secret(value: str) -> bool:
    """True if a text holds a password of a URL, a bearer's token, or a secret in JSON."""
    # Plain text is by far the most common value: no regular expression looks at it.
    return (
        ("://" in value and _PASSWORD_IN_URL.search(value) is not None)
        or ("earer" in value.lower() and _BEARER.search(value) is not None)
        or (value.startswith("{") and _SECRET_IN_JSON.search(value) is not None)
    )


def redacted(words: Sequence[str]) -> list[str]:
    """The words of a command for a message: `…` instead of what looks like a secret."""
    result = []
    for before, word in zip(("", *words), words, strict=False):
        name, equals, value = word.partition("=")
        flag = before.replace("-", "_") if before.startswith("--") and not word.startswith("--") else ""
        if equals and looks_secret(name.replace("-", "_"), value):
            result.append(f"{name}=…")
        else:
            result.append("…" if looks_secret(flag, word) else word)
    return result
