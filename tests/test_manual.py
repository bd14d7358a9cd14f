"""The manual and the guide against the code: keys, types, defaults, verbs, options, kinds, links."""

import re
import typing
from pathlib import Path
from typing import Any

import click
import guide
import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from recipectl.cli import recipectl
from recipectl.errors import Kind
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.load import validate
from recipectl.recipe.schema import Recipe
from recipectl.recipe.spans import span_sec
from recipectl.recipe.yamlfile import read_document

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_ENTRY = re.compile(r"^\*\*([a-z_.]+)\*\*\n:   (.+?)\. Default: (.+?)\. Example: `(.+?)`\.$", re.M)
# What a default may be called that is none of recipectl's own.
_NO_DEFAULT = {
    "none",
    "required",
    "the engine's own",
    "see above",
    "see below",
    "the name of the file",
    "the host file's",
}


class Entry(typing.NamedTuple):
    """A key as a man page has it."""

    type: str
    default: str
    example: str


def entries(page: str) -> dict[str, Entry]:
    return {
        match[1]: Entry(match[2], match[3], match[4]) for match in _ENTRY.finditer((DOCS / page).read_text())
    }


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Key with dots -> its field, those of parts included."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        found[prefix + name] = field
        parts = [
            part for part in (field.annotation, *typing.get_args(field.annotation)) if isinstance(part, type)
        ]
        for part in parts:
            if issubclass(part, BaseModel):
                found |= fields(part, f"{prefix}{name}.")
    return found


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Key with dots -> its JSON Schema."""
    whole = model.model_json_schema()

    def of(properties: dict[str, Any], prefix: str) -> dict[str, Any]:
        found = {}
        for name, schema in properties.items():
            choices = [item for item in schema.get("anyOf", [schema]) if item.get("type") != "null"]
            part = choices[0] | {key: value for key, value in schema.items() if key != "anyOf"}
            reference = part.get("$ref", "")
            if reference:
                part = whole["$defs"][reference.rpartition("/")[2]]
                found |= of(part["properties"], f"{prefix}{name}.")
                part = part | {"or_boolean": {"type": "boolean"} in choices}
            found[prefix + name] = part if len(choices) == 1 or reference else schema
        return found

    return of(whole["properties"], "")


def type_in_words(key: str, schema: dict[str, Any]) -> str:
    if "enum" in schema:
        *first, last = schema["enum"]
        return f"{', '.join(first)} or {last}"
    if schema.get("type") == "array":
        return "A list"
    if schema.get("type") == ["integer", "string"]:
        return "A span" if "minimum" in schema else "A number of tokens"
    if "anyOf" in schema:
        return "Text or a list"
    if schema["type"] == "integer":
        return f"A number from {schema['minimum']}" + (
            f" to {schema['maximum']}" if "maximum" in schema else ""
        )
    return {
        "object": "A mapping, true or false" if schema.get("or_boolean") else "A mapping",
        "boolean": "True or false",
        "string": "Text",
        "number": "A number from 0 to 1",
    }[schema["type"]]


def default_in_words(field: Any, told: str) -> str:
    """What a page says of a default: `told`, when it is that."""
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if default in (None, (), {}) or isinstance(default, BaseModel):
        return told if told in _NO_DEFAULT else "none"
    value = yaml.safe_load(told.strip("`"))
    value = tuple(value) if isinstance(value, list) else span_sec(value) if field.annotation is int else value
    return told if value == default else f"`{default}`"


PAGES = (("recipe.5.md", Recipe), ("recipectl-host.5.md", HostSettings))


@pytest.mark.parametrize(("page", "model"), PAGES, ids=["recipe", "host"])
def test_the_page_has_every_key_and_no_other(page: str, model: type[BaseModel]) -> None:
    assert {*entries(page)} == {*fields(model)}


@pytest.mark.parametrize(("page", "model"), PAGES, ids=["recipe", "host"])
def test_the_types_on_the_page_are_those_of_the_code(page: str, model: type[BaseModel]) -> None:
    schemas = schema_of(model)
    told = {key: entry.type for key, entry in entries(page).items()}
    assert told == {key: type_in_words(key, schemas[key]) for key in told}


@pytest.mark.parametrize(("page", "model"), PAGES, ids=["recipe", "host"])
def test_the_defaults_on_the_page_are_those_of_the_code(page: str, model: type[BaseModel]) -> None:
    for key, entry in entries(page).items():
        field = fields(model)[key]
        assert (key, entry.default) == (key, default_in_words(field, entry.default))


@pytest.mark.parametrize(("page", "model"), PAGES, ids=["recipe", "host"])
def test_each_example_is_valid_and_about_its_key(page: str, model: type[BaseModel], tmp_path: Path) -> None:
    for key, entry in entries(page).items():
        data = ("model_path: m\n" if model is Recipe and key != "model_path" else "") + entry.example
        checked = read(data, model, tmp_path)
        value: Any = checked
        for part in key.split("."):
            assert part in value.model_fields_set, key
            value = getattr(value, part)


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    context = click.Context(group)
    found: dict[str, click.Command] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found[f"{prefix}{name}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
    return found


VERBS = {
    name: command for name, command in commands(recipectl).items() if not isinstance(command, click.Group)
}


def verb_entries() -> dict[str, str]:
    """Verb -> its entry in recipectl(1): the line of its words, and the text below it."""
    text = (DOCS / "recipectl.1.md").read_text().replace("\\-", "-")
    text = text.partition("# VERBS: RECIPES")[2].partition("# BOOT")[0]
    found = {}
    for match in re.finditer(r"^(\*\*[a-z]+[^\n]*)\n:   (.*?)(?=^\*\*[a-z]|^# |\Z)", text, re.M | re.S):
        for verb in re.findall(r"(?:^|, )\*\*((?:import |venv |fleet )?[a-z-]+)\*\*", match[1]):
            found[verb] = f"{match[1]}\n{match[2]}"
    return {verb: entry for verb, entry in found.items() if verb != "import"}


def test_recipectl_1_has_every_verb_and_no_other() -> None:
    assert {*verb_entries()} == {*VERBS}


@pytest.mark.parametrize("verb", VERBS)
def test_recipectl_1_has_the_options_of_each_verb_and_no_other(verb: str) -> None:
    entry = verb_entries()[verb]
    told = {*re.findall(r"\*\*(--?[a-zA-Z][a-z-]*)\*\*", entry.split("\n\n\n")[0])}
    options = {
        option
        for parameter in VERBS[verb].params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
    }
    others = {"--user", "-H", "--host"}
    head = {*re.findall(r"\*\*(--?[a-zA-Z][a-z-]*)\*\*", entry.partition("\n")[0])}
    assert head == options
    assert told - others - options == set() or verb.startswith("import")


@pytest.mark.parametrize("verb", VERBS)
def test_recipectl_1_has_an_example_of_each_verb_with_options_that_it_has(verb: str) -> None:
    (line,) = re.findall(r"Example: (.*)\.$", verb_entries()[verb], re.M)
    words = next(
        words
        for example in re.findall("`([^`]+)`", line)
        if (words := example.split())[1 : 1 + len(verb.split())] == verb.split()
    )
    parser = VERBS[verb].make_parser(click.Context(VERBS[verb]))
    parser.parse_args([word.strip("'") for word in words[1 + len(verb.split()) :]])


def test_recipectl_1_has_every_option_that_stands_anywhere() -> None:
    text = (DOCS / "recipectl.1.md").read_text().replace("\\-", "-")
    section = text.partition("# OPTIONS")[2].partition("\n# ")[0]
    options = {
        option
        for parameter in recipectl.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    assert {*re.findall(r"\*\*(--?[a-zA-Z][a-z-]*)\*\*", section)} == options | {"-h", "--help"}


def kinds_of_the_code() -> set[str]:
    """Every kind of problem that some code makes."""
    sources = "\n".join(path.read_text() for path in (ROOT / "agent/recipectl").rglob("*.py"))
    named = re.findall(r"""(?:kind(?:: Kind)? = |kind=|on_host\(\s*)"([a-z]+)\"""", sources)
    used = {*named} - {"negatable"}  # a kind of option
    assert used == {*typing.get_args(Kind)}
    return used


