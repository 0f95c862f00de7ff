"""`tpu_pod.sh` against a TPU that is preempted, breaks or never comes."""

import pytest

# The queued resource's state in a file; each end of a training is a line `exit code, state after`.
GCLOUD = """
cd {folder}
case "$*" in
*" list "*) cat state ;;
*" create "*) echo "$AFTER_CREATE" >state ;;
*" delete "*) : >state ;;
*"worker.sh log"*) code="$(head -n 1 connections)"; sed -i 1d connections; exit "${{code:-0}}" ;;
*"worker.sh status"*)
    read -r code state <ends
    sed -i 1d ends
    echo "$state" >state
    exit "$code"
    ;;
esac
"""


@pytest.fixture
def pod(launch, tmp_path):
    (tmp_path / "state").touch()
    launch.program("gcloud", GCLOUD.format(folder=tmp_path))

    def run(step: str, ends: str = "", connections: str = "", state: str = "", **variables: str):
        (tmp_path / "ends").write_text(ends.replace(", ", "\n") + "\n")
        (tmp_path / "connections").write_text(connections.replace(", ", "\n"))
        (tmp_path / "state").write_text(state)
        settings = {"POLL_SECONDS": "0", "AFTER_CREATE": "ACTIVE", "TMPDIR": str(tmp_path)}
        done = launch("tpu_pod.sh", step, **(settings | variables))
        shown = ("create", "delete", "scp", "worker.sh start", "worker.sh log")
        steps = [word for call in launch.called for word in shown if f"{word} " in f"{call} "]
        return done, steps

    return run


ATTEMPT = ["scp", "worker.sh start", "worker.sh log"]


def test_all_starts_again_after_preemptions_and_gives_the_tpu_back(pod):
    ends = "1 SUSPENDED, 75 ACTIVE, 0 ACTIVE"
    done, steps = pod("all", ends, MAX_FAILURES="0")
    assert done.returncode == 0, done.stderr
    preempted = ["create", *ATTEMPT, "delete"]
    assert steps == [*preempted, "create", *ATTEMPT, *ATTEMPT, "delete"]
    assert "gs://bucket/run is finished" in done.stderr


def test_all_gives_up_on_wrong_settings(pod):
    done, steps = pod("all", "2 ACTIVE")
    assert done.returncode == 2 and "delete" in done.stderr
    assert steps == ["create", *ATTEMPT]


def test_all_gives_up_after_too_many_failures(pod):
    done, steps = pod("all", "1 ACTIVE, 134 ACTIVE", MAX_FAILURES="1")
    assert done.returncode == 1 and "failed 2 times" in done.stderr
    assert steps == ["create", *ATTEMPT, *ATTEMPT]


def test_a_broken_connection_is_not_the_end(pod):
    done, steps = pod("log", "0 ACTIVE", connections="255, 0", state="ACTIVE")
    assert done.returncode == 0 and "the training goes on" in done.stderr
    assert steps == ["worker.sh log"] * 2


def test_log_tells_a_lost_tpu_and_a_missing_installation_apart(pod):
    done, _ = pod("log", connections="255", state="SUSPENDED")
    assert done.returncode == 1 and "preempted" in done.stderr
    done, _ = pod("log", connections="127", state="ACTIVE")
    assert done.returncode == 1 and "install first" in done.stderr


def test_create_leaves_a_tpu_alone_and_replaces_a_preempted_one(pod):
    assert pod("create", state="ACTIVE")[1] == []
    assert pod("create", state="SUSPENDED")[1] == ["delete", "create"]


def test_create_says_where_to_look_when_the_request_failed(pod):
    done, _ = pod("create", AFTER_CREATE="FAILED")
    assert done.returncode == 1 and "describe trial" in done.stderr


def test_delete_twice(pod):
    assert pod("delete", state="ACTIVE")[1] == ["delete"]
    done, steps = pod("delete")
    assert done.returncode == 0 and "no trial" in done.stderr and steps == ["delete"]
