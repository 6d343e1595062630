"""Plain requests and httpx: an address and a header are all they need.

usage: plain_clients.py PROXY_ADDRESS ALIAS SECONDS     calls on for SECONDS
"""

import sys
import time

import httpx
import requests


def main(proxy, alias, seconds):
    address = f"http://{proxy}/v2/profiles"
    calls, deadline = 0, time.monotonic() + float(seconds)
    with requests.Session() as session, httpx.Client() as client:
        while calls == 0 or time.monotonic() < deadline:
            for send in (session.get, client.get):
                answer = send(address, headers={"X-Ads-Account": alias}, timeout=20)
                assert answer.status_code == 200, (answer.status_code, answer.text)
                assert "X-Ads-Proxy-Error" not in answer.headers, dict(answer.headers)
                assert answer.json()[0]["profileId"], answer.text
            calls += 1
            time.sleep(0.05)
    print("rounds", calls)


if __name__ == "__main__":
    main(*sys.argv[1:])
