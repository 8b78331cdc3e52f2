"""The commands of Mill, the made-up system of docs/schedulers.md, which really run jobs, in the background.

Called by one of these names; a job is a folder of files below $MILL_HOME: `about`, what was asked for;
`states`, a letter for each element; `ends`, a line `element<tab>end` for each that ended; `held` and
`deleted` once it is; `ended` once it has. $MILL_SLOTS elements run at a time, of all jobs together.
$MILL_USER is the owner of a job, $MILL_FULL is set where no more are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

NAMES = ("millsub", "millq", "millend", "milldel", "millhold")
STATES = {"W": "waits", "R": "runs"}


def install(folder: Path) -> None:
    """Put the commands into a folder."""
    for name in NAMES:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -SP "{__file__}" {name} "$@"\n')
        script.chmod(0o755)


def is_there(job: Path) -> bool:
    return not (job / "ended").exists()


def submit(home: Path, arguments: list[str]) -> int:
    """Submit a command."""
    parser = argparse.ArgumentParser()
    for option in ("--name", "--cores", "--limit", "--array", "--at-most"):
        parser.add_argument(option)
    parser.add_argument("--after", action="append", default=[])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    about = vars(parser.parse_args(arguments))
    if "MILL_FULL" in os.environ:
        print("millsub: the mill is full", file=sys.stderr)
        return 1
    number = 7
    while True:
        number += 1
        with suppress(FileExistsError):
            (home / str(number)).mkdir()
            break
    job = home / str(number)
    first, _, last = (about["array"] or "0-0").partition("-")
    about |= {"first": int(first), "user": os.environ.get("MILL_USER", "me")}
    (job / "states").write_text("W" * (int(last) + 1 - int(first)))
    (job / "ends").touch()
    (job / "about.new").write_text(json.dumps(about))
    (job / "about.new").rename(job / "about")
    tending = [sys.executable, "-SP", __file__, "tend", str(job)]
    null = subprocess.DEVNULL
    subprocess.Popen(tending, stdin=null, stdout=null, stderr=null, start_new_session=True)
    print(f"job {number} is accepted")
    return 0


class Element:
    """An element that runs."""

    def __init__(self, job: Path, about: dict, number: int, slot: Path) -> None:
        env = os.environ | {"MILL_JOB": job.name, "MILL_CORES": about["cores"] or "1"}
        if about["array"]:
            env["MILL_ELEMENT"] = str(number)
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(
            about["command"], env=env, stdin=null, stdout=null, stderr=null, start_new_session=True
        )
        self.slot, self.started, self.why = slot, time.monotonic(), ""
        self.limit, self.warning = map(int, (about["limit"] or "1000000,0").split(","))

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def check(self, deleted: bool) -> str:
        """Warn the element or end it where it is time to; return how it ended."""
        seconds = time.monotonic() - self.started
        if self.process.poll() is not None:
            self.send(signal.SIGKILL)
            self.slot.rmdir()
            return self.why or str(self.process.returncode)
        if (deleted or seconds > self.limit) and not self.why:
            self.why = "deleted" if deleted else "over its time limit"
            self.send(signal.SIGKILL)
        if self.warning and seconds > self.limit - self.warning:
            self.process.send_signal(signal.SIGUSR1)
            self.warning = 0
        return ""


def take_slot(home: Path) -> Path | None:
    for number in range(int(os.environ["MILL_SLOTS"])):
        with suppress(FileExistsError):
            slot = home / f"slot {number}"
            slot.mkdir()
            return slot
    return None


def tend(job: Path) -> int:
    """Run a job once it may begin, and end it when it is deleted."""
    about = json.loads((job / "about").read_text())
    states, left = (job / "states").read_text(), [*range(len((job / "states").read_text()))]
    most, running = int(about["at_most"] or len(left)), {}

    def mark(element: int, state: str, end: str = "") -> None:
        nonlocal states
        states = states[:element] + state + states[element + 1 :]
        if end:
            with (job / "ends").open("a") as file:
                file.write(f"{element + about['first']}\t{end}\n")
        (job / "states.new").write_text(states)
        (job / "states.new").rename(job / "states")

    while left or running:
        deleted = (job / "deleted").exists()
        waits = (job / "held").exists() or any(is_there(job.parent / each) for each in about["after"])
        if deleted:
            for element in left:
                mark(element, "E", "deleted")
            left = []
        while left and not waits and len(running) < most and (slot := take_slot(job.parent)):
            running[left[0]] = Element(job, about, left[0] + about["first"], slot)
            mark(left.pop(0), "R")
        for element in list(running):
            if end := running[element].check(deleted):
                del running[element]
                mark(element, "E", end)
        time.sleep(0.02)
    (job / "ended").touch()
    return 0


def find_jobs(home: Path, arguments: list[str]) -> list[tuple[Path, dict]]:
    """Return the jobs of a user, or those with some ids."""
    names = [path.name for path in home.iterdir()] if arguments == ["--mine"] else arguments
    found = [home / name for name in names if (home / name / "about").exists()]
    told = [(job, json.loads((job / "about").read_text())) for job in found]
    return [each for each in told if arguments != ["--mine"] or each[1]["user"] == "me"]


def list_jobs(home: Path, arguments: list[str]) -> int:
    """List the elements that are there."""
    for job, about in find_jobs(home, arguments):
        held = (job / "held").exists()
        for element, letter in enumerate((job / "states").read_text() if is_there(job) else ""):
            if letter in STATES:
                state, note = ("held", "by user") if held and letter == "W" else (STATES[letter], "")
                print(job.name, element + about["first"], state, about["name"], note, sep="\t")
    return 0


def list_ends(home: Path, arguments: list[str]) -> int:
    """List how elements ended."""
    for job, _ in find_jobs(home, arguments):
        for line in (job / "ends").read_text().splitlines():
            print(job.name, line, sep="\t")
    return 0


def mark(home: Path, arguments: list[str], what: str) -> int:
    """Mark jobs as deleted or held."""
    code = 0
    for name in arguments:
        if (home / name / "about").exists() and is_there(home / name):
            (home / name / what).touch()
        else:
            print(f"job {name} is not there", file=sys.stderr)
            code = 1
    return code


def main(name: str, *arguments: str) -> int:
    """Do what a command of that name does."""
    if name == "tend":
        return tend(Path(arguments[0]))
    home = Path(os.environ["MILL_HOME"])
    if not home.is_dir():
        print(f"{name}: no answer from {home}", file=sys.stderr)
        return 1
    if name in ("milldel", "millhold"):
        return mark(home, list(arguments), "deleted" if name == "milldel" else "held")
    return {"millsub": submit, "millq": list_jobs, "millend": list_ends}[name](home, list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
