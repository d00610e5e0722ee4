"""What a worker process gives up before it touches anything untrusted (`worker.confinement`)."""

from edgeagent.worker.confinement import Layers, enter, rss_bytes
from edgeagent.worker.filter import refuse_tiles

__all__ = ["Layers", "enter", "refuse_tiles", "rss_bytes"]
