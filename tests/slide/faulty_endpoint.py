"""A proxy in front of an object store that answers late, wrongly or not at all: real sockets, by a seeded plan."""

import http.client
import random
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
FAULTS = ("slow_down", "drop", "short", "stall", "stall_midway", "no_http", "garble", "whole")
"""503; connection closed; half a body; silence; silence after half a body; no HTTP; wrong bytes; 200 with the file.

"drip", 10 KB/s, is one more, for a test of its own."""
HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


class Proxy(ThreadingHTTPServer):
    """`kinds`: faults to choose from, none at first. `share`: of the attempts at a range that suffer one.

    `strikes`: attempts after which a range is given as it is; `most`: faults in all, after which all is well; None for
    never. Without `most`, what befalls the n-th attempt at a range depends on `seed`, the range and n alone, not on the
    order in which threads ask.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream, latency_s=0.0, seed=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.latency_s, self.seed = latency_s, seed
        self.kinds, self.share, self.strikes, self.most = (), 1.0, None, None
        self.attempts, self.suffered = Counter(), Counter()
        self.requests = []
        self.released = threading.Event()
        self.lock = threading.Lock()

    def plan(self, *kinds, share=1.0, strikes=None, most=None):
        """From now on, ranges suffer these faults; none given: no faults."""
        with self.lock:
            self.kinds, self.share, self.strikes, self.most = kinds, share, strikes, most
            self.attempts.clear()
            self.suffered.clear()
            self.requests.clear()

    @property
    def gets(self):
        """How often bytes were asked for."""
        return sum(command == "GET" for command, _ in self.requests)

    def fault_for(self, command, wanted):
        """The fault that this attempt at a range suffers, or None. Other requests suffer none."""
        with self.lock:
            self.requests.append((command, wanted))
            if command != "GET" or wanted is None or not self.kinds:
                return None
            attempt = self.attempts[wanted]
            self.attempts[wanted] += 1
            chance = random.Random(f"{self.seed} {wanted} {attempt}")
            if chance.random() >= self.share or (self.strikes is not None and attempt >= self.strikes):
                return None
            if self.most is not None and self.suffered.total() >= self.most:
                return None
            fault = chance.choice(self.kinds)
            self.suffered[fault] += 1
            return fault

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        fault = self.server.fault_for(self.command, self.headers.get("Range"))
        time.sleep(self.server.latency_s)
        match fault:
            case "slow_down":
                return self.reply(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
            case "drop":
                return self.hang_up()
            case "no_http":
                self.wfile.write(random.Random(self.server.seed).randbytes(400))
                return self.hang_up()
            case "stall":
                self.server.released.wait()
                return self.hang_up()
        status, headers, body = self.ask_upstream(ranged=fault != "whole")
        if fault in ("short", "stall_midway"):
            self.reply(status, headers, body, given=len(body) // 2)
            if fault == "stall_midway":
                self.server.released.wait()
            return self.hang_up()
        if fault == "drip":
            self.reply(status, headers, body, given=0)
            for position in range(0, len(body), 512):
                self.wfile.write(body[position : position + 512])
                self.server.released.wait(0.05)
            return None
        if fault == "garble":
            body = bytes(len(body))
        return self.reply(status, headers, body)

    def do_HEAD(self):
        self.do_GET()

    def ask_upstream(self, ranged):
        connection = http.client.HTTPConnection(self.server.upstream.hostname, self.server.upstream.port, timeout=30)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if ranged or name.lower() != "range"}
        connection.request(self.command, self.path, sent, headers)
        answer = connection.getresponse()
        body = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOPS}
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length") or "0"
        connection.close()
        return answer.status, kept, body

    def reply(self, status, headers, body, given=None):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:given])

    def hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args):
        pass


@contextmanager
def faulty(upstream, latency_s=0.0, seed=0):
    """The proxy in front of the server at `upstream`, for the time of a test."""
    server = Proxy(upstream, latency_s, seed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
