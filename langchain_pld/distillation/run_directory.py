"""A run on disk: its inputs, checkpoints and Store, so that it can be resumed however it ended.

```
.pld/.gitignore       keeps all of it out of a repository
.pld/runs/
  calls.sqlite        the teacher's answers, shared by the runs of this folder
  chat-20261124/
    run.json          files with their hashes, models, plan, seed
    checkpoints.sqlite, store.sqlite
```

With a Postgres database the directory has only `run.json`, and all runs of the database share the answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from filelock import FileLock, Timeout
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import BaseStore
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.roles import Role
from langchain_pld.distillation.run.shared_store import SharedCallsStore
from langchain_pld.distillation.state import DistillationState
from langchain_pld.errors import DistillationError, InputError, MissingExtraError
from langchain_pld.examples import Columns

__all__ = ["RunDirectory", "RunFile", "RunRecord", "new_run_id"]


_OWNER_ONLY = 0o600


def new_run_id(name: str) -> str:
    """A run id that is unique in a shared database."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


class RunFile(BaseModel):
    """A file that a run reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    """Absolute path."""
    sha256: str
    """Hash of its bytes when the run began."""

    @classmethod
    def of(cls, path: Path) -> RunFile:
        """The file as it is now.

        Raises:
            InputError: There is no such file.
        """
        if not path.is_file():
            msg = f"no file at {path}"
            raise InputError(msg)
        return cls(path=path.absolute(), sha256=_sha256(path))


class RunRecord(BaseModel):
    """The inputs of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    """Version of this record."""
    run_id: str
    """Name of the run in checkpointer and Store."""
    task: RunFile
    """The task's YAML file."""
    data: dict[Role | Literal["all"], RunFile]
    """Data role to its file; or `all` to one file, split by the seed."""
    incumbent: RunFile | None = None
    """The artifact now in use."""
    columns: Columns = Columns()
    """Names of the columns."""
    skip_bad_rows: bool = False
    """Whether unusable rows are left out."""
    teacher: str
    """The model that writes rules, as `provider:name`."""
    students: tuple[str, ...] = Field(min_length=1)
    """The models that will decide, as `provider:name`."""
    embeddings: str | None = None
    """The embeddings of drafted conditions, as `provider:name`; by default offline."""
    plan: Plan
    """The numbers of the run."""
    seed: int = 0
    """Seed of every random choice."""
    out: Path
    """Path of the artifact; with several students, of the folder of artifacts."""
    postgres: bool = False
    """Whether the state is in a Postgres database. Its URL may have a password and is not kept."""
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """Time when the run began, ISO 8601, UTC."""

    def artifact_of(self, student: str) -> Path:
        """Path of a student's artifact: `out`, or a file in it named after the student."""
        if len(self.students) == 1:
            return self.out
        return self.out / f"{re.sub(r'[^A-Za-z0-9._]+', '-', student)}.pld.json"


