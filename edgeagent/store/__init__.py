"""The encrypted database of this device.

    from edgeagent.store.database import Database, open_store
    from edgeagent.store.connection import IntegrityError, StoreConnection
    from edgeagent.store.sql import now_ms, scalar

    db = open_store(settings)                          # blocks; wraps Database(folder, secret, options)
    await db.write_async(fn, essential=False) -> T     # fn(connection) -> T; on disk when it returns
    db.write(fn, essential=False) -> Future[T]         # the same for threads; never blocks
    await db.read_async(fn) -> T; db.read(fn) -> T     # one read transaction
    db.maintain(fn) -> Future[T]                       # outside of transactions: VACUUM, FTS optimize
    db.checkpoint() -> Future[bool]                    # copy the write-ahead log into the file, truncate it
    db.backups.take() | listed() | verify(path)        # blocking: use a thread
    db.secret.subkey("audit") -> bytes                 # 32 bytes; db.secret is None in plain-text mode
    db.journal.append(kind, what) -> JournalContents   # before a revocation or an erasure is acknowledged
    db.rollback_detector.refusal(conn) -> str | None   # why nothing may be served: keys or journal are lost
    db.notices, db.refusal, db.counts(), db.files      # for the owner, /health and doctor
    recovery.earlier(db.files) -> list[StoreNotice]    # damage and restores that earlier starts reported
    recovery.restore(files, backups, path) -> StoreNotice   # only while no process has the store open
    db.close()

Closures return plain data, touch only the database, may run twice, and cannot end their transaction.
Exceptions that they raise reach their caller unchanged; disk errors arrive as StorageFull (507),
StorageFailed or StoreDamaged. A new table is a new step at the end of `migrations.MIGRATIONS`.

Work on rows apart from requests, as functions over a connection or the whole store:

    audit.append(conn, key, actor=, action=, object=)  # in the transaction that it audits
    audit.verify(conn, key, anchors); audit_anchor.publish_head(store, key, path)
    ownership.Selector(owner=, conversation=, subject=).where(table); HELD[table]; set_hold(...)
    row_deletion.mark(conn)                            # after deleting content; the sweep cleans up
    retention.Sweeper(store, key, days, clock).sweep() # deletes by age; waits while the clock is doubted
    export.page(conn, selector, start)
    erasure.erase(store, key, request, scope) -> ErasureReceipt
    residue_scan.search(...), database_pages.decrypted(path, key)   # every byte, free pages included
"""
