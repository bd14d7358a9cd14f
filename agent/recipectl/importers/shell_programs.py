"""What the programs of a script mean for an engine that it starts: effects, limits, engines inside."""

import re

from recipectl.importers.command import SHELLS, Command, is_given_model, program_shown
from recipectl.importers.draft import AS_IT_RUNS, UNKNOWN_VALUE, VARIABLE_START, redacted
from recipectl.importers.lines import Remark
from recipectl.importers.programs import program, program_name, runs_engine
from recipectl.importers.unwrapping import unwrapped

# Programs that change nothing of what an engine is given.
_WITHOUT_EFFECT = frozenset(
    """
    [ test mkdir kill pkill tail echo sleep wait trap shopt true false : pwd which date nvidia-smi rm
    cat break continue tee pgrep grep type hash diff cmp killall ls free df du hostname ss netstat lsof wc
    head sort uniq uname id whoami printenv jobs ps top clear tput basename dirname realpath readlink nproc
    lscpu jq seq stat file
    """.split()  # noqa: SIM905  (a list one can read)
)
# What only asks, or tidies containers up: a unit has none.
_WITHOUT_EFFECT_HERE = re.compile(
    r"(command -[vV]|(docker|podman) (rm|logs|pull|ps|inspect|stats)|disown|systemctl (status|"
    r"is-active)|\S*(llama-server|vllm|sglang|python3?) (--version|-V|--help|-h))( |\Z)"
    r"|curl( -[sSfLI]+| -o /dev/null| -m [0-9]+| --(silent|fail|max-time[ =][0-9]+))* "
    r"https?://(localhost|127\.0\.0\.1)\S*\Z"
)
_ASKS_ENGINE = re.compile(r"-h|--help(=.*)?|--version|--list-devices")
DEMO_SERVER = "`vllm.entrypoints.api_server` is vLLM's demo server, without OpenAI's API; write `vllm serve`"
_SCHEDULER = re.compile(r"#(SBATCH|PBS|BSUB)\s")
_SMI_QUERY = re.compile(
    r"-(q|L|i|l|lms|x|d|f|h|-query.*|-list.*|-format.*|-id.*|-loop.*|-help|-version)(=|\Z)"
)
_RUNS_ENGINE = re.compile(
    r"\b(vllm|sglang)( --)? serve (?!-h |--help)\S|\b(vllm|sglang)\b[^\n]{0,400} -- serve "
    r"|\b(vllm\.entrypoints(?!\.cli\.main (?!serve))|sglang serve|sglang\.launch_server|vllm serve)\b"
    r"[^\n]{0,400} --model"
    r"|\bxargs\b[^\n]{0,400} (vllm serve|llama-server|llama serve|sglang serve) "
    r"|-m (vllm\.entrypoints\.(openai\.)?api_server|sglang(\.srt\.entrypoints\.http_server|\.cli\.main serve"
    r"|_router\.launch_server))\b"
    r"|\bllama(-server| serve)\b[^\n]{0,400} (-m|--model|-hf|--hf-repo|-mu|--models-\w+)[ =]"
    r"|vllm/entrypoints/\S{0,80}api_server\.py\b[^\n]{0,400} --model"
    r"|\b((docker|podman|nerdctl)\b[^\n]{0,80} (run|create)|(singularity|apptainer) (run|exec)|kubectl run)\b"
    r"[^\n]{0,400}(vllm|sglang|(?<!o)llama)"
)
_OF_SYSTEM = re.compile(r"/(usr/)?s?bin/|/usr/lib")
# They run what a file says, which no importer reads.
_RUNS_FILES = re.compile(
    r"((ba|da|z|fi)?sh|python[0-9.]*|make|just|sbatch|perl|node|ruby|.*\.(sh|bash|py)|.*llama[-_]server.*)\Z"
)
_OTHER_ENGINE = re.compile(
    r"serve|^(text-generation-launcher|koboldcpp|aphrodite|ktransformers|infinity_emb|tabbyapi|mlc_llm)"
)
# They look for an engine that runs, or end it.
_ASKS = ("pkill", "pgrep", "grep", "ps", "fuser", "echo", "printf")
# Letters of `ulimit` (bash(1)): the setting of a unit, and the unit of measure.
_LIMITS = {
    "-n": ("LimitNOFILE", ""), "-u": ("LimitNPROC", ""), "-s": ("LimitSTACK", "K"), "-c": ("LimitCORE", "K"),
    "-v": ("LimitAS", "K"), "-l": ("LimitMEMLOCK", "K"),
}  # fmt: skip


def has_effect(words: list[str]) -> bool:
    """False for a program that changes nothing of what an engine is given."""
    if words[0] == "rm" and any(re.match("-[a-zA-Z]*[rR]|--recursive", word) for word in words):
        return True
    is_without = words[0] in _WITHOUT_EFFECT or _WITHOUT_EFFECT_HERE.match(" ".join(words))
    return not is_without and not (any(map(_ASKS_ENGINE.fullmatch, words)) and program(words))


def is_of_kernel(file: str) -> bool:
    """Whether a file is a setting of the kernel, which an engine may depend on."""
    return file.startswith(("/sys/", "/proc/sys/"))


