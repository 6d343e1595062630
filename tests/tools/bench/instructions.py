"""Counts the instructions of a request by valgrind, and compares them with those that the tree has recorded.

Counts repeat where times do not, so a small loss shows on any machine. They are those of the worker's
thread, without the kernel's. A run with N requests and one with 2N differ by N requests: the start and the
stop cancel out. What is left are timers, which run more often the slower the machine is, and only ever
add to a run: where the figure differs, the runs are repeated, and the least count of each is used."""

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import credentials
import programs
import transfers

ROOT = Path(__file__).resolve().parents[3]
RECORDED = ROOT / "tests/data/instructions.json"
# No request passes through what the other features bring, and a third of the time to build goes with them.
BUILD = ["cargo", "build", "--profile", "gate", "--locked", "--bin", "adsproxy", "--no-default-features", "--features",
         "jemalloc"]
REQUESTS = 1000
PERCENT_MAX = 3
ATTEMPTS_MAX = 3
START_MAX_SECS = 300

# Name: method and size of the body.
CASES = {"GET 1 KiB": ("GET", 0), "POST 16 KiB": ("POST", 16384)}
SMALL = json.dumps({"data": "x" * 1013}).encode()
GRANT = json.dumps({"access_token": programs.TOKEN, "token_type": "bearer", "expires_in": 3600}).encode()

CONFIG = """[listen]
proxy = ["127.0.0.1:{port}"]
admin = "off"
[proxy]
workers = 1
[lwa]
client_id = "{client}"
client_secret = {{ env = "BENCH_SECRET" }}
token_url = "http://127.0.0.1:{upstream}/token"
[upstream]
na = "http://127.0.0.1:{upstream}"
[store]
kind = "memory"
[accounts.acme]
region = "na"
refresh_token = {{ env = "BENCH_SECRET" }}
{callers}
"""


def build():
    subprocess.run(BUILD, cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "gate/adsproxy"


def respond(stream):
    """Amazon and its login on one connection."""
    buffer = memoryview(bytearray(transfers.BUFFER))
    with stream:
        while True:
            head, came = transfers.read_head(stream, buffer)
            if not head:
                return
            transfers.read_body(stream, buffer, head, came)
            is_known = b"\r\nauthorization: bearer atza|" in head
            body = GRANT if head.startswith(b"post /token") else SMALL
            status = b"200 OK" if body is GRANT or is_known else b"401 Unauthorized"
            stream.sendall(b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                           % (status, len(body), body))


def serve(server):
    while True:
        stream, _ = server.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=respond, args=(stream,), daemon=True).start()


def connect(port, process, key):
    """A connection on which the first request has been forwarded. On a slow machine the login may take too long at first."""
    deadline = time.monotonic() + START_MAX_SECS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            stream = socket.create_connection(("127.0.0.1", port), timeout=START_MAX_SECS)
        except OSError:
            time.sleep(0.05)
            continue
        if send(stream, 1, "GET", 0, key):
            return stream
        stream.close()
        time.sleep(1)
    raise SystemExit("adsproxy does not start below valgrind")


def send(stream, count, method, size, key):
    """Requests one after the other on one connection; whether all were forwarded."""
    fields = ["Host: localhost", "User-Agent: bench/1.0", "Accept: application/json", "X-Ads-Account: acme",
              "Amazon-Advertising-API-Scope: 1234567890", f"X-Ads-Key: {key}"]
    if size:
        fields += ["Content-Type: application/json", f"Content-Length: {size}"]
    request = "\r\n".join([f"{method} /1k HTTP/1.1", *fields, "", "x" * size]).encode()
    buffer = memoryview(bytearray(transfers.BUFFER))
    for _ in range(count):
        stream.sendall(request)
        head, came = transfers.read_head(stream, buffer)
        if not head.startswith(b"http/1.1 200 "):
            return False
        transfers.read_body(stream, buffer, head, came)
    return True


