#!/usr/bin/env python3
"""tests/soak_serve.py - `mosld serve` for as long as an hour of a busy server, in minutes: does it answer right, and does it keep what it should give back?

    python3 tests/soak_serve.py build/mosld MODEL [--adapter NAME=DIR ...] [--requests 7200] [--clients 24] [-- options of serve]

Clients ask at once for streams and whole answers, of mixed length, through mixed adapters; beside them some stop listening in the middle, read a few
bytes a second, send broken requests, or connect and say nothing. Every answer must be the text that the same request got alone. Resident memory, open
files and threads of the server are read from /proc as the requests go by, and printed; it fails when an answer differs, a request is not answered, or the
second half of the requests leaves more behind than --leak KiB, or a file or a thread.
"""
import argparse
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time

PROMPTS = ["Once upon a time", "Tom was", "The dog", "One day, a little girl named Lily found a needle in her room", "She said:"]


def request(kind, models):
    """The request of a kind: always the same for the same number."""
    return {"model": models[kind % len(models)], "prompt": PROMPTS[kind % len(PROMPTS)], "max_tokens": 2 + 11 * (kind % 6),
            "temperature": 0.8 if kind % 2 else 0, "seed": kind, "stream": kind % 3 != 0}


def answer(port, body, read=65536, pause=0.0):
    """The text of a completion, streamed or whole; None when the connection is given up on purpose (read 0)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        raise RuntimeError(f"status {reply.status}: {reply.read()[:200]}")
    if not read:
        reply.read(20)
        connection.close()
        return None
    data = b""
    while part := reply.read1(read):
        data += part
        time.sleep(pause)
    connection.close()
    if not body["stream"]:
        return json.loads(data)["choices"][0]["text"]
    events = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
    if not events or events[-1].strip() != "[DONE]":
        raise RuntimeError("a stream without its end")
    return "".join(choice["text"] for e in events[:-1] for choice in json.loads(e)["choices"])


def nuisance(port, number):
    """A client that nobody would want: each number another one."""
    if number % 4 == 0:
        answer(port, {"prompt": "Once", "max_tokens": 60, "stream": True, "temperature": 1}, read=0)
        return
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        s.sendall([b"GET /hea", b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{\"prompt\"",
                   b"\x16\x03\x01garbage\r\n\r\n"][number % 3])
        time.sleep(0.5)


class Server:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for line in self.process.stderr:
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found.group(1))
                break
        else:
            sys.exit(f"the server ended with status {self.process.wait()}")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def holds(self):
        """Resident KiB, open files, threads."""
        folder = f"/proc/{self.process.pid}"
        with open(f"{folder}/status", encoding="ascii") as f:
            status = dict(line.split(":", 1) for line in f)
        return int(status["VmRSS"].split()[0]), len(os.listdir(f"{folder}/fd")), int(status["Threads"])


def at_rest(server):
    """What it holds once its clients have gone: connections end a moment after their clients do."""
    time.sleep(2)
    return server.holds()


def run(server, models, given):
    kinds = 6 * len(models) * len(PROMPTS)
    alone = [answer(server.port, request(kind, models)) for kind in range(kinds)]
    wrong, done, lock = [], [0], threading.Lock()

    def client(seed, number):
        draw = random.Random(seed)
        for _ in range(number):
            kind = draw.randrange(kinds)
            try:
                if draw.random() < 0.1:
                    nuisance(server.port, draw.randrange(12))
                slow = draw.random() < 0.05
                said = answer(server.port, request(kind, models), read=16 if slow else 65536, pause=0.02 if slow else 0)
                if said != alone[kind]:
                    wrong.append(f"request {kind}: {said!r}, alone {alone[kind]!r}")
            except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
                wrong.append(f"request {kind}: {error!r}")
            with lock:
                done[0] += 1

    print(f"{'requests':>9} {'seconds':>8} {'KiB':>9} {'files':>6} {'threads':>8} {'wrong':>6}")
    begin, held = time.monotonic(), []
    for part in range(10):
        threads = [threading.Thread(target=client, args=(part * 1000 + c, max(1, given.requests // 10 // given.clients))) for c in range(given.clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        held.append(at_rest(server))
        print(f"{done[0]:9} {time.monotonic() - begin:8.0f} {held[-1][0]:9} {held[-1][1]:6} {held[-1][2]:8} {len(wrong):6}", flush=True)
    for line in wrong[:10]:
        print(line)
    grown = [held[-1][i] - held[4][i] for i in range(3)]
    print(f"the second half left {grown[0]} KiB, {grown[1]} open files, {grown[2]} threads")
    return not wrong and grown[0] <= given.leak and grown[1] <= 0 and grown[2] <= 0


def main():
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("mosld")
    parser.add_argument("model")
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--requests", type=int, default=7200, help="two a second for an hour, unless given")
    parser.add_argument("--clients", type=int, default=24, help="at once")
    parser.add_argument("--leak", type=int, default=1024, metavar="KIB", help="most that the second half may leave")
    given = parser.parse_args(words[:cut])
    command = [given.mosld, "serve", "--model", given.model, "--port", "0", "--name", "base", "--device", "host", *words[cut + 1:]]
    for adapter in given.adapter:
        command += ["--adapter", adapter]
    server = Server(command)
    try:
        right = run(server, ["base"] + [a.split("=")[0] for a in given.adapter], given)
    finally:
        server.process.terminate()
        status = server.process.wait(60)
    print(f"stopped with status {status}")
    sys.exit(0 if right and status == 0 else 1)


if __name__ == "__main__":
    main()
