"""Every record: which binaries it knows, and where it looks. Layouts are those of the packages and of Docker's images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sconify_tasks.option_table import BY_NAME
from sconify_tasks.service_records import RECORDS
from sconify_tasks.services import Service, detect

# Binary, service, one of its libraries, its links.
LAYOUTS = [
    *(
        (f"/usr/bin/python3.{minor}", "python", f"/usr/lib/python3.{minor}", ["/usr/bin/python3"])
        for minor in (7, 8, 9, 10, 11, 12, 13, 14)
    ),
    ("/usr/local/bin/python3.14", "python", "/usr/local/lib/python3.14", ["/usr/local/bin/python3"]),
    ("/opt/conda/bin/python3.12", "python", "/opt/conda/lib/python3.12", ["/opt/conda/bin/python3"]),
    ("/usr/bin/node", "node", "/usr/share/nodejs", ["/usr/bin/nodejs"]),
    ("/usr/local/bin/node", "node", "/usr/local/lib/node_modules", ["/usr/local/bin/nodejs"]),
    ("/usr/lib/jvm/java-17-openjdk-amd64/bin/java", "java", "/etc/java-17-openjdk", []),
    ("/usr/lib/jvm/java-8-openjdk-amd64/jre/bin/java", "java", "/usr/lib/jvm/java-8-openjdk-amd64/jre/lib", []),
    ("/opt/java/openjdk/bin/java", "java", "/opt/java/openjdk/conf", []),
    ("/usr/bin/ruby3.1", "ruby", "/usr/lib/x86_64-linux-gnu/ruby", ["/usr/bin/ruby"]),
    ("/usr/local/bin/ruby", "ruby", "/usr/local/bundle", []),
    ("/usr/bin/perl", "perl", "/usr/lib/aarch64-linux-gnu/perl-base", []),
    ("/usr/bin/perl5.36-x86_64-linux-gnu", "perl", "/usr/share/perl", ["/usr/bin/perl"]),
    ("/usr/local/bin/perl5.40.0", "perl", "/usr/local/lib/perl5", ["/usr/local/bin/perl"]),
    ("/usr/bin/php8.2", "php", "/etc/php/8.2", ["/usr/bin/php"]),
    ("/usr/bin/php82", "php", "/usr/lib/php82", ["/usr/bin/php"]),
    ("/usr/sbin/php-fpm8.2", "php", "/usr/lib/php", ["/usr/sbin/php-fpm"]),
    ("/usr/local/sbin/php-fpm", "php", "/usr/local/etc/php-fpm.d", []),
    ("/usr/local/bin/php", "php", "/usr/local/lib/php", []),
    ("/usr/sbin/nginx", "nginx", "/usr/lib/nginx", []),
    ("/usr/bin/redis-check-rdb", "redis", "/usr/lib/redis", ["/usr/bin/redis-server"]),
    ("/usr/local/bin/redis-server", "redis", "/usr/local/lib/redis", []),
]


def known(binary: str, *links: str) -> Service:
    found = detect(binary, links)
    assert found is not None, binary
    return found


@pytest.mark.parametrize(("binary", "name", "library", "links"), LAYOUTS, ids=[binary for binary, *_ in LAYOUTS])
def test_a_layout_is_known(binary, name, library, links):
    found = known(binary)
    assert found.name == name
    assert library.encode() in found.libraries
    assert [link.decode() for link in found.links] == links


def test_every_record_has_a_layout_here():
    assert {name for _, name, *_ in LAYOUTS} == {record.name for record in RECORDS}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_every_place_is_an_absolute_path_without_gaps(record):
    for binary, name, *_ in LAYOUTS:
        if name == record.name:
            found = known(binary)
            for path in (*found.libraries, *found.links, *found.absent, *found.directories):
                assert re.fullmatch(rb"(/[^/{}]+)+", path), path
                assert b"None" not in path


@pytest.mark.parametrize(
    "binary",
    [
        *(
            "/usr/bin/python3",
            "/usr/bin/python3.11-config",
            "/usr/bin/pythonic",
            "/app/server",
            "/usr/bin/nodes",
            "/usr/bin/javac",
        ),
        *("/usr/bin/phpize", "/usr/bin/redis-cli", "/usr/bin/perldoc", "/usr/sbin/nginx-debug2", "/java", "python3.11"),
    ],
)
def test_other_programs_are_no_service(binary):
    assert detect(binary) is None


def test_a_virtual_environment_is_known_by_the_link_that_leads_to_its_python():
    found = known("/usr/bin/python3.11", "/venv/bin/python3", "/bin", "/usr/bin/python3")
    assert b"/venv/lib/python3.11" in found.libraries
    assert {b"/venv/pyvenv.cfg", b"/venv/bin/pyvenv.cfg", b"/usr/pyvenv.cfg"} <= set(found.absent)
    assert b"/lib/python3.11" not in found.libraries
    assert [link.decode() for link in found.links] == ["/usr/bin/python3"]


@pytest.mark.parametrize(
    ("binary", "environment"),
    [
        ("/usr/bin/python3.11", {"PYTHONNOUSERSITE": "1"}),
        ("/usr/bin/ruby3.1", {"HOME": "/nonexistent"}),
        ("/usr/bin/node", {}),
        ("/usr/bin/perl", {}),
    ],
)
def test_what_leads_to_code_of_the_user_s_home_is_turned_off(binary, environment):
    assert dict(known(binary).environment) == environment


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_help_and_docs_name_every_service(record):
    assert record.title in BY_NAME["disable-copy-service-libraries"].help
    docs = (Path(__file__).parents[2] / "docs" / "services.md").read_text()
    assert f"| {record.title} |" in docs
