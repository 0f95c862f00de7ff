"""What the manifests may say, reduced to the fields that are used here; unknown keys are refused.

JobSet: the API reference of jobset.sigs.k8s.io, jobset.x-k8s.io/v1alpha2. The Job inside it is
checked by kubernetes-validate, with the schema that Kubernetes publishes.
SkyPilot: the YAML reference of docs.skypilot.co (0.14).
"""

from typing import Any


def fields(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 1}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
# 63 characters of a DNS name, less what JobSet and Kueue append; xpk allows as many.
NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,26}[a-z0-9])?$"}

_RULE = fields(
    ("name", "action"),
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action={"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
    onJobFailureReasons={
        "type": "array",
        "uniqueItems": True,
        "items": {
            "enum": [
                "BackoffLimitExceeded",
                "DeadlineExceeded",
                "FailedIndexes",
                "MaxFailedIndexesExceeded",
                "PodFailurePolicy",
            ]
        },
    },
)

JOBSET = fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=fields(("name",), name=NAME, labels=LABELS, annotations=LABELS),
    spec=fields(
        ("replicatedJobs",),
        ttlSecondsAfterFinished={"type": "integer", "minimum": 0},
        failurePolicy=fields(
            (),
            maxRestarts={"type": "integer", "minimum": 0},
            rules={"type": "array", "items": _RULE},
        ),
        replicatedJobs={
            "type": "array",
            "minItems": 1,
            "items": fields(
                ("name", "template"),
                name=NAME,
                replicas=COUNT,
                template=fields(("spec",), spec={"type": "object"}),
            ),
        },
    ),
)

SKYPILOT = fields(
    (),
    name=TEXT,
    workdir=TEXT,
    num_nodes=COUNT,
    resources=fields(
        (),
        accelerators={"type": "string", "pattern": "^[A-Za-z0-9-]+(:[0-9]+)?$"},
        use_spot={"type": "boolean"},
        disk_size=COUNT,
        job_recovery=fields(
            (),
            strategy=TEXT,
            max_restarts_on_errors={"type": "integer", "minimum": 0},
            recover_on_exit_codes={
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": 255},
                "uniqueItems": True,
            },
        ),
    ),
    envs={
        "type": "object",
        "patternProperties": {"^[a-zA-Z_][a-zA-Z0-9_]*$": {"type": ["string", "null"]}},
        "additionalProperties": False,
    },
    setup=TEXT,
    run=TEXT,
)
