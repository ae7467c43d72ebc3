"""A crowd of connections that want nothing, or want it slowly: `serving_crowd.py PORT IDLE SLOW PATH BODY`.

IDLE connections have had one answer and stay open. SLOW writers send the head of a request and then one byte of its body a tenth of a second; SLOW readers
have asked for a large answer and take 64 bytes of it a tenth of a second. Prints a line when all are there; a line on stdin ends it, and it prints how many are still open.
"""

import pathlib
import select
import socket
import sys
import time


def connect(port, receive=None):
    connection = socket.socket()
    if receive:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    connection.connect(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def is_open(connection):
    """Nothing to read is open; an end is not."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def main():
    port, idle, slow = (int(argument) for argument in sys.argv[1:4])
    path, body = sys.argv[4], pathlib.Path(sys.argv[5]).read_bytes()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    quiet = [connect(port) for _ in range(idle)]
    for connection in quiet:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    for connection in quiet:
        connection.recv(4096)
    writers = [connect(port) for _ in range(slow)]
    for connection in writers:
        connection.sendall(head)
    readers = [connect(port, receive=2048) for _ in range(slow)]
    for connection in readers:
        connection.sendall(head + body)
    print("there", flush=True)
    sent = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for connection in writers:
            try:
                connection.send(body[sent : sent + 1])
            except OSError:
                pass
        for connection in readers:
            try:
                connection.recv(64, socket.MSG_DONTWAIT)
            except OSError:
                pass
        sent += 1
        time.sleep(0.1)
    print(f"{sum(map(is_open, quiet))} idle, {sum(map(is_open, writers))} writers, {sum(map(is_open, readers))} readers")


main()
