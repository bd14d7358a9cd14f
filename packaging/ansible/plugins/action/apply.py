# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)
"""What apply: does on the controller: it reads recipes and host file."""

import os

from ansible.plugins.action import ActionBase
from ansible_collections.recipectl.models.plugins.plugin_utils.files import path_of, text_of


class ActionModule(ActionBase):
    """Fills in `content`."""

    def run(self, tmp=None, task_vars=None):
        """The result of the module."""
        result = super().run(tmp, task_vars)
        parameters = dict(self._task.args)
        content = {}
        recipes = parameters.pop("recipes", None) or []
        for word in [recipes] if isinstance(recipes, str) else recipes:
            content.update(self._recipes(path_of(self, word, task_vars)))
        host_file = parameters.pop("host_file", None)
        if host_file:
            content["host.yaml"] = text_of(self, path_of(self, host_file, task_vars))
        content.update(parameters.get("content") or {})
        parameters["content"] = content
        result.update(
            self._execute_module(
                module_name="recipectl.models.apply", module_args=parameters, task_vars=task_vars
            )
        )
        return result

    def _recipes(self, path):
        """The files of a folder, or one file, by their path below /etc/recipectl."""
        if not os.path.isdir(path):
            return {"recipes/" + os.path.basename(path): text_of(self, path)}
        found = {}
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in sorted(names):
                if not name.startswith("."):
                    file = os.path.join(folder, name)
                    found["recipes/" + os.path.relpath(file, path)] = text_of(self, file)
        return found
