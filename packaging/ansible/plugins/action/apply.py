# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)
"""What apply: does on the controller: it reads recipes and host file."""

import os

from ansible.plugins.action import ActionBase
from ansible.plugins.filter.core import to_nice_yaml
from ansible_collections.recipectl.models.plugins.plugin_utils.files import path_of, plain, text_of

_ENDINGS = (".yaml", ".yml", ".json", ".lock", ".lock.txt")


class ActionModule(ActionBase):
    """Fills in `content`."""

    def run(self, tmp=None, task_vars=None):
        """The result of the module."""
        result = super().run(tmp, task_vars)
        parameters = dict(self._task.args)
        content, warnings = {}, []
        recipes = parameters.pop("recipes", None) or []
        for word in [recipes] if isinstance(recipes, str) else recipes:
            content.update(self._recipes(path_of(self, word, task_vars), warnings))
        host_file = parameters.pop("host_file", None)
        if host_file:
            content["host.yaml"] = text_of(self, path_of(self, host_file, task_vars))
        for file, text in (parameters.get("content") or {}).items():
            content[file] = (
                to_nice_yaml(plain(text), indent=2, sort_keys=False) if isinstance(text, dict) else text
            )
        parameters["content"] = content
        result.update(
            self._execute_module(
                module_name="recipectl.models.apply", module_args=parameters, task_vars=task_vars
            )
        )
        result["warnings"] = warnings + list(result.get("warnings", []))
        return result

    def _recipes(self, path, warnings):
        """The files of a folder that recipectl reads, or one file, by their path below /etc/recipectl."""
        if not os.path.isdir(path):
            return {"recipes/" + os.path.basename(path): text_of(self, path)}
        found = {}
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            is_read = folder == path or folder.endswith(".yaml.d")
            for name in sorted(names):
                file = os.path.relpath(os.path.join(folder, name), path)
                if name.startswith(".") or not name.endswith(_ENDINGS):
                    continue
                if is_read:
                    found["recipes/" + file] = text_of(self, os.path.join(folder, name))
                else:
                    warnings.append("%s is not taken: recipes are in %s itself" % (file, path))
        return found
