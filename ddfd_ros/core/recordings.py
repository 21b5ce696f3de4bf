"""What a reader of a recording's files would pass over without a word."""

from __future__ import annotations

from pathlib import Path


def unread_log(bag: Path) -> str:
    """Why not all messages of a bag can be read from its databases, in words; empty: they can.

    Where a recording was not closed, its last messages lie in SQLite's write-ahead log
    (sqlite.org/wal.html), which ``rosbags`` does not read.

    Args:
        bag: A folder of files, or one file; only a ``.db3`` may have a log.
    """
    for file in sorted(bag.iterdir()) if bag.is_dir() else [bag]:
        log = file.with_name(file.name + "-wal")
        if file.suffix == ".db3" and log.is_file() and log.stat().st_size:
            return (
                f"{file}: expected a recording that was closed, got one with messages in "
                f"{log.name}; put them in their place: sqlite3 {file.name} 'PRAGMA "
                "wal_checkpoint(TRUNCATE)'"
            )
    return ""
