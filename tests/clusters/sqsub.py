"""Stand-ins for sqsub, sqjobs and sqkill, which really run the jobs, in the background.

No cluster is left that has these commands. Called by one of these names; a job is a folder of files below
$SQ_FOLDER: `command`, `pid`, and `ended` once it has.
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

NAMES = ("sqsub", "sqjobs", "sqkill")


def install(folder: Path) -> None:
    """Put the commands into a folder."""
    for name in NAMES:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{__file__}" {name} "$@"\n')
        script.chmod(0o755)


def submit(jobs: Path, arguments: list[str]) -> int:
    """Submit a command, run it when those that it waits for have ended, and write its id to a file."""
    parser = argparse.ArgumentParser()
    for option in ("-r", "--mpp", "-o", "-j", "--idfile"):
        parser.add_argument(option, required=option in ("-r", "--mpp"))
    for option in ("-n", "-N", "-w"):
        parser.add_argument(option)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    number = len(list(jobs.iterdir())) + 1
    while True:
        try:
            (jobs / str(number)).mkdir()
            break
        except FileExistsError:
            number += 1
    job = jobs / str(number)
    (job / "command").write_text(json.dumps(options.command))
    os.environ["NSLOTS"] = options.n or "1"
    shepherd = subprocess.Popen(
        [sys.executable, "-P", __file__, "tend", str(job), options.o, options.w or "", *options.command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    (job / "pid").write_text(str(shepherd.pid))
    Path(options.idfile).write_text(f"{number}\n")
    print(f"submitted as jobid {number}")
    return 0


def tend(job: Path, log: str, after: str, command: list[str]) -> int:
    """Run a job once those before it have ended, however."""
    while any(not (job.parent / each / "ended").exists() for each in after.split(",") if each):
        time.sleep(0.02)
    (job / "started").touch()
    with Path(log).open("ab") as file:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False)
    (job / "ended").touch()
    return 0


def list_jobs(jobs: Path) -> int:
    """List what has not ended, under two lines of heading; nothing, and 1, where there is none."""
    there = sorted(int(job.name) for job in jobs.iterdir() if not (job / "ended").exists())
    if not there:
        print("no jobs found", file=sys.stderr)
        return 1
    print(" jobid queue  state ncpus   time command\n------ ------ ----- ----- ------ -------")
    for number in there:
        job = jobs / str(number)
        state = "R" if (job / "started").exists() else "*Q"
        command = " ".join(json.loads((job / "command").read_text())).replace("\n", " ")
        print(f"{number:>6} serial {state:>5}     1     1s {command}")
    return 0


def kill(jobs: Path, numbers: list[str]) -> int:
    """End jobs with all their processes."""
    code = 0
    for number in numbers:
        job = jobs / number
        if not job.exists() or (job / "ended").exists():
            print(f"job {number}: not found", file=sys.stderr)
            code = 1
            continue
        with suppress(ProcessLookupError):  # It ended meanwhile.
            os.killpg(int((job / "pid").read_text()), signal.SIGKILL)
        (job / "ended").touch()
    return code


def main(name: str, *arguments: str) -> int:
    """Do what a command of that name does."""
    if name == "tend":
        job, log, after, *command = arguments
        return tend(Path(job), log, after, command)
    jobs = Path(os.environ["SQ_FOLDER"])
    if not jobs.is_absolute():
        print(f"{name}: cannot connect to server", file=sys.stderr)
        return 1
    jobs.mkdir(exist_ok=True)
    if name == "sqsub":
        return submit(jobs, list(arguments))
    return list_jobs(jobs) if name == "sqjobs" else kill(jobs, list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
