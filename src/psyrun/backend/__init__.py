"""Partition policies: how many rows go into which batch."""

from psyrun.backend.distribute import DistributeBackend
from psyrun.backend.load_balancing import LoadBalancingBackend
from psyrun.backend.protocol import Backend

__all__ = ["Backend", "DistributeBackend", "LoadBalancingBackend"]
