"""`doit tabcompletion`: doit's own scripts, and what they lack for names of images and for task names with colons.

doit's script is kept as it is, whatever it says in a later version: for bash a function around it answers for what it gets
wrong; for zsh its list of tasks is put right where it has just been made. Nothing of a project is in the scripts.
"""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from doit.cmd_completion import TabCompletion as DoitTabCompletion
from doit.cmdparse import CmdOption

from sconify_dodo.machine_options import option
from sconify_tasks.errors import SconifyError

if TYPE_CHECKING:
    from doit.cmd_base import Command

_IMAGES = option(
    "images",
    "print the names of the images of sconify.yaml, or of the file that is named: the scripts ask for them",
    default=False,
)


class TabCompletion(DoitTabCompletion):  # type: ignore[misc]
    """In place of doit's command of the same name."""

    name = "tabcompletion"
    doc_usage = "| --images [FILE]"
    doc_description = "The script also completes the images of sconify.yaml, for the commands that take them."
    cmd_options = (*DoitTabCompletion.cmd_options, _IMAGES)
    outstream: Any

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int | None:
        """Return the exit code (see `sconify_tasks.errors`)."""
        if not opt_values["images"]:
            super().execute(opt_values, pos_args)
            return None
        try:
            names = _image_names(pos_args[0] if pos_args else "")
        except SconifyError as error:
            sys.stderr.write(f"ERROR: {error}\n")
            return error.exit_code
        self.outstream.write("".join(f"{name}\n" for name in names))
        return None

    def _generate_bash(self, opt_values: dict[str, Any], pos_args: list[str]) -> None:
        script = self._generated(super()._generate_bash, opt_values, pos_args)
        self.outstream.write(f"{script}\n{self._filled(_BASH)}")

    def _generate_zsh(self, opt_values: dict[str, Any], pos_args: list[str]) -> None:
        script = self._generated(super()._generate_zsh, opt_values, pos_args)
        before, mark, after = script.partition(_ZSH_TASKS_ARE_THERE)
        # What doit writes to a terminal that asks for completions can only disturb what is typed there.
        before = before.replace("--template '{name}: {doc}')", "--template '{name}: {doc}' 2>/dev/null)")
        self.outstream.write(before + (self._filled(_ZSH) if mark else "") + mark + after)

    @classmethod
    def _zsh_arg_list(cls, cmd: Command) -> list[str]:
        found: list[str] = super()._zsh_arg_list(cmd)
        return [*found, "'*:image:($images)'"] if _takes_images(cmd) else found

    def _filled(self, template: str) -> str:
        takers = {name: command for name, command in sorted(self.cmds.items()) if _takes_images(command)}
        options = [CmdOption(option) for command in takers.values() for option in command.cmd_options]
        valued = {word for option in options if option.type is not bool for word in (f"-{option.short}", f"--{option.long}")}
        return Template(template).safe_substitute(
            program=Path(sys.argv[0]).name, takers=" ".join(takers), valued=" ".join(sorted(valued - {"-"}))
        )

    def _generated(self, generate: Any, opt_values: dict[str, Any], pos_args: list[str]) -> str:
        """What doit itself would print."""
        outstream, self.outstream = self.outstream, StringIO()
        try:
            generate(opt_values, pos_args)
            return str(self.outstream.getvalue())
        finally:
            self.outstream = outstream


def _takes_images(command: Command | type[Command]) -> bool:
    return "IMAGE" in command.doc_usage


def _image_names(file: str) -> tuple[str, ...]:
    from sconify_tasks.environment import read_environment
    from sconify_tasks.project import find_project, load_project, project_of

    place = project_of(Path(file)) if file else find_project(Path.cwd())
    return tuple(load_project(place.root, variables=read_environment(os.environ).variables).images)


_BASH = """\
# Names of images; and of tasks, also where they have colons.
_${program}_named()
{
    local cur prev words cword word file=() names=""
    COMPREPLY=()
    _get_comp_words_by_ref -n := cur prev words cword
    for word in "${words[@]:1:cword-1}"; do
        case $word in
            --file=*) file=(-f "${word#*=}") ;;
            -f|--file) file=(-f) ;;
            *) [[ ${#file[@]} == 1 ]] && file+=("$word") ;;
        esac
    done
    if [[ $cword -gt 1 && " ${takers} " == *" ${words[1]} "* ]]; then
        [[ $cur != -* && " ${valued} " != *" $prev "* ]] &&
            names=$(${program} tabcompletion --images "${file[@]:1}" 2>/dev/null)
    elif [[ $cur == *:* && $cur != -* ]]; then
        names=$(${program} list --quiet "${file[@]}" 2>/dev/null)
        names+=" $(${program} list --quiet "${file[@]}" --all "${cur%:*}" 2>/dev/null)"
    fi
    if [[ -z ${names// } ]]; then
        _${program} "$@"
        return
    fi
    compopt +o filenames 2>/dev/null # colons need no quotes
    COMPREPLY=( $(compgen -W "$names" -- "$cur" | sort -u) )
    __ltrim_colon_completions "$cur"
}
complete -o filenames -F _${program}_named ${program}
"""

_ZSH_TASKS_ARE_THERE = "    # complete command or task name\n"
_ZSH = """\
    # names of tasks have colons; those of a task's parts are listed once it is named
    local each
    local -a escaped images file
    if [[ $words[CURRENT] == *:* ]]; then
        tasks+=("${(@f)$(${program} list --all --template '{name}: {doc}' "${words[CURRENT]%:*}" 2>/dev/null)}")
    fi
    for each in $tasks; do
        escaped+=("${${each%%: *}//:/\\\\:}:${each#*: }")
    done
    tasks=(${(u)escaped})
    if (( CURRENT > 2 )) && [[ " ${takers} " == *" $words[2] "* ]]; then
        each=$words[(I)(-f|--file)]
        file=(${words[(r)--file=*]#*=} ${words[each > 0 ? each + 1 : 0]})
        images=($(${program} tabcompletion --images $file 2>/dev/null))
    fi

"""
