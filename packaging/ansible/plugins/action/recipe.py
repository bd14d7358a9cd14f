# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)
"""What recipe: does on the controller: it reads the file, and writes a mapping as YAML."""

from ansible.plugins.action import ActionBase
from ansible.plugins.filter.core import to_nice_yaml
from ansible_collections.recipectl.models.plugins.plugin_utils.files import path_of, plain, text_of


class ActionModule(ActionBase):
    """Fills in `content`."""

    def run(self, tmp=None, task_vars=None):
        """The result of the module."""
        result = super().run(tmp, task_vars)
        parameters = dict(self._task.args)
        source, content = parameters.pop("src", None), parameters.get("content")
        if source and content:
            result.update(failed=True, msg="give `src` or `content`, not both")
            return result
        if source:
            parameters["content"] = text_of(self, path_of(self, source, task_vars))
        elif isinstance(content, dict):
            parameters["content"] = to_nice_yaml(plain(content), indent=2, sort_keys=False)
        result.update(
            self._execute_module(
                module_name="recipectl.models.recipe", module_args=parameters, task_vars=task_vars
            )
        )
        return result
