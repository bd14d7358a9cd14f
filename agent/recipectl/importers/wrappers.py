"""Wrappers of an engine as settings of its unit: `nice`, `ionice`, `taskset`, `numactl`, `systemd-run`."""

import re
from collections.abc import Iterator

# systemd-run's options that change nothing of what runs.
_WITHOUT_EFFECT = frozenset(
    """
    --user --scope -q --quiet -G --collect --no-block -u --unit --description -t --pty -P --pipe -d --same-dir
    -r --remain-after-exit --wait --no-ask-password --service-type
    """.split()  # noqa: SIM905  (a list one can read)
)
_NUMA_POLICIES = {
    "-m": "bind", "--membind": "bind", "-i": "interleave", "--interleave": "interleave",
    "-p": "preferred", "--preferred": "preferred",
}  # fmt: skip
_SETTINGS = {
    ("nice", "-n"): "Nice", ("nice", "--adjustment"): "Nice", ("systemd-run", "--nice"): "Nice",
    ("ionice", "-c"): "IOSchedulingClass", ("ionice", "--class"): "IOSchedulingClass",
    ("ionice", "-n"): "IOSchedulingPriority", ("ionice", "--classdata"): "IOSchedulingPriority",
    ("taskset", "-c"): "CPUAffinity", ("taskset", "--cpu-list"): "CPUAffinity",
    ("numactl", "-C"): "CPUAffinity", ("numactl", "--physcpubind"): "CPUAffinity",
    ("systemd-run", "--slice"): "Slice", ("systemd-run", "--uid"): "User",
    ("systemd-run", "--working-directory"): "WorkingDirectory",
    ("systemd-run", "-E"): "Environment", ("systemd-run", "--setenv"): "Environment",
}  # fmt: skip
_IO_CLASSES = {"1": "realtime", "2": "best-effort", "3": "idle"}


def settings(wrapper: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The settings of a unit that a wrapper's words mean, and the words that mean none.

    `wrapper` begins with the program and ends before the engine.
    """
    program = wrapper[0].rpartition("/")[2]
    unit_settings: list[tuple[str, str]] = []
    rest: list[str] = []
    options = list(options_of(wrapper[1:]))
    if program == "nice":  # `nice -5`
        options = [
            ("-n", option[1:], text) if re.fullmatch("-[0-9]+", option) else (option, value, text)
            for option, value, text in options
        ]
    if program == "nice" and all(option in ("", "--") for option, *_ in options):
        unit_settings.append(("Nice", "10"))  # nice(1)
    memory = {value for option, value, _ in options if option in _NUMA_POLICIES}
    are_masks = all(re.fullmatch(r"[0-9,-]+", value) for value in memory)
    for option, value, written in options:
        if program == "numactl" and option in _NUMA_POLICIES and are_masks:
            unit_settings += [("NUMAPolicy", _NUMA_POLICIES[option]), ("NUMAMask", value)]
        elif program == "numactl" and option in ("-N", "--cpunodebind") and memory == {value} and are_masks:
            unit_settings.append(("CPUAffinity", "numa"))
        elif pair := _setting(program, option, value):
            unit_settings.append(pair)
        elif written != "--" and (program != "systemd-run" or option not in _WITHOUT_EFFECT):
            rest.append(written)
    return unit_settings, rest


def niceness(*levels: str) -> str:
    """The sum of levels as `Nice=` has it; what is no number counts for nothing."""
    numbers = [int(level) for level in levels if re.fullmatch("-?[0-9]{1,9}", level)]
    return str(max(-20, min(19, sum(numbers))))


def options_of(words: list[str]) -> Iterator[tuple[str, str, str]]:
    """(option, value, both as written) of each option; a word without one has the option ''."""
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            yield "", word, word
        elif equals:
            yield name, value, word
        elif remaining and (not remaining[0].startswith("-") or _takes_number(word, remaining[0])):
            value = remaining.pop(0)
            yield word, value, f"{word} {value}"
        elif match := re.fullmatch(r"(-[A-Za-z])(.+)", word) if not word.startswith("--") else None:
            yield match[1], match[2], word
        else:
            yield word, "", word


def _takes_number(option: str, word: str) -> bool:
    """`nice -n -5`."""
    return option in ("-n", "--adjustment", "--nice") and bool(re.fullmatch(r"-[0-9]+", word))


def _cpus(text: str) -> str | None:
    """A list of processors as CPUAffinity= has it, strides written out; None for what has no such form."""
    numbers: list[str] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4})(?::([0-9]{1,4}))?)?", part)  # CONFIG_NR_CPUS
        if match is None:
            return None
        if match[3]:
            numbers += map(str, range(int(match[1]), int(match[2]) + 1, int(match[3]) or 1))
        else:
            numbers.append(part)
    return " ".join(numbers)


def _setting(program: str, option: str, value: str) -> tuple[str, str] | None:
    if program == "taskset" and re.fullmatch(r"(0x)?[0-9a-fA-F]+", value) and not option:
        mask = int(value, 16)
        return "CPUAffinity", " ".join(str(bit) for bit in range(mask.bit_length()) if mask >> bit & 1)
    if program == "systemd-run" and option in ("-p", "--property"):
        name, _, value = value.partition("=")
        return name, value
    match _SETTINGS.get((program, option)):
        case None:
            return None
        case "CPUAffinity":
            processors = _cpus(value)
            return ("CPUAffinity", processors) if processors else None
        case "Nice":
            return ("Nice", value) if re.fullmatch("-?[0-9]{1,9}", value) else None
        case "Slice":
            return "Slice", value if value.endswith(".slice") else f"{value}.slice"
        case "IOSchedulingClass":
            return "IOSchedulingClass", _IO_CLASSES.get(value, value)
        case name:
            return name, value
