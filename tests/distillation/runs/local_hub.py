"""A server that speaks the Hub's protocol as far as an upload needs it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from anglekit_cli.main import main
from tests.cli.launching import Ended, begin

#: A repository to which nobody may write.
FORBIDDEN = "me/forbidden"


class LocalHub(ThreadingHTTPServer):
    """Holds one repository; weights come by LFS, the rest in the commit.

    Attributes:
        files: by name, their bytes.
        requests: method and path, in order.
        validated: the cards that it was asked to check.
        made: what the request that made the repository said.
        tokens: what the requests brought.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.made: dict[str, Any] = {}
        self.validated: list[str] = []
        self.tokens: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        self._note()
        self._answer(404, {"error": "not found"})

    def do_PUT(self) -> None:
        self.server.stored[self.path.rpartition("/")[2]] = self._note()
        self._answer(200, {})

    def do_POST(self) -> None:
        body = self._note()
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            self.server.made = json.loads(body)
            made = self.server.made
            name = f"{made['organization']}/{made['name']}" if made.get("organization") else made["name"]
            self._answer(200, {"url": f"{self.server.address}/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self.server.validated.append(json.loads(body)["content"])
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    "actions": {"upload": {"href": f"{self.server.address}/lfs/{one['oid']}"}},
                }
                for one in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path and FORBIDDEN not in path:
            for line in body.splitlines():
                entry = json.loads(line)
                told = entry["value"]
                if entry["key"] == "file":
                    self.server.files[told["path"]] = base64.b64decode(told["content"])
                elif entry["key"] == "lfsFile":
                    content = self.server.stored[told["oid"]]
                    assert hashlib.sha256(content).hexdigest() == told["oid"]
                    self.server.files[told["path"]] = content
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            self._answer(
                200,
                {
                    "commitUrl": f"{self.server.address}/{name}/commit/{'0' * 40}",
                    "commitOid": "0" * 40,
                    "success": True,
                },
            )
        else:
            self._answer(403, {"error": "you may not write here"})

    def _note(self) -> bytes:
        self.server.requests.append(f"{self.command} {self.path.partition('?')[0]}")
        self.server.tokens.add(str(self.headers.get("authorization")))
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _answer(self, status: int, content: object) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def push() -> None:
    """Run `anglekit push` for one repository after the other, and print the exit codes; in a process of its own."""
    constants.ENDPOINT = os.environ["HF_ENDPOINT"]
    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DISABLE_XET = True
    run, *repositories = sys.argv[1:]
    for repository in repositories:
        sys.argv = ["anglekit", "push", run, repository, "--hub-private"]
        try:
            main()
        except SystemExit as ended:
            sys.stdout.write(f"{ended.code}\n")


def push_all(hub: LocalHub, run: Path, *repositories: str) -> Ended:
    """Run `anglekit push` for one repository after the other, in a process whose Hub is the local one."""
    own = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_local"}
    program = "tests.distillation.runs.local_hub:push"
    (ended,) = begin(1, run, *repositories, folder=run, program=program, environment=own).wait()
    return ended
