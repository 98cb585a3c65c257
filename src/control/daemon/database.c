// What trivetd remembers: see database.h.
#include "control/daemon/database.h"

#include "control/cleanup.h"

#include <errno.h>
#include <sqlite3.h>

struct database {
    sqlite3 *sqlite;
};

static const char schema[] =
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"
    "CREATE TABLE IF NOT EXISTS machines(name TEXT PRIMARY KEY, spec TEXT NOT NULL, wanted INTEGER NOT NULL,"
    " pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL, exit_status INTEGER NOT NULL, reason TEXT,"
    " restarts INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS networks(name TEXT PRIMARY KEY, spec TEXT NOT NULL, settled INTEGER NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS facts(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;";

static int fail_at(struct database *db, const char *path, struct tv_error *err)
{
    const char *why = sqlite3_errmsg(db->sqlite);
    switch (sqlite3_errcode(db->sqlite)) {
    case SQLITE_FULL:
        return tv_error_set(err, -ENOSPC, "state database %s: %s; make room there", path, why);
    case SQLITE_IOERR: // among others when there is no room for the files beside it
        return tv_error_set(err, -EIO, "state database %s: %s; is there room on the disk?", path, why);
    default:
        return tv_error_set(err, -EIO, "state database %s: %s; is it ours to write, or damaged?", path, why);
    }
}

static int fail(struct database *db, struct tv_error *err)
{
    return fail_at(db, sqlite3_db_filename(db->sqlite, NULL), err);
}

struct database *database_open(const char *path, struct tv_error *err)
{
    struct database *db = calloc(1, sizeof(*db));
    if (!db) {
        tv_error_set(err, -ENOMEM, "no memory");
        return NULL;
    }
    int rc = sqlite3_open_v2(path, &db->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(db->sqlite, 5000);
        rc = sqlite3_exec(db->sqlite, schema, NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK)
        return db;
    fail_at(db, path, err);
    database_close(db);
    return NULL;
}

void database_close(struct database *db)
{
    if (!db)
        return;
    sqlite3_close(db->sqlite);
    free(db);
}

// Runs a statement to its end, the text arguments bound in order.
static int finish(struct database *db, sqlite3_stmt *stmt, struct tv_error *err)
{
    int rc = sqlite3_step(stmt);
    sqlite3_finalize(stmt);
    return rc == SQLITE_DONE ? 0 : fail(db, err);
}

int database_put_machine(struct database *db, const struct database_machine *m, struct tv_error *err)
{
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v2(db->sqlite, "INSERT OR REPLACE INTO machines VALUES(?,?,?,?,?,?,?,?)", -1, &stmt, NULL) != SQLITE_OK)
        return fail(db, err);
    sqlite3_bind_text(stmt, 1, m->name, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, m->spec, -1, SQLITE_STATIC);
    sqlite3_bind_int(stmt, 3, m->wanted);
    sqlite3_bind_int64(stmt, 4, m->worker.pid);
    sqlite3_bind_int64(stmt, 5, (sqlite3_int64)m->worker.start_ticks);
    sqlite3_bind_int(stmt, 6, m->exit_status);
    sqlite3_bind_text(stmt, 7, m->reason, -1, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 8, m->restarts);
    return finish(db, stmt, err);
}

int database_delete_machine(struct database *db, const char *name, struct tv_error *err)
{
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v2(db->sqlite, "DELETE FROM machines WHERE name=?", -1, &stmt, NULL) != SQLITE_OK)
        return fail(db, err);
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    return finish(db, stmt, err);
}

int database_each_machine(struct database *db, void (*fn)(void *arg, const struct database_machine *machine), void *arg,
                          struct tv_error *err)
{
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v2(db->sqlite, "SELECT * FROM machines ORDER BY name", -1, &stmt, NULL) != SQLITE_OK)
        return fail(db, err);
    int rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const struct database_machine machine = {
            .name = (const char *)sqlite3_column_text(stmt, 0),
            .spec = (const char *)sqlite3_column_text(stmt, 1),
            .wanted = sqlite3_column_int(stmt, 2) != 0,
            .worker = {.pid = sqlite3_column_int(stmt, 3), .start_ticks = (uint64_t)sqlite3_column_int64(stmt, 4)},
            .exit_status = sqlite3_column_int(stmt, 5),
            .reason = (const char *)sqlite3_column_text(stmt, 6),
            .restarts = (unsigned)sqlite3_column_int(stmt, 7),
        };
        fn(arg, &machine);
    }
    sqlite3_finalize(stmt);
    return rc == SQLITE_DONE ? 0 : fail(db, err);
}

int database_put_network(struct database *db, const json_t *spec, bool is_settled, struct tv_error *err)
{
    cleanup_free char *text = json_dumps(spec, JSON_COMPACT);
    sqlite3_stmt *stmt;
    if (!text)
        return tv_error_set(err, -ENOMEM, "no memory");
    if (sqlite3_prepare_v2(db->sqlite, "INSERT OR REPLACE INTO networks VALUES(?,?,?)", -1, &stmt, NULL) != SQLITE_OK)
        return fail(db, err);
    sqlite3_bind_text(stmt, 1, json_string_value(json_object_get(spec, "name")), -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, text, -1, SQLITE_STATIC);
    sqlite3_bind_int(stmt, 3, is_settled);
    return finish(db, stmt, err);
}

int database_delete_network(struct database *db, const char *name, struct tv_error *err)
{
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v2(db->sqlite, "DELETE FROM networks WHERE name=?", -1, &stmt, NULL) != SQLITE_OK)
        return fail(db, err);
    sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
    return finish(db, stmt, err);
}

int database_each_network(struct database *db, void (*fn)(void *arg, json_t *spec, bool is_settled), void *arg,
                          struct tv_error *err)
{
    sqlite3_stmt *stmt;
    if (sqlite3_prepare_v2(db->sqlite, "SELECT spec, settled FROM networks ORDER BY name", -1, &stmt, NULL) != SQLITE_OK)
        return fail(db, err);
    int rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        json_t *spec = json_loads((const char *)sqlite3_column_text(stmt, 0), 0, NULL);
        if (spec)
            fn(arg, spec, sqlite3_column_int(stmt, 1) != 0);
    }
    sqlite3_finalize(stmt);
    return rc == SQLITE_DONE ? 0 : fail(db, err);
}

int database_put(struct database *db, const char *key, const json_t *value, struct tv_error *err)
{
    cleanup_free char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    sqlite3_stmt *stmt;
    if (!text)
        return tv_error_set(err, -ENOMEM, "no memory");
    if (sqlite3_prepare_v2(db->sqlite, "INSERT OR REPLACE INTO facts VALUES(?,?)", -1, &stmt, NULL) != SQLITE_OK)
        return fail(db, err);
    sqlite3_bind_text(stmt, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(stmt, 2, text, -1, SQLITE_STATIC);
    return finish(db, stmt, err);
}

json_t *database_get(struct database *db, const char *key)
{
    sqlite3_stmt *stmt;
    json_t *value = NULL;
    if (sqlite3_prepare_v2(db->sqlite, "SELECT value FROM facts WHERE key=?", -1, &stmt, NULL) != SQLITE_OK)
        return NULL;
    sqlite3_bind_text(stmt, 1, key, -1, SQLITE_STATIC);
    if (sqlite3_step(stmt) == SQLITE_ROW)
        value = json_loads((const char *)sqlite3_column_text(stmt, 0), JSON_DECODE_ANY, NULL);
    sqlite3_finalize(stmt);
    return value;
}