def test_diagnostics_explains_every_kind_of_problem_and_no_other() -> None:
    text = (DOCS / "recipectl.1.md").read_text()
    section = text.partition("# DIAGNOSTICS")[2].partition("\n# ")[0]
    assert {*re.findall(r"^\*\*([a-z]+)\*\*$", section, re.M)} == kinds_of_the_code()


MARKDOWN = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"])


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    targets = [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if not target.startswith(("http", "mailto:"))
    ]
    assert [target for target in targets if not (page.parent / target.partition("#")[0]).exists()] == []


def test_every_page_of_the_guide_is_in_its_index() -> None:
    assert {*guide.pages()} | {"README.md"} == {path.name for path in guide.GUIDE.glob("*.md")}


def test_the_marks_of_the_guide_are_counted() -> None:
    """What is not run is little, and is known."""
    marks = [block.mark for block in guide.every_block() if block.kind == "sh"]
    counted = {mark: marks.count(mark) for mark in {*marks}}
    assert counted == {"": 90, "network": 16, "hosts": 4, "reboot": 1, "last": 2}


def read(text: str, model: type[BaseModel], folder: Path) -> BaseModel:
    """A recipe or host file, read as recipectl reads it."""
    file = folder / "a.yaml"
    file.write_text(text)
    data, reader = read_document((file,))
    return validate(model, data, reader)


def test_the_recipes_of_the_guide_are_recipes(tmp_path: Path) -> None:
    for block in guide.every_block():
        if block.kind == "yaml" and "host: 10" not in block.text:
            more = "" if "model_path:" in block.text else "model_path: m\n"
            read(more + block.text, Recipe, tmp_path)


def test_a_sentence_of_the_guide_is_short() -> None:
    long = []
    for page in guide.pages():
        text = re.sub(
            r"```.*?```|^\|.*$|^#.*$|`[^`]*`", " x ", (guide.GUIDE / page).read_text(), flags=re.S | re.M
        )
        sentences = re.split(r"[.:?](?:\s|$)|\n\n|\n[-\d]", text)
        long += [(page, sentence.strip()) for sentence in sentences if len(sentence.split()) > 30]
    assert long == []
