"""File systems."""

from typing import Any

from pyarrow import NativeFile

class FileSystem:
    def open_input_file(self, path: str) -> NativeFile: ...

class LocalFileSystem(FileSystem): ...
class FileSystemHandler: ...

class FSSpecHandler(FileSystemHandler):
    def __init__(self, fs: Any) -> None: ...

class PyFileSystem(FileSystem):
    def __init__(self, handler: FileSystemHandler) -> None: ...
