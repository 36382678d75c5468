# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the log's last commit was cut off half-way, as a loss of power leaves it.

SQLite drops such a commit by itself and says nothing. Nobody was told 200 for it, since the fsync had not returned; operators are
told all the same. See https://www.sqlite.org/fileformat2.html#the_write_ahead_log for the format.
"""

import struct
from pathlib import Path

HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683
_MASK = 0xFFFFFFFF


def unfinished_bytes(path: Path) -> int:
    """Bytes after the last whole commit of a write-ahead log that belong to it and not to an earlier round of the file.

    To be called while nobody writes. 0 when all is well or there is no file. Raises OSError.
    """
    if not path.exists():
        return 0
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return len(header)
        magic, _, page, _, salt1, salt2, first1, first2 = struct.unpack(">8I", header)
        if magic not in (_MAGIC_LITTLE, _MAGIC_BIG):
            return 0
        size = FRAME_HEADER_BYTES + int(page)
        words = "<" if magic == _MAGIC_LITTLE else ">"
        frames: list[tuple[int, tuple[int, int]]] = []  # size of the database after a commit or 0, checksum
        offset = HEADER_BYTES
        while True:
            file.seek(offset)
            frame = file.read(FRAME_HEADER_BYTES)
            if len(frame) < FRAME_HEADER_BYTES:
                break
            _, commit, frame_salt1, frame_salt2, sum1, sum2 = struct.unpack(">6I", frame)
            if (frame_salt1, frame_salt2) != (salt1, salt2):
                break  # of an earlier round: the file is reused from its beginning
            frames.append((commit, (sum1, sum2)))
            offset += size
        for number in range(len(frames) - 1, -1, -1):
            commit, stored = frames[number]
            file.seek(HEADER_BYTES + number * size)
            frame = file.read(size)
            seed = frames[number - 1][1] if number else (first1, first2)
            whole = len(frame) == size
            if commit and whole and _checksum(frame[:8] + frame[FRAME_HEADER_BYTES:], words, seed) == stored:
                return (len(frames) - 1 - number) * size
        return len(frames) * size


def _checksum(data: bytes, order: str, seed: tuple[int, int]) -> tuple[int, int]:
    first, second = seed
    values = struct.unpack(f"{order}{len(data) // 4}I", data)
    for at in range(0, len(values), 2):
        first = (first + values[at] + second) & _MASK
        second = (second + values[at + 1] + first) & _MASK
    return first, second
