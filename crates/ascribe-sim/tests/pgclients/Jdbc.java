import java.io.StringReader;
import java.sql.*;
import java.util.Properties;

/** JDBC against the database that PG* names; prints `done`. */
public class Jdbc {
    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    public static void main(String[] args) throws Exception {
        var env = System.getenv();
        var url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
        for (var mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            var set = new Properties();
            set.setProperty("user", env.get("PGUSER"));
            set.setProperty("sslmode", env.get("PGSSLMODE"));
            if (env.containsKey("PGSSLROOTCERT")) set.setProperty("sslrootcert", env.get("PGSSLROOTCERT"));
            if (env.containsKey("PGPASSWORD")) set.setProperty("password", env.get("PGPASSWORD"));
            set.setProperty("preferQueryMode", mode);
            try (var conn = DriverManager.getConnection(url, set)) {
                try (var plain = conn.createStatement()) {
                    plain.execute("drop table if exists items");
                    plain.execute("create table items (id int, name text, data bytea)");
                }
                conn.setAutoCommit(false);
                try (var insert = conn.prepareStatement("insert into items values (?, ?, ?)")) {
                    for (int n = 0; n < 500; n++) {
                        insert.setInt(1, n);
                        insert.setString(2, n % 3 == 0 ? null : "name " + n);
                        // In this mode the driver cannot write bytes.
                        insert.setBytes(3, mode.equals("simple") ? null : new byte[n]);
                        insert.addBatch();
                    }
                    insert.executeBatch();
                }
                conn.commit();
                // More than five times: the driver gives the statement a name.
                try (var select = conn.prepareStatement("select name from items where id = ?")) {
                    for (int n = 0; n < 20; n++) {
                        select.setInt(1, n);
                        try (var rows = select.executeQuery()) {
                            check(rows.next(), "no row");
                            var name = n % 3 == 0 ? null : "name " + n;
                            check(java.util.Objects.equals(rows.getString(1), name), "another row");
                        }
                    }
                }
                // In portions, by a portal that is executed again.
                try (var select = conn.prepareStatement("select id from items order by id")) {
                    select.setFetchSize(37);
                    int n = 0;
                    try (var rows = select.executeQuery()) {
                        while (rows.next()) check(rows.getInt(1) == n++, "out of order");
                    }
                    check(n == 500, "not all");
                }
                var point = conn.setSavepoint();
                try (var wrong = conn.createStatement()) {
                    wrong.execute("select * from nowhere");
                    throw new AssertionError("no error");
                } catch (SQLException error) {
                    check(error.getSQLState().equals("42P01"), error.getSQLState());
                }
                conn.rollback(point);
                conn.commit();
                conn.setAutoCommit(true);
                if (!mode.equals("simple")) {
                    var copy = conn.unwrap(org.postgresql.PGConnection.class).getCopyAPI();
                    check(copy.copyIn("copy items (id) from stdin", new StringReader("7000\n7001\n")) == 2, "copied");
                }
                try (var slow = conn.createStatement()) {
                    slow.setQueryTimeout(1);
                    slow.execute("select pg_sleep(30)");
                    throw new AssertionError("no error");
                } catch (SQLException error) {
                    check(error.getSQLState().equals("57014"), error.getSQLState());
                }
                try (var plain = conn.createStatement(); var rows = plain.executeQuery("select 'on'")) {
                    check(rows.next() && rows.getString(1).equals("on"), "off");
                }
            }
        }
        System.out.println("done");
    }
}
