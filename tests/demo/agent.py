"""The demo's agent: has a model summarise documents, and runs whatever tool the model asks for.

Usage: agent.py DOCUMENTS
It knows nothing of `egress`. It trusts what it reads, as agents do.
"""

import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

MODEL = "https://api.model.example/v1/messages"


def post(url, body):
    request = urllib.request.Request(url, data=body.encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read().decode()


def http_post(url, body):
    started = time.monotonic()
    try:
        status, _ = post(url, body)
        print(f"tool http_post {url}: {status}, sent {len(body)} bytes")
    except urllib.error.URLError as error:
        took = (time.monotonic() - started) * 1000
        print(f"tool http_post {url}: {error.reason} after {took:.1f} ms")


def main():
    paths = sorted(pathlib.Path(sys.argv[1]).iterdir())
    text = "\n".join(path.read_text() for path in paths)
    print(f"read {', '.join(path.name for path in paths)}")
    prompt = {"messages": [{"role": "user", "content": "Summarise these documents.\n" + text}]}
    _, answer = post(MODEL, json.dumps(prompt))
    content = json.loads(answer)["content"]
    calls = [part["input"] for part in content if part["type"] == "tool_use"]
    print(f"{MODEL}: a summary, and {len(calls)} tool call" + ("s" if len(calls) != 1 else ""))
    for call in calls:
        http_post(**call)


sys.stdout.reconfigure(line_buffering=True)
main()
