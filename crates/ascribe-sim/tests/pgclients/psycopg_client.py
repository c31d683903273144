"""psycopg 3 against the database that PG* names; prints `done`."""

import threading
import time

import psycopg

with psycopg.connect(autocommit=True) as conn:
    conn.execute("drop table if exists people")
    conn.execute("create table people (id int primary key, name text, photo bytea)")
    with conn.cursor() as cursor:
        rows = [(n, f"name {n}", bytes([n % 256]) * n) for n in range(300)]
        cursor.executemany("insert into people values (%s, %s, %s)", rows)
        cursor.execute("select photo from people where id = %s", (255,), binary=True)
        assert cursor.fetchone() == (b"\xff" * 255,)

    # Pipelines: one that goes through, and one with an error in its middle.
    with conn.pipeline():
        cursors = [conn.execute("select %s::int", (n,)) for n in range(500)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(500))
    try:
        with conn.pipeline():
            conn.execute("insert into people values (1000, 'before', null)")
            conn.execute("select 1 / %s", (0,))
            conn.execute("insert into people values (1001, 'behind', null)")
        raise AssertionError("no error")
    except psycopg.errors.DivisionByZero:
        pass
    left = conn.execute("select id from people where id >= 1000").fetchall()
    assert left == [], left

    # Statements that are prepared, and dropped again.
    for n in range(300):
        got = conn.execute(f"select %s::int + {n % 150}", (n,), prepare=True).fetchone()
        assert got == (n + n % 150,)

    # A cursor on the server, within a transaction.
    with conn.transaction(), conn.cursor(name="some") as cursor:
        cursor.itersize = 7
        cursor.execute("select id from people where id < %s order by id", (100,))
        assert [row[0] for row in cursor] == list(range(100))

    # Copies.
    with conn.cursor() as cursor:
        with cursor.copy("copy people from stdin") as copy:
            for n in range(2000, 3000):
                copy.write_row((n, "copied", b"\x00\xff"))
        with cursor.copy("copy (select * from people where id >= 2000) to stdout (format binary)") as copy:
            assert sum(len(data) for data in copy) > 1000
        try:
            with cursor.copy("copy people from stdin") as copy:
                copy.write_row((2000, "twice", None))
            raise AssertionError("no error")
        except psycopg.errors.UniqueViolation:
            pass

    # Notifications.
    conn.execute("listen news")
    with psycopg.connect(autocommit=True) as other:
        other.execute("select pg_notify('news', %s)", ("x" * 5000,))
    got = next(conn.notifies(timeout=20, stop_after=1))
    assert got.payload == "x" * 5000

    # A cancel.
    threading.Timer(0.3, conn.cancel).start()
    begun = time.monotonic()
    try:
        conn.execute("select pg_sleep(30)")
        raise AssertionError("no error")
    except psycopg.errors.QueryCanceled:
        assert time.monotonic() - begun < 20
    assert conn.execute("select 'on'").fetchone() == ("on",)

print("done")
