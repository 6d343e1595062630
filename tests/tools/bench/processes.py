"""Starts and stops the programs of one run, and reads what the system knows of them."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import credentials
import programs

PROXY_CPUS, LOAD_CPUS = {0}, {1}
ACCOUNT = "X-Ads-Account: acme"
START_MAX_SECS = 60
GRANT = json.dumps({"access_token": programs.TOKEN, "token_type": "bearer", "expires_in": 3600})
SMALL = json.dumps({"data": "x" * 1013})


@dataclasses.dataclass
class Proxy:
    """A running program that is measured."""

    name: str
    port: int
    process: subprocess.Popen
    fields: list
    start_ms: float = 0.0

    @property
    def pid(self):
        return self.process.pid


@contextlib.contextmanager
def on(cpus):
    """What is started inside runs on these CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def ask(port, fields):
    """The start of the response to one request on a connection of its own."""
    head = "\r\n".join(["GET /1k HTTP/1.1", "Host: localhost", ACCOUNT, *fields, "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", port), timeout=2) as stream:
        stream.sendall(head.encode())
        return stream.recv(64)


class Bench:
    """The processes of one run, and the ports between them."""

    def __init__(self, directory, program):
        self.directory, self.program, self.processes = directory, program, {}
        credentials.make_certificate(directory)
        self.jwt = credentials.make_jwt(directory)
        self.key = credentials.make_key(program, directory)
        self.key_field = f"X-Ads-Key: {self.key['key']}"
        self.upstream, self.tls_upstream, self.lwa = self.start_upstream("upstream", LOAD_CPUS, workers=1)
        self.transfers = free_port()
        with on(LOAD_CPUS):
            self.spawn("transfers", [sys.executable, Path(__file__).parent / "transfers.py", "serve", str(self.transfers)])

    def start_upstream(self, name, cpus, workers):
        """Amazon's place and that of its login; their ports: plain, TLS, login."""
        port, tls_port, sink_port, lwa_port = (free_port() for _ in range(4))
        text = programs.UPSTREAM.format(
            port=port, tls_port=tls_port, sink_port=sink_port, lwa_port=lwa_port, directory=self.directory,
            grant=GRANT, small=SMALL.replace('"', '\\"'))
        with on(cpus):
            self.nginx(name, "off", text, workers=workers)
        return port, tls_port, lwa_port

    def spawn(self, name, command):
        env = os.environ | {"BENCH_SECRET": "Atzr|bench"}
        with open(self.directory / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
        self.processes[process] = name
        return process

    def nginx(self, name, log, http_block, workers=1, body_buffer="1m"):
        # The workers of root's nginx would be another user, who may not write into the directory.
        user = "user root root;" if os.geteuid() == 0 else ""
        text = programs.NGINX.format(directory=self.directory, name=name, log=log, http=http_block, user=user,
                                     workers=workers, body_buffer=body_buffer)
        file = self.directory / f"{name}.conf"
        file.write_text(text)
        return self.spawn(name, ["nginx", "-e", "stderr", "-p", self.directory, "-c", file])

    def start(self, name, tls=False, upstream=None, cpus=PROXY_CPUS, **more):
        """Starts a proxy and waits for its first response. `more`: workers, admin, callers, replay_memory, body_buffer."""
        port = free_port()
        upstream = upstream or (self.tls_upstream if tls else self.upstream)
        values = {"port": port, "upstream": upstream, "directory": self.directory, "token": programs.TOKEN,
                  "client": programs.CLIENT_ID, "scheme": "https" if tls else "http", "name": f"{name}-{port}"}
        with on(cpus):
            began = time.perf_counter()
            process = getattr(self, f"_{name}")(values, tls, more)
        proxy = Proxy(name, port, process, [self.key_field] if name == "adsproxy" else [])
        self.wait_for(proxy)
        proxy.start_ms = (time.perf_counter() - began) * 1000
        return proxy

    def _nginx(self, values, _tls, more):
        log = f"{self.directory}/{values['name']}.access.log combined buffer=64k"
        return self.nginx(values["name"], log, programs.PEER.format(**values),
                          body_buffer=more.get("body_buffer", "1m"))

    def _haproxy(self, values, tls, _more):
        values["tls"] = programs.HAPROXY_TLS.format(**values) if tls else ""
        file = self.directory / values["name"]
        file.write_text(programs.HAPROXY.format(**values))
        return self.spawn(values["name"], ["haproxy", "-db", "-f", file])

    def _envoy(self, values, tls, _more):
        values["tls"] = programs.ENVOY_TLS.format(**values) if tls else ""
        return self.spawn(values["name"], [
            programs.envoy(), "--config-yaml", programs.ENVOY.format(**values), "--concurrency", "1", "--log-level",
            "critical", "--disable-hot-restart", "--service-node", "n", "--service-cluster", "c"])

    def _adsproxy(self, values, tls, more):
        values |= {"host": "localhost" if tls else "127.0.0.1", "workers": more.get("workers", 1), "lwa": self.lwa,
                   "admin": more.get("admin", "off"), "replay_memory": more.get("replay_memory", 1 << 20),
                   "callers": self.key["config"] + more.get("callers", "")}
        file = self.directory / f"{values['name']}.toml"
        file.write_text(programs.ADSPROXY.format(**values))
        return self.spawn(values["name"], [self.program, "--config", file])

    def wait_for(self, proxy):
        deadline = time.monotonic() + START_MAX_SECS
        response = b""
        while time.monotonic() < deadline and proxy.process.poll() is None:
            try:
                response = ask(proxy.port, proxy.fields)
                if b" 200 " in response:
                    return
            except OSError:
                pass
            time.sleep(0.0005)
        log = (self.directory / f"{proxy.name}-{proxy.port}.log").read_text(errors="replace")
        raise SystemExit(f"{proxy.name} does not start ({response!r}):\n{log[-2000:]}")

    def stop(self, process):
        children = tree(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        # A gigabyte of access log is soon written.
        for log in self.directory.glob(f"{self.processes.pop(process)}.*log"):
            log.unlink()

    def close(self):
        for process in list(self.processes):
            self.stop(process)


def tree(pid):
    """A process and those below it."""
    found = [pid]
    for pid in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def cpu_seconds(pid):
    """CPU time of a process, its threads and its children."""
    threads = (thread for one in tree(pid) for thread in Path(f"/proc/{one}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def worker_seconds(pid):
    """How long the workers of adsproxy ran or waited for a CPU; the rest of the time they waited for something else."""
    threads = [thread for thread in Path(f"/proc/{pid}/task").iterdir()
               if (thread / "comm").read_text().startswith("worker-")]
    return sum(sum(map(int, (thread / "schedstat").read_text().split()[:2])) for thread in threads) / 1e9


def memory_kib(pid):
    """Resident memory of a process and its children."""
    texts = (Path(f"/proc/{one}/status").read_text() for one in tree(pid))
    return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in texts)
