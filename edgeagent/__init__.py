"""edgeagent: an application server for small language models on edge devices."""

__version__ = "0.2.0"
