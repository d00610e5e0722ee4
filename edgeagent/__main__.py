"""`python -m edgeagent`.

Python puts the current directory first among those that modules come from. What is imported from here
on does not come from there, unless this package does.
"""

import os
import sys

_package_parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if not sys.flags.safe_path and os.path.realpath(sys.path[0]) != os.path.realpath(_package_parent):
    del sys.path[0]

from edgeagent.cli.main import main  # noqa: E402

main()
