"""A file operation of psy or its worker goes wrong: psy says so, and the next run makes up for it.

Here a seeded sample; `make soak` tries every operation.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mishaps import DEEDS, SCENARIOS, Stage, undergo

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The scenarios that were prepared, and what can go wrong in each."""
    prepared = {}

    def find(name):
        if name not in prepared:
            stage = Stage(SCENARIOS[name], tmp_path_factory.mktemp(name))
            stage.prepare()
            prepared[name] = stage, list(stage.find_mishaps())
        return prepared[name]

    return find


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("name", ["Fresh", "EditedSpace"])
def test_operation_that_goes_wrong_costs_no_row_on_disk(stages, name, deed):
    stage, mishaps = stages(name)
    chosen = random.Random(f"{name} {deed}").choice([mishap for mishap in mishaps if mishap.deed == deed])
    undergo(stage.copy(deed), stage.scenario, chosen)


@needs_proc
def test_older_result_of_the_same_size_is_not_taken_for_the_new_one(stages):
    """psy dies as it is about to put the new result in its place."""
    stage, mishaps = stages("EditedCode")
    at = [mishap for mishap in mishaps if mishap.deed == "kill" and mishap.operation == "rename result.pkl"]
    assert len(at) == 1
    undergo(stage.copy("mishap"), stage.scenario, at[0])


@needs_proc
def test_work_folder_that_cannot_be_made_is_a_clear_error(stages):
    stage, mishaps = stages("Fresh")
    [first] = [
        mishap for mishap in mishaps if mishap.deed == "ENOSPC" and mishap.operation == "mkdir psy-work"
    ]
    undergo(stage.copy("full"), stage.scenario, first)


@needs_proc
@pytest.mark.parametrize("deed", ["EIO", "ESTALE"])
def test_rows_whose_inputs_can_not_be_synced_are_not_there(stages, deed):
    """They would count inputs that are lost, and be called changed for no reason."""
    stage, mishaps = stages("Fresh")
    found = [each for each in mishaps if each.deed == deed and each.operation.startswith("sync ")]
    found = [each for each in found if each.operation.endswith(".reads")]
    assert found
    for mishap in found:
        undergo(stage.copy(f"inputs {mishap.number} {deed}"), stage.scenario, mishap)
