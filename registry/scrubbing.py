"""Leaves nothing of deleted rows in the database's files.

SQLite overwrites what is deleted (`secure_delete`); its write-ahead log and what moved between
pages before are dealt with here. PostgreSQL frees space by its own vacuum.
"""

import logging
import sqlite3

from registry.db import Database

logger = logging.getLogger(__name__)


def scrub(database: Database, *, thorough: bool) -> bool:
    """Empty the write-ahead log; whether nothing can be left.

    `thorough`: write the file anew first, which takes a moment for each 100 MB, and keeps
    writers waiting.
    """
    if database.engine.dialect.name != "sqlite":
        return True
    connection = database.engine.raw_connection()
    try:
        cursor = connection.cursor()
        if thorough:
            cursor.execute("VACUUM")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        outcome = cursor.fetchone()
        cursor.close()
    except sqlite3.OperationalError as error:
        logger.warning("the database's free space was not cleaned yet: %s", error)
        return False
    finally:
        connection.close()
    return thorough and outcome is not None and outcome[0] == 0
