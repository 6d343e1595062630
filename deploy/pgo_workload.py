"""What a profiled adsproxy is exercised with: pgo_workload.py PROXY EMULATOR [ROUNDS]

Two accounts, whose Amazon speaks HTTP/1.1 and HTTP/1.1 over TLS, then HTTP/2 over TLS and
HTTP/1.1 over TLS; requests without a body, with one of 16 KiB and with a large one, responses
small, large and streamed, and access tokens that die, so that requests are sent again. Ends with
an error if any fails.
"""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile

CALLERS = 16
ACCOUNTS = {"acme": "na", "globex": "eu"}
GET = "GET {path} HTTP/1.1\r\n{fields}\r\n"
POST = "POST {path} HTTP/1.1\r\n{fields}Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
FIELDS = (
    "Host: localhost\r\nUser-Agent: workload/1.0\r\nAccept: application/json\r\n"
    "X-Ads-Account: {account}\r\nAmazon-Advertising-API-Scope: 1234567890123456\r\n"
)
# Path and size of the body, and how often in a round.
MIX = [
    ("/_bytes/1024", 0, 10),
    ("/v2/profiles", 0, 2),
    ("/_bytes/16384", 16 * 1024, 10),
    ("/_sink", 300, 2),
    ("/_bytes/300000", 0, 1),
    ("/_sink", 300_000, 1),
    ("/_sse?events=3&interval_ms=1", 0, 1),
]


async def relay(port, tls):
    """Ends TLS in front of the emulator; returns its address."""

    async def copy(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader, writer):
        inner = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    return f"https://localhost:{server.sockets[0].getsockname()[1]}"


CERTIFICATE = """[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
subjectAltName = DNS:localhost
basicConstraints = critical,CA:FALSE
"""


def make_certificate(directory):
    with open(f"{directory}/openssl.cnf", "w", encoding="ascii") as file:
        file.write(CERTIFICATE)
    command = ["openssl", "req", "-x509", "-config", file.name, "-newkey", "ec", "-nodes",
               "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2", "-subj", "/CN=localhost",
               "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def server_tls(directory, protocol):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
    context.set_alpn_protocols([protocol])
    return context


def config(directory, emulator, na, eu):
    path = f"{directory}/proxy.toml"
    with open(path, "w", encoding="ascii") as file:
        file.write(f"""[listen]
proxy = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
[proxy]
workers = 1
[store]
kind = "memory"
[token]
forced_refresh_min_interval_secs = 1
[lwa]
client_id = "amzn1.application-oa2-client.sandbox"
client_secret = {{ env = "SANDBOX_SECRET" }}
token_url = "http://127.0.0.1:{emulator}/auth/o2/token"
[upstream]
na = "{na}"
eu = "{eu}"
ca_file = "{directory}/cert.pem"
""")
        for account, region in ACCOUNTS.items():
            file.write(f"""[accounts.{account}]
region = "{region}"
refresh_token = {{ env = "SANDBOX_{account.upper()}" }}
""")
    return path


# Of the emulator's demo accounts, which are in its source.
SECRETS = {
    "SANDBOX_SECRET": "amzn1.oa2-cs.v1.sandbox",
    "SANDBOX_ACME": "Atzr|sandbox-refresh-token-of-acme",
    "SANDBOX_GLOBEX": "Atzr|sandbox-refresh-token-of-globex",
}


def start_emulator(program):
    ports = ["--port", "0", "--admin-port", "0", "--emulator-port", "0"]
    log = tempfile.TemporaryFile("w+", encoding="utf-8")
    child = subprocess.Popen([program, "sandbox", *ports], stdout=subprocess.PIPE,
                             stderr=log, text=True)
    for line in child.stdout:
        if line.startswith("emulator"):
            return child, int(line.split()[1].rsplit(":", 1)[1])
    log.seek(0)
    raise SystemExit("the emulator does not start:\n" + log.read())


def start_proxy(program, path):
    child = subprocess.Popen([program, "serve", "--log-format", "json", "--config", path],
                             stderr=subprocess.PIPE, text=True, env={**os.environ, **SECRETS})
    lines = []
    try:
        for line in child.stderr:
            lines.append(line)
            if '"message":"listening"' in line:
                address = json.loads(line)["proxy"].split(", ")[0]
                return child, int(address.rsplit(":", 1)[1])
    except Exception:
        # A proxy that stays would hold the caller's pipes open.
        child.kill()
        raise
    raise SystemExit("the proxy does not start:\n" + "".join(lines))


async def expect(reader, account, path):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").lower()
    if not head.startswith("http/1.1 200 "):
        raise SystemExit(f"not the response that was expected:\n{head} {account} {path}")
    if "transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))


async def call(port, number, rounds):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    account = list(ACCOUNTS)[number % len(ACCOUNTS)]
    fields = FIELDS.format(account=account)
    for _ in range(rounds):
        for path, size, times in MIX:
            text = (POST if size else GET).format(path=path, fields=fields, size=size)
            for _ in range(times):
                writer.write(text.encode("ascii") + b"x" * size)
                await expect(reader, account, path)
    writer.close()


async def expire(emulator):
    """All access tokens die, again and again."""
    text = "POST /_sandbox/expire HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", emulator)
        writer.write(text.encode("ascii"))
        await reader.read()
        writer.close()
        await asyncio.sleep(4)


async def drain(stream):
    while await asyncio.to_thread(stream.readline):
        pass


async def exercise(program, emulator, directory, upstreams, rounds):
    path = config(directory, emulator, *upstreams)
    proxy, port = start_proxy(program, path)
    draining = asyncio.create_task(drain(proxy.stderr))
    expiring = asyncio.create_task(expire(emulator))
    try:
        await asyncio.gather(*(call(port, number, rounds) for number in range(CALLERS)))
    finally:
        expiring.cancel()
        # The profile is written when it ends by itself.
        proxy.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(proxy.wait)
        await draining
    if status != 0:
        raise SystemExit(f"the proxy ended with {status}")


async def main(directory, program, emulator_program, rounds=40):
    child, emulator = start_emulator(emulator_program)
    try:
        make_certificate(directory)
        plain = f"http://127.0.0.1:{emulator}"
        http1 = await relay(emulator, server_tls(directory, "http/1.1"))
        http2 = await relay(emulator, server_tls(directory, "h2"))
        for upstreams in [(plain, http1), (http2, http1)]:
            await exercise(program, emulator, directory, upstreams, int(rounds))
    finally:
        child.terminate()
        child.wait()
    print(f"{2 * CALLERS * int(rounds) * sum(times for _, _, times in MIX)} requests served")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(scratch, *sys.argv[1:]))
