"""The Debian package: an environment in /opt/edgeagent, the units, and what runs at install and purge."""
