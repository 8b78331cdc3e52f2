"""Hosts: jobs by ssh, or by srun inside an allocation, with a folder as their queue."""

from __future__ import annotations

import pytest

from psyrun.scheduler import Hosts
from psyrun.testing import ArrayContract, ExplainContract

HERE = ["sh", "-c", 'eval "$1"']  # in place of ssh: the name of the host is $0


class TestContractWithoutSsh(ArrayContract, ExplainContract):
    options = {"hosts": ["a:4"], "remote": HERE}

    @pytest.fixture
    def scheduler(self):
        return Hosts()
