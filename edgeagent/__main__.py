"""`python -m edgeagent`."""

from edgeagent.cli.main import main

main()
