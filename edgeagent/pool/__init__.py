"""Which models are loaded, in which memory, on how many cores, and who may use them now."""

from edgeagent.pool.memory import Placement
from edgeagent.pool.pool import Pool
from edgeagent.pool.resident_model import Resident

__all__ = ["Placement", "Pool", "Resident"]
