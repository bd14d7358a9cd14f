# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)
"""Files of the controller."""

import os

from ansible.errors import AnsibleActionFail, AnsibleError


def path_of(action, word, task_vars):
    """A file or folder: where Ansible looks for files, else in the current folder, else in the inventory's."""
    try:
        return action._find_needle("files", word)
    except AnsibleError:
        for base in (os.getcwd(), task_vars.get("inventory_dir") or ""):
            path = os.path.join(base, word)
            if os.path.exists(path):
                return path
        raise


def text_of(action, path):
    """The text of a file, also where a vault has it."""
    try:
        with open(action._loader.get_real_file(path), encoding="utf-8") as file:
            return file.read()
    except ValueError as error:
        raise AnsibleActionFail("%s is not a text in UTF-8: %s" % (path, error))


def plain(value):
    """A value without what Ansible knows of it: the text of a vault, and no tags."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return "".join(str(value))
