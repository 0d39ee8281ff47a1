"""Code that somebody puts where a service looks for it, in the image's layers or by a bind mount, does not run.

Each attack is first tried on the native image, where it does run: else it would show nothing.
"""

from __future__ import annotations

import io
import subprocess
import zipfile

import pytest
from main_job.containers import Change
from services.conftest import SECRET
from services.test_services_run import SCRIPTS

from sconify_tasks.service_records import RECORDS

EVIL = "EVIL"
_PHP_INI = b"auto_prepend_file=/opt/evil.php\n"
_PHP = b"<?php echo 'EVIL', PHP_EOL;"
_PYTHON, _PERL, _RUBY, _NODE = b"print('EVIL')\n", b"print 'EVIL'; 1;\n", b"puts 'EVIL'\n", b"console.log('EVIL');\n"
_GEM = b"# -*- encoding: utf-8 -*-\n# stub: json 99.0.0 ruby lib\n\n" + _RUBY
_JDK = "/usr/lib/jvm/java-17-openjdk-amd64"
LIBRARY = b"a shared object that speaks when it is loaded"
JAR = b"a jar that says another word"
# A service, a path, and what somebody puts there; PHP's settings name a script where nothing is protected.
ATTACKS = [
    ("python", "/usr/lib/python3.11/sqlite3/__init__.py", _PYTHON),
    ("python", "/usr/lib/python3/dist-packages/evil.pth", b"import os; " + _PYTHON),
    ("python", "/usr/lib/python3.11/lib-dynload/_sqlite3.cpython-311-x86_64-linux-gnu.so", LIBRARY),
    ("node", "/node_modules/planted/index.js", _NODE),
    ("node", "/usr/share/nodejs/planted/index.js", _NODE),
    ("perl", "/etc/perl/JSON/PP.pm", _PERL),
    ("perl", "/usr/local/share/perl/5.36.0/JSON/PP.pm", _PERL),
    ("perl", "/usr/share/perl/5.36.0/JSON/PP.pm", _PERL),
    ("perl", "/usr/lib/x86_64-linux-gnu/perl/5.36.0/auto/Digest/SHA/SHA.so", LIBRARY),
    ("ruby", "/usr/local/lib/site_ruby/json.rb", _RUBY),
    ("ruby", "/usr/lib/ruby/3.1.0/json.rb", _RUBY),
    ("ruby", "/usr/lib/ruby/vendor_ruby/rubygems/defaults/operating_system.rb", _RUBY),
    ("ruby", "/var/lib/gems/3.1.0/specifications/json-99.0.0.gemspec", _GEM),
    ("ruby", "/usr/lib/x86_64-linux-gnu/ruby/3.1.0/socket.so", LIBRARY),
    ("php", "/etc/php/8.2/cli/conf.d/99-evil.ini", _PHP_INI),
    ("php", "/etc/php/8.2/cli/php.ini", _PHP_INI),
    ("php", "/usr/bin/php.ini", _PHP_INI),
    ("php", "/usr/share/php/planted.php", _PHP),
    ("php", "/usr/lib/php/20220829/planted.so", LIBRARY),
    ("nginx", "/usr/lib/nginx/modules/ngx_http_echo_module.so", LIBRARY),
    ("nginx", "/etc/nginx/modules-enabled/evil.conf", b"EVIL on;\n"),
    ("nginx", "/etc/nginx/conf.d/evil.conf", b"EVIL on;\n"),
    ("redis", "/usr/lib/redis/modules/planted.so", LIBRARY),
    ("java", f"{_JDK}/lib/libnio.so", LIBRARY),
    ("java", "/app/work.jar", JAR),
]
_PHP_WORDS = "/usr/bin/php8.2 -d extension=planted.so /app/wanting.php"
COMMANDS = {name: SCRIPTS[name][:2] for name in ("node", "perl", "ruby", "python")} | {
    "php": ("/usr/bin/php8.2", _PHP_WORDS),
    "nginx": ("nginx", "nginx -t -c /app/nginx-dir.conf"),
    "redis": ("redis-server", "redis-server --port 6399 --loadmodule /usr/lib/redis/modules/planted.so"),
    "java": (f"{_JDK}/bin/java", f"{_JDK}/bin/java -jar /app/work.jar one"),
}
# What each says where nothing was planted; Redis does not start without its module.
DONE = dict.fromkeys(COMMANDS, SECRET) | {"nginx": "test is successful", "redis": "/usr/lib/redis/modules/planted.so"}


def test_every_service_is_attacked():
    assert {service for service, *_ in ATTACKS} == {record.name for record in RECORDS}


@pytest.fixture(scope="session")
def contents(need, tmp_path_factory, lab, java_image):
    """What has to be made first: a shared object, and the program's jar with another word in it."""
    source = '#include <stdio.h>\n__attribute__((constructor)) static void run(void) { puts("EVIL"); fflush(stdout); }\n'
    out = tmp_path_factory.mktemp("evil") / "evil.so"
    subprocess.run([need("gcc"), "-shared", "-fPIC", "-x", "c", "-", "-o", out], input=source.encode(), check=True)
    with io.BytesIO() as made:
        with (
            zipfile.ZipFile(io.BytesIO(lab.containers.read(java_image, "/app/work.jar"))) as jar,
            zipfile.ZipFile(made, "w") as evil,
        ):
            for name in jar.namelist():
                evil.writestr(name, jar.read(name).replace(b'{"secret"', b'{"EVILxx"'))
        return {LIBRARY: out.read_bytes(), JAR: made.getvalue()}


@pytest.mark.parametrize("attack", ATTACKS, ids=[path for _, path, _ in ATTACKS])
def test_planted_code_does_not_run(attack, contents, lab, java_image, tmp_path):
    service, path, content = attack
    native = java_image if service == "java" else lab.image
    binary, command = COMMANDS[service]
    changes = {path: Change(content=contents.get(content, content), mode=0o755)}
    changes |= {"/opt/evil.php": Change(content=_PHP)} if service == "php" else {}
    program, *words = command.split()
    unprotected = lab.run(native, f"--entrypoint={program}", changes=changes, command=words)
    assert EVIL in unprotected.stdout + unprotected.stderr

    image = lab.shared(
        f"{service}-planted", f"--binary={binary}", f"--command={command}", "--dir=/app", source=f"docker:{native}"
    )
    mounts = []
    for number, (place, change) in enumerate(changes.items()):
        (tmp_path / str(number)).write_bytes(change.content)
        (tmp_path / str(number)).chmod(0o755)
        mounts.append(f"--volume={tmp_path / str(number)}:{place}:ro")
    for ended in (lab.run(image, changes=changes), lab.run(image, *mounts)):
        said = ended.stdout + ended.stderr
        assert EVIL not in said
        # It works as if nothing were there, or ends and says what was changed: the file, or the folder that was to be listed.
        assert DONE[service] in said if ended.status == 0 else path.rpartition("/")[0] in said, (ended.status, said)
