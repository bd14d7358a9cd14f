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


SPLIT = {
    "words": ("a  b\tc", ("a", "b", "c")),
    "quotes": ("'a b' \"c d\"e", ("a b", "c de")),
    "a quote within the other": ("\"it's\" 'a\"b'", ("it's", 'a"b')),
    "an empty word": ("'' a", ("", "a")),
    "hexadecimal": (r"\x41\x20b", ("A b",)),
    "octal": (r"\101\040b", ("A b",)),
    "unicode": (r"\u00e9\U0001f600", ("é😀",)),
    "letters": (r"\a\b\f\n\r\t\v\s", ("\a\b\f\n\r\t\v ",)),
    "any other letter": (r"\q\.\"\'\\", ("\\q\\.\"'\\",)),
    "a backslash at the end": ("a\\", ("a\\",)),
    "nothing": ("  ", ()),
}


@pytest.mark.parametrize(("value", "words"), SPLIT.values(), ids=SPLIT.keys())
def test_a_value_is_split_as_systemd_does_it(value: str, words: tuple[str, ...]) -> None:
    assert quoting.split(value) == words


@pytest.mark.parametrize("char", ["\ufdef", "\ufdd0", "\U0001ffff", "\U0010fffe", "\udfff"])
def test_a_character_that_systemd_refuses_is_refused(char: str) -> None:
    with pytest.raises(UnrepresentableError):
        quoting.word(f"a{char}")


@pytest.mark.parametrize("char", ["\ufdcf", "\ufdf0", "\ufffd", "\U0001fffd"])
def test_its_neighbours_are_carried(char: str) -> None:
    assert quoting.word(char) == f'"{char}"'


@pytest.mark.parametrize(("length", "carried"), [(131_070, True), (131_071, False)])
def test_a_word_is_as_long_as_the_kernel_takes_it(length: int, carried: bool) -> None:
    if carried:
        assert quoting.word("x" * length) == "x" * length
        return
    with pytest.raises(UnrepresentableError, match="longer than the kernel's 131070 bytes"):
        quoting.word("x" * length)


def test_a_command_line_is_as_long_as_systemd_reads_it() -> None:
    limit = 1024 * 1024 - 64
    words = ["/x", *["y" * 131_000] * 8]
    rest = limit - len(quoting.command_line(tuple(words)).encode()) - len(" \\\n    ")
    assert len(quoting.command_line((*words, "z" * rest)).encode()) == limit
    with pytest.raises(UnrepresentableError, match="1 MiB"):
        quoting.command_line((*words, "z" * (rest + 1)))


LINES = {
    "plain": ("1G", "1G"),
    "a specifier": ("%t/x", "%%t/x"),
    "a backslash within": ("a\\b", "a\\b"),
}


@pytest.mark.parametrize(("value", "line"), LINES.values(), ids=LINES.keys())
def test_a_whole_line_is_carried(value: str, line: str) -> None:
    assert quoting.line(value) == line


@pytest.mark.parametrize("value", [" a", "a ", "a\\", "a\nb", "a\x7f", "\ufdd0", "a\0"])
def test_a_whole_line_that_would_change_is_refused(value: str) -> None:
    with pytest.raises(UnrepresentableError):
        quoting.line(value)


TEXTS = {
    "plain": ("Model a", "Model a"),
    "a specifier": ("50%", "50%%"),
    "a line's end": ("a\nb", r"a\nb"),
    "quotes": ('say "it"', 'say "it"'),
    "a backslash at the end": ("a\\", "a\\ ."),
}


@pytest.mark.parametrize(("value", "text"), TEXTS.values(), ids=TEXTS.keys())
def test_a_line_for_people_stays_one_line(value: str, text: str) -> None:
    assert quoting.text(value) == text
