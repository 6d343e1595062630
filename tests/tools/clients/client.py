"""Uploads with a library as its users do, then asks for something else: prints both statuses."""

import asyncio
import sys

library, url, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
body = b"x" * size
fields = {"X-Ads-Account": "acme"}
other = {"X-Ads-Account": "nobody"}
SECONDS = 20


def with_requests():
    import requests

    with requests.Session() as session:
        first = session.post(url, data=body, headers=fields, timeout=SECONDS)
        print(first.status_code, session.get(url, headers=other, timeout=SECONDS).status_code)


def with_httpx():
    import httpx

    with httpx.Client(timeout=SECONDS) as client:
        first = client.post(url, content=body, headers=fields)
        print(first.status_code, client.get(url, headers=other).status_code)


def with_urllib3():
    import urllib3

    pool = urllib3.PoolManager(retries=False, timeout=SECONDS)
    first = pool.request("POST", url, body=body, headers=fields)
    print(first.status, pool.request("GET", url, headers=other).status)


def with_http_client():
    import http.client
    from urllib.parse import urlsplit

    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=SECONDS)
    statuses = []
    for method, data, named in (("POST", body, fields), ("GET", None, other)):
        connection.request(method, address.path, data, named)
        response = connection.getresponse()
        response.read()
        statuses.append(str(response.status))
    print(" ".join(statuses))


def with_aiohttp():
    import aiohttp

    async def run():
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with session.post(url, data=body, headers=fields) as first:
                await first.read()
            async with session.get(url, headers=other) as second:
                await second.read()
            print(first.status, second.status)

    asyncio.run(run())


globals()["with_" + library]()