def of_scheduler(text: str) -> list[Remark]:
    """What comments of a script tell Slurm, PBS or LSF."""
    read = []
    for number, line in enumerate(text.splitlines(), 1):
        if _SCHEDULER.match(line):
            remedy = "see `gpus:` and `service:`"
            if "--container" in line:
                remedy = "its paths are those of a container: give this host's, and its engine"
            read.append(Remark(f"`{line.strip()}`, which the scheduler reads; {remedy}", number))
    return read


def runs_its_input(words: list[str]) -> bool:
    """Whether a program runs what it reads from a pipe."""
    words = unwrapped(Command({}, words)).words
    name = program_name(words)
    has_shell = any(program_name([word]) in SHELLS for word in words)
    is_login = name == "ssh" and len([word for word in words[1:] if not word.startswith("-")]) == 1
    passes_on = name in ("ssh", "docker", "podman", "kubectl", "xargs", "parallel") and has_shell
    return name in (*SHELLS, "su", "at", "batch", "crontab") or is_login or passes_on


def files_of_tee(words: list[str]) -> list[str]:
    """The files that `tee` writes, also as root."""
    words = unwrapped(Command({}, words)).words
    return [word for word in words[1:] if not word.startswith("-")] if words[:1] == ["tee"] else []


def sets_gpus_up(words: list[str]) -> bool:
    """True for `nvidia-smi` with an option that changes a setting of the GPUs."""
    words = unwrapped(Command({}, words)).words or [""]
    options = [word for word in words[1:] if word.startswith("-")]
    asks = words[1:2] in (["topo"], ["dmon"], ["pmon"]) or all(map(_SMI_QUERY.match, options))
    return words[0] == "nvidia-smi" and not asks


def changes_a_process(words: list[str]) -> bool:
    """True for `renice -n 5 $$` and the like: what it sets holds for a process, and those that it starts."""
    programs = ("renice", "taskset", "chrt", "ionice", "prlimit")
    return any(program_name([word]) in programs for word in words[:3])


def may_run_engine(words: list[str]) -> bool:
    """Whether a program is an engine, is not known and given a model, or was refused already."""
    if words and (VARIABLE_START in words[0] or UNKNOWN_VALUE in words[0] or "{{" in words[0]):
        return runs_engine(words) or is_given_model(words)
    return not words or runs_engine(words)


def limits(words: list[str]) -> dict[str, str]:
    """The settings of a unit for `ulimit -n N` and the like, and for `umask N` (bash(1)); none for others."""
    if words[0] == "umask":
        return {"UMask": words[1]} if len(words) == 2 and re.fullmatch("[0-7]{1,4}", words[1]) else {}
    settings = {}
    for option, value in zip(words[1::2], (*words[2::2], ""), strict=False):
        name, unit = _LIMITS.get(option.replace("S", "").replace("H", ""), ("", ""))
        if not name or not re.fullmatch("[0-9]+|unlimited", value):
            return {}
        settings[name] = "infinity" if value == "unlimited" else value + unit
    return settings


def what_it_is(words: list[str]) -> str:
    """What is said of a program that is left out."""
    if UNKNOWN_VALUE in words[0]:
        return "whose program only a shell knows"
    program = words[1:2] if program_name(words) in SHELLS else words[:1]
    is_own = words[0].startswith(("./", "../", "~")) or ("/" in words[0] and not _OF_SYSTEM.match(words[0]))
    script = next((word for word in program if word.endswith((".sh", ".bash")) or is_own), "")
    verbs = {*words[1:4]} & {"start", "restart", "enable"}
    if verbs and program_name(words) == "systemctl":
        return f"which is not read; if it starts an engine, run `recipectl import unit {redacted(words[-1])}`"
    if verbs and program_name(words) in ("docker", "podman"):
        return "which is not read; if it starts an engine, run `recipectl import process PID`"
    if (script and not _RUNS_FILES.match(program_name(words))) or script.endswith((".sh", ".bash")):
        return f"which is not read; if it starts an engine, run `recipectl import command {script}`"
    if _RUNS_FILES.match(program_name(words)):
        return "which is not read"
    is_other = _OTHER_ENGINE.search(" ".join((program_name(words), *words[1:2])))
    return "which is no engine that recipectl knows" if is_other else "which runs no engine"


def holds_engine(text: str) -> bool:
    """Whether a text, which some program may run, has the command of an engine."""
    return bool(_RUNS_ENGINE.search(f"{text} "))


def is_demo_server(words: list[str]) -> bool:
    """Whether a command runs the server of vLLM's first releases."""
    return "vllm.entrypoints.api_server" in words


def hidden_engine(words: list[str]) -> str | None:
    """Why a program that starts an engine is not imported; None for one that starts none."""
    if "compose" in " ".join(words[:2]) and {"up", "run", "start"} & {*words}:
        fault = f"`{program_shown(words)}` runs containers"
        return f"{fault}; run `recipectl import compose` with its file"
    if is_demo_server(words):
        return DEMO_SERVER
    if program_name(words) in _ASKS or not holds_engine(" ".join(words)):
        return None
    fault = f"`{redacted(program_shown(words))}` runs an engine in a way that cannot be read"
    return f"{fault}; give its own command, {AS_IT_RUNS}"
