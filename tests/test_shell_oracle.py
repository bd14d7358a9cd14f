"""What the importer reads in a script, beside what bash runs for it: exact, or named; never silently different."""

import os
import random
import re
from collections import Counter
from pathlib import Path

import bash_oracle
import documentation
import pytest

from recipectl.errors import UsageError
from recipectl.importers import shell
from recipectl.importers.command import Command
from recipectl.importers.draft import UNKNOWN_VALUE, VARIABLE_START
from recipectl.importers.programs import program, runs_container
from recipectl.importers.shell_programs import has_effect
from recipectl.importers.unwrapping import unwrapped

DOCUMENTATION = Path(__file__).parents[1] / ".build/documentation"
FOLDER = "/srv/a"  # of the script, and the one that it is started from
MUTATIONS = int(os.environ.get("SHELL_MUTATIONS", "400")) // 2  # for each of the two seeds
_BASE = {"PATH": "/bin", "LC_ALL": "C.UTF-8"}
_Engine = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]


def is_engine(words: list[str]) -> bool:
    inner = unwrapped(Command({}, words)).words
    return bool(inner) and has_effect(inner) and (program(inner) is not None or runs_container(inner))


def engine(words: list[str], environment: dict[str, str]) -> _Engine:
    environment = {name: value for name, value in environment.items() if name != "IFS"}  # the stub resets it
    while words[0] in ("exec", "command", "builtin"):
        words = words[1:]
    return (words[0].removeprefix("/bin/"), *words[1:]), tuple(sorted(environment.items()))


def read(text: str) -> tuple[list[_Engine], bool, list[str]]:
    """The engines that the importer reads, whether it says that something differs, and their programs."""
    commands = shell.commands(text, folder=FOLDER)
    says = any(command.refusal for command in commands)
    engines, programs = [], []
    for command in commands:
        if command.refusal or not is_engine(command.words):
            programs += command.words[:1]
            says |= bool(command.words)  # the verb names programs that are no engine
            continue
        path = {"PATH": command.path} if command.path else {}
        texts = [*command.words, *command.environment.values(), command.path or "", command.folder or ""]
        says |= bool(command.not_carried_over) or "\n" in command.words[0]  # which no stub has
        says |= any(mark in word for word in texts for mark in (VARIABLE_START, UNKNOWN_VALUE))
        engines.append(engine(list(command.words), _BASE | command.environment | path))
        programs += command.words[:1]
    return engines, says, [program for program in programs if "/" in program and "\n" not in program]


def outcomes(texts: list[str]) -> list[str]:
    """exact, named, refused, crashed or different, for each script."""
    results = []
    for text in texts:
        try:
            results.append(read(text))
        except UsageError:
            results.append(([], True, []))
        except Exception as error:
            results.append(([(("crash", repr(error)), ())], False, []))
    runs = bash_oracle.record(
        [(text, programs) for text, (_, _, programs) in zip(texts, results, strict=True)]
    )
    answers = []
    for (engines, says, _), ran in zip(results, runs, strict=True):
        real = [engine(list(run.words), run.environment) for run in ran if is_engine(list(run.words))]
        if engines and engines[0][0][0] == "crash":
            answers.append(f"crashed {engines[0][0][1]}")
        elif Counter(engines) == Counter(real):
            answers.append("exact")
        elif says:
            answers.append("named" if engines else "refused")
        else:
            answers.append(f"different: {engines} {real}")
    return answers


