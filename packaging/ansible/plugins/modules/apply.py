#!/usr/bin/python
# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)


DOCUMENTATION = r"""
module: apply
short_description: Make a host what its recipes say
description:
  - Writes recipes and the host file of recipectl, and applies them, as C(recipectl apply) does.
  - Files that are wrong are not written. The task fails with file, line and key, and the host stays as it is.
  - Models load after the task is over. Use M(recipectl.models.recipe) with O(recipectl.models.recipe#module:wait) to wait for one.
version_added: 0.1.0
author: The makers of recipectl (@recipectl)
options:
  recipes:
    description:
      - Folders and files on the controller, looked for as those of M(ansible.builtin.copy).
      - A folder has recipes, C(NAME.yaml.d/*.yaml) and C(NAME.lock), as C(/etc/recipectl/recipes) has.
    type: list
    elements: path
  host_file:
    description: The host file, on the controller.
    type: path
  content:
    description:
      - What files below C(/etc/recipectl) say, by their path there, for example C(recipes/qwen3.yaml).
      - It is added to O(recipes) and O(host_file).
    type: dict
  purge:
    description: Remove recipes, drop-ins and their locks from C(/etc/recipectl/recipes) that are not among these. Their models are stopped.
    type: bool
    default: false
  restart:
    description: Restart models whose recipe or secret has changed. Otherwise they keep running as they are.
    type: bool
    default: true
extends_documentation_fragment: recipectl.models.converge
"""

EXAMPLES = r"""
- name: Serve models as the recipes say
  recipectl.models.apply:
    host_file: host.yaml
    recipes: [recipes/]
    secrets:
      hf-token: "{{ vault_hf_token }}"
    purge: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done.
  returned: always
  type: list
  elements: dict
  sample: [{"verb": "restart", "unit": "model-qwen3.service", "reason": "recipe has changed"}]
problems:
  description: Warnings and errors, with file, line, column, key, kind, sentence and severity.
  returned: always
  type: list
  elements: dict
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.recipectl.models.plugins.module_utils.converge import FOLDER, Converge, arguments


def main():
    """Write the files that differ, and apply."""
    module = AnsibleModule(
        argument_spec=arguments(
            recipes={"type": "list", "elements": "path"},
            host_file={"type": "path"},
            content={"type": "dict"},
            secrets={"type": "dict", "no_log": True},
            purge={"type": "bool", "default": False},
            restart={"type": "bool", "default": True},
        ),
        supports_check_mode=True,
    )
    parameters = module.params
    converge = Converge(module)
    content = dict(parameters["content"] or {})
    if parameters["purge"]:
        recipes = {name_of(path) for path in content if path.startswith("recipes/")}
        if not recipes:
            converge.fail("`purge` would remove all recipes; name those that stay in `recipes` or `content`")
        for path in existing_recipes():
            # Locks are written on the host.
            if not (path.endswith((".lock", ".lock.txt")) and name_of(path) in recipes):
                content.setdefault(path, None)
    files = converge.differing(converge.wanted(content, parameters["secrets"]))
    if not converge.require_program():
        converge.result["changed"] = True
        module.exit_json(**converge.result)
    converge.converge(files, *([] if parameters["restart"] else ["--no-restart"]))
    module.exit_json(**converge.result)


def name_of(path):
    """The name of the recipe that a file below /etc/recipectl belongs to."""
    return re.sub(r"\.(yaml\.d|yaml|yml|json|lock|lock\.txt)\Z", "", path.split("/")[1])


def existing_recipes():
    """The files below /etc/recipectl/recipes that recipectl reads."""
    for folder, folders, names in os.walk(os.path.join(FOLDER, "recipes")):
        folders[:] = [name for name in folders if name.endswith(".yaml.d") and not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.endswith((".yaml", ".yml", ".json", ".lock", ".lock.txt")):
                yield os.path.relpath(os.path.join(folder, name), FOLDER)


if __name__ == "__main__":
    main()
