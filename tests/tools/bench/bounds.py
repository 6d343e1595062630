"""What a credential and the dashboard may take from requests: measured on adsproxy alone, with bounds."""

import http.client
import statistics
import time
import urllib.parse

import goals
import load
from peers import cost, in_turn
from processes import free_port

# What a credential may add, in microseconds of CPU time a request.
BOUNDS = {"key": 1.0, "JWT": 1.5}
# How long the first page of the dashboard may take, in milliseconds, and what a live page may take
# from the requests, in percent.
PAGE_MAX_MS, LIVE_MAX_PERCENT = 100, 2
CASE = goals.LOADS[0]


def callers(bench, rounds, secs):
    """None, a key and a JWT in turn on one server; whether the bounds hold."""
    proxy = bench.start("adsproxy")
    fields = {"none": [], "key": [bench.key_field], "JWT": [f"Authorization: Bearer {bench.jwt}"]}

    def measure(these):
        return cost(proxy, lambda: load.requests(proxy.port, CASE.path, CASE.connections, 0, these, secs))[0] * 1e6

    rows = in_turn({name: lambda these=these: measure(these) for name, these in fields.items()}, rounds)
    bench.stop(proxy.process)
    holds = True
    print(f"\nCredentials, {CASE.title}: CPU us a request, {rounds} rounds of {secs} s\n")
    print("| credential | median | added: median of the pairs | bound |\n| --- | --: | --: | --: |")
    for name, values in rows.items():
        added = statistics.median(own - none for own, none in zip(values, rows["none"]))
        bound = BOUNDS.get(name)
        holds &= bound is None or added <= bound
        print(f"| {name} | {statistics.median(values):.2f} | {added:+.2f} | {bound or ''} |", flush=True)
    return holds


class Visitor:
    """A browser at the dashboard, signed in with the key of an operator."""

    def __init__(self, port, key):
        self.port, self.fields = port, {}
        form = urllib.parse.urlencode({"key": key})
        fields = {"Origin": f"http://localhost:{port}", "Content-Type": "application/x-www-form-urlencoded"}
        response = self.request("POST", "/dashboard/sign-in", form, fields)
        if response.status != 303:
            raise SystemExit(f"the dashboard does not let the key in: {response.status}")
        self.fields = {"Cookie": response.getheader("Set-Cookie").partition(";")[0]}

    def request(self, method, path, body=None, fields=None):
        connection = http.client.HTTPConnection("localhost", self.port, timeout=20)
        connection.request(method, path, body, {**self.fields, **(fields or {})})
        return connection.getresponse()

    def page_ms(self):
        began = time.perf_counter()
        response = self.request("GET", "/dashboard")
        text = response.read()
        if response.status != 200 or b"5000 accounts" not in text:
            raise SystemExit(f"that is no page of 5,000 accounts: {response.status} {text[:300]}")
        return (time.perf_counter() - began) * 1000


def dashboard(bench, rounds, secs):
    """The first page with 5,000 accounts, and requests with and without a live page; whether both hold."""
    admin = free_port()
    accounts = "".join(f'\n[accounts.shop-{number:04}]\nregion = "eu"' for number in range(4999))
    proxy = bench.start("adsproxy", admin=f"127.0.0.1:{admin}", callers=f"\noperator = true\n{accounts}\n")
    visitor = Visitor(admin, bench.key["key"])
    page = statistics.median(visitor.page_ms() for _ in range(20))
    taken, events = [], 0
    for turn in range(rounds + 1):
        count = {}
        for live in (False, True) if turn % 2 else (True, False):
            stream = visitor.request("GET", "/dashboard/requests", fields={"Accept": "text/event-stream"}) if live else None
            count[live], _ = load.requests(proxy.port, CASE.path, CASE.connections, 0, proxy.fields, secs)
            if stream:
                # Without events nothing was live.
                events += stream.read1(1 << 20).count(b"event:")
                stream.close()
        if turn:
            taken.append((1 - count[True] / count[False]) * 100)
    bench.stop(proxy.process)
    if not events:
        raise SystemExit("no event came: the page was not live")
    live = statistics.median(taken)
    print(f"\nDashboard, on the CPU of the requests, {rounds} rounds of {secs} s\n")
    print("| what | median | bound |\n| --- | --: | --: |")
    print(f"| first page with 5,000 accounts | {page:.1f} ms | {PAGE_MAX_MS} |")
    print(f"| requests that a live page takes away | {live:+.2f} % | {LIVE_MAX_PERCENT} |", flush=True)
    return page <= PAGE_MAX_MS and live <= LIVE_MAX_PERCENT