def count(program, directory, upstream, key, case, requests):
    """The instructions of the worker from its start to its end, with so many requests in between."""
    name = f"{case.split()[0]}-{requests}"
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    config = directory / f"{name}.toml"
    config.write_text(CONFIG.format(port=port, upstream=upstream, client=programs.CLIENT_ID, callers=key["config"]))
    counts = directory / f"{name}.callgrind"
    # The access log goes to a file, as by default to standard error.
    with open(directory / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            ["valgrind", "-q", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={counts}",
             program, "--config", config],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"BENCH_SECRET": "Atzr|bench"})
        try:
            with connect(port, process, key["key"]) as stream:
                are_forwarded = send(stream, requests, *CASES[case], key["key"])
            process.send_signal(signal.SIGTERM)
            process.wait(START_MAX_SECS)
        finally:
            process.kill()
            process.wait()
    lines = (directory / f"{name}.log").read_text(errors="replace")
    if process.returncode or not are_forwarded or lines.count('"http.response.status_code":200') < requests:
        raise SystemExit(f"adsproxy failed below valgrind ({process.returncode}):\n{lines[-2000:]}")
    # One file a thread. The first thread only starts the program; of the others, the worker has by far the most to do.
    threads = sorted(directory.glob(f"{counts.name}-*"))[1:]
    return max(int(re.search(r"^totals: (\d+)", thread.read_text(), re.MULTILINE)[1]) for thread in threads)


def runs(program):
    """The instructions of a run with N requests and of one with 2N, by case and 1 or 2."""
    server = socket.create_server(("127.0.0.1", 0), backlog=128)
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    with tempfile.TemporaryDirectory() as directory, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        directory, upstream = Path(directory), server.getsockname()[1]
        key = credentials.make_key(program, directory)
        started = {(case, times): pool.submit(count, program, directory, upstream, key, case, times * REQUESTS)
                   for case in CASES for times in (1, 2)}
        return {run: future.result() for run, future in started.items()}


def measure(program, is_enough):
    """The instructions of a request, by case, from the least of up to ATTEMPTS_MAX runs, or what is enough before."""
    least = {}
    for _ in range(ATTEMPTS_MAX):
        for run, figure in runs(program).items():
            least[run] = min(figure, least.get(run, figure))
        measured = {case: round((least[case, 2] - least[case, 1]) / REQUESTS) for case in CASES}
        if is_enough(measured):
            break
    return measured


def environment():
    """What changes the counts without a change of the program."""
    rustc = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    valgrind = subprocess.run(["valgrind", "--version"], check=True, capture_output=True, text=True).stdout
    return {"rustc": re.search(r"release: (\S+)", rustc)[1], "host": re.search(r"host: (\S+)", rustc)[1],
            "valgrind": valgrind.strip().removeprefix("valgrind-"),
            "avx2": "avx2" in Path("/proc/cpuinfo").read_text().split()}


def changes(measured, recorded):
    """By how many percent each case differs."""
    return {case: (figure / recorded[case] - 1) * 100 for case, figure in measured.items()}


def instructions(program, is_record):
    """Measures and compares, or records; whether the figures are those recorded, give or take PERCENT_MAX."""
    here = environment()
    if is_record:
        measured = measure(program, lambda _: False)
        RECORDED.write_text(json.dumps({"environment": here, "instructions": measured}, indent=2) + "\n")
        print(f"recorded in {RECORDED.relative_to(ROOT)}: {measured}")
        return True
    if not RECORDED.exists():
        print(f"{RECORDED.relative_to(ROOT)} is missing: run `tests/bench instructions --record` and commit it")
        return False
    recorded = json.loads(RECORDED.read_text())
    is_comparable = recorded["environment"] == here
    recorded = recorded["instructions"]
    measured = measure(program, lambda these: not is_comparable or is_close(changes(these, recorded).values()))
    change = changes(measured, recorded)
    for case, figure in measured.items():
        compared = f"recorded: {recorded[case]:,}, {change[case]:+.2f} %" if is_comparable else "not compared"
        print(f"{case}: {figure:,} instructions a request; {compared}")
    if not is_comparable:
        print(f"NOT CHECKED: instructions of a request: the recorded ones are not of {here}. Where this is what tests run with "
              "from now on: tests/bench instructions --record")
        return True
    return judge(change.values())


def is_close(percents):
    return all(abs(percent) <= PERCENT_MAX for percent in percents)


def judge(percents):
    if max(percents) > PERCENT_MAX:
        print(f"A request needs more than {PERCENT_MAX} % more instructions. Find out why (valgrind --tool=callgrind), or "
              "run `tests/bench instructions --record` and say in the commit what they are for.")
        return False
    if min(percents) < -PERCENT_MAX:
        print(f"A request needs more than {PERCENT_MAX} % fewer instructions. Run `tests/bench instructions --record` and "
              "commit the file: the next loss is measured from there.")
        return False
    return True
