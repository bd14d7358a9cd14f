# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)
"""What the modules that change a host have in common."""


class ModuleDocFragment:
    """Options, attributes and requirements."""

    DOCUMENTATION = r"""
options:
  secrets:
    description: Secrets by the name of their file below C(/etc/recipectl/secrets), which only root can read.
    type: dict
  executable:
    description: The path of recipectl, where it is not on C(PATH).
    type: path
attributes:
  check_mode:
    description: Tells what would change, with the files as they would be.
    support: full
  diff_mode:
    description: Shows files and units. Secrets are not shown.
    support: full
requirements:
  - recipectl on the host, and root
"""
