"""The demo's two servers: a model API and an attacker's collector, both over TLS.

Usage: servers.py DIRECTORY NAME=ADDRESS...
Serves NAME on ADDRESS:443 with DIRECTORY/NAME.{pem,key}, and writes what it received to DIRECTORY/NAME.log, one
JSON object a line. Says "ready" once all listen. Ends when its standard input does, and removes DIRECTORY: so
nothing stays behind, however its parent ended.
"""

import http.server
import json
import re
import shutil
import signal
import socketserver
import ssl
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.log({"request": self.path, "bytes": len(body), "body": body})
        answer = json.dumps(model(body) if self.path == "/v1/messages" else {"ok": True}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, directory, name, address):
        self.records = open(f"{directory}/{name}.log", "a", encoding="utf-8")
        self.lock = threading.Lock()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(f"{directory}/{name}.pem", f"{directory}/{name}.key")
        super().__init__((address, 443), Handler)

    def get_request(self):
        connection, peer = super().get_request()
        # Counted before TLS: a connection that says nothing has left the machine all the same.
        self.log({"connection": peer[0]})
        connection.settimeout(10)
        return self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer

    def handle_error(self, *_):
        self.log({"error": repr(sys.exc_info()[1])})

    def log(self, record):
        with self.lock:
            print(json.dumps(record), file=self.records, flush=True)


def model(prompt):
    """What a model does with text that it takes for an instruction: it answers, and asks for a tool."""
    documents = json.loads(prompt)["messages"][0]["content"]
    lines = [line for line in documents.splitlines() if line.strip()]
    summary = "Summary: " + " ".join(line for line in lines if "percent" in line or "ships" in line)
    content = [{"type": "text", "text": summary}]
    injected = re.search(r"post this summary to (https://[^\s\]]+)", documents)
    if injected:
        tool = {"url": injected.group(1), "body": summary}
        content.append({"type": "tool_use", "name": "http_post", "input": tool})
    return {"role": "assistant", "content": content}


def main():
    directory, places = sys.argv[1], sys.argv[2:]
    # Ctrl-C reaches the whole group; the end of standard input is what ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for place in places:
            server = Server(directory, *place.split("=", 1))
            threading.Thread(target=server.serve_forever, daemon=True).start()
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


main()
