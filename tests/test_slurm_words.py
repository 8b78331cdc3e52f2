"""What psy says of jobs on Slurm is true: what waits, what is stuck, what became of which element."""

from __future__ import annotations

import pytest

from clusters.sweep import assert_right, gated, submissions, task, xs_seen

pytestmark = pytest.mark.xdist_group("slurm")

PROMISE = "  the result appears by itself; meanwhile: psy status a, psy run --wait a\n"
NO_PROMISE = "  then psy run a writes the result; meanwhile: psy status a, psy run --wait a\n"


@pytest.fixture
def cluster(slurm, enter):
    return enter(slurm)


def open_gate(project):
    (project.root / "gate").touch()


def test_result_is_promised_only_while_the_job_that_merges_waits_and_is_not_held(
    cluster, project, wait_until
):
    project.task("a", gated(task(4, 2)))
    assert PROMISE in project.psy("run", code=75).stdout
    (merge,) = {each["merge"] for each in submissions(project)}
    cluster.run("scontrol", "hold", merge)
    assert NO_PROMISE in project.psy("run", code=75).stdout
    cluster.run("scontrol", "release", merge)
    assert PROMISE in project.psy("run", code=75).stdout
    cluster.run("scancel", merge)
    assert NO_PROMISE in project.psy("run", code=75).stdout
    open_gate(project)
    wait_until(lambda: project.status("a")["done"] == 4)
    project.psy("run")
    assert_right(project, 4)


def test_result_is_not_promised_where_the_job_that_merges_was_refused(cluster, project):
    project.task("a", gated(task(4, 2, merge_args={"partition": "nowhere"})))
    done = project.psy("run", code=75)
    assert (
        "a: the job that merges was not accepted: psy run a merges later (sbatch exited with 1" in done.stdout
    )
    assert "invalid partition" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 350  # The command is cut.
    assert NO_PROMISE in done.stdout
    assert PROMISE not in project.psy("run", code=75).stdout


def test_jobs_that_were_all_cancelled_are_submitted_again_at_once(cluster, project, wait_until):
    """Slurm tells their end: the 90 seconds for files that show up late are not waited."""
    project.task("a", gated(task(4, 2, grace=90)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 2)
    cluster.run("scancel", "-u", "root")
    wait_until(lambda: not cluster.run("squeue", "-h"))
    assert project.status("a")["missing"] == 4
    done = project.psy("run", code=75).stdout
    assert "a: 2 of its jobs ended early: CANCELLED\n" in done
    assert "a: 4 rows to evaluate in 2 batches\n" in done
    assert "a: 0 of 4 rows done, 2 jobs in flight\n" + PROMISE in done
    open_gate(project)
    project.psy("run", "--wait")
    assert_right(project, 4)


def test_held_jobs_are_stuck_until_they_are_cancelled_or_replaced(cluster, project, wait_until):
    held = {"timelimit": "10", "extra": ["--hold"]}
    project.task("a", gated(task(4, 2, scheduler_args=held)))
    stuck = "2 jobs are stuck: JobHeldUser; psy kill a cancels them, psy run --take-over a replaces them\n"
    said = project.psy("run", code=75).stdout
    assert f"a: 0 of 4 rows done, 2 jobs in flight\n  {stuck}{NO_PROMISE}" in said
    for arguments in (["status"], ["status", "-v"]):
        assert f"a: {stuck}" in project.psy(*arguments).stdout
    status = project.status("a")
    assert (status["queued"], status["running"], status["missing"]) == (4, 0, 0)
    assert "2 jobs cancelled" in project.psy("kill", "a").stdout
    wait_until(lambda: not cluster.run("squeue", "-h"))
    project.psy("run", code=75)
    (first,) = [each["job"] for each in submissions(project) if not each["closed"]]
    project.edit("psy-tasks/task_a.py", repr(held), '{"timelimit": "10"}')
    again = project.psy("run", "--take-over", code=75).stdout
    assert "a: 2 jobs cancelled (stuck)\n" in again
    assert PROMISE in again
    wait_until(lambda: first not in cluster.run("squeue", "-h", "-o", "%F").split())
    open_gate(project)
    project.psy("run", "--wait")
    assert_right(project, 4)
    assert xs_seen(project) == list(range(4))


def test_stuck_element_is_replaced_while_the_others_of_its_array_go_on(cluster, project, wait_until):
    project.task("a", gated(task(4, 2)))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 2)
    (job,) = [each["job"] for each in submissions(project)]
    cluster.run("scontrol", "requeuehold", f"{job}_1")
    wait_until(lambda: "1 job is stuck: " in project.psy("status").stdout)
    replaced = project.psy("run", "--take-over", code=75).stdout
    assert "a: 1 job replaced (stuck, and left in the queue)\n" in replaced
    assert "a: 2 of 4 rows to evaluate in 1 batch\n" in replaced
    assert "stuck" not in project.psy("status").stdout
    open_gate(project)
    project.psy("run", "--wait")
    assert_right(project, 4)
    project.psy("run")
    assert submissions(project) == []
    wait_until(lambda: not cluster.run("squeue", "-h"))


def test_jobs_whose_dependency_can_not_be_satisfied_are_stuck(cluster, project, wait_until, tmp_path):
    failed = cluster.run("sbatch", "--parsable", "-D", str(tmp_path), "--wrap", "exit 1")
    wait_until(lambda: not cluster.run("squeue", "-h"))
    after = ["--kill-on-invalid-dep=no", f"--dependency=afterok:{failed}"]
    project.task("a", task(4, 2, scheduler_args={"timelimit": "10", "extra": after}))
    project.psy("run", code=75)
    wait_until(lambda: "2 jobs are stuck: DependencyNeverSatisfied;" in project.psy("status").stdout)
    assert "2 jobs cancelled" in project.psy("kill", "a").stdout
    wait_until(lambda: not cluster.run("squeue", "-h"))


def test_what_one_element_printed_does_not_explain_another(cluster, project, wait_until):
    project.write("psy-tasks/env.sh", "echo loading modules\n")
    limited = {"timelimit": "10", "max_running": 1}
    project.task("a", gated(task(4, 2, scheduler_args=limited, prologue="env.sh")))
    project.psy("run", code=75)
    wait_until(lambda: project.status("a")["running"] == 1)
    (job,) = [each["job"] for each in submissions(project)]
    cluster.run("scancel", f"{job}_1")
    wait_until(lambda: project.status("a")["missing"] == 2)
    lines = [line for line in project.psy("status", "-v").stdout.splitlines() if "missing:" in line]
    assert lines == ["  missing: x=2  CANCELLED", "  missing: x=3  CANCELLED"]


def test_equal_reasons_of_many_elements_are_one_line_with_a_count(cluster, project, wait_until):
    project.write("psy-tasks/env.sh", "echo no licence for the simulator\nexit 3\n")
    project.task("a", task(20, 20, grace=90, prologue="env.sh"))
    project.psy("run", code=75)
    wait_until(lambda: not cluster.run("squeue", "-h"))
    (project.root / "psy-tasks" / "env.sh").write_text("")
    done = project.psy("run", "--wait").stdout
    why = "FAILED (exit 3) (no licence for the simulator)"
    assert [line for line in done.splitlines() if "ended early" in line] == [
        f"a: 20 of its jobs ended early: {why}"
    ]
    assert_right(project, 20)
