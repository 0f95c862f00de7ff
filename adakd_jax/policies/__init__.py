"""Where responses come from: the data set, the teacher, or the student as it learns."""

from adakd_jax.policies.policy import DatasetResponses, Responses, StudentResponses
from adakd_jax.policies.replay import Replay, empty_replay

__all__ = ["DatasetResponses", "Replay", "Responses", "StudentResponses", "empty_replay"]
