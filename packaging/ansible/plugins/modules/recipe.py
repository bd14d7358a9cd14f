#!/usr/bin/python
# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)


DOCUMENTATION = r"""
module: recipe
short_description: One model that recipectl serves
description:
  - Writes one recipe of recipectl, applies it, and starts or stops its model.
  - A recipe that is wrong is not written. The task fails with file, line and key, and the model stays as it is.
version_added: 0.1.0
author: The makers of recipectl (@recipectl)
options:
  name:
    description: The name of the recipe.
    type: str
    required: true
  state:
    description:
      - With V(present) the recipe is there and applied. Its model runs or not, as before, or as its C(autostart) says.
      - With V(absent) the model is stopped, and the recipe, its drop-ins, its lock and its units are gone.
      - With V(started), V(stopped) and V(restarted) the recipe is there and applied, too.
      - V(restarted) always restarts the model, and is always a change.
      - A recipe with C(autostart=true) cannot be V(stopped). A model with C(on_demand) starts again at its next request.
    type: str
    choices: [present, absent, started, stopped, restarted]
    default: present
  content:
    description: The recipe itself, as a mapping or as text. Without it and without O(src), the recipe of the host is meant.
    type: raw
  src:
    description: The recipe as a file on the controller, looked for as that of M(ansible.builtin.copy).
    type: path
  enabled:
    description: Whether the model starts at boot. A recipe with C(autostart) says so itself.
    type: bool
  wait:
    description: Wait until a model that is started or restarted answers.
    type: bool
    default: true
  wait_timeout:
    description: How long to wait at most, in seconds.
    type: int
    default: 1800
extends_documentation_fragment: recipectl.models.converge
"""

EXAMPLES = r"""
- name: A model that starts at boot, and answers when the task is over
  recipectl.models.recipe:
    name: qwen3-8b
    state: started
    enabled: true
    content:
      model_path: Qwen/Qwen3-8B
      venv_path: /opt/venvs/vllm-0.33
      port: 8000

- name: The same from a file
  recipectl.models.recipe:
    name: qwen3-8b
    state: started
    src: recipes/qwen3-8b.yaml

- name: A model that is no longer wanted
  recipectl.models.recipe:
    name: llama-8b
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or would be done.
  returned: always
  type: list
  elements: dict
  sample: [{"verb": "write", "unit": "model-qwen3-8b.service", "reason": "new"}]
problems:
  description: Warnings and errors, with file, line, column, key, kind, sentence and severity.
  returned: always
  type: list
  elements: dict
unit:
  description: The unit of the model.
  returned: always
  type: str
  sample: model-qwen3-8b.service
"""

import json
import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.recipectl.models.plugins.module_utils.converge import FOLDER, Converge, arguments

_MAY_RUN = ("active", "activating", "reloading")
_ENDINGS = (".yaml", ".yml", ".json")
# The folders of packages, and of a boot: their recipes stay.
_OTHER_FOLDERS = ("/run/recipectl/recipes", "/usr/local/lib/recipectl/recipes", "/usr/lib/recipectl/recipes")


