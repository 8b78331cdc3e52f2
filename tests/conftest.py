"""What tests share: a project in a folder of its own, with the psy command and a count of evaluations."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forks import ForkServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRELUDE = """\
import os
def seen(*row):
    fd = os.open(os.environ["EVALUATIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (repr(row) + "\\n").encode())
    os.close(fd)
"""
# A task whose rows wait for a file.
GATED = """\
import os
import time
from counting import seen
from psyrun import Param

pspace = Param(x=range(20))
pool_size = 2
untracked = ["../gate"]


def execute(x):
    seen(x)
    while not os.path.exists("../gate"):
        time.sleep(0.01)
    return {"y": 2 * x}
"""


@dataclass
class Project:
    """A folder with task files. `seen(...)`, importable in them as `from counting import seen`, counts."""

    root: Path
    prefix: tuple[str, ...] = ()
    forks: ForkServer | None = None
    bases: Path | None = None
    python: str = sys.executable

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluations.txt"

    def write(self, path: str, text: str) -> Path:
        """Write a file, dedented."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
        return target

    def task(self, name: str, text: str) -> Path:
        """Write a task file."""
        return self.write(f"psy-tasks/task_{name}.py", text)

    def finish(self, files: dict[str, str], code: int = 0) -> None:
        """Write files into the empty project and run it, or copy one that was run from equal files."""
        base = self.bases and self.bases / hashlib.sha256(repr((files, code)).encode()).hexdigest()[:16]
        if base and base.is_dir():  # No file of a project holds an absolute path.
            shutil.copytree(base, self.root, symlinks=True, dirs_exist_ok=True)
            return
        for path, text in files.items():
            self.write(path, text)
        self.psy("run", code=code)
        if base:
            made = base.with_name(f"{base.name}-{os.getpid()}")
            shutil.copytree(self.root, made, symlinks=True)
            with suppress(OSError):  # Another test process was first.
                made.rename(base)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text in a file, which has to be there."""
        target = self.root / path
        text = target.read_text()
        assert old in text
        target.write_text(text.replace(old, new))

    def env(self, **more: str) -> dict[str, str]:
        elsewhere = str(self.root.parent / "elsewhere")
        return os.environ | {"EVALUATIONS": str(self.evaluations), "PYTHONPATH": elsewhere} | more

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Start psy in a process group of its own."""
        argv = [*self.prefix, self.python, "-P", "-m", "psyrun.cli", *arguments]
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "text": True}
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.env()}
        return subprocess.Popen(argv, cwd=self.root, process_group=0, **options | more)

    def psy(
        self, *arguments: str, code: int | None = 0, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run psy, forked where that makes no difference, and check its exit code, unless that is None."""
        environment = self.env()
        if self.forks and not self.prefix and self.forks.accepts(environment):
            done = self.forks.run(arguments, folder=self.root, environment=environment, timeout=timeout)
        else:
            done = self._run(*arguments, timeout=timeout)
        if code is not None:
            assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def _run(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def count(self, *arguments: str, code: int | None = 0) -> int:
        """Run psy and return how many rows it evaluated."""
        before = len(self.rows_seen())
        self.psy(*arguments, code=code)
        return len(self.rows_seen()) - before

    def rows_seen(self) -> list[str]:
        return self.evaluations.read_text().splitlines() if self.evaluations.exists() else []

    def result(self, task: str) -> dict[str, list[Any]]:
        with (self.root / "psy-work" / task / "result.pkl").open("rb") as file:
            return pickle.load(file)

    def status(self, task: str) -> dict[str, Any]:
        tasks = json.loads(self.psy("status", "--json", task).stdout)["tasks"]
        assert [each["name"] for each in tasks] == [task]
        return tasks[0]


def pytest_configure() -> None:
    """Heed signals that whoever started us ignores, as a shell does for what runs in its background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServer]:
    """What forks psy commands."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of finished projects, to be copied, which test processes share."""
    folder = tmp_path_factory.getbasetemp()
    bases = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "bases"
    bases.mkdir(exist_ok=True)
    return bases


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, forks: ForkServer, bases: Path) -> Project:
    """A project whose path has a blank, outside which `counting.py` lies: it is no local module.

    Its psy commands are forked; with the mark `started`, they are processes of their own.
    """
    root = tmp_path / "my project"
    (root / "psy-tasks").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "counting.py").write_text(PRELUDE)
    return Project(root, forks=None if request.node.get_closest_marker("started") else forks, bases=bases)


