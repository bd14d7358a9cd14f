#!/usr/bin/python
# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)


DOCUMENTATION = r"""
module: versions_info
short_description: What the models of a host run with
description:
  - Compares recipe, unit, what systemd has loaded, the process and the engine's own answer, as C(recipectl versions) does.
version_added: 0.1.0
author: The makers of recipectl (@recipectl)
options:
  recipes:
    description: The names of recipes. All, if it is left out.
    type: list
    elements: str
    default: []
  executable:
    description: The path of recipectl, where it is not on C(PATH).
    type: path
attributes:
  check_mode:
    description: Nothing is changed.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
requirements:
  - recipectl on the host, and root to read the processes of others
"""

EXAMPLES = r"""
- name: What do the models run with?
  recipectl.models.versions_info:
  register: versions

- name: The engine of each model is the one of its recipe
  ansible.builtin.assert:
    that: versions.models | map(attribute="differences") | flatten | length == 0
"""

RETURN = r"""
models:
  description: A dictionary for each model, as C(recipectl versions --json) has it.
  returned: always
  type: list
  elements: dict
  sample:
    - name: qwen3-8b
      engine: vllm
      recipe: 0.33.0
      unit: 0.33.0
      loaded: same
      running: same
      answers: 0.33.0
      differences: []
drift:
  description: Whether a model differs from its recipe.
  returned: always
  type: bool
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.recipectl.models.plugins.module_utils.converge import Converge, arguments, last_line


def main():
    """Ask, and change nothing."""
    module = AnsibleModule(
        argument_spec=arguments(recipes={"type": "list", "elements": "str", "default": []}),
        supports_check_mode=True,
    )
    converge = Converge(module)
    if not converge.require_program():
        module.exit_json(changed=False, models=[], drift=False)
    status, out, err = converge.run("versions", "--json", *module.params["recipes"])
    try:
        models = json.loads(out)
    except ValueError:
        module.fail_json(msg=last_line(err) or "recipectl versions has failed", rc=status)
    module.exit_json(changed=False, models=models, drift=status == 3)


if __name__ == "__main__":
    main()
