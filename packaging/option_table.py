"""`option_table.py ENGINE PROGRAM`: refresh the table of an engine's options from an installed engine.

PROGRAM is the python of a venv with vLLM or SGLang, or a llama-server. The table, which recipectl takes where
an engine cannot be asked, is agent/recipectl/engines/ENGINE.json: an option a line.
"""

import json
import os
import pwd
import sys
import tempfile
from pathlib import Path

from recipectl.engines import ask
from recipectl.engines.registry import ENGINES
from recipectl.machine.runtime import Runtime


def main() -> None:
    engine, program = sys.argv[1:]
    path = os.path.abspath(program)  # noqa: PTH100  (a venv's python is a link)
    runtime = Runtime(
        "given", (path,), interpreter=None if ENGINES[engine].is_binary else path, path=("/usr/bin", "/bin")
    )
    user = pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory() as cache:
        answer = ask.options_of(engine, runtime, user, Path(cache))
        if not answer.asked:
            sys.exit(f"{program} was not asked: {answer.origin}")
        (file,) = Path(cache).iterdir()
        table = json.loads(file.read_text())
    for option in table["options"].values():  # a default may be this machine's
        option.pop("default", None)
    table_file = Path(ask.__file__).with_name(f"{engine}.json")
    # Options that an earlier table had stay: engines that have them are in use.
    table["options"] = json.loads(table_file.read_text())["options"] | table["options"]
    lines = [f"{json.dumps(name)}: {json.dumps(option)}" for name, option in sorted(table["options"].items())]
    text = f'{{"version": {json.dumps(table["version"])}, "options": {{\n' + ",\n".join(lines) + "\n}}\n"
    table_file.write_text(text)
    print(f"{engine} {table['version'] or ''}: {len(lines)} options")


main()
