"""Stand-ins for qsub, qstat, qselect, qdel and qhold of PBS, which really run the jobs, in the background.

They are as the manual says. Called by one of these names; a job is a folder of files below $QUEUE_FOLDER:
`about`, what was asked for; `states`, a letter for each element; `exits`, a line `element code` for each that
ended; `held` and `deleted` once it is; `ended` once it has. $QUEUE_USER is the owner, $QUEUE_LIMIT how many
jobs may be there, and PBS_DEFAULT=nowhere a server that does not answer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

NAMES = ("qsub", "qstat", "qselect", "qdel", "qhold")
SLOTS = 8  # elements of a job that run at a time at most
SERVER = "standin"
ATTRIBUTES = {"-N": "name", "-o": "output", "-j": "join", "-q": "queue", "-A": "account", "-P": "project"}


def install(folder: Path) -> None:
    """Put the commands into a folder."""
    for name in NAMES:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{__file__}" {name} "$@"\n')
        script.chmod(0o755)


def _user() -> str:
    import pwd

    return os.environ.get("QUEUE_USER") or pwd.getpwuid(os.getuid()).pw_name


def _fail(code: int, text: str) -> int:
    print(text, file=sys.stderr)
    return code


def _is_there(job: Path) -> bool:
    return not (job / "ended").exists()


def _about(job: Path) -> dict:
    return json.loads((job / "about").read_text())


# ---------------------------------------------------------------------- qsub


def submit(jobs: Path, arguments: list[str]) -> int:
    """Submit a command."""
    end = arguments.index("--")
    try:
        about = {"command": arguments[end + 1 :], "owner": _user()} | _read_options(arguments[:end])
    except ValueError as error:
        return _fail(1, f"qsub: {error}")
    if sum(map(_is_there, jobs.iterdir())) >= int(os.environ.get("QUEUE_LIMIT", "1000")):
        return _fail(38, "qsub: would exceed complex's per-user limit of jobs in 'Q' state")
    job = _make_folder(jobs)
    (job / "states").write_text("Q" * max(1, about["count"]))
    (job / "exits").touch()
    (job / "about.new").write_text(json.dumps(about))
    (job / "about.new").rename(job / "about")
    tending = [sys.executable, "-P", __file__, "tend", str(job)]
    null = subprocess.DEVNULL
    subprocess.Popen(tending, stdin=null, stdout=null, stderr=null, start_new_session=True)
    print(_name(job))
    return 0


def _read_options(arguments: list[str]) -> dict:
    about = {"resources": {}, "count": 0}
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        if option == "-J":
            first, _, last = value.partition("-")
            if not last.isdecimal() or int(first) or int(last) < 1:
                raise ValueError("illegal -J value")
            about["count"] = int(last) + 1
        elif option in ("-l", "-W"):
            key, _, value = value.partition("=")
            about["resources"][key] = value
        elif option in ATTRIBUTES:
            about[ATTRIBUTES[option]] = value
        else:
            raise ValueError(f"invalid option {option}")
    return about


def _make_folder(jobs: Path) -> Path:
    number = max((int(job.name) for job in jobs.iterdir()), default=11) + 1
    while True:
        try:
            (jobs / str(number)).mkdir()
        except FileExistsError:
            number += 1
        else:
            return jobs / str(number)


def _name(job: Path, element: int | str = "") -> str:
    return f"{job.name}[{element}].{SERVER}" if _about(job)["count"] else f"{job.name}.{SERVER}"


# ---------------------------------------------------------------------- running


def tend(job: Path) -> int:
    """Run a job once it may begin, and end it when it is deleted."""
    about, states = _about(job), (job / "states").open("r+b", buffering=0)
    first = about["resources"].get("depend", "").partition(":")[2].split(":")
    while not (deleted := (job / "deleted").exists()) and (
        (job / "held").exists() or any(_is_there(_find(job.parent, i)) for i in first if i)
    ):
        time.sleep(0.02)
    (job / "started").touch()
    slots = min(SLOTS, int(about["resources"].get("max_run_subjobs", SLOTS)))
    left, running = list(range(max(1, about["count"]))), {}
    while running or (left and not deleted):
        while left and not deleted and len(running) < slots:
            running[left[0]] = _start(job, about, left[0])
            _mark(states, left.pop(0), "R")
        time.sleep(0.01)
        deleted = (job / "deleted").exists()
        if deleted:
            _end(running)
        for element, process in list(running.items()):
            if process.poll() is not None:
                code = process.returncode
                with (job / "exits").open("a") as file:
                    file.write(f"{element} {code if code >= 0 else 256 - code}\n")
                del running[element]
                _mark(states, element, "X" if about["count"] else "F")
    for element in left:
        _mark(states, element, "X" if about["count"] else "F")
    (job / "ended").write_text("deleted" if deleted else "")
    return 0


def _start(job: Path, about: dict, element: int) -> subprocess.Popen:
    cores = re.search(r"ncpus=(\d+)", about["resources"].get("select", about["resources"].get("ncpus", "")))
    env = {"PATH": "/usr/bin:/bin", "HOME": "/", "PBS_JOBID": _name(job, element), "QUEUE": "workq"}
    env |= {"NCPUS": cores[1] if cores else "1"} | (
        {"PBS_ARRAY_INDEX": str(element)} if about["count"] else {}
    )
    with Path(about["output"]).open("ab") as out:
        return subprocess.Popen(
            about["command"], env=env, cwd="/", stdout=out, stderr=out, start_new_session=True
        )


def _end(running: dict[int, subprocess.Popen]) -> None:
    for number, seconds in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        for process in running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(p.poll() is None for p in running.values()):
            time.sleep(0.01)


def _mark(states, element: int, state: str) -> None:
    states.seek(element)
    states.write(state.encode())


# ---------------------------------------------------------------------- qstat


def _find(jobs: Path, name: str) -> Path:
    """Return the folder of a job, which need not exist."""
    number, _, server = name.partition(".")
    return jobs / (number.removesuffix("[]") if server == SERVER else "unknown")


def _may_see(job: Path) -> bool:
    return not os.environ.get("QUEUE_PRIVATE") or _about(job)["owner"] == _user()


def list_jobs(jobs: Path, arguments: list[str]) -> int:
    """Describe jobs and their elements in JSON; 153 if one is not known."""
    if arguments == ["-B", "-f"]:
        shown = "False" if os.environ.get("QUEUE_PRIVATE") else "True"
        print(f"Server: {SERVER}\n    server_state = Active\n    query_other_jobs = {shown}")
        print("    max_array_size = 10000")
        return 0
    options, names = arguments[:5], arguments[5:]
    assert options == ["-f", "-F", "json", "-t", "-x"], arguments
    found, code = {}, 0
    for name in names:
        job = _find(jobs, name)
        if not (job / "about").exists() or not _may_see(job) or _name(job) != name:
            code = _fail(153, f"qstat: Unknown Job Id {name}")
            continue
        found |= _describe(job)
    if found:
        head = {"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": SERVER}
        print(json.dumps(head | {"Jobs": found}, indent=4))
    return code


def _describe(job: Path) -> dict[str, dict]:
    about, states = _about(job), (job / "states").read_text()
    exits = dict(map(int, line.split()) for line in (job / "exits").read_text().splitlines())
    ended = (job / "ended").read_text() if (job / "ended").exists() else None
    fields = {"Job_Name": about["name"], "Job_Owner": f"{about['owner']}@host", "queue": "workq"}
    fields["Hold_Types"] = "u" if (job / "held").exists() else "n"
    if depend := about["resources"].get("depend"):
        fields["depend"] = f"{depend}@{SERVER}"
    waits = not (job / "started").exists()
    if waits and depend and fields["Hold_Types"] == "n":
        fields["Hold_Types"] = "s"
    if fields["Hold_Types"] == "u":
        fields["comment"] = "Job held by user"
    held = waits and fields["Hold_Types"] != "n" and ended is None
    substate = {"substate": 91 if ended == "deleted" else 92} if ended is not None else {}
    found = {}
    if about["count"]:
        state = "F" if ended is not None else "H" if held else "Q" if waits else "B"
        found[_name(job)] = fields | substate | {"job_state": state, "array": "True"}
    for element, letter in enumerate(states):
        state = "H" if held else letter
        status = {"Exit_status": exits[element]} if element in exits else {}
        found[_name(job, element)] = fields | substate | {"job_state": state} | status
    return found


def select_jobs(jobs: Path, arguments: list[str]) -> int:
    """List the jobs of a user that have not ended."""
    (owner,) = arguments[1:]
    for job in sorted(jobs.iterdir()):
        if (job / "about").exists() and _is_there(job) and _about(job)["owner"] == owner:
            print(_name(job))
    return 0


# ---------------------------------------------------------------------- qdel, qhold


def delete(jobs: Path, names: list[str]) -> int:
    """End jobs with all their processes."""
    code = 0
    for name in names:
        job = _find(jobs, name)
        if not (job / "about").exists() or _name(job) != name:
            code = _fail(153, f"qdel: Unknown Job Id {name}")
        elif not _is_there(job):
            code = _fail(35, f"qdel: Job has finished {name}")
        else:
            (job / "deleted").touch()
    return code


def hold(jobs: Path, names: list[str]) -> int:
    """Keep jobs from beginning."""
    for name in names:
        (_find(jobs, name) / "held").touch()
    return 0


def main(name: str, *arguments: str) -> int:
    """Do what a command of that name does."""
    if name == "tend":
        return tend(Path(*arguments))
    if os.environ.get("PBS_DEFAULT") == "nowhere":
        return _fail(1, f"Connection refused\n{name}: cannot connect to server nowhere (errno=111)")
    jobs = Path(os.environ["QUEUE_FOLDER"])
    jobs.mkdir(exist_ok=True)
    does = {"qsub": submit, "qstat": list_jobs, "qselect": select_jobs, "qdel": delete, "qhold": hold}
    return does[name](jobs, list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
