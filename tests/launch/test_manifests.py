"""The GKE and SkyPilot files against their schemas, and what a restart policy rests on."""

import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.launch.schemas import JOBSET, SKYPILOT

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.31"


def job_of(manifest: Any) -> dict[str, Any]:
    """The Job that JobSet makes of the template."""
    template = manifest["spec"]["replicatedJobs"][0]["template"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice"}, **template}


def check_jobset(manifest: Any) -> None:
    jsonschema.validate(manifest, JOBSET)
    kubernetes_validate.validate(job_of(manifest), KUBERNETES, strict=True)


def check_skypilot(task: Any) -> None:
    jsonschema.validate(task, SKYPILOT)


def jobset(launch: Any, **variables: str) -> Any:
    printed = launch.dry_run("gke.sh", "run", **variables)
    return yaml.safe_load(printed[printed.index("apiVersion") : printed.index("kubectl apply")])


def misspelt(manifest: Any) -> Iterator[tuple[str, Any]]:
    """The manifest with one key of it misspelt, for each key that is not of the user's choice."""
    chosen = ("labels", "annotations", "nodeSelector", "limits", "envs")

    def paths(node: Any, path: tuple) -> Iterator[tuple]:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            if isinstance(node, dict):
                yield (*path, key)
            if isinstance(child, dict | list) and key not in chosen:
                yield from paths(child, (*path, key))

    for path in paths(manifest, ()):
        changed = copy.deepcopy(manifest)
        node = changed
        for key in path[:-1]:
            node = node[key]
        node[f"{path[-1]}x"] = node.pop(path[-1])
        yield ".".join(map(str, path)), changed


def test_jobset_is_valid(launch):
    check_jobset(jobset(launch))
    check_jobset(jobset(launch, SLICES="4", TOPOLOGY="4x4x8", TPU_TYPE="tpu-v5p-slice"))


def test_a_misspelt_key_of_the_jobset_is_found(launch):
    tried = 0
    for path, changed in misspelt(jobset(launch)):
        try:
            check_jobset(changed)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError):
            tried += 1
        else:
            pytest.fail(f"{path} misspelt passes")
    assert tried > 40


def test_a_value_that_cannot_be_is_found(launch):
    for name, value in (("MAX_RESTARTS", "many"), ("NAME", "Upper"), ("SLICES", "0")):
        with pytest.raises(jsonschema.ValidationError):
            check_jobset(jobset(launch, **{name: value}))
    with pytest.raises(kubernetes_validate.ValidationError):
        check_jobset(jobset(launch, GRACE_SECONDS="soon"))


def test_skypilot_task_is_valid():
    check_skypilot(yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text()))


def test_a_misspelt_key_of_the_skypilot_task_is_found():
    tried = 0
    for path, changed in misspelt(yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())):
        with pytest.raises(jsonschema.ValidationError):
            check_skypilot(changed)
            pytest.fail(f"{path} misspelt passes")
        tried += 1
    assert tried > 10


def test_variables_reach_the_manifest(launch):
    manifest = jobset(launch, TOPOLOGY="4x8", SLICES="2", CHIPS_PER_HOST="4")
    slice_job = manifest["spec"]["replicatedJobs"][0]
    job = slice_job["template"]["spec"]
    pod = job["template"]["spec"]
    assert manifest["metadata"]["name"] == "trial" and slice_job["replicas"] == 2
    assert job["parallelism"] == job["completions"] == 8
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x8"
    assert pod["containers"][0]["image"] == "us-docker.pkg.dev/proj/repo/adakd_jax:1"
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["containers"][0]["args"][0].strip() == (
        "exec bash launch/train.sh --config configs/quickstart.yaml --run_dir gs://bucket/run"
    )
    assert "${" not in yaml.safe_dump(manifest)


def test_xpk_finds_its_labels(launch):
    manifest = jobset(launch)
    job = job_of(manifest)
    assert manifest["metadata"]["labels"] == {
        "kueue.x-k8s.io/queue-name": "multislice-queue",
        "xpk.google.com/workload": "trial",
    }
    assert job["spec"]["template"]["metadata"]["labels"]["xpk.google.com/workload"] == "trial"


def test_wrong_settings_end_a_jobset_and_nothing_else_does(launch):
    manifest = jobset(launch)
    rules = job_of(manifest)["spec"]["podFailurePolicy"]["rules"]
    policy = manifest["spec"]["failurePolicy"]
    assert [rule["onExitCodes"]["values"] for rule in rules] == [[2]]
    assert [rule["onJobFailureReasons"] for rule in policy["rules"]] == [["PodFailurePolicy"]]
    assert policy["maxRestarts"] == 100


SKY_RUN = """
train() {{ echo "$MASTER_ADDR $MASTER_PORT $WORLD_SIZE $RANK"; printf '%s\\n' "$@"; }}
exec() {{ shift 2; MASTER_ADDR="${{MASTER_ADDR:-}}" train "$@"; }}
{run}
"""


@pytest.mark.parametrize(
    ("nodes", "extras", "told"),
    [
        ("2", "cuda12,gcs", "10.0.0.1 8482 2 1"),
        ("1", "cuda12,gcs", ""),
        ("2", "tpu,gcs", ""),
    ],
)
def test_skypilot_tells_gpu_nodes_of_each_other(nodes, extras, told):
    task = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    done = subprocess.run(
        ["bash", "-c", SKY_RUN.format(run=task["run"])],
        env={
            "SKYPILOT_NUM_NODES": nodes,
            "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
            "SKYPILOT_NODE_RANK": "1",
            "EXTRAS": extras,
            "CONFIG": "a b.yaml",
            "RUN_DIR": "gs://b/r",
            "FLAGS": "--data.train.path 'my rows.jsonl'",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    first, *flags = done.stdout.splitlines()
    assert first.strip() == told
    assert flags == [
        "--config", "a b.yaml", "--run_dir", "gs://b/r", "--data.train.path", "my rows.jsonl",
    ]  # fmt: skip
