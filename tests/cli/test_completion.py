"""The scripts of `doit tabcompletion`, sourced by real shells: what is offered for what was typed."""

from __future__ import annotations

import subprocess
from itertools import takewhile

import pytest
from build.small_image import Place
from cli.commands import run, variables

IMAGES = """\
version: 1
project: shop
defaults: {base: scratch, from: "dir:native", binary: /bin/prog}
images:
  api: {to: "oci:out:1"}
  api-admin: {to: "oci:out:2"}
  web: {to: "oci:out:3"}
"""
OWN = """\
def task_own():
    for name in ("first", "second"):
        yield {"name": name, "actions": None, "doc": "one: or the other"}
    yield {"basename": "my:odd", "actions": None}
"""
TYPED_TASKS = {
    "doit run sconify:": {"sconify:api", "sconify:api-admin", "sconify:web"},
    "doit clean -n sconify:w": {"sconify:web"},
    "doit sconify:web:en": {"sconify:web:encrypt"},
    "doit run own:": {"own:first", "own:second"},
    "doit run my:": {"my:odd"},
    "doit expl": {"explain"},
}
TYPED_IMAGES = {
    "doit sconify ": {"api", "api-admin", "web"},
    "doit sconify -v a": {"api", "api-admin"},
    "doit explain -f sub/else.yaml ": {"other"},
    "doit sconify --file=sub/else.yaml ": {"other"},
}
# What bash-completion does, of which doit's script needs two functions.
BASH = r"""
_get_comp_words_by_ref() { words=("${typed[@]}"); cword=$((${#words[@]} - 1)); cur=${words[cword]}; prev=${words[cword - 1]}; }
__ltrim_colon_completions() { :; }
source ./script
for line; do
    read -ra typed <<<"$line"
    [[ $line == *" " ]] && typed+=("")
    "$(complete -p doit | sed 's/.* -F \([^ ]*\) .*/\1/')"
    echo "$line>${COMPREPLY[*]}"
done
"""
# After a TAB, what is listed and what the line has become.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1= PS2=; stty -echo columns 200; unsetopt zle_bracketed_paste prompt_sp; fpath=(. $fpath); autoload -U compinit _doit
compinit -D -u; compdef _doit doit; setopt no_auto_menu no_beep no_list_beep; LISTMAX=0
said() { print -r -- "<<$BUFFER>>"; BUFFER= }; zle -N said; bindkey "^T" said; print REA""DY'
zpty -r shell found '*READY*'
for line; do
    zpty -w -n shell "$line"$'\t\x14'
    zpty -r shell found '*<<*>>*'
    print -r -- "$line>${found//[[:cntrl:]]##/ }"
done
zpty -d shell
"""


@pytest.fixture(params=["own tasks and images", "images alone", "own tasks alone"])
def typed(request, place: Place) -> dict[str, set[str]]:
    """A place, and what is typed there."""
    if "images" in request.param:
        (place.folder / "sconify.yaml").write_text(IMAGES)
        (place.folder / "sub").mkdir()
        (place.folder / "sub" / "else.yaml").write_text(
            IMAGES.replace("api:", "other:").replace("  api-admin", "  #").replace("  web", "  #")
        )
    if "own" in request.param:
        (place.folder / "dodo.py").write_text(OWN)
    if request.param == "own tasks and images":
        (place.folder / "doit.cfg").write_text("[GLOBAL]\nloader = sconify\n")
        return TYPED_TASKS | TYPED_IMAGES
    if request.param == "own tasks alone":
        return {line: found for line, found in TYPED_TASKS.items() if "sconify" not in line} | {"doit run sconify:": set()}
    return TYPED_IMAGES | {"doit run sconify:": set()}


def answers(place: Place, shell: list[str], typed: dict[str, set[str]]) -> dict[str, str]:
    done = subprocess.run(
        [*shell, "-", *typed],
        cwd=place.folder,
        env=variables(place, TERM="dumb"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split(">", 1) for line in done.stdout.splitlines())


def test_bash_offers_names_of_images_and_of_tasks_with_colons(place: Place, typed, need):
    (place.folder / "script").write_text(run(place, ["doit", "tabcompletion"]).stdout)
    found = answers(place, [need("bash"), "--norc", "-c", BASH], typed)
    assert {line: set(words.split()) for line, words in found.items()} == typed


def test_zsh_offers_names_of_images_and_of_tasks_with_colons(place: Place, typed, need):
    (place.folder / "_doit").write_text(run(place, ["doit", "tabcompletion", "--shell", "zsh"]).stdout)
    found = answers(place, [need("zsh"), "-f", "-c", "setopt extended_glob\n" + ZSH], typed)
    for line, offered in typed.items():
        listed, _, became = found[line].rpartition("<<")
        typed_before, _, word = line.rpartition(" ")
        # What all have in common is put there; where that is nothing new, all are listed.
        common = (
            "".join(letters[0] for letters in takewhile(lambda each: len({*each}) == 1, zip(*offered, strict=False))) or word
        )
        assert became == f"{typed_before} {common}{' ' * (len(offered) == 1)}>>"
        if common == word:
            assert set(listed.split()) >= offered, line
        assert "ERROR" not in listed


def test_names_of_images_are_printed_for_the_scripts_and_what_is_wrong_is_said(place: Place):
    (place.folder / "sconify.yaml").write_text(IMAGES)
    assert run(place, ["doit", "tabcompletion", "--images"]).stdout == "api\napi-admin\nweb\n"
    assert not place.home.exists(), "nothing is opened for a list of names"
    ended = run(place, ["doit", "tabcompletion", "--images", "nowhere.yaml"])
    assert (ended.code, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
