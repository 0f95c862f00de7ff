"""Bits per byte of a held-out answer, for held_out_answers.yaml."""


def process_results(doc, results):
    """The pair that lm_eval's `bits_per_byte` takes: log-likelihood in nats, and bytes."""
    loglikelihood, _ = results[0]
    answer = doc["output"] if isinstance(doc["output"], str) else doc["output"][0]
    return {"bits_per_byte": (loglikelihood, len(answer.encode()))}
