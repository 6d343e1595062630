"""Measures adsproxy, with a caller's key, its metrics and its access log, beside the others that are installed."""

import collections
import datetime
import os
import platform
import re
import statistics
import subprocess
import time
from pathlib import Path

import goals
import load
import programs
from processes import cpu_seconds, memory_kib, on, worker_seconds

IDLE_CONNECTIONS = 4000
# The allocator of adsproxy gives back what nothing has used for ten seconds.
SETTLE_SECS = 12
# Of each of the two loads on two workers.
WORKER_CONNECTIONS = 64


def in_turn(variants, rounds):
    """What each variant measures in each round; they take turns, and the first round warms up."""
    rows = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, measure in variants.items():
            value = measure()
            if turn:
                rows[name].append(value)
    return rows


class Figures:
    """The rows of the table: values of each program and round, by the title of a case."""

    def __init__(self):
        self.rows = []

    def add(self, case, values):
        cells = {name: {"median": statistics.median(of), "least": min(of), "most": max(of)}
                 for name, of in values.items()}
        self.rows.append({"title": case.title, "unit": case.unit, "values": cells})
        medians = {name: cell["median"] for name, cell in cells.items()}
        print(f"\n{case.title}, {case.unit}: median (least - most)\n")
        for name, cell in cells.items():
            print(f"  {name:9} {cell['median']:8.2f} ({cell['least']:.2f} - {cell['most']:.2f})")
        for goal in case.goals:
            print(f"  goal {goals.text(goal, medians)}", flush=True)


def names_of(case):
    return [name for name in programs.peers() if name == "adsproxy" or not case.peers or name in case.peers]


def cost(proxy, run):
    """CPU seconds of the proxy for each of what `run` says it has done, and what else it says."""
    before = cpu_seconds(proxy.pid)
    count, *more = run()
    return ((cpu_seconds(proxy.pid) - before) / count, *more)


def of_requests(bench, figures, rounds, secs):
    for case in goals.LOADS:
        proxies = [bench.start(name, case.tls) for name in names_of(case)]

        def measure(proxy):
            return cost(proxy, lambda: load.requests(proxy.port, case.path, case.connections, case.body, proxy.fields, secs))

        rows = in_turn({proxy.name: lambda proxy=proxy: measure(proxy) for proxy in proxies}, rounds)
        stop(bench, proxies)
        figures.add(case, {name: [cpu * 1e6 for cpu, _ in values] for name, values in rows.items()})
        if case.title == goals.GET_64:
            figures.add(goals.LATENCY, {name: [late for _, late in values] for name, values in rows.items()})


def of_transfers(bench, figures, rounds, secs):
    for case in goals.TRANSFERS:
        proxies = [bench.start(name, upstream=bench.transfers, replay_memory=case.replay_memory,
                               body_buffer=case.body_buffer) for name in names_of(case)]

        def measure(proxy):
            return cost(proxy, lambda: (load.transfers(proxy.port, case.direction, proxy.fields, secs),))

        rows = in_turn({proxy.name: lambda proxy=proxy: measure(proxy) for proxy in proxies}, rounds)
        stop(bench, proxies)
        figures.add(case, {name: [cpu * 1e3 for cpu, in values] for name, values in rows.items()})


def of_processes(bench, figures, rounds, _secs):
    """A start, the memory after one request, and that of connections which wait; each round with fresh processes."""
    names = programs.peers()
    count = load.allow_connections(IDLE_CONNECTIONS, len(names))
    starts, fresh, idle = (collections.defaultdict(list) for _ in range(3))
    for _ in range(rounds):
        proxies = [bench.start(name) for name in names]
        time.sleep(1)
        before = {proxy.name: memory_kib(proxy.pid) for proxy in proxies}
        streams = [stream for proxy in proxies for stream in load.idle(proxy.port, count, proxy.fields)]
        time.sleep(SETTLE_SECS)
        for proxy in proxies:
            starts[proxy.name].append(proxy.start_ms)
            fresh[proxy.name].append(before[proxy.name] / 1024)
            idle[proxy.name].append((memory_kib(proxy.pid) - before[proxy.name]) / count)
        if not load.are_open(streams):
            raise SystemExit("idle connections were closed")
        for stream in streams:
            stream.close()
        stop(bench, proxies)
    figures.add(goals.IDLE, idle)
    figures.add(goals.FRESH, fresh)
    figures.add(goals.START, starts)


