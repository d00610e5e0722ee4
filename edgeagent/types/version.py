"""The version of edgeagent, as clients, files and logs are told."""

VERSION = "0.2.0"
