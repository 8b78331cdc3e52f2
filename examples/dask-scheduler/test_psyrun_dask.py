from contextlib import contextmanager

import pytest
from distributed import LocalCluster
from psyrun_dask import Dask

from psyrun.testing import ArrayContract, DependencyContract, ExplainContract

# Warnings inside Dask are not ours.
pytestmark = pytest.mark.filterwarnings("ignore:::(dask|distributed|tornado).*", "ignore:::contextlib")


@pytest.fixture(scope="module")
def address():
    with LocalCluster(n_workers=2, threads_per_worker=4, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


class TestDask(ArrayContract, DependencyContract, ExplainContract):
    seconds = 30

    @pytest.fixture(autouse=True)
    def chosen(self, address):
        type(self).options = {"address": address}

    @pytest.fixture
    def scheduler(self):
        return Dask()

    @pytest.fixture
    def unreachable(self, trial, monkeypatch):
        @contextmanager
        def enter():
            with monkeypatch.context() as context:
                context.setattr(Dask, "timeout", 0.3)
                trial.scheduler.configure({"address": "tcp://127.0.0.1:1"}, trial.work_folder)
                yield
            trial.configure(trial.scheduler)

        return enter
