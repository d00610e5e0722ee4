"""The encrypted database of this device.

    from edgeagent.store.database import Database, open_store
    from edgeagent.store.connection import IntegrityError, Tables
    from edgeagent.store.sql import now_ms, scalar

    db = open_store(settings)                          # blocks; Database(folder, secret, options) beneath
    await db.write_async(fn, essential=False) -> T     # fn(tables) -> T; on the disk when it returns
    db.write(fn, essential=False) -> Future[T]         # the same for threads; never blocks
    await db.read_async(fn) -> T; db.read(fn) -> T     # one read transaction
    db.maintain(fn) -> Future[T]                       # outside of transactions: VACUUM, FTS optimize
    db.checkpoint() -> Future[bool]                    # bring the log in and empty it
    db.backups.take() | listed() | verify(path)        # blocking: use a thread
    db.secret.subkey("audit") -> bytes | None          # 32 bytes; db.secret is None in plain-text mode
    db.journal.append(kind, what) -> Contents          # before a revocation or an erasure is acknowledged
    db.access.refusal(tables) -> str | None            # why nobody may enter: keys or journal are lost
    db.notices, db.refusal, db.counts(), db.files      # what an owner, /health and doctor want to know
    recovery.earlier(db.files) -> list[Notice]         # what earlier starts said of damage and restores
    recovery.restore(files, backups, path) -> Notice   # while nobody has the store open
    db.close()

Closures return plain data, touch the database only, may run twice, and cannot end their transaction.
What they raise reaches their caller as it is; troubles of the disk arrive as StorageFull (507),
StorageFailed, StoreDamaged. A new table is a new step at the end of `migrations.MIGRATIONS`.

What is done to rows apart from requests, as functions over a connection or the whole store:

    audit.append(conn, key, actor=, action=, object=)  # in the transaction of what it audits
    audit.verify(conn, key, anchors); anchor.publish_head(store, key, path)
    selection.Selector(owner=, conversation=, subject=).where(table); HELD[table]; set_hold(...)
    removal.mark(conn)                                 # whoever deletes content: the sweep cleans up
    retention.Sweeper(store, key, days, clock).sweep() # ages; waits while the clock is doubted
    export.page(conn, selector, start); erasure.erase(store, key, request, places) -> Receipt
    proof.search(...), pages.decrypted(path, key)      # every byte, free pages included
"""