class RunDirectory:
    """The folder of one run, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path / "run.json"

    @classmethod
    def fresh(cls, out: Path) -> RunDirectory:
        """A new run in `.pld/runs` next to the artifact to be written."""
        stem = out.name.removesuffix(".pld.json")
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        return cls(out.absolute().parent / ".pld" / "runs" / f"{stem}-{stamp}-{uuid.uuid4().hex[:4]}")

    def begin(self, record: RunRecord) -> None:
        """Create the folder and write the record.

        Raises:
            InputError: The folder already has a run.
        """
        if self._record.exists():
            msg = f"{self.path} holds a run already; go on with: pld distill --resume {self.path}"
            raise InputError(msg)
        # Rows and model answers must not be readable for other users or committed by accident.
        for folder in (*reversed(self.path.parents), self.path):
            folder.mkdir(mode=0o700, exist_ok=True)
        if self.path.parent.parent.name == ".pld":
            (self.path.parent.parent / ".gitignore").write_text("*\n", encoding="utf-8")
        self.rewrite(record)

    def rewrite(self, record: RunRecord) -> None:
        """Replace the record atomically, for a run whose budget has changed."""
        fresh = self._record.with_suffix(".new")
        fresh.touch(mode=_OWNER_ONLY)
        fresh.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        fresh.replace(self._record)

    def record(self) -> RunRecord:
        """The record of the run.

        Raises:
            InputError: There is no run, or its record cannot be read.
        """
        try:
            return RunRecord.model_validate_json(self._record.read_text(encoding="utf-8"))
        except OSError as error:
            msg = f"no run in {self.path}: {error.strerror} ({self._record})"
            raise InputError(msg) from error
        except (ValidationError, UnicodeDecodeError) as error:
            msg = f"{self._record} is no record of a run of this release: {error}"
            raise InputError(msg) from error

    def check_files(self, record: RunRecord) -> None:
        """Check that the run's files are unchanged.

        Raises:
            InputError: Files are missing or changed; the message names them.
        """
        files = [("task", record.task), *record.data.items()]
        files += [("incumbent", record.incumbent)] if record.incumbent is not None else []
        changed = [
            f"{role} {file.path} ({'changed' if file.path.is_file() else 'missing'})"
            for role, file in files
            if not file.path.is_file() or _sha256(file.path) != file.sha256
        ]
        if changed:
            msg = (
                f"the run in {self.path} was started with other files: {'; '.join(changed)}. Restore them, or start a "
                "new run: answers that were paid for are not paid again"
            )
            raise InputError(msg)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the run; the lock ends with the process, however that ends.

        Raises:
            InputError: Another process is working on it.
        """
        lock = FileLock(self.path / "lock", timeout=0)
        try:
            with lock:
                yield
        except Timeout:
            msg = f"another process is at work on the run in {self.path}"
            raise InputError(msg) from None

    @asynccontextmanager
    async def open(self, *, postgres: str | None = None) -> AsyncIterator[tuple[BaseStore, BaseCheckpointSaver[Any]]]:
        """Store and checkpointer of the run.

        Args:
            postgres: URL of a Postgres database; by default files in the folder.

        Raises:
            MissingExtraError: The package for SQLite or Postgres is not installed.
            DistillationError: The database cannot be reached.
        """
        async with AsyncExitStack() as stack:
            if postgres is not None:
                yield await _postgres(postgres, stack)
            else:
                yield await _sqlite(self.path, stack)


async def _sqlite(folder: Path, stack: AsyncExitStack) -> tuple[BaseStore, BaseCheckpointSaver[Any]]:
    try:
        import aiosqlite
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
        from langgraph.store.sqlite.aio import AsyncSqliteStore
    except ImportError as error:
        raise MissingExtraError.of("langgraph-checkpoint-sqlite", "distill") from error

    async def connect(path: Path, **options: Any) -> aiosqlite.Connection:
        await asyncio.to_thread(path.touch, mode=_OWNER_ONLY)  # SQLite gives its other files the mode of this one
        return await stack.enter_async_context(aiosqlite.connect(path, **options))

    async def store(path: Path) -> AsyncSqliteStore:
        connection = await connect(path, isolation_level=None)
        # A killed process loses nothing written, and several processes can share the answers.
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=NORMAL")
        await connection.execute("PRAGMA busy_timeout=30000")
        database = AsyncSqliteStore(connection)
        await database.setup()
        return database

    own, calls = await store(folder / "store.sqlite"), await store(folder.parent / "calls.sqlite")
    checkpoints = await connect(folder / "checkpoints.sqlite")
    return SharedCallsStore(own, calls), AsyncSqliteSaver(checkpoints, serde=_serializer())


async def _postgres(url: str, stack: AsyncExitStack) -> tuple[BaseStore, BaseCheckpointSaver[Any]]:
    try:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from langgraph.store.postgres.aio import AsyncPostgresStore
        from psycopg import AsyncConnection, Error
        from psycopg.rows import DictRow, dict_row
        from psycopg_pool import AsyncConnectionPool, PoolTimeout
    except ImportError as error:
        raise MissingExtraError.of("langgraph-checkpoint-postgres", "postgres") from error
    pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
        url,
        min_size=1,
        max_size=8,
        kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
        timeout=10.0,
        open=False,
    )
    try:
        # A pool keeps retrying, while a single connection fails at once with the reason.
        async with await AsyncConnection.connect(url):
            pass
        await stack.enter_async_context(pool)
        store, saver = AsyncPostgresStore(pool), AsyncPostgresSaver(pool, serde=_serializer())
        await store.setup()
        await saver.setup()
    except (Error, PoolTimeout) as error:
        msg = f"the Postgres database cannot be used ({type(error).__name__}): {error}"
        raise DistillationError(msg) from error
    return SharedCallsStore(store, store), saver


def _serializer() -> JsonPlusSerializer:
    """A serializer that revives only the types of the graph's state."""
    types = {found for hint in get_type_hints(DistillationState).values() for found in _classes_in(hint)}
    return JsonPlusSerializer(allowed_msgpack_modules=[(found.__module__, found.__name__) for found in types])


def _classes_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for part in get_args(hint):
        yield from _classes_in(part)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
