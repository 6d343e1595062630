"""Sends the requests: many small ones by wrk, large bodies by transfers.py, and connections that stay idle."""

import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from processes import ACCOUNT, LOAD_CPUS, on

FIELDS = ["User-Agent: bench/1.0", "Accept: application/json", ACCOUNT, "Amazon-Advertising-API-Scope: 1234567890"]


@contextlib.contextmanager
def wrk(port, path, connections, body, fields, secs, cpus=LOAD_CPUS):
    """Starts wrk; what it yields waits for the end and returns the requests and the 99th percentile in milliseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = string.rep("x", {body})\n' if body else "")
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{secs}s", "--latency", "--timeout", "20s", "-s", script.name]
        for field in [*FIELDS, *fields]:
            command += ["-H", field]
        with on(cpus):
            process = subprocess.Popen([*command, f"http://127.0.0.1:{port}{path}"], stdout=subprocess.PIPE, text=True)
        try:
            yield lambda: result(process.communicate()[0])
        finally:
            process.kill()
            process.wait()


def result(text):
    requests = int((re.search(r"(\d+) requests in", text) or [0, 0])[1])
    if "Non-2xx" in text or "Socket errors" in text or not requests:
        raise SystemExit(f"requests failed:\n{text}")
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
    return requests, float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def requests(port, path, connections, body, fields, secs):
    with wrk(port, path, connections, body, fields, secs) as finish:
        return finish()


def transfers(port, direction, fields, secs):
    """How many bodies of 10 MiB went up or down."""
    command = [sys.executable, Path(__file__).parent / "transfers.py", "load", str(port), direction, str(secs)]
    with on(LOAD_CPUS):
        done = subprocess.run([*command, *FIELDS, *fields], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit("transfers failed")
    return int(done.stdout)


def allow_connections(wanted, of_each):
    """How many connections each of `of_each` proxies can have at once from here, at most `wanted`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(wanted, (hard - 500) // of_each)


def idle(port, count, fields):
    """Connections that have had one request each."""
    head = "\r\n".join(["GET /1k HTTP/1.1", "Host: localhost", *FIELDS, *fields, "", ""]).encode()
    streams = []
    for _ in range(count):
        stream = socket.create_connection(("127.0.0.1", port), timeout=10)
        streams.append(stream)
        stream.sendall(head)
        response = b""
        while b"xxx\"}" not in response:
            data = stream.recv(65536)
            if not data:
                raise SystemExit(f"a connection was closed after {len(streams)}")
            response += data
        if b" 200 " not in response[:20]:
            raise SystemExit(f"no 200: {response[:200]!r}")
        stream.setblocking(False)
    return streams


def are_open(streams):
    for stream in streams:
        try:
            if not stream.recv(1, socket.MSG_PEEK):
                return False
        except BlockingIOError:
            pass
    return True


def all_cpus():
    return set(range(os.cpu_count()))
