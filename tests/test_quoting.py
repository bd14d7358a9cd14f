"""What a unit cannot carry is refused; nothing can add a directive."""

import pytest

from recipectl.errors import UnrepresentableError
from recipectl.systemd import quoting

QUOTED = {
    "a bare word": ("--port=1", "--port=1"),
    "blanks": ("a b", '"a b"'),
    "nothing": ("", '""'),
    "a specifier": ("100%n", '"100%%n"'),
    "a line's end": ("a\nb\rc", r'"a\nb\rc"'),
    "quotes and backslashes": ("'\"\\", r'''"'\"\\"'''),
    "a comment sign": ("#x", '"#x"'),
    "a dollar": ("$HOME", '"$HOME"'),
    "a hidden direction": ("\u202e", r'"\u202e"'),
}


@pytest.mark.parametrize(("word", "quoted"), QUOTED.values(), ids=QUOTED.keys())
def test_a_word_is_quoted(word: str, quoted: str) -> None:
    assert quoting.word(word) == quoted


@pytest.mark.parametrize("word", ["\0", "\ud800", "\ufdd0", "\ufffe", "x" * 131_071])
def test_what_systemd_cannot_carry_is_refused(word: str) -> None:
    with pytest.raises(UnrepresentableError):
        quoting.word(word)


@pytest.mark.parametrize("path", ["vllm", "/a'b", "/a*", "/a\tb", "/a/"])
def test_an_executable_that_systemd_cannot_name_is_refused(path: str) -> None:
    with pytest.raises(UnrepresentableError):
        quoting.executable(path)


@pytest.mark.parametrize("name", ["A-B", "1A", "", "É"])
def test_a_variables_name_that_systemd_drops_is_refused(name: str) -> None:
    with pytest.raises(UnrepresentableError):
        quoting.assignment(name, "1")
