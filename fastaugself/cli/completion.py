"""Shell completion: tyro's completion script, extended by recipes and by file names where no option fits.

The script is written for bash; zsh runs it through its `bashcompinit`.
"""

import contextlib
import io
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .parser import Command, Group, choose
from .pretrain import parse
from .recipe_file import open_recipe

# A recipe's options are completed after its file name, whether python or torchrun (with its own options) runs it.
_BASH = """
_fastaugself() {{
  local i name= current=${{COMP_WORDS[COMP_CWORD]}} last=${{COMP_WORDS[COMP_CWORD - 1]}} presets=
  for ((i = 0; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]##*/}} in
{cases}
      *) continue ;;
    esac
    COMP_WORDS=("${{COMP_WORDS[@]:$i}}")
    ((COMP_CWORD -= i))
    break
  done
  COMPREPLY=()
  [[ -n $name ]] || return
  "$name"
  if [[ -n $presets && $last == --preset ]]; then
    COMPREPLY=($(compgen -W "$presets" -- "$current"))
  elif [[ -n $presets && $current == -* ]]; then
    COMPREPLY+=($(compgen -W "--preset --from --dry-run --print-config" -- "$current"))
  elif [[ $current != -* ]]; then
    local found=("${{COMPREPLY[@]}}") word
    COMPREPLY=()
    for word in "${{found[@]}}"; do
      [[ -z $word || $word == -* ]] || COMPREPLY+=("$word")
    done
  fi
  if ((COMP_CWORD > 1)) && [[ -e ${{COMPREPLY[0]}} ]]; then
    COMPREPLY=()  # the shell itself completes file names better
  fi
}}
complete -o bashdefault -o default -F _fastaugself fastaugself{programs}
"""
_ZSH = """
(($+functions[compdef])) || {
  autoload -Uz compinit
  compinit
}
autoload -Uz bashcompinit
bashcompinit
"""


def completion(shell: str, recipes: Sequence[Path], commands: Mapping[str, Command | Group]) -> str:
    """The script that completes `fastaugself` and these recipes; shell: "bash" or "zsh".

    Raises UsageError for files that are not recipes.
    """
    script = _printed(lambda option: choose(commands, option, prog="fastaugself"))
    parts, cases = [script], [f"      fastaugself) name={_function(script)} ;;"]
    for path in recipes:
        script, presets = _recipe(path)
        parts.append(script)
        cases.append(f'      {shlex.quote(path.name)}) name={_function(script)} presets="{presets}" ;;')
    programs = " python python3 torchrun" if recipes else ""
    head = [_ZSH] if shell == "zsh" else []
    return "\n".join([*head, *parts, _BASH.format(cases="\n".join(cases), programs=programs)])


def _recipe(path: Path) -> tuple[str, str]:
    """The completion script of one recipe, and the names of its presets separated by spaces."""
    recipe, presets, _ = open_recipe(path)
    return _printed(lambda option: parse(recipe, presets, option)), " ".join(["paper", *presets])


def _printed(parser: Callable[[list[str]], object]) -> str:
    """The completion script of a tyro parser, which prints it and then exits."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        parser(["--tyro-print-completion", "bash"])
    # One line per option: the lines of a longer description would be offered as completions.
    return re.sub(r"^COMPLETION_SPEC = .*$", lambda found: found[0].replace(r"\n", " "), printed.getvalue(), flags=re.M)


def _function(script: str) -> str:
    """The name of the shell function that a completion script defines."""
    (name,) = re.findall(r"^(_tyro_\w+)\(\) \{$", script, re.MULTILINE)
    return name
