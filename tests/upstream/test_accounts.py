"""Databases, users, access and root, as upstream's API asks for them, checked by logging in as those users."""

import uuid

import pymysql
import pytest

from peer.cloud import Refused
from peer.process import within


def name():
    return "n" + uuid.uuid4().hex[:8]


def names(listing):
    return [item["_name"] for item in listing[0]]


def make_user(cloud, guest, user, password="s3cret-one", databases=(), host="%"):
    spec = {"_name": user, "_password": password, "_host": host, "_databases": [{"_name": d} for d in databases]}
    cloud.call(guest.id, "create_user", notification="DBaaSUserCreate", users=[spec])
    within(20, f"user {user}", lambda: cloud.call(guest.id, "get_user", username=user, hostname=host))


def make_database(cloud, guest, database):
    cloud.call(guest.id, "create_database", notification="DBaaSDatabaseCreate", databases=[{"_name": database}])
    within(20, f"database {database}", lambda: database in names(cloud.call(guest.id, "list_databases")))


def test_databases(prepared, cloud):
    one = name()
    made = {"_name": one, "_character_set": "latin1", "_collate": "latin1_german1_ci"}
    cloud.call(prepared.id, "create_database", notification="DBaaSDatabaseCreate", databases=[made])
    found = within(20, one, lambda: [d for d in cloud.call(prepared.id, "list_databases")[0] if d["_name"] == one])
    assert found == [made]
    assert not {"mysql", "information_schema", "performance_schema"} & set(names(cloud.call(prepared.id, "list_databases")))
    cloud.call(prepared.id, "delete_database", notification="DBaaSDatabaseDelete", database=made)
    within(20, f"{one} is gone", lambda: one not in names(cloud.call(prepared.id, "list_databases")))


def test_paging(prepared, cloud):
    prefix = name()
    wanted = [f"{prefix}_{letter}" for letter in "abcde"]
    cloud.call(prepared.id, "create_database", databases=[{"_name": one} for one in wanted])
    within(20, "five databases", lambda: set(wanted) <= set(names(cloud.call(prepared.id, "list_databases"))))
    seen, marker = [], None
    for _ in range(100):
        page, marker = cloud.call(prepared.id, "list_databases", limit=2, marker=marker)
        seen += [item["_name"] for item in page]
        if marker is None:
            break
        assert len(page) == 2 and marker == page[-1]["_name"]
    assert [one for one in seen if one in wanted] == wanted
    assert len(seen) == len(set(seen))
    # How the API asks whether one exists.
    assert names(cloud.call(prepared.id, "list_databases", limit=1, marker=wanted[2], include_marker=True)) == [wanted[2]]


def test_a_user_has_what_was_granted_and_no_more(prepared, cloud):
    mine, other, user = name(), name(), name()
    make_database(cloud, prepared, mine)
    make_database(cloud, prepared, other)
    make_user(cloud, prepared, user, databases=[mine])
    login = {"user": user, "password": "s3cret-one"}
    prepared.logs_in(database=mine, **login)
    with pytest.raises(pymysql.MySQLError):
        prepared.connect(database=other, **login)
    assert names([cloud.call(prepared.id, "list_access", username=user, hostname="%")]) == [mine]
    cloud.call(prepared.id, "grant_access", username=user, hostname="%", databases=[other])
    prepared.logs_in(database=other, **login)
    cloud.call(prepared.id, "revoke_access", username=user, hostname="%", database=mine)
    with pytest.raises(pymysql.MySQLError):
        prepared.connect(database=mine, **login)
    found = cloud.call(prepared.id, "get_user", username=user, hostname="%")
    assert found["_name"] == user and found["_host"] == "%" and found["_password"] is None
    assert [d["_name"] for d in found["_databases"]] == [other]
    cloud.call(prepared.id, "delete_user", notification="DBaaSUserDelete", user={"_name": user, "_host": "%"})
    within(20, "no user", lambda: cloud.call(prepared.id, "get_user", username=user, hostname="%") is None)


