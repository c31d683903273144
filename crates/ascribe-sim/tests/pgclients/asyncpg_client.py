"""asyncpg against the database that PG* names; prints `done`."""

import asyncio
import os
import ssl

import asyncpg


def tls():
    """Checked by this certificate alone, where one is named; a password is asked for only there."""
    root = os.environ.get("PGSSLROOTCERT")
    return ssl.create_default_context(cafile=root) if root else False


async def main():
    conn = await asyncpg.connect(
        host=os.environ["PGHOST"],
        port=int(os.environ["PGPORT"]),
        user=os.environ["PGUSER"],
        database=os.environ["PGDATABASE"],
        ssl=tls(),
    )
    await conn.execute("drop table if exists things; create table things (id int, data jsonb)")
    await conn.executemany(
        "insert into things values ($1, $2)", [(n, '{"n": %d}' % n) for n in range(500)]
    )
    assert await conn.fetchval("select count(*) from things") == 500
    statement = await conn.prepare("select data->>'n' from things where id = $1")
    for n in range(200):
        assert await statement.fetchval(n) == str(n)
    async with conn.transaction():
        got = [row["id"] async for row in conn.cursor("select id from things order by id")]
        assert got == list(range(500))
    await conn.copy_records_to_table("things", records=[(n, None) for n in range(1000, 2000)])
    assert await conn.fetchval("select count(*) from things") == 1500
    heard = asyncio.get_running_loop().create_future()
    await conn.add_listener("news", lambda *said: heard.done() or heard.set_result(said[3]))
    await conn.execute("notify news, 'hello'")
    assert await asyncio.wait_for(heard, 20) == "hello"
    try:
        await conn.fetch("select * from nowhere")
        raise AssertionError("no error")
    except asyncpg.UndefinedTableError:
        pass
    try:
        await conn.execute("select pg_sleep(30)", timeout=0.5)
        raise AssertionError("no error")
    except asyncio.TimeoutError:
        pass
    assert await conn.fetchval("select 'on'") == "on"
    await conn.close()


asyncio.run(main())
print("done")
