"""Jobs of psyrun as tasks of a dask.distributed that runs."""

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed import Client, Future, fire_and_forget, get_client, secede

from psyrun.errors import NoAnswerError, TaskFileError
from psyrun.scheduler import STOPPED, JobState, job_script


class Dask:
    """Runs each element of a submission as a task, which starts a process on a worker of Dask.

    A job's id is its token and its scratch folder, ``<token>:<task>/jobs/<token>``. The key of a task is
    ``psyrun <id> <element>``. Dask forgets tasks that ended, so that tasks which it knows are in the queue.
    """

    options = {
        "address": "address of Dask's scheduler; without it, $DASK_SCHEDULER_ADDRESS",
        "n_cpus": "processes of a job, one if it is not set",
        "resources": "resources of Dask that a job takes, such as {'GPU': 1}",
    }
    required = {}
    merge_options = ("address",)
    system_options = ("address",)
    core_variables = ("DASK_JOB_CPUS",)
    job_variables = re.compile("DASK_JOB_")
    kept_variables = re.compile(r"(?!)")
    detached = True
    dependencies = True
    throttles = False
    warns = False
    poll = (2.0, 30.0)
    grace = 30.0
    timeout = 5.0  # seconds to wait for Dask's scheduler

    def configure(self, options, folder):
        self._address = options.get("address") or os.environ.get("DASK_SCHEDULER_ADDRESS")
        self._folder = folder

    def system(self):
        return self._address or ""

    def shows_others(self):
        return True

    def array_limit(self):
        return 100_000

    @contextmanager
    def _connect(self):
        if not self._address:
            raise TaskFileError("Dask: set the option 'address', or DASK_SCHEDULER_ADDRESS")
        try:
            client = Client(self._address, timeout=self.timeout, set_as_default=False)
        except (OSError, ValueError) as error:
            raise NoAnswerError(["dask", self._address], 1, str(error)) from error
        with client:
            yield client

    def submit(self, spec):
        spec.scratch.mkdir(parents=True)
        job = f"{spec.token}:{spec.scratch.relative_to(self._folder)}"
        env = {**spec.env, "DASK_JOB_CPUS": str(spec.options.get("n_cpus") or 1)}
        argv = ["/bin/bash", *job_script(spec, "DASK_JOB_ELEMENT" if spec.indices else "", 0)]
        elements = list(spec.indices) or [-1]
        with self._connect() as client:
            futures = client.map(
                lambda element: run_element(argv, env, spec.scratch, element, spec.after),
                elements,
                key=[f"psyrun {job} {element}" for element in elements],
                resources=spec.options.get("resources"),
            )
            fire_and_forget(futures)
        return job

    def find(self, tokens):
        known = self.query_all()
        return known and {job.partition(":")[0]: job for job in known if job.partition(":")[0] in tokens}

    def query(self, job_ids):
        known = self.query_all() if job_ids else {}
        return known and {job: states for job, states in known.items() if job in job_ids}

    def query_all(self):
        try:
            with self._connect() as client:
                return list_jobs(client)
        except NoAnswerError:
            return None

    def explain(self, job_ids):
        return {
            (job, int(path.stem)): path.read_text()
            for job in job_ids
            for path in self._scratch(job).glob("*.ended")
        }

    def cancel(self, job_ids):
        if not job_ids:
            return
        with self._connect() as client:
            known = list_jobs(client)
            for job in known.keys() & set(job_ids):
                self._scratch(job).joinpath("-1.ended").write_text("cancelled")
                keys = [f"psyrun {job} {element}" for element in known[job]]
                client.cancel([Future(key, client) for key in keys], force=True)

    def _scratch(self, job):
        return self._folder / job.partition(":")[2]


def list_jobs(client):
    """Return job id -> element -> state of the jobs that Dask knows."""

    def list_tasks(dask_scheduler):
        return {key: task.state for key, task in dask_scheduler.tasks.items() if str(key)[:7] == "psyrun "}

    found = {}
    for key, state in client.run_on_scheduler(list_tasks).items():
        _, job, element = key.split(" ")
        running = state == "processing"
        found.setdefault(job, {})[int(element)] = JobState.RUNNING if running else JobState.QUEUED
    return found


def run_element(argv, env, scratch, element, after):
    """Run an element on a worker, once other jobs have ended; write down how it ended, if not well."""
    cancelled = Path(scratch, "-1.ended")
    if after:
        wait_for(after, cancelled)
    if cancelled.exists():
        return
    process = subprocess.Popen(
        argv, env={**env, "DASK_JOB_ELEMENT": str(element)}, stdin=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        if cancelled.exists():
            end(process)
    code = process.returncode
    if code and scratch.exists():
        why = "stopped" if code == STOPPED else f"exit {code}" if code > 0 else f"signal {-code}"
        scratch.joinpath(f"{element}.ended").write_text(why)


def wait_for(jobs, cancelled):
    """Wait until Dask forgot other jobs, or this one was cancelled; other tasks may use the thread."""
    secede()
    while not cancelled.exists() and list_jobs(get_client()).keys() & set(jobs):
        time.sleep(0.5)


def end(process):
    """End a process and those that it started: they may end in good order within ten seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
