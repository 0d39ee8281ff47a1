"""What is known of each service: one record each, places only. docs/services.md says why each place is there.

Sources: the packages of Debian 10 to 13 and Alpine, and the layouts of Docker's official images.
"""

from __future__ import annotations

import re

from sconify_tasks.services import ServiceRecord

_ANY = r"/(?:[^/]+/)*"
# Of services that change to a user by name.
_USERS = ("/etc/group", "/etc/passwd")

PYTHON = ServiceRecord(
    name="python",
    title="Python 3",
    binary=re.compile(_ANY + r"python(?P<major>3)\.(?P<minor>[0-9]{1,2})\Z"),
    libraries=(
        "{prefix}/lib/python{major}.{minor}",
        "/usr/lib/python{major}.{minor}",
        "/usr/lib/python{major}",
        "/usr/local/lib/python{major}.{minor}",
        "/etc/python{major}.{minor}",  # where Debian's sitecustomize.py leads
    ),
    links=("{bin}/python{major}",),
    absent=(
        "{bin}/pyvenv.cfg",
        "{prefix}/pyvenv.cfg",
        "{bin}/pybuilddir.txt",
        "{bin}/python{major}.{minor}._pth",
        "{prefix}/lib/python{major}{minor}.zip",
    ),
    # The user's own packages lie where /etc/passwd says, which is nobody's to vouch for.
    environment={"PYTHONNOUSERSITE": "1"},
    by_link=True,
)

NODE = ServiceRecord(
    name="node",
    title="Node.js",
    binary=re.compile(_ANY + r"node(?:js)?\Z"),
    libraries=(
        "{prefix}/lib/node_modules",
        "/usr/share/nodejs",  # Debian builds parts of Node itself from here
        "/usr/share/node_modules",
        "/usr/lib/nodejs",
        "/usr/lib/{triplet}/nodejs",
    ),
    links=("{bin}/nodejs",),
    # Looked into, from every script upwards, for packages and for how to read a script.
    absent=("/node_modules", "/package.json", "{prefix}/lib/node"),
)

JAVA = ServiceRecord(
    name="java",
    title="Java",
    binary=re.compile(
        _ANY + r"java-(?P<version>[0-9]+)-openjdk[^/]*/(?:jre/)?bin/java\Z|" + _ANY + r"bin/java\Z",
    ),
    libraries=(
        "{prefix}/lib",  # lib/modules, lib/jvm.cfg, lib/server/libjvm.so
        "{prefix}/conf",
        "{prefix}/release",
        "/etc/java-{version}-openjdk",  # where Debian's conf and lib lead
        "/etc/ssl/certs/java",
    ),
)

RUBY = ServiceRecord(
    name="ruby",
    title="Ruby",
    binary=re.compile(_ANY + r"ruby(?:[0-9]\.[0-9]+)?\Z"),
    libraries=(
        "{prefix}/lib/ruby",
        "/usr/lib/ruby",
        "/usr/lib/{triplet}/ruby",
        "/usr/local/lib/site_ruby",
        "/usr/local/lib/{triplet}/site_ruby",
        "/usr/local/bundle",
        "/usr/share/rubygems-integration",
        "/usr/share/ruby-vendor",
        "/var/lib/gems",
    ),
    links=("{bin}/ruby",),
    # RubyGems prefers newer gems in the home directory to those that come with Ruby, and /etc/passwd says where that is.
    absent=("/nonexistent",),
    environment={"HOME": "/nonexistent"},
)

PERL = ServiceRecord(
    name="perl",
    title="Perl",
    binary=re.compile(_ANY + r"perl(?:5\.[0-9.]+(?:-[^/]+)?)?\Z"),
    libraries=(
        "{prefix}/lib/perl5",
        "/etc/perl",
        "/usr/lib/{triplet}/perl",
        "/usr/lib/{triplet}/perl-base",
        "/usr/lib/{triplet}/perl5",
        "/usr/lib/perl5",
        "/usr/share/perl",
        "/usr/share/perl5",
        "/usr/local/lib/{triplet}/perl",
        "/usr/local/lib/site_perl",
        "/usr/local/share/perl",
        "/usr/local/share/perl5",
    ),
    links=("{bin}/perl",),
)

PHP = ServiceRecord(
    name="php",
    title="PHP (cli and fpm)",
    binary=re.compile(_ANY + r"(?P<kind>php|php-cgi|php-fpm)(?P<version>[0-9]+(?:\.[0-9]+)?)?\Z"),
    libraries=(
        "{prefix}/lib/php",
        "/usr/lib/php",
        "/usr/lib/php{version}",
        "/usr/share/php",
        "/usr/share/php{version}",
        *_USERS,
        "/usr/share/zoneinfo",  # Debian's PHP has no time zones of its own
    ),
    configuration=(
        "{prefix}/etc/php",
        "{prefix}/etc/php-fpm.conf",
        "{prefix}/etc/php-fpm.d",
        "/etc/php/{version}",
        "/etc/php{version}",
    ),
    links=("{bin}/{kind}",),
    absent=("{bin}/php.ini", "{bin}/php-cli.ini", "{bin}/php-fpm-fcgi.ini", "{prefix}/lib/php.ini"),
    directories=("/run/php",),
)

NGINX = ServiceRecord(
    name="nginx",
    title="nginx",
    binary=re.compile(_ANY + r"nginx\Z"),
    libraries=(
        "/usr/lib/nginx",
        "/usr/share/nginx",
        "/etc/nginx/modules",
        "/etc/nginx/modules-available",
        "/etc/nginx/modules-enabled",
        "/etc/nginx/mime.types",
        "/etc/nginx/fastcgi.conf",
        "/etc/nginx/fastcgi_params",
        "/etc/nginx/proxy_params",
        "/etc/nginx/scgi_params",
        "/etc/nginx/uwsgi_params",
        *_USERS,
    ),
    # Not the whole of /etc/nginx: keys and password files lie there as well.
    configuration=(
        "/etc/nginx/nginx.conf",
        "/etc/nginx/conf.d",
        "/etc/nginx/sites-available",
        "/etc/nginx/sites-enabled",
        "/etc/nginx/snippets",
    ),
    directories=("/run", "/var/cache/nginx", "/var/lib/nginx", "/var/log/nginx"),
)

REDIS = ServiceRecord(
    name="redis",
    title="Redis",
    # Debian's redis-server is a link to redis-check-rdb: one program that goes by its name.
    binary=re.compile(_ANY + r"redis-(?:server|check-rdb|check-aof|sentinel)\Z"),
    libraries=("/usr/lib/redis", "{prefix}/lib/redis"),
    links=("{bin}/redis-server",),
    directories=("/run/redis", "/var/lib/redis"),
)

RECORDS = (PYTHON, NODE, JAVA, RUBY, PERL, PHP, NGINX, REDIS)
