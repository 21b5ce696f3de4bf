"""What a reader of a recording's files would pass over without a word."""

from __future__ import annotations

from pathlib import Path


def unread_log(file: Path) -> str:
    """Why not all messages of a database can be read from its file, in words; empty: they can.

    Where a recording was not closed, its last messages lie in SQLite's write-ahead log
    (sqlite.org/wal.html), which ``rosbags`` does not read.

    Args:
        file: One file of a bag; only a ``.db3`` may have a log.
    """
    log = file.with_name(file.name + "-wal")
    if file.suffix != ".db3" or not log.is_file() or not log.stat().st_size:
        return ""
    return (
        f"{file}: expected a recording that was closed, got one with messages in {log.name}; "
        f"put them in their place: sqlite3 {file.name} 'PRAGMA wal_checkpoint(TRUNCATE)'"
    )
