"""Doors: what a wing shows at run time is what type checkers see, and all of it can be loaded."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import psyrun

HOUSE = Path(psyrun.__file__).parent
DOORS = sorted(path.parent for path in HOUSE.glob("**/__init__.py"))


def names_for_type_checkers(door):
    (block,) = (
        node for node in ast.parse((door / "__init__.py").read_text()).body if isinstance(node, ast.If)
    )
    return {alias.name for node in block.body for alias in node.names}


@pytest.mark.parametrize("door", DOORS, ids=lambda path: path.name)
def test_door_shows_at_run_time_what_type_checkers_see(door):
    package = importlib.import_module(".".join(door.relative_to(HOUSE.parent).parts))
    assert set(package.__all__) == names_for_type_checkers(door)
    for name in package.__all__:
        assert getattr(package, name).__class__ is not type(psyrun), "a module stands in the place of a name"


def test_every_folder_is_a_wing_with_a_door():
    folders = {path.name for path in HOUSE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {door.name for door in DOORS if door != HOUSE}


def test_architecture_names_every_room_and_no_other():
    text = (HOUSE.parent.parent / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`((?:\w+/)?\w+(?:/|\.py))`", text))
    there = {f"{path.parent.name}/{path.name}" for path in HOUSE.glob("*/*.py")}
    rooms = {path.name + "/" * path.is_dir() for path in HOUSE.iterdir() if not path.name.startswith("__")}
    rooms -= {"py.typed"}
    assert rooms <= named, "a room is not named"
    elsewhere = {f"{path.parent.name}/{path.name}" for path in HOUSE.parent.parent.glob("tests/*.py")}
    for name in named - rooms - {"__init__.py"}:
        assert name in there | elsewhere or (HOUSE.parent.parent / name).exists(), name
