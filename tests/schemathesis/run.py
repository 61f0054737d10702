#!/usr/bin/env python3
"""Starts one real peer with the embedded IPFS node on loopback and lets schemathesis loose on its REST API.

Usage: run.py SCHEMATHESIS SERVICE [more flags for schemathesis]
       (`make schemathesis` passes both programs; MAX_EXAMPLES sets how many cases each operation gets at most.)

Ends with an error if there was a 5xx, an undocumented answer, or fewer than MIN_CASES cases.
"""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
MIN_CASES = int(os.environ.get("MIN_CASES", "5000"))
CHECKS = [
    "answered",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
# Pins that listings can show: without content, so they stay in the queue.
CIDS = [
    "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
    "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
    "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(url, peer):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if peer.poll() is not None:
            sys.exit(f"the peer ended with {peer.returncode}")
        try:
            with urllib.request.urlopen(url + "/state", timeout=5) as answer:
                if json.load(answer)["role"] == "leader":
                    return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    sys.exit("the peer does not answer")


def main():
    schemathesis, service, flags = sys.argv[1], os.path.abspath(sys.argv[2]), sys.argv[3:]
    with tempfile.TemporaryDirectory(prefix="schemathesis-") as folder:
        api = free_port()
        environment = {
            **os.environ,
            "IPFS_CLUSTER_PATH": os.path.join(folder, "peer"),
            "CLUSTER_SECRET": secrets.token_hex(32),
            "CLUSTER_RESTAPI_HTTPLISTENMULTIADDRESS": f"/ip4/127.0.0.1/tcp/{api}",
            "CLUSTER_IPFSPROXY_LISTENMULTIADDRESS": f"/ip4/127.0.0.1/tcp/{free_port()}",
            "CLUSTER_PINSVCAPI_HTTPLISTENMULTIADDRESS": f"/ip4/127.0.0.1/tcp/{free_port()}",
            "CLUSTER_LISTENMULTIADDRESS": f"/ip4/127.0.0.1/tcp/{free_port()}",
            "CLUSTER_EMBEDDED_LISTENMULTIADDRESS": f"/ip4/127.0.0.1/tcp/{free_port()}",
        }
        init = [service, "init", "--ipfs", "embedded", "--force", "--consensus", "raft"]
        subprocess.run(init, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        with open(os.path.join(folder, "log"), "wb") as log:
            peer = subprocess.Popen([service, "daemon"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{api}"
            wait_for(url, peer)
            for number, cid in enumerate(CIDS):
                request = urllib.request.Request(f"{url}/pins/{cid}?name=pin-{number}&meta-kind=test", method="POST")
                urllib.request.urlopen(request, timeout=30).read()
            code = check(schemathesis, url, folder, flags)
            if peer.poll() is not None:
                print(f"the peer ended with {peer.returncode}")
                code = 1
            elif code:
                with open(os.path.join(folder, "log"), "rb") as log:
                    print(log.read()[-4000:].decode(errors="replace"))
        finally:
            peer.send_signal(signal.SIGTERM)
            try:
                peer.wait(30)
            except subprocess.TimeoutExpired:
                peer.kill()
                sys.exit("the peer would not stop")
    sys.exit(code)


def check(schemathesis, url, folder, flags):
    command = [
        schemathesis,
        "run",
        f"{url}/openapi.json",
        "--url",
        url,
        "--checks",
        ",".join(CHECKS),
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        os.environ.get("MAX_EXAMPLES", "250"),
        "--request-timeout",
        "60",
        "--continue-on-failure",
        "--suppress-health-check",
        "all",
        "--generation-database",
        "none",
        "--warnings",
        "off",
        "--no-color",
        *flags,
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": HERE}
    running = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True)
    cases = 0
    for line in running.stdout:
        print(line, end="", flush=True)
        found = re.search(r"(\d+) generated", line)
        cases = int(found.group(1)) if found else cases
    code = running.wait()
    if cases < MIN_CASES:
        print(f"only {cases} cases, not {MIN_CASES}")
        code = code or 1
    return code


main()
