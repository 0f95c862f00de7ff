"""A teacher behind HTTP, stood in for by a server that answers in vLLM's form."""

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from adakd_jax.config.teacher_cache import EndpointConfig
from adakd_jax.teacher_cache import served
from adakd_jax.teacher_cache.agreement import answers
from adakd_jax.teacher_cache.served import EndpointError, ServedTeacher, parse_logprobs
from tests.teacher_cache.conftest import K, TableTeacher, teacher_logits

MOST = 8  # vLLM's --max-logprobs


def listed_logprobs(tokens, k):
    """`prompt_logprobs`: None, then for each token the k likeliest in its place, and itself."""
    found = [None]
    for last, token in itertools.pairwise(tokens):
        z = teacher_logits()[last].astype(np.float64)
        log_p = z - np.log(np.exp(z).sum())
        order = np.argsort(-log_p)
        chosen = [*order[:k].tolist(), *([token] if token not in order[:k] else [])]
        found.append(
            {
                str(each): {
                    "logprob": float(np.float32(log_p[each])),
                    "rank": int(np.flatnonzero(order == each)[0]) + 1,
                    "decoded_token": f"<{each}>",
                }
                for each in chosen
            }
        )
    return found


class Server(ThreadingHTTPServer):
    """Keeps the requests it got; `failing` are status codes to answer first."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.failing, self.lock = [], [], threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, self.headers["Authorization"], body))
            failing = self.server.failing.pop() if self.server.failing else None
        if failing is not None:
            return self.say(failing, {"error": {"message": "not now"}})
        if body["prompt_logprobs"] > MOST:
            told = f"Requested prompt logprobs of {body['prompt_logprobs']}, greater than {MOST}"
            return self.say(400, {"error": {"message": told, "type": "BadRequestError"}})
        choice = {
            "index": 0,
            "text": "x",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "prompt_logprobs": listed_logprobs(body["prompt"], body["prompt_logprobs"]),
        }
        return self.say(200, {"object": "text_completion", "choices": [choice]})

    def say(self, code, content):
        text = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(served, "_FIRST_WAIT", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(server, k=K, **settings):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return ServedTeacher(EndpointConfig(url=url, **settings), "owner/teacher", k)


def test_a_server_says_what_the_weights_say(server, examples):
    found = answers(asked(server), list(examples))
    for example, taught in zip(examples, found, strict=True):
        expected = TableTeacher().answer(example)
        np.testing.assert_array_equal(taught.ids, expected.ids)
        np.testing.assert_allclose(taught.log_probs, expected.log_probs, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(taught.tail, expected.tail, rtol=1e-4)
    path, key, body = server.requests[0]
    assert (path, key) == ("/v1/completions", None)
    assert body.pop("prompt") in [example.tokens.tolist() for example in examples]
    assert body == {
        "model": "owner/teacher", "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": K,
    }  # fmt: skip


def test_passing_failures_are_tried_again(server, examples, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server.failing = [503, 429]
    teacher = asked(server, model="served", parallel=1, api_key_variable="MY_KEY")
    assert len(answers(teacher, [examples[0]])) == 1
    assert [each[1] for each in server.requests] == ["Bearer secret"] * 3
    assert server.requests[0][2]["model"] == "served"
    server.failing = [500] * 3
    with pytest.raises(EndpointError, match=r"answers 500: .*not now"):
        answers(asked(server, retries=2), [examples[0]])
    assert len(server.requests) == 6


def test_a_refusal_is_told_at_once(server, examples):
    with pytest.raises(EndpointError, match=r"answers 400: .*start it with --max-logprobs"):
        answers(asked(server, k=MOST + 1), [examples[0]])
    assert len(server.requests) == 1


def test_a_server_out_of_reach_is_named(server, examples):
    gone = asked(server, retries=1)
    server.server_close()
    with pytest.raises(EndpointError, match=r"/v1/completions: .*"):
        answers(gone, [examples[0]])


def test_probabilities_of_zero_and_rounded_sums_are_finite(examples):
    example = examples[0]
    listed = listed_logprobs(example.tokens.tolist(), K)
    for entry in listed[1:]:
        for value, each in zip([0.0, *[-9999.0] * K], entry.values(), strict=False):
            each["logprob"] = value
    taught = parse_logprobs(listed, example, K)
    assert (taught.log_probs.max(-1) == 0.0).all() and (taught.log_probs.min(-1) == -9999.0).all()
    np.testing.assert_allclose(taught.tail, np.log(1e-7), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda listed: listed[1:], "it must take token ids as they are"),
        (lambda listed: None, "lists none prompt_logprobs"),
        (lambda listed: [None, *[{"7": -1.0}] * (len(listed) - 1)], "is not vLLM's"),
        (
            lambda listed: [None, *[dict([*e.items()][:2]) for e in listed[1:]]],
            "needed: k = 5 with it",
        ),
    ],
)
def test_other_answers_are_refused(examples, change, message):
    example = examples[4]
    with pytest.raises(EndpointError, match=message):
        parse_logprobs(change(listed_logprobs(example.tokens.tolist(), K)), example, K)
