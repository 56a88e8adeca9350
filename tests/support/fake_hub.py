"""A Hugging Face hub for tests/test_pull.c, on a free port, which is printed. What a repository does follows from its name. Large files lie
on "another host" (localhost in place of 127.0.0.1) to which the hub redirects. Every request is noted in hub.log: method, path, Range, and
whether it came with a token."""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"config.json": b'{"a": 1}\n', "tokenizer.json": b"{}\n", "README.md": b"hello\n", "model.safetensors.index.json": b"{}\n"}
LARGE = bytes(range(256)) * 3000
REPOS = {
    "good/hf": ["config.json", "tokenizer.json", "model.safetensors", "README.md", "pytorch_model.bin", "onnx/model.onnx"],
    "good/shards": ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
    "good/one": ["m.Q4_0.gguf", "README.md"],
    "good/many": ["a.gguf", "b.gguf", "deep/er/c.gguf"],
    "good/split": ["s-00001-of-00002.gguf", "s-00002-of-00002.gguf", "other.gguf"],
    "good/mirror": ["m.gguf"],
    "renamed/new": ["config.json", "model.safetensors"],
    "bad/hash": ["m.gguf"],
    "bad/smallhash": ["config.json", "model.safetensors"],
    "bad/broken": ["m.gguf"],
    "bad/norange": ["m.gguf"],
    "bad/short": ["m.gguf"],
    "bad/long": ["m.gguf"],
    "bad/busy": ["m.gguf"],
    "bad/down": ["m.gguf"],
    "bad/etag": ["m.gguf"],
    "bad/noetag": ["m.gguf"],
    "bad/traversal": ["config.json", "model.safetensors.index.json", "model-/../../../evil.safetensors"],
    "bad/nothing": ["README.md"],
    "bad/sha": ["m.gguf"],
    "gated/model": ["m.gguf"],
}
seen = {}


def content(file):
    return SMALL.get(file.split("/")[-1], LARGE + file.encode())


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        with open("hub.log", "a") as log:
            log.write(f"{self.command} {self.path} {self.headers.get('Range', '-')} {'token' if self.headers.get('Authorization') else 'none'}\n")
        parts = self.path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.model("/".join(parts[2:4]), parts[-1])
        if parts[0] == "cdn":
            return self.cdn("/".join(parts[1:3]), "/".join(parts[3:]))
        if len(parts) > 4 and parts[2] == "resolve":
            return self.resolve("/".join(parts[:2]), "/".join(parts[4:]))
        self.answer(404)

    def model(self, repo, revision):
        if repo == "gated/model" and self.headers.get("Authorization") != "Bearer good":
            return self.answer(403 if self.headers.get("Authorization") else 401)
        if repo not in REPOS or revision not in ("main", "v1"):
            return self.answer(404)
        if repo == "bad/busy" and seen.setdefault("busy", 0) < 2:
            seen["busy"] += 1
            return self.answer(503)
        if repo == "bad/down":
            return self.answer(500)
        sha = "../../evil" if repo == "bad/sha" else COMMIT
        self.answer(200, json.dumps({"sha": sha, "siblings": [{"rfilename": f} for f in REPOS[repo]]}).encode())

    def resolve(self, repo, file):
        data = content(file)
        if repo == "renamed/new" and "moved" not in self.path:
            return self.answer(307, Location=self.path.replace("/resolve/", "/resolve/moved"))
        if file.split("/")[-1] in SMALL:
            etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            return self.answer(200, b"x" * len(data) if repo == "bad/smallhash" and self.command == "GET" else data, ETag=f'W/"{etag}"')
        etag = {"bad/etag": "../../evil", "good/mirror": "abc-1"}.get(repo, hashlib.sha256(data).hexdigest())
        host = f"http://localhost:{self.server.server_port}"
        headers = {} if repo == "bad/noetag" else {"X_Linked_Etag": f'"{etag}"', "X_Linked_Size": str(len(data))}
        self.answer(302 if headers else 200, Location=f"{host}/cdn/{repo}/{file}", **headers)

    def cdn(self, repo, file):
        data, start = content(file), 0
        count = seen[repo] = seen.get(repo, 0) + 1
        if repo == "bad/hash" and count == 1:
            data = data[:5] + b"?" + data[6:]
        if repo == "bad/short":
            data = data[:-10]
        if repo == "bad/long":
            data += b"more"
        ranged = self.headers.get("Range")
        if ranged and repo != "bad/norange":
            start = int(ranged.split("=")[1].split("-")[0])
            if start >= len(data):
                return self.answer(416)
        body = data[start:]
        if repo in ("bad/broken", "bad/norange") and count <= 3:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            self.wfile.write(body[: 100000 + count])
            self.close_connection = True
            return
        extra = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.answer(206 if start else 200, body, **extra)


ThreadingHTTPServer.handle_error = lambda *_: None  # clients that leave are what the tests are about
server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(server.server_port, flush=True)
sys.stdout.close()
server.serve_forever()