def test_passwords_and_attributes(prepared, cloud):
    user, renamed = name(), name()
    make_user(cloud, prepared, user, databases=["app"])
    cloud.call(
        prepared.id, "change_passwords", notification="DBaaSUserChangePassword",
        users=[{"name": user, "host": "%", "password": "s3cret-two"}],
    )
    prepared.logs_in(user=user, password="s3cret-two")
    with pytest.raises(pymysql.MySQLError):
        prepared.connect(user=user, password="s3cret-one")
    cloud.call(
        prepared.id, "update_attributes", notification="DBaaSUserUpdateAttributes",
        username=user, hostname="%", user_attrs={"name": renamed, "host": "127.0.0.2", "password": "s3cret-three"},
    )
    prepared.logs_in(user=renamed, password="s3cret-three")
    assert cloud.call(prepared.id, "get_user", username=user, hostname="%") is None
    listed = [(u["_name"], u["_host"]) for u in cloud.call(prepared.id, "list_users")[0]]
    assert (renamed, "127.0.0.2") in listed
    assert not {"os_admin", "root", ""} & {u for u, _ in listed}


def test_root(prepared, cloud):
    assert cloud.call(prepared.id, "is_root_enabled") is False
    root = cloud.call(prepared.id, "enable_root")
    assert root["_name"] == "root" and root["_host"] == "%" and len(root["_password"]) >= 16
    prepared.logs_in(user="root", password=root["_password"], database="mysql")
    assert cloud.call(prepared.id, "is_root_enabled") is True
    given = cloud.call(prepared.id, "enable_root_with_password", root_password="chosen-One1")
    assert given["_password"] == "chosen-One1"
    prepared.logs_in(user="root", password="chosen-One1", database="mysql")
    cloud.call(prepared.id, "disable_root")
    with pytest.raises(pymysql.MySQLError):
        prepared.connect(user="root", password="chosen-One1", database="mysql")


@pytest.mark.parametrize(
    "bad",
    ["`; DROP DATABASE app; --", "a'b", 'a"b', "", "x" * 300, "mysql", "a/b", "a\\b", "\u0000", "../../etc"],
    ids=lambda value: repr(value)[:20],
)
def test_absurd_names_do_no_harm(prepared, cloud, bad):
    before = sorted(names(cloud.call(prepared.id, "list_databases")))
    faults = len(cloud.tables(prepared.id)["faults"])
    cloud.call(prepared.id, "create_database", notification="DBaaSDatabaseCreate", databases=[{"_name": bad}])
    cloud.call(
        prepared.id, "create_user", notification="DBaaSUserCreate",
        users=[{"_name": bad, "_password": "s3cret-one", "_host": "%", "_databases": []}],
    )
    for method, arguments in (
        ("grant_access", {"username": bad, "hostname": "%", "databases": [bad]}),
        ("list_access", {"username": bad, "hostname": bad}),
    ):
        try:
            cloud.call(prepared.id, method, **arguments)
        except Refused as refused:
            assert refused.kind == "GuestError", refused
            assert "syntax" not in refused.text.lower(), refused.text
    # A barrier: changes take turns in order.
    make_user(cloud, prepared, name())
    assert sorted(names(cloud.call(prepared.id, "list_databases"))) == before
    assert len(cloud.tables(prepared.id)["faults"]) >= faults
    prepared.logs_in()


def test_configuration(prepared, cloud):
    def limit():
        with prepared.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@max_connections, @@wait_timeout, @@max_allowed_packet")
            return cursor.fetchone()

    before = limit()
    cloud.call(prepared.id, "update_overrides", overrides={"max_connections": 91, "wait_timeout": 222})
    assert limit() == before
    cloud.call(prepared.id, "apply_overrides", overrides={"wait_timeout": 222, "max_allowed_packet": "32M"})
    with prepared.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@global.wait_timeout, @@global.max_allowed_packet, @@global.max_connections")
        assert cursor.fetchone() == (222, 33554432, before[0])
    cloud.call(prepared.id, "restart")
    cloud.expect(prepared.id, "healthy", 20)
    assert limit()[:2] == (91, 222)
    cloud.call(prepared.id, "update_overrides", overrides={}, remove=True)
    cloud.call(prepared.id, "restart")
    assert limit() == before


def test_stop_and_start_again(prepared, cloud):
    cloud.call(prepared.id, "stop_db")
    cloud.expect(prepared.id, "shutdown", 20)
    cloud.call(prepared.id, "stop_db")
    with pytest.raises(pymysql.MySQLError):
        prepared.connect()
    contents = cloud.order("template", guest=prepared.id, ram=1024)
    cloud.call(prepared.id, "start_db_with_conf_changes", config_contents=contents, ds_version="10.11")
    cloud.expect(prepared.id, "healthy", 20)
    prepared.logs_in()
