"""The files of a finished store at a URL, read-only, through fsspec.

What the URL may be is fsspec's to say: s3://, gs://, https://, memory://, and chains. Credentials
and endpoints are read from the environment by the package behind the protocol (AWS_PROFILE,
AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ... for s3://).
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import fsspec

from store.errors import StoreUnreachableError


class RemoteFiles:
    """`store.layout.Files` at a URL; every process connects for itself.

    Args:
        url: The store's folder.
        options: Options for fsspec, such as credentials.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        self.location = url.rstrip("/")
        self._options = options or {}
        self._connection: tuple[int, fsspec.AbstractFileSystem, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_connection": None}

    def read(self, key: str) -> bytes:
        return self._cat(key)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        content = self._cat(key, start, stop)
        # A plain web server answers with the whole file.
        return content if len(content) <= stop - start else content[start:stop]

    def read_tail(self, key: str, num_bytes: int) -> bytes:
        # fsspec's file caches do not know bytes counted from the end.
        with self._translate_errors(key):
            file_system, root = self._connect()
            size = file_system.size(f"{root}/{key}")
        # Some servers do not tell.
        start = None if size is None else max(0, size - num_bytes)
        return self._cat(key, start)[-num_bytes:]

    def _cat(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        with self._translate_errors(key):
            file_system, root = self._connect()
            content: bytes = file_system.cat_file(f"{root}/{key}", start=start, end=stop)
        return content

    def _connect(self) -> tuple[fsspec.AbstractFileSystem, str]:
        # A connection that was made before a fork is not to be used after it.
        if self._connection is None or self._connection[0] != os.getpid():
            file_system, root = fsspec.core.url_to_fs(self.location, **self._options)
            self._connection = (os.getpid(), file_system, root)
        return self._connection[1:]

    @contextlib.contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        # Every package behind fsspec has errors of its own; none of them means damage.
        except Exception as error:
            missing = isinstance(error, ImportError)
            raise StoreUnreachableError(
                "the store cannot be reached",
                where=f"{self.location}/{key}",
                expected="a package for this kind of URL" if missing else "an answer",
                found=f"{type(error).__name__}: {error}",
                hint="install it: for s3:// `pip install s3fs`, for https:// `pip install aiohttp`"
                if missing
                else "check the URL, the credentials in the environment, and the network",
            ) from error