SCRIPTS = [
    "vllm serve /m --port 8001",
    "A=1 B='x y' vllm serve \"/m n\" --json '{\"a\": [1, 2]}' --empty '' \\\n  --x=a\\ b",
    "export A=1\nM=/m; O='--port 1 --seed 2'\nsource /opt/v/bin/activate\nvllm serve \"$M\" \\\n  $O",
    "ARGS=(--port 1\n  --seed '2 3' # why\n)\nARGS+=(--headless)\nexec vllm serve /m \"${ARGS[@]}\"",
    'HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"\n"$HERE/venv/bin/vllm" serve "$HERE/weights" --port 1',
    "#!/bin/bash\nset -euo pipefail\nset -a; A=1; set +a\nB=2\ncd /srv/llm && vllm serve ./m > log 2>&1 &\nwait",
    "if [ -d /m ]; then\n  X=--trust-remote-code\nelse\n  X=''\nfi\nvllm serve /m $X\n",
    "case \"$1\" in\n  a) M=/a ;;\n  *) M=/b ;;\nesac\nvllm serve $M\n",
    "for i in 0 1; do\n  CUDA_VISIBLE_DEVICES=$i vllm serve /m --port $((8000 + i)) &\ndone\nwait\n",
    "start() {\n  local port=$1\n  vllm serve /m --port \"$port\"\n}\nstart 8001\n",
    "(cd /a; export A=1; vllm serve ./m) &\n(cd /b; vllm serve ./m --port 1) &\nwait",
    "cat > x.conf <<EOF\nport=1\nEOF\nvllm serve /m 2>&1 | tee log.txt",
    "PY=/opt/v/bin/python3\n$PY -m sglang.launch_server --model-path /m --host 0.0.0.0 \\\n    --port 30000 --tp 2\n",
    "P=${PORT:-8000}\nT=${TOKEN:?set it}\nvllm serve /m --port $P --x \"${Y:=a b}\" --y $Y",
    "docker run --gpus all -v ~/.cache:/root/.cache -p 8000:8000 \\\n  -e A=\"b c\" vllm/vllm-openai:latest --model org/m",
    "export LD_LIBRARY_PATH=/x${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\nexport PATH=/opt/cuda/bin:$PATH\nllama-server -m ~/m.gguf -c 4096",
    "nohup env A=1 numactl -N 0 /opt/v/bin/vllm serve /m --x $'a\\tb\\'c' < /dev/null &> log &\necho $! > pid",
    "vllm serve /m --port <PORT> --served-model-name x\n",
    "which vllm || pip install vllm\n[ -n \"$DEBUG\" ] && E=--enforce-eager\nvllm serve /m $E || vllm serve /n",
    "A=1; B=$A A=2 vllm serve /m$A \"${A}x\" '$A' \\$A \"\\$A\" \"\\\\\" 'it'\\''s'; vllm serve /n",
    "x=(a b); x[1]=c; vllm serve /m ${x[@]} \"${x[0]}\" $x; unset x; vllm serve /n",
    "A=(0 2 3); IFS=,; export G=\"${A[*]}\"; L='a b,c'; vllm serve /m --x \"$L\" --y \"${A[*]}\"",
    "L='a,b c'; OLD=$IFS; IFS=$'\\n'; vllm serve /m --x $L; IFS=$OLD; vllm serve /n --x $L; IFS=; vllm serve /o --x $L",
    "f() { local IFS=:; N=\"$*\"; }; f x y; L='a b'; vllm serve /m --x \"$N\" $L; IFS=,; unset IFS; vllm serve /n $L",
    "IFS=,; L=a,b; vllm serve /m --x $L; M=ab; vllm serve /n --x $M ${U:-c,d}",
    "while true; do vllm serve /m; sleep 5; done",
    "time vllm serve /m; ! vllm serve /n; { vllm serve /o; } ; eval vllm serve /p; exit 0\nvllm serve /q",
    "export A B=1; A=2; readonly C=3; declare -x D=\"4 5\" E; E=6; declare -i F=1+1; export F; vllm serve /m",
    "vllm serve /m *.x a?b [ab] {a,b} ~ ~/x x=~/y 'a'*b \"*\" #comment\nvllm serve /n a#b # c",
    "vllm serve /m \\\n  --port 1 \\\n  # --x 2 \\\n  --y 3\n",
    "X=4096\nvllm serve /m ${X:+--max-model-len \"$X\"} ${Y:+--no} ${Z-a b \"c d\"}",
    "f() { export CUDA_VISIBLE_DEVICES=1; }\nf\nvllm serve /m",
    "export A=1; if true; then unset A; fi; vllm serve /m; printf -v P '%s' 8; vllm serve /n --port $P",
    "A=(a b); IFS=,; vllm serve /m --x \"${A[*]}\"",
    "main() {\n  local m=${1:-/m} p\n  p=8000\n  serve \"$m\" \"$p\" --x &\n  serve \"$@\"\n}\n"
    "serve() { vllm serve \"$1\" --port \"$2\" \"${@:3}\"; }\nmain \"$@\"\nwait",
    "run() { echo \"+ $*\" >&2; \"$@\"; }\nrun vllm serve /m --x 'a b'\nA=1 run vllm serve /n\nrun eval vllm serve /o",
    "P=1; f() { local P=2 Q; export P; Q=$1; shift; vllm serve /m --port $P --x \"$Q\" \"$@\"; }\nf a b 'c d'; f\n"
    "vllm serve /n --port $P --x \"$Q\"",
    "f() { [ -z \"$1\" ] && return 1; vllm serve \"$1\"; }\nf; f /a; f /b || vllm serve /c; exit\nf /d",
    "f() {\n  case \"$1\" in a) echo /a ;; esac\n  cd /srv; export A=1; M=/m\n}\nf b\nvllm serve $M --x $A\n(f; exit); vllm serve /n",
    "g() { declare X=2; declare -g Y=3; h; }\nh() { vllm serve /m --x $X --y \"$Y\"; }\nX=1; g; h; X=5 g",
    "die() { echo \"$1\"; exit 1; }\nM=/m; [ -n \"$M\" ] || die no; vllm serve $M; die end\nvllm serve /n",
    "f() (cd /a; export B=1; exec vllm serve ./m)\nf; vllm serve /n; set -- 1 2; f() { vllm serve /o --x $# $1; }\nf 3; vllm serve $1",
    "is_debug() { [ \"$DEBUG\" = 1 ]; }\nis_debug && E=--enforce-eager\nload() { [ -f \"$1\" ] || return 0; export A=1; cd /x; }\nload /etc/e\nvllm serve /m $E",
    "add() { [ -z \"$TP\" ] && return; ARGS+=(--tp \"$TP\"); }\nARGS=(--x '')\nadd\nrun() { \"$@\"; }\nC=(run vllm serve /m)\n\"${C[@]}\" \"$@\" \"${ARGS[@]}\"",
    "f() { case $1 in a) local M=/a ;; *) M=/b ;; esac; (local M=/d; g() { vllm serve /g; }; g); }\nM=/c; f b; g; vllm serve $M ${ARGS[@]:1}\nexport X=1\nh() { local X; vllm serve \"${@:2}\" y; shift 3; vllm serve \"$1\"; }\nh a ''",
    "A=(a b); f() { unset A; unset -f f; }; g() { local A=(c); f; vllm serve ${A[@]:-x} \"${A[@]:1}\" ${B[@]:-y}; }\ng; f\nif true; then :; elif export C=1; then :; fi\nV='D=1 E=2'; export $V; vllm serve /m\n",
    "parse() { while [[ $# -gt 0 ]]; do case $1 in -p) P=$2; shift 2 ;; esac; done; }\nP=1; parse; vllm serve /m --port $P\nfor i in 1 2; do export Z=$i; done\nreadonly R=1; R=2 vllm serve $R; trap f EXIT; f() { vllm serve /t; }; f",
    "f() { vllm serve $1 --port $2; }\nf $(date) 80; f \"$@\"; f /a \"$@\"; X=; f $X /b",
    "f() { local m=$1; vllm serve $m --x \"${@:2}\" ${*:3}; A=\"${@:2}\"; vllm serve \"$A\" ${@: -1}; }\nf /m \"a b\" c\nvllm serve \"${@:2}\"",
    "N=${M##*/}; K=${#N}; L=${M/a/b}; vllm serve /m --served-model-name \"$N\" `date` $(date)",
]  # fmt: skip
# Conditions on values that the script itself sets: nothing need be said of them.
CONDITIONS = [
    'E=; D=0; [ "$D" = 1 ] && E=--enforce-eager; [ $D -lt 1 ] && F=--headless; vllm serve /m $E $F',
    'A=(--port 1); Q=; [ -n "$Q" ] && A+=(--quantization "$Q"); [ -z "$Q" ] || A+=(--x); vllm serve /m "${A[@]}"',
    'S=large; case $S in small|s*) T=1 ;; l?rge) T=8 ;; *) T=2 ;; esac; vllm serve /m -tp $T',
    'S="a b"; case "$S" in "a b") T=1 ;; esac; case "*" in "*") U=2 ;; *) U=3 ;; esac; vllm serve /m -tp $T --x $U',
    'if [[ a == a* && ! -z x ]]; then A=1; elif [[ 1 ]]; then A=2; else A=3; fi; vllm serve /m --x $A',
    'if test 5 -gt 30 || ! [ a != a ]; then A=1; else A=2; fi; vllm serve /m --x $A',
    'X=5; if [ "$X" -ge 5 ]; then export B=1; cd /srv; source /opt/v/bin/activate; fi; vllm serve ./m --x $X',
    'N=; if [ $N ]; then A=1; else A=2; fi; [[ $N ]] && A=3; [ ! "$N" ] && B=4; vllm serve /m --x $A --y $B',
    'X=; if [ ! $X = prod ]; then A=1; else A=2; fi; if [ ! "$X" = prod ]; then B=1; else B=2; fi; vllm serve /m --x $A --y $B',
    'X=a; if [ $X = b ]; then set -a; f() { L=x; }; fi; F=1; L=info; vllm serve /m --x $F --y $L',
    'N=5; case $N in [0-9]) A=1 ;; esac; [[ 10 -eq 10 ]] && B=2; vllm serve /m --y ${B}',
    'set -eao pipefail; A=1; (set +a; B=2); C=3; set +ae; D=4; vllm serve /m --x $D',
    'set -o allexport; A=1; set +o allexport; B=1; set -- -a; C=1; vllm serve /m --x $B',
    'f() { local M=$1; if [ $# -gt 1 ]; then vllm serve $M --port $2; else vllm serve $M; fi; }; f /a; f /b 80; f "/c d" "" 3',
    'run() { "$@"; }; g() { local A=(--x "$1"); run vllm serve /m "${A[@]}"; }; A=1; g "a b"; vllm serve /n $A',
    'f() { export A=$1; if [ $1 = 2 ]; then return; fi; vllm serve /m; }; B=1 f 1; f 2; vllm serve /n; f 3',
    'M=org/a.b-7B.gguf; N=${M##*/}; O=${N%.gguf} P=${M%%.*}; vllm serve $M --x ${M#*.} "$O" ${P%/?} "${N#z*}" ${N%%*} ${M##o?g}',
    'if true; then A=1; fi; false && A=2; : || A=3; vllm serve /m --x "$A"; [ 1 = 2 ] || exit; vllm serve /n',
]  # fmt: skip
_INSERTED = [
    '"', "'", "\\", "$", "`", "(", ")", ";", "&", "|", "<", ">", "{", "}", "#", "\n", " ", "=", "~", "*", "!", "[",
    "$A", "${B:-c}", '"$@"', "$(date)", "$'", " && ", " || ", "<<E", "\nfi\n", "\ndone\n", " exec ", "export ",
    "A=1 ", "a+=1;", "if true; then ", "é", "\t", "$((1+1))", "\\\n", "set -a;", "unset A;", "2>&1", "$1", ":",
]  # fmt: skip


def mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text) + 1)
        match chance.randrange(5):
            case 0:
                text = text[:place] + text[place + chance.randint(1, 4) :]
            case 1 | 2:
                text = text[:place] + chance.choice(_INSERTED) + text[place:]
            case 3:
                lines = text.split("\n")
                chance.shuffle(lines)
                text = "\n".join(lines)
            case _:
                words = re.split(r"(\s+)", text)
                words.insert(chance.randrange(len(words)), chance.choice(words))
                text = "".join(words)
    return text


NEEDED = pytest.mark.skipif(not bash_oracle.can_run(), reason="this user may not make namespaces")


@NEEDED
def test_a_script_is_read_as_bash_runs_it() -> None:
    answers = outcomes(SCRIPTS)
    assert [answer for answer in answers if answer.startswith(("different", "crashed"))] == []


@NEEDED
def test_a_condition_on_what_the_script_sets_is_decided_as_bash_decides_it() -> None:
    assert dict(zip(CONDITIONS, outcomes(CONDITIONS), strict=True)) == dict.fromkeys(CONDITIONS, "exact")


@NEEDED
@pytest.mark.parametrize("seed", range(2))
def test_a_mutated_script_is_read_as_bash_runs_it_or_the_difference_is_named(seed: int) -> None:
    chance = random.Random(seed)
    texts = [mutated(chance.choice([*SCRIPTS, *CONDITIONS]), chance) for _ in range(MUTATIONS)]
    answers = outcomes(texts)
    silent = [
        (text, answer)
        for text, answer in zip(texts, answers, strict=True)
        if answer.startswith(("different", "crashed"))
    ]
    assert silent == []


@NEEDED
@pytest.mark.skipif(not DOCUMENTATION.exists(), reason="`make setup-test` fetches the documentation")
def test_the_commands_of_the_engines_documentation_are_read_as_bash_runs_them() -> None:
    texts = documentation.scripts([DOCUMENTATION])
    answers = outcomes(texts)
    kinds = Counter(answer.partition(" ")[0].rstrip(":") for answer in answers)
    commands = sum(len(documentation.ENGINE.findall(text)) for text in texts)
    print(f"{commands} commands in {len(texts)} blocks of documentation: {dict(kinds)}")
    assert commands >= 400
    assert [answer for answer in answers if answer.startswith(("different", "crashed"))] == []
