"""Reads single records of a split that lies in many ArrayRecord files, with few of them open."""

import bisect
import contextlib
import errno
import itertools
import resource
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from resflax.data.faults import SystemFault, number_in_text

# Reads no further than the record itself, because the next one will be anywhere.
_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 2**15}


class Records:
    """The records of a split in their order. Several threads may read them at the same time."""

    def __init__(self, files: Sequence[Any]) -> None:
        """Opens nothing yet. `files` are TFDS's `FileInstruction`s of the split."""
        self.files = [str(file.filename) for file in files]
        self._first = [int(file.skip) for file in files]
        counts = [int(file.take) for file in files]
        self._ends = list(itertools.accumulate(counts))
        self._starts = [0, *self._ends]
        self._owner = object()
        weakref.finalize(self, _readers.forget, self._owner).atexit = False

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> bytes:
        """A record's bytes.

        Raises:
          IndexError: if there is no such record.
          SystemFault: if its file is missing, or if the system cannot read it.
          RuntimeError: if the file is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = bisect.bisect_right(self._ends, index)
        place = index - self._starts[number] + self._first[number]
        try:
            return self._read(number, place)
        except SystemFault as fault:
            if fault.number not in (errno.EMFILE, errno.ENFILE):
                raise
        _readers.close_idle()  # other files can be opened again when they are needed
        return self._read(number, place)

    def _read(self, number: int, place: int) -> bytes:
        file = self.files[number]
        try:
            with _readers.reader(self._owner, file) as reader:
                record: bytes = reader.read([place])[0]
                return record
        except RuntimeError as error:
            cause = number_in_text(str(error))
            if cause is not None:
                raise SystemFault(file, cause) from None
            try:  # the message does not tell, so the file is asked
                with open(file, "rb") as opened:
                    opened.read(1)
            except OSError as fault:
                raise SystemFault(file, fault.errno or errno.EIO) from None
            raise


class _Reader:
    """A file's reader, which is opened on first use."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._reader: Any = None
        self.users = 0
        """Number of threads that are using it."""
        self.wanted = True
        """Whether it stays open when its last user has finished."""

    def get(self) -> Any:
        with self._lock:
            if self._reader is None:
                self._reader = ArrayRecordReader(self._file, **_OPTIONS)
            return self._reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


class _OpenReaders:
    """The readers of this process. Those not used for the longest time are closed first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[object, str], _Reader] = OrderedDict()
        self._gone: deque[object] = deque()
        """Owners that no longer exist, whose readers are still to be closed."""

    @contextlib.contextmanager
    def reader(self, owner: object, file: str) -> Iterator[Any]:
        """A file's reader, which stays open at least until the context ends."""
        key, unused = (owner, file), []
        with self._lock:
            reader = self._open.get(key)
            if reader is None:
                reader = self._open[key] = _Reader(file)
                unused = self._take_idle(len(self._open) - most_open())
            else:
                self._open.move_to_end(key)
            reader.users += 1
        _close_all(unused)
        try:
            yield reader.get()
        except BaseException:
            reader.wanted = False  # it remembers its failure
            raise
        finally:
            with self._lock:
                reader.users -= 1
                if not reader.wanted and self._open.get(key) is reader:
                    del self._open[key]
                last = not reader.wanted and not reader.users
            if last:
                reader.close()

    def close_idle(self) -> None:
        """Closes all readers that no thread is using."""
        with self._lock:
            unused = self._take_idle(len(self._open))
        _close_all(unused)

    def forget(self, owner: object) -> None:
        """Closes the readers of an owner that no longer exists."""
        self._gone.append(owner)
        # This may be called by the garbage collector, at any moment, so it must not wait.
        if self._lock.acquire(blocking=False):
            try:
                unused = self._take_idle(0)
            finally:
                self._lock.release()
            _close_all(unused)

    def _take_idle(self, count: int) -> list[_Reader]:
        """Takes out the `count` oldest readers that no thread uses, and those of owners gone."""
        gone = {self._gone.popleft() for _ in range(len(self._gone))}
        idle = [key for key, reader in self._open.items() if not reader.users]
        taken = [key for place, key in enumerate(idle) if place < count or key[0] in gone]
        return [self._open.pop(key) for key in taken]


def most_open() -> int:
    """How many readers may stay open: not quite half as many as a process may have open files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 2**16
    return max(8, limit // 2 - 32)


def _close_all(readers: Sequence[_Reader]) -> None:
    for reader in readers:
        reader.close()


_readers = _OpenReaders()
