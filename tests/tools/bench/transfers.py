"""Large bodies: the upstream that takes and gives them, and the load. A program of its own, so that it has a CPU.

transfers.py serve PORT                      GET gets 10 MiB; another method's body is read to its end
transfers.py load PORT up|down SECS [FIELD…] transfers over four connections, one after the other on each; prints how many
"""

import socket
import sys
import threading
import time

SIZE = 10 << 20
CONNECTIONS = 4
BUFFER = 256 << 10
BODY = bytes(SIZE)


def read_head(stream, buffer):
    """The head in lower case, and how many bytes of the body came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        count = stream.recv_into(buffer)
        if not count:
            return b"", 0
        data += buffer[:count]
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.lower(), len(rest)


def read_body(stream, buffer, head, came):
    _, _, value = head.partition(b"\r\ncontent-length:")
    left = int(value.partition(b"\r\n")[0] or 0) - came
    while left > 0:
        count = stream.recv_into(buffer)
        if not count:
            raise ConnectionError("the body ended early")
        left -= count
    return left + came


def respond(stream):
    buffer = memoryview(bytearray(BUFFER))
    with stream:
        while True:
            head, came = read_head(stream, buffer)
            if not head:
                return
            read_body(stream, buffer, head, came)
            # A request without a token gets 401: a proxy that adds none shows as failed requests.
            if b"\r\nauthorization: bearer atza|" not in head:
                stream.sendall(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
            elif head.startswith(b"get /10m"):
                stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % SIZE)
                stream.sendall(BODY)
            else:
                stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")


def serve(port):
    with socket.create_server(("127.0.0.1", port), backlog=128) as server:
        while True:
            stream, _ = server.accept()
            threading.Thread(target=respond, args=(stream,), daemon=True).start()


def transfer(port, is_up, until, fields, counts):
    buffer = memoryview(bytearray(BUFFER))
    method = "POST" if is_up else "GET"
    length = [f"Content-Length: {SIZE}", "Content-Type: application/json"] if is_up else []
    head = "\r\n".join([f"{method} /10m HTTP/1.1", "Host: localhost", *length, *fields, "", ""]).encode()
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.settimeout(None)
        while time.monotonic() < until:
            stream.sendall(head)
            if is_up:
                stream.sendall(BODY)
            response, came = read_head(stream, buffer)
            if b" 200 " not in response.partition(b"\r\n")[0]:
                raise ConnectionError(f"no 200: {response[:200]}")
            read_body(stream, buffer, response, came)
            counts.append(1)


def load(port, direction, secs, fields):
    counts, until = [], time.monotonic() + secs
    arguments = (port, direction == "up", until, fields, counts)
    failed = []
    threading.excepthook = lambda hook: failed.append(hook.exc_value)
    threads = [threading.Thread(target=transfer, args=arguments, daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(secs + 30)
    if failed or not counts:
        sys.exit(f"transfers failed: {failed}")
    print(len(counts))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        load(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), sys.argv[5:])