@pytest.fixture
def gate(project: Project) -> Iterator[Path]:
    """A file for which rows wait; it is there in the end, so that nothing waits for ever."""
    path = project.root / "gate"
    yield path
    path.touch()


class Started:
    """A psy that was started, its output in a file."""

    def __init__(self, project: Project, name: str, *arguments: str) -> None:
        self._path = project.root / f"{name}.out"
        with self._path.open("w") as file:
            self.process = project.start(*arguments, stdout=file, stderr=file)

    def said(self) -> str:
        return self._path.read_text()

    def end(self, code: int = 0) -> None:
        """Wait for its end and check the exit code."""
        assert self.process.wait(timeout=60) == code, self.said()


@pytest.fixture
def start(project: Project) -> Iterator[Callable[..., Started]]:
    """Start psy; what is still there in the end is killed."""
    started: list[Started] = []

    def begin(*arguments: str, on: Project = project) -> Started:
        started.append(Started(on, f"psy{len(started)}", *arguments))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a condition, with a deadline in seconds."""

    def wait(condition: Callable[[], Any], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.02)

    return wait


@contextmanager
def start_cluster(cluster: Any) -> Iterator[Any]:
    """A real batch system; where it can't be had, tests are skipped, unless it is insisted on."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # Two clusters of a kind would end each other's daemons.
        group = f"@{type(cluster).__name__.lower()}"
        assert group in os.environ["PYTEST_CURRENT_TEST"], "groups of tests are not kept together"
    insist = bool(os.environ.get("PSYRUN_REQUIRE_CLUSTERS"))
    if insist and cluster.lacks():
        cluster.install()
    lacking = cluster.lacks()
    if lacking:
        assert not insist, lacking
        pytest.skip(lacking)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def start_slurm(folder: Path, **options: Any) -> AbstractContextManager[Any]:
    """A real Slurm."""
    from clusters.slurm import Slurm

    return start_cluster(Slurm(folder, **options))


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Any]]:
    """Let commands talk to a cluster, whose queue is empty before and after."""
    entered = []

    def begin(cluster: Any) -> Any:
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        cluster.cancel_all()
        entered.append(cluster)
        return cluster

    yield begin
    for cluster in entered:
        cluster.cancel_all()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster with accounting."""
    with start_slurm(tmp_path_factory.mktemp("slurm"), accounting=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def gridengine() -> Iterator[Any]:
    """A cell with a host of 16 slots, in a folder that everybody can read, as commands of all users do."""
    from clusters.gridengine import GridEngine

    folder = Path(tempfile.mkdtemp(prefix="psyrun-gridengine-"))
    folder.chmod(0o755)
    try:
        with start_cluster(GridEngine(folder)) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sqsub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put stand-ins for sqsub and its kin on PATH; what they still run ends with the test. Their jobs."""
    from clusters import sqsub

    folder = tmp_path / "bin"
    folder.mkdir()
    sqsub.install(folder)
    jobs = tmp_path / "sq jobs"
    monkeypatch.setenv("SQ_FOLDER", str(jobs))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield jobs
    sqsub.kill(jobs, [job.name for job in jobs.glob("*")])  # Some may have ended.
    assert all((job / "ended").exists() for job in jobs.glob("*"))


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]) -> Iterator[Path]:
    """Put stand-ins for qsub and its kin on PATH; what they still run ends with the test. Their jobs."""
    from clusters import pbs

    folder = tmp_path / "bin"
    folder.mkdir()
    pbs.install(folder)
    jobs = tmp_path / "queue"
    jobs.mkdir()
    monkeypatch.setenv("QUEUE_FOLDER", str(jobs))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield jobs
    pbs.delete(jobs, [pbs._name(job) for job in jobs.iterdir()])
    wait_until(lambda: all((job / "ended").exists() for job in jobs.iterdir()))
