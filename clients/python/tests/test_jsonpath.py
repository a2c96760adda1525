"""The jsonpath dialect: kubectl's documented examples and what people type besides."""

from __future__ import annotations

import pytest

from grove_client.objects import Json
from grovectl.failures import EXIT_USAGE, Failure
from grovectl.jsonpath import parse

DOCUMENT: dict[str, Json] = {
    "kind": "List",
    "items": [
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
            "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]},
        },
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.2", "labels": {}},
            "status": {
                "capacity": {"cpu": "8"},
                "addresses": [
                    {"type": "LegacyHostIP", "address": "127.0.0.2"},
                    {"type": "another", "address": "127.0.0.3"},
                ],
            },
        },
    ],
    "users": [
        {"name": "myself", "user": {}, "age": 30, "ok": True},
        {"name": "e2e", "user": {"username": "admin", "password": "secret"}, "age": 5},
    ],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.kind}", "List"),
        ("{.kind} is {.items[0].kind}!", "List is None!"),
        (".kind", "List"),
        ("kind", "List"),
        ("{['kind']}", "List"),
        ("{$.kind}", "List"),
        ("{.users[-1].name}", "e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.items[*]['metadata.name', 'kind']}", "None None"),
        ("{.items[*].status.capacity}", '{"cpu":"4"} {"cpu":"8"}'),
        ('{.users[?(@.name=="e2e")].user.password}', "secret"),
        ("{.users[?(@.age>10)].name}", "myself"),
        ("{.users[?(@.age<=5)].name}", "e2e"),
        ("{.users[?(@.ok)].name}", "myself"),
        ("{.users[?(@.ok==true)].name}", "myself"),
        ('{.users[?(@.name!="e2e")].name}', "myself"),
        ("{.users[?('e2e'==@.name)].age}", "5"),
        ("{.users[0,1].age}", "30 5"),
        ("{.users[0:1].name}", "myself"),
        ("{.users[::2].name}", "myself"),
        ("{.users[-1:].name}", "e2e"),
        ("{..address}", "127.0.0.1 127.0.0.2 127.0.0.3"),
        ("{.items[0].status..type}", "LegacyHostIP"),
        (r"{.items[*].metadata.labels.kubernetes\.io/hostname}", "127.0.0.1"),
        ("{.items[0].metadata.labels['kubernetes\\.io/hostname']}", "127.0.0.1"),
        ("{range .items[*]}[{.metadata.name}, {.status.capacity.cpu}] {end}", "[127.0.0.1, 4] [127.0.0.2, 8] "),
        ('{range .users[*]}{.name}{"\\t"}{@.age}{"\\n"}{end}', "myself\t30\ne2e\t5\n"),
        (
            "{range .items[*]}{.metadata.name}:{range .status.addresses[*]}{.type},{end};{end}",
            "127.0.0.1:LegacyHostIP,;127.0.0.2:LegacyHostIP,another,;",
        ),
        ("{.users[*].ok}", "true"),
        ("{.nothing.at.all}", ""),
        ("{.users[7].name}", ""),
        ('{"{}"}', "{}"),
    ],
)
def test_template(template: str, text: str) -> None:
    """A template prints what kubectl prints."""
    assert parse(template).render(DOCUMENT) == text


@pytest.mark.parametrize(
    "template",
    [
        "{.a",
        "{.a[}",
        "{end}",
        "{range .a[*]}",
        "{.a[x]}",
        "{.a[?(@.b==c)]}",
        "{.a[::0]}",
        "{range .a}" * 20 + "{end}" * 20,
    ],
)
def test_wrong_template(template: str) -> None:
    """A template that is none is a usage failure with a sentence, not a crash."""
    with pytest.raises(Failure) as failure:
        parse(template)
    assert failure.value.exit_code == EXIT_USAGE
    assert "jsonpath" in str(failure.value)
