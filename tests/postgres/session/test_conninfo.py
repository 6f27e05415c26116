"""URIs and conninfo strings are read as libpq reads them, and a malformed one is refused without being repeated."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import portl
from portl_postgres.conninfo import KEYWORDS, SECRET_KEYWORDS, parse_url


def parsed(text: str) -> dict[str, str]:
    return parse_url(portl.Secret(text))


def by_libpq(text: str) -> dict[str, str]:
    return {name: str(value) for name, value in conninfo_to_dict(text).items()}


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://",
        "postgres://localhost",
        "postgresql://localhost:5433",
        "postgresql://localhost/mydb",
        "postgresql://user@localhost",
        "postgresql://user:secret@localhost/mydb",
        "postgresql://user:@localhost/",
        "postgresql://@localhost/",
        "postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp",
        "postgresql://host1:123,host2:456/somedb?target_session_attrs=any&application_name=myapp",
        "postgresql://host1,host2:5433,/somedb",
        "postgresql://user:secret@[2001:db8::1234]:5433/database",
        "postgresql://[::1],[::2]:5432/database",
        "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
        "postgresql:///dbname?host=/var/lib/postgresql",
        "postgresql://user@?host=/tmp&port=5",
        "postgresql://user:p%40ss%3Aw%2Ford%25@host/my%20db",
        "postgresql://user:p?ss@host/db",
        "postgresql://user:a:b:c@host/db",
        "postgresql://us%2Ber:p+q@host/db?application_name=a+b%20c",
        "postgresql://host/db?ssl=true",
        "postgresql://host?sslmode=require&sslrootcert=/etc/ca.pem",
        "postgresql://host/a/b/c",
        "postgresql://host/d@b",
        "postgresql://host/db?application_name=a@b&sslmode=disable&sslmode=require",
        "postgresql://us%C3%A9r:%F0%9F%94%91@host/gr%C3%B6%C3%9Fe",
        "host=localhost port=5432 dbname=mydb connect_timeout=10",
        "host = localhost\n\tport= 5432  dbname =mydb",
        "host=a,b port=1,2 user='my user' password='it\\'s \\\\ a '' '".replace("'' '", "'"),
        "password=it's host=h",
        "password=a\\ b\\'c host=h",
        "host='' user=''",
        "password= user=u",
        "hostaddr=::1 service=x passfile=/p",
    ],
)
def test_what_libpq_reads_is_read_in_the_same_way(text: str) -> None:
    assert parsed(text) == by_libpq(text)


def test_space_around_is_no_part_of_it() -> None:
    assert parsed("  postgresql://h/d\n") == {"host": "h", "dbname": "d"}


@pytest.mark.parametrize("password", ["p@ss", "@", "p@ss@", "a@b:c@d", "p%40s@s", "p?@ss"])
def test_a_password_may_hold_an_at(password: str) -> None:
    found = parsed(f"postgresql://user:{password}@host:5433/db?sslmode=disable")
    assert found == {
        "user": "user",
        "password": password.replace("%40", "@"),
        "host": "host",
        "port": "5433",
        "dbname": "db",
        "sslmode": "disable",
    }


ADVICE = "inside a user, password or database name write @ as %40, / as %2F, : as %3A, ? as %3F and % as %25"
NEITHER = "url: is neither a URI (postgresql://user@host:port/database) nor a conninfo string (host=... dbname=...)"
HOST = f"url: has a host or port that cannot be read; {ADVICE}"
TWO = f"url: has an @ behind a /, so that the password may end in two places; {ADVICE}"
QUERY = f"url: has something behind ? that is not name=value pairs joined by &; {ADVICE}"
PERCENT = f"url: has a % that is not followed by two hexadecimal digits; {ADVICE}"
NO_TEXT = "url: has a percent-encoded part that is not UTF-8 text"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", NEITHER),
        ("hunter2", NEITHER),
        ("mysql://u:hunter2@h/d", NEITHER),
        ("postgresql+psycopg://u:hunter2@h/d", NEITHER),
        ("POSTGRESQL://u:hunter2@h/d", NEITHER),
        ("postgresql:/u:hunter2@h/d", NEITHER),
        ("host=h password='hunter2", NEITHER),
        ("host=h password='hunter2'x", NEITHER),
        ("host=h hunter2", NEITHER),
        ("password=hunter 2", NEITHER),
        ("hunter2=x", "url: has a parameter that libpq does not know"),
        ("host=h pasword=hunter2", "url: has a parameter that libpq does not know; did you mean 'password'?"),
        ("postgresql://h/d?sslmod=hunter2", "url: has a parameter that libpq does not know; did you mean 'sslmode'?"),
        ("postgresql://u:hun/ter2@h/d", TWO),
        ("postgresql://u:12/hunter@h/d", TWO),
        ("postgresql://u:hu@n/ter2@h/d", TWO),
        ("postgresql://u:hunter2@h:x/d", HOST),
        ("postgresql://u:hunter2@h:0/d", HOST),
        ("postgresql://u:hunter2@h:65536/d", HOST),
        ("postgresql://u:hunter2@h:" + "9" * 5000 + "/d", HOST),
        ("postgresql://u:hunter2@::1/d", HOST),
        ("postgresql://u:hunter2@[::1/d", HOST),
        ("postgresql://u:hunter2@[::1]x/d", HOST),
        ("postgresql://u:hunter2@[]/d", HOST),
        ("postgresql://u:hunter2", HOST),
        ("postgresql://u:hun/ter2", HOST),
        ("postgresql://u:hunter2@h/d?hunter2", QUERY),
        ("postgresql://u:hunter2@h/d?user=a=b", QUERY),
        ("postgresql://u:hunter2@h/d?user=a&", QUERY),
        ("postgresql://u:p?hunter=2@h?x/d", QUERY),
        ("postgresql://u:hunter%2@h/d", PERCENT),
        ("postgresql://u:100%hunter@h/d", PERCENT),
        ("postgresql://u:hunter%FF@h/d", NO_TEXT),
        ("postgresql://u:hunter%00@h/d", NO_TEXT),
        ("host=h password=hunter\0", "url: must not contain a NUL character"),
    ],
)
def test_a_malformed_one_is_refused_and_not_repeated(text: str, message: str) -> None:
    with pytest.raises(portl.FieldError) as caught:
        parsed(text)
    assert str(caught.value) == message
    assert "hunter" not in repr(caught.value)
    assert caught.value.__context__ is None


def test_the_secret_keywords_of_libpq_are_known() -> None:
    assert {"password", "sslpassword"} <= SECRET_KEYWORDS <= KEYWORDS
    assert not SECRET_KEYWORDS & {"user", "host", "dbname", "sslmode", "replication"}


# The first draw fills hypothesis' table of characters, which takes a second.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
names = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,10}", fullmatch=True)
hosts = st.one_of(names, st.just("[::1]"), st.just("[fe80::1%25eth0]"), st.just("%2Fvar%2Frun"))
ports = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
parameters = st.dictionaries(st.sampled_from(["application_name", "sslmode", "options", "host"]), words, max_size=3)


def encoded(text: str) -> st.SearchStrategy[str]:
    """Encode a text for a URI, as much as must be or more."""
    return st.sampled_from(["", "!$'()*+,;=", "?[]:"]).map(lambda safe: quote(text, safe=safe))


@st.composite
def uris(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(["postgresql://", "postgres://"]))
    if draw(st.booleans()):
        text += quote(draw(words), safe="")
        if draw(st.booleans()):
            text += ":" + draw(words.flatmap(encoded))
        text += "@"
    text += ",".join(draw(hosts) + draw(ports) for _ in range(draw(st.integers(0, 3))))
    if draw(st.booleans()):
        text += "/" + quote(draw(words), safe="")
    found = draw(parameters)
    if found:
        # libpq takes an @ in front of the first / for the end of the credentials.
        safe = "/:@+" if "/" in text.partition("://")[2] else ":+"
        text += "?" + "&".join(f"{name}={quote(value, safe=safe)}" for name, value in found.items())
    return text


@patient
@given(uris())
def test_any_well_formed_uri_is_read_as_libpq_reads_it(text: str) -> None:
    assert parsed(text) == by_libpq(text)


@patient
@given(st.dictionaries(st.sampled_from(sorted(KEYWORDS)), words, min_size=1))
def test_any_conninfo_string_is_read_as_libpq_reads_it(values: dict[str, str]) -> None:
    text = make_conninfo(**values)
    assert parsed(text) == by_libpq(text) == values


@patient
@given(words.filter(lambda text: not re.search(r"/|@.*\?", text, re.DOTALL)), names)
def test_a_password_may_stand_as_it_is_but_for_a_slash_a_percent_sign_and_a_question_mark_behind_an_at(
    text: str, host: str
) -> None:
    password = text.replace("%", "%25")
    assert parsed(f"postgresql://user:{password}@{host}/db") == {
        "user": "user",
        "password": text,
        "host": host,
        "dbname": "db",
    }


@patient
@given(words)
def test_no_error_repeats_any_text(text: str) -> None:
    said = ""
    try:
        parsed(f"postgresql://user:{text}!hunter2!{text}@host/db")
    except portl.FieldError as error:
        said = repr(error)
    assert "hunter2" not in said
