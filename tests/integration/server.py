"""The repository's `langgraph.json` on a real development server, with a fake Ollama server behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from tests.servers.ollama import OllamaServer

__all__ = ["ROOT", "Studio", "serving"]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "LANGSMITH_TRACING": "false",
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LANGGRAPH_NO_VERSION_CHECK": "1",
    "LANGGRAPH_STRICT_MSGPACK": "true",
}


@dataclass(frozen=True)
class Studio:
    """A running development server."""

    url: str
    client: SyncLangGraphClient
    log: Path
    ollama: OllamaServer
    start_again: Callable[[], None]
    """Stop the server and start it again; it writes its state when it is stopped, and not reliably before."""

    def assistant(self) -> str:
        return str(self.client.assistants.search(graph_id="distillation")[0]["assistant_id"])

    def lines_with(self, *words: str) -> list[str]:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in words)]


@contextmanager
def serving(
    script: Any, home: Path, *, environment: Mapping[str, str] | None = None, more: Mapping[str, str] | None = None
) -> Iterator[Studio]:
    """A running server; `script` answers for the models, `environment` goes beside the test's own.

    `more` names graphs beside those of the repository, with the source of their modules.
    """
    # In a copy, since the server writes its state beside the configuration.
    for folder in ("graphs", "examples"):
        shutil.copytree(ROOT / folder, home / folder)
    configuration = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))
    for name, source in (more or {}).items():
        (home / "graphs" / f"{name}.py").write_text(source, encoding="utf-8")
        configuration["graphs"][name] = f"./graphs/{name}.py:graph"
    (home / "langgraph.json").write_text(json.dumps(configuration), encoding="utf-8")
    port, log = _free_port(), home / "server.log"
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser", "--no-reload"]
    with ExitStack() as stack:
        ollama = stack.enter_context(OllamaServer(script))
        output = stack.enter_context(log.open("ab"))
        variables = {**os.environ, **ENVIRONMENT, **(environment or {}), "OLLAMA_HOST": ollama.url}
        process: subprocess.Popen[bytes] | None = None

        def start() -> None:
            nonlocal process
            process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                cwd=home,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            _wait_until_it_answers(f"{url}/ok", process, log)

        def end(how: signal.Signals) -> None:
            if process is not None:
                # The session of its own holds whatever the server started.
                os.killpg(process.pid, how)
                process.wait(30)

        def start_again() -> None:
            end(signal.SIGTERM)
            start()

        stack.callback(end, signal.SIGKILL)
        start()
        with get_sync_client(url=url) as client:
            yield Studio(url, client, log, ollama, start_again)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    msg = f"the development server did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}"
    raise RuntimeError(msg)
