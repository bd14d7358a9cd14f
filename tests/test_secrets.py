"""What looks like a secret, and how units read the secrets of a recipe."""

import pytest

from recipectl.compiler import secrets
from recipectl.recipe.schema import Recipe

LIKELY = {
    "a token by its name": ("MY_TOKEN", "x"),
    "a key by its name": ("OPENAI_API_KEY", "x"),
    "a key of AWS by its name": ("AWS_ACCESS_KEY_ID", "x"),
    "a password by its name": ("DB_PASSWORD", "x"),
    "a token by its beginning": ("A", "hf_abcdefghijkl"),
    "a password in an address": ("PROXY", "http://me:secret@host/"),
    "a bearer": ("HEADER", "Authorization: Bearer abcdefgh"),
    "a bearer in small letters": ("HEADER", "bearer abcdefgh"),
}
UNLIKELY = {
    "nothing": ("MY_TOKEN", ""),
    "a tokenizer's setting": ("TOKENIZERS_PARALLELISM_TOKEN", "x"),
    "a name that only begins so": ("TOKENS", "5"),
    "an address": ("PROXY", "http://host:80/a@b"),
    "an address with a user": ("PROXY", "http://me@host/"),
    "a short bearer": ("HEADER", "Bearer abc"),
    "a short token": ("A", "hf_abc"),
    "plain text": ("A", "earer of something"),
}


@pytest.mark.parametrize(("name", "value"), LIKELY.values(), ids=LIKELY.keys())
def test_a_likely_secret_is_known(name: str, value: str) -> None:
    assert secrets.looks_secret(name, value)


@pytest.mark.parametrize(("name", "value"), UNLIKELY.values(), ids=UNLIKELY.keys())
def test_other_values_are_no_secrets(name: str, value: str) -> None:
    assert not secrets.looks_secret(name, value)


@pytest.mark.parametrize("unit", ["a", "a.", "://", "://a", "://a:", "Bearer ", "key=", "\\"])
def test_a_long_value_is_searched_in_linear_time(unit: str) -> None:
    """A search in quadratic time would take hours for each of these."""
    value = unit * (2_000_000 // len(unit))
    assert not secrets.looks_secret("A", value)
    assert secrets.redacted([value]) == [value]


WORDS = {
    "a flag and its value": (["--api-key", "x"], ["--api-key", "…"]),
    "a flag with `=`": (["--api-key=x"], ["--api-key=…"]),
    "a variable": (["MY_TOKEN=x", "A=1"], ["MY_TOKEN=…", "A=1"]),
    "a token anywhere": (["serve", "hf_abcdefghijkl"], ["serve", "…"]),
    "a flag after a flag": (["--api-key", "--port", "1"], ["--api-key", "--port", "1"]),
}


@pytest.mark.parametrize(("words", "redacted_words"), WORDS.values(), ids=WORDS.keys())
def test_a_message_hides_secrets(words: list[str], redacted_words: list[str]) -> None:
    assert secrets.redacted(words) == redacted_words


def recipe(**named: str) -> Recipe:
    return Recipe.model_validate({"name": "a", "model_path": "m", "secrets": named})


def test_a_secret_is_read_in_the_way_its_engine_can() -> None:
    read = recipe(
        HF_TOKEN="/s/hf", TLS_KEY_FILE="/s/key.cred", SSL_PATH="named", VLLM_API_KEY="/s/env", OTHER="/s/env"
    )
    assert secrets.unit_lines(read) == [
        "LoadCredential=hf_token:/s/hf",
        "LoadCredentialEncrypted=tls_key_file:/s/key.cred",
        "LoadCredential=ssl_path:named",
        "EnvironmentFile=/s/env",
    ]
    assert {name: item.name for name, item in secrets.credentials(read).items()} == {
        "HF_TOKEN_PATH": "hf_token", "TLS_KEY_FILE": "tls_key_file", "SSL_PATH": "ssl_path"
    }  # fmt: skip
    assert secrets.environment_files(read) == {"VLLM_API_KEY": "/s/env", "OTHER": "/s/env"}
    assert secrets.unit_lines(recipe(HF_TOKEN="/s/hf.env")) == ["EnvironmentFile=/s/hf.env"]
