"""A server that stands in for an OpenAI-compatible one; what a request says makes it misbehave."""

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What a request holds → how the first tries end. A code of 0 answers too late.
FIRST_TRIES = {"busy": [429, 429], "broken": [500], "slow": [0]}


class StandIn(ThreadingHTTPServer):
    """Judges by the word 'good'; keeps every body it was sent, and who sent what key."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies, self.keys, self.tries = [], [], Counter()
        self.refuses = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body, key = json.loads(raw), self.headers["Authorization"]
        self.server.bodies.append(body)
        self.server.keys.append(key)
        asked = body["messages"][-1]["content"]
        self.server.tries[asked] += 1
        if self.server.refuses:
            return self._send(401, {"error": {"message": f"{key} is no key"}})
        for word, codes in FIRST_TRIES.items():
            done = self.server.tries[asked] - 1
            if word in asked and done < len(codes):
                if codes[done] == 0:
                    time.sleep(0.6)
                return self._send(codes[done] or 200, {"error": {"message": "later"}})
        if "garbage" in asked:
            return self._send(200, "<html>")
        message = {"role": "assistant", "content": _reply(asked, key)}
        finish = "length" if "endless" in asked else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        return self._send(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                                "choices": [choice], "usage": usage})  # fmt: skip

    def _send(self, code, content):
        raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        try:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("retry-after-ms", "5")
            self.end_headers()
            self.wfile.write(raw)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client that timed out has gone

    def log_message(self, *_):
        pass


def _reply(asked, key):
    if "endless" in asked:
        return "Let me think about"
    if "mumble" in asked:
        return "Verdict: both are fine"
    if "biased" in asked:
        return "The first is nicer.\n**Verdict: 1**"
    answers = [re.search(rf"<answer_{n}>(.*?)</answer_{n}>", asked, re.DOTALL)[1] for n in (1, 2)]
    good = ["good" in answer for answer in answers]
    verdict = "tie" if good[0] == good[1] else "1" if good[0] else "2"
    return f"You sent {key}. Verdict: none yet.\nVerdict: {verdict}"
