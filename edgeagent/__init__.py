"""edgeagent: an application server for small language models on edge devices."""

from edgeagent.types.version import VERSION

__version__ = VERSION
