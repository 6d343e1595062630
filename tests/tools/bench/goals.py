"""What is measured beside the others, and what each figure should reach: data without code that measures."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Goal:
    """At most `limit`, times the figure of `peer` if there is one; at least for `at_least`."""

    limit: float
    peer: str = ""
    at_least: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table. `peers`: who takes part beside adsproxy, as far as installed; all if empty."""

    title: str
    unit: str
    goals: tuple
    peers: tuple = ()


@dataclasses.dataclass(frozen=True)
class Load(Case):
    """Requests by wrk."""

    path: str = "/1k"
    connections: int = 64
    body: int = 0
    tls: bool = False


@dataclasses.dataclass(frozen=True)
class Transfer(Case):
    """Bodies of 10 MiB. What is kept in memory of one that goes up, at adsproxy and at nginx."""

    direction: str = "up"
    replay_memory: int = 1 << 20
    body_buffer: str = "1m"


GET_64 = "GET 1 KiB, 64 connections"
ENVOY = Goal(0.25, "envoy")
LOADS = [
    Load(GET_64, "µs", (Goal(1.0, "nginx"), ENVOY)),
    Load("GET 1 KiB, 512 connections", "µs", (Goal(1.0, "nginx"), ENVOY), connections=512),
    Load("GET 1 KiB, 1,024 connections", "µs", (Goal(1.0, "nginx"), ENVOY), connections=1024),
    Load("POST 16 KiB, 64 connections", "µs", (Goal(0.85, "nginx"), ENVOY), path="/16k", body=16384),
    Load("GET 1 KiB, TLS upstream, 64 connections", "µs", (Goal(0.9, "nginx"), ENVOY), tls=True),
]
LATENCY = Case("99 % of GET 1 KiB within, 64 connections", "ms", (Goal(1.0, "nginx"),))
TRANSFERS = [
    Transfer("10 MiB up, kept in memory", "ms", (Goal(1.05, "nginx"),), replay_memory=16 << 20, body_buffer="16m"),
    Transfer("10 MiB up, default limits: kept in a file", "ms", (Goal(1.3, "nginx"),), ("nginx",)),
    Transfer("10 MiB down", "ms", (Goal(1.0, "haproxy"),), direction="down"),
]
IDLE = Case("memory of an idle connection", "KiB", (Goal(8),))
FRESH = Case("memory of a fresh process", "MiB", (Goal(12),))
START = Case("start to first response", "ms", (Goal(10),))
WORKERS = Case("two workers, times one", "×", (Goal(1.7, at_least=True),), ("adsproxy",))

# The charts of docs/performance.md: file, title, the rows that they show, and whether these have one scale.
CHARTS = {
    "requests": ("CPU time of a request", [case.title for case in LOADS], True),
    "transfers": ("CPU time of a large body", [case.title for case in TRANSFERS], True),
    "process": ("Memory, start and latency", [case.title for case in (IDLE, FRESH, START, LATENCY)], False),
}
NAMES = {"adsproxy": "adsproxy", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy"}


def check(goal, medians):
    """What the figure is by the goal's measure, and whether that is reached; nothing where a figure is missing."""
    own, other = medians.get("adsproxy"), medians.get(goal.peer)
    if own is None or goal.peer and other is None:
        return None
    value = own / other if goal.peer else own
    return value, value >= goal.limit if goal.at_least else value <= goal.limit


def text(goal, medians):
    """A goal in words, with what was measured against it."""
    sign = "≥" if goal.at_least else "≤"
    wanted = f"{sign} {goal.limit:g}" + (f" × {NAMES[goal.peer]}" if goal.peer else "")
    found = check(goal, medians)
    if found is None:
        return f"{wanted}: not measured"
    value, reached = found
    own = f"{value:.3f}, " if goal.peer else ""
    return f"{wanted}: {own}{'met' if reached else '**missed**'}"