def of_workers(bench, figures, rounds, secs):
    """One program with two workers beside two programs with one worker each, which share nothing.

    The load needs a CPU too, so that two CPUs never show twice the requests. Where there are four, the
    workers have two of their own. Compared is what a request costs: CPU time that the workers take from
    each other, by locks that spin and cache lines that move, is in it; the time in which they neither run
    nor wait for a CPU, as at a lock that sleeps, counts as lost. Two programs count as twice one."""
    cpus = load.all_cpus()
    proxy_cpus, load_cpus = ({0, 1}, cpus - {0, 1}) if len(cpus) >= 4 else (cpus, cpus)
    upstream, _, _ = bench.start_upstream("upstream-of-two", load_cpus, workers=2)
    apart = [bench.start("adsproxy", upstream=upstream, cpus=proxy_cpus) for _ in range(2)]
    together = bench.start("adsproxy", upstream=upstream, cpus=proxy_cpus, workers=2)

    def measure(proxies, ports):
        pids = [proxy.pid for proxy in proxies]
        began, cpu, busy = time.monotonic(), sum(map(cpu_seconds, pids)), sum(map(worker_seconds, pids))
        arguments = ("/1k", WORKER_CONNECTIONS, 0, together.fields, secs, load_cpus)
        with load.wrk(ports[0], *arguments) as one, load.wrk(ports[1], *arguments) as other:
            count = one()[0] + other()[0]
        elapsed = time.monotonic() - began
        busy = (sum(map(worker_seconds, pids)) - busy) / elapsed / 2
        return (sum(map(cpu_seconds, pids)) - cpu) / count * 1e6, busy, count / elapsed

    rows = in_turn({
        "apart": lambda: measure(apart, [proxy.port for proxy in apart]),
        "together": lambda: measure([together], [together.port] * 2),
    }, rounds)
    stop(bench, [*apart, together])
    print("\nworkers: CPU µs a request, busy share of the workers, requests/s")
    for name, values in rows.items():
        print(f"  {name:9} " + "  ".join(f"{statistics.median(column):.2f}" for column in zip(*values)))
    pairs = zip(rows["apart"], rows["together"])
    figures.add(goals.WORKERS, {"adsproxy": [
        2 * one[0] / two[0] * min(1, two[1] / one[1]) for one, two in pairs]})


def stop(bench, proxies):
    for proxy in proxies:
        bench.stop(proxy.process)


def peers(bench, rounds, secs):
    """All of it, as it goes into the file of figures."""
    figures = Figures()
    with on({1}):
        for part in (of_requests, of_transfers, of_processes, of_workers):
            part(bench, figures, rounds, secs)
    return {"date": datetime.date.today().isoformat(), "rounds": rounds, "secs": secs, "machine": machine(),
            "versions": versions(bench.program), "rows": figures.rows}


def machine():
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    return {"cpu": model[1] if model else platform.machine(), "cpus": os.cpu_count(),
            "memory_gib": round(memory / (1 << 20)), "kernel": f"Linux {platform.release()}"}


def versions(program):
    commands = {"adsproxy": [program, "--version"], "nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"],
                "envoy": [programs.envoy(), "--version"], "wrk": ["wrk", "-v"], "rustc": ["rustc", "--version"]}
    found = {}
    for name, command in commands.items():
        if name in ("wrk", "rustc") or name in programs.peers():
            try:
                said = subprocess.run(command, capture_output=True, text=True)
            except OSError:
                continue
            version = re.search(r"\d+\.\d+(\.\d+)?", said.stdout + said.stderr)
            found[name] = version[0] if version else "unknown"
    return found