class Model:
    """The unit of one recipe."""

    def __init__(self, module, converge):
        self.module, self.converge, self.parameters = module, converge, module.params
        self.name = self.parameters["name"]
        # recipectl would take others as patterns, options or files.
        if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z", self.name) or self.name.endswith(_ENDINGS):
            converge.fail(
                "%s is not a recipe's name; give letters, digits, `.`, `_` and `-`, without an ending"
                % self.name
            )
        self.unit = "model-%s.service" % self.name
        converge.result["unit"] = self.unit

    def active_state(self):
        """The ActiveState of the unit."""
        return self._systemctl("show", "-P", "ActiveState", self.unit)

    def _systemctl(self, *words):
        return self.module.run_command(["systemctl", *words])[1].strip()

    def do(self, verb, unit, *options):
        """Run a verb of recipectl, or note it in check mode; the task fails with what it says."""
        if not self.module.check_mode:
            self._run(verb, *options)
        self.converge.result["changed"] = True
        action = {"verb": verb, "unit": unit, "reason": "the task says so"}
        self.converge.result["actions"].append(action)

    def _run(self, verb, *options):
        status, out, err = self.converge.run("--quiet", verb, *options, self.name)
        if status:
            self.converge.fail(err.strip() or out.strip() or "recipectl %s has failed" % verb)

    def absent(self):
        """Stop the model, and remove its units and its files."""
        files = self.converge.differing(dict.fromkeys(self.files()))
        if os.path.lexists("/etc/systemd/system/" + self.unit):
            self.do("remove", self.unit)
        if self.module.check_mode:
            self.converge.result["changed"] |= bool(files)
        else:
            self.converge.write(files)
        for folder in _OTHER_FOLDERS:
            for path in (os.path.join(folder, self.name + ending) for ending in _ENDINGS):
                if os.path.exists(path):
                    self.module.warn(
                        "%s stays, so the next apply brings the model back; mask or remove it" % path
                    )

    def files(self):
        """The files of the recipe, its drop-ins and its lock, below /etc/recipectl."""
        base = os.path.join("recipes", self.name)
        drop_ins = base + ".yaml.d"
        paths = [base + ending for ending in (*_ENDINGS, ".lock", ".lock.txt")]
        if os.path.isdir(os.path.join(FOLDER, drop_ins)):
            names = os.listdir(os.path.join(FOLDER, drop_ins))
            paths += [os.path.join(drop_ins, name) for name in names if not name.startswith(".")]
        return [path for path in paths if os.path.lexists(os.path.join(FOLDER, path))]

    def present(self):
        """Write the recipe and its secrets, and apply it."""
        content = {}
        if self.parameters["content"] is not None:
            base = "recipes/" + self.name
            # Of two files with one name, recipectl takes neither.
            content = {base + ".yml": None, base + ".json": None, base + ".yaml": self.parameters["content"]}
        files = self.converge.differing(self.converge.wanted(content, self.parameters["secrets"]))
        self.converge.converge(files, self.name)

    def enable(self):
        """Start the model at boot, or do so no more."""
        enabled = self.parameters["enabled"]
        if enabled is None:
            return
        socket = self.unit.replace(".service", ".socket")
        unit = socket if os.path.exists("/etc/systemd/system/" + socket) else self.unit
        verb = "enable" if enabled else "disable"
        done = any(action["verb"] == verb for action in self.converge.result["actions"])
        if done or (self._systemctl("is-enabled", unit) == "enabled") == enabled:
            return
        autostart = self._autostart()
        if autostart not in (None, enabled):
            self.converge.fail(
                "the recipe says `autostart: %s`, and the task `enabled: %s`; change one of them"
                % (str(autostart).lower(), str(enabled).lower())
            )
        self.do(verb, unit)

    def _autostart(self):
        """What the recipe says of a start at boot; None if nothing, or if there is no recipe yet."""
        out = self.converge.run("list", "--json")[1]
        try:
            return {row["name"]: row["autostart"] for row in json.loads(out)}.get(self.name)
        except ValueError:
            return None

    def run(self):
        """Start, stop or restart the model."""
        state, active_state = self.parameters["state"], self.active_state()
        actions = self.converge.result["actions"]
        begun = any(
            action["unit"] == self.unit and action["verb"] in ("start", "restart") for action in actions
        )
        if state == "stopped" and (active_state in _MAY_RUN or begun):
            if self._autostart():
                self.converge.fail(
                    "the recipe says `autostart: true`, and the task `state: stopped`; change one of them"
                )
            self.do("stop", self.unit)
        elif state == "restarted" and not begun:
            self.do("restart", self.unit, "--no-block")
        elif state == "started" and not begun and active_state not in _MAY_RUN:
            self.do("start", self.unit, "--no-block")
        elif active_state == "active" and not begun:
            return
        if state in ("started", "restarted") and self.parameters["wait"] and not self.module.check_mode:
            self._run("wait", "--timeout", str(self.parameters["wait_timeout"]))


def main():
    """Bring one recipe and its model to the state of the task."""
    module = AnsibleModule(
        argument_spec=arguments(
            name={"type": "str", "required": True},
            state={
                "type": "str",
                "choices": ["present", "absent", "started", "stopped", "restarted"],
                "default": "present",
            },
            content={"type": "raw"},
            src={"type": "path"},
            secrets={"type": "dict", "no_log": True},
            enabled={"type": "bool"},
            wait={"type": "bool", "default": True},
            wait_timeout={"type": "int", "default": 1800},
        ),
        supports_check_mode=True,
    )
    converge = Converge(module)
    model = Model(module, converge)
    if not converge.require_program():
        converge.result["changed"] = module.params["state"] != "absent"
        module.exit_json(**converge.result)
    if module.params["state"] == "absent":
        model.absent()
    else:
        model.present()
        model.enable()
        model.run()
    module.exit_json(**converge.result)


if __name__ == "__main__":
    main()
