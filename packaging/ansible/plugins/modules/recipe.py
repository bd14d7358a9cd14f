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
    type: str
    choices: [present, absent, started, stopped, restarted]
    default: present
  content:
    description: The recipe itself, as a mapping or as text. Without it and without O(src), the recipe of the host is meant.
    type: raw
  src:
    description: The recipe as a file on the controller, looked for as that of M(ansible.builtin.copy).
    type: path
  secrets:
    description: Secrets by the name of their file below C(/etc/recipectl/secrets), which only root can read.
    type: dict
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
  executable:
    description: The path of recipectl, where it is not on C(PATH).
    type: path
attributes:
  check_mode:
    description: Tells what would change, with the recipe as it would be.
    support: full
  diff_mode:
    description: Shows the recipe and its units. Secrets are not shown.
    support: full
requirements:
  - recipectl on the host, and root
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

import glob
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.recipectl.models.plugins.module_utils.converge import (
    FOLDER,
    Converge,
    arguments,
)

_MAY_RUN = ("active", "activating", "reloading")


class Model:
    """The unit of one recipe."""

    def __init__(self, module, converge):
        self.module, self.converge, self.parameters = module, converge, module.params
        self.name = self.parameters["name"]
        self.unit = "model-%s.service" % self.name
        converge.result["unit"] = self.unit

    def active_state(self):
        """The ActiveState of the unit."""
        return self._systemctl("show", "-P", "ActiveState", self.unit)

    def _systemctl(self, *words):
        return self.module.run_command(["systemctl"] + list(words))[1].strip()

    def do(self, verb, *options):
        """Run a verb of recipectl; the task fails with its last line. Not in check mode."""
        self.converge.result["changed"] = True
        self.converge.result["actions"].append(
            {"verb": verb, "unit": self.unit, "reason": "state of the task"}
        )
        self._run(verb, *options)

    def _run(self, verb, *options):
        if self.module.check_mode:
            return
        status, out, err = self.converge.run(verb, *(list(options) + [self.name]))
        if status:
            self.module.fail_json(
                msg=err.strip() or out.strip() or "recipectl %s has failed" % verb, **self.converge.result
            )

    def absent(self):
        """Stop the model, and remove its units and its files."""
        files = dict.fromkeys(self.files())
        units = glob.glob("/etc/systemd/system/%s" % self.unit)
        files = self.converge.files(files)
        if units:
            self.do("remove")
        if files:
            self.converge.result["changed"] = True
            if not self.module.check_mode:
                self.converge.write(files, {})

    def files(self):
        """The files of the recipe, its drop-ins and its lock, below /etc/recipectl."""
        base = os.path.join(FOLDER, "recipes", self.name)
        endings = (".yaml", ".yml", ".json", ".lock", ".lock.txt")
        paths = [base + ending for ending in endings if os.path.lexists(base + ending)]
        paths += glob.glob(glob.escape(base) + ".yaml.d/*.y*ml")
        return [os.path.relpath(path, FOLDER) for path in paths]

    def present(self):
        """Write the recipe and its secrets, and apply it."""
        secrets = {"secrets/" + name: value for name, value in (self.parameters["secrets"] or {}).items()}
        modes = dict.fromkeys(secrets, 0o600)
        wanted = dict(secrets)
        if self.parameters["content"] is not None:
            recipe = "recipes/%s.yaml" % self.name
            # Of two files with one name, recipectl takes neither.
            wanted.update(
                (path, None) for path in self.files() if path.endswith((self.name + ".yml", ".json"))
            )
            wanted[recipe] = self.parameters["content"]
        self.converge.converge(self.converge.files(wanted, modes), modes, self.name)

    def enable(self):
        """Start the model at boot, or do so no more."""
        enabled = self.parameters["enabled"]
        if enabled is None:
            return
        socket = self.unit.replace(".service", ".socket")
        unit = socket if os.path.exists("/etc/systemd/system/" + socket) else self.unit
        if (self._systemctl("is-enabled", unit) == "enabled") != enabled:
            self.do("enable" if enabled else "disable")

    def run(self):
        """Start, stop or restart the model."""
        state, active_state = self.parameters["state"], self.active_state()
        begun = any(
            action["unit"] == self.unit and action["verb"] in ("start", "restart")
            for action in self.converge.result["actions"]
        )
        waits = [] if self.parameters["wait"] else ["--no-block"]
        if state == "stopped" and (active_state in _MAY_RUN or begun):
            self.do("stop")
        elif state == "restarted" and not begun:
            self.do("restart", *waits)
        elif state == "started" and active_state not in _MAY_RUN and not begun:
            self.do("start", *waits)
        elif (
            state in ("started", "restarted")
            and self.parameters["wait"]
            and (begun or active_state != "active")
        ):
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
