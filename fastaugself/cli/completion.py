"""Shell completion: the parser's own script, with file names where no option fits, and with recipes.

The script is bash's. zsh runs it too, by its `bashcompinit`.
"""

import contextlib
import io
import re
import runpy
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

from ..errors import UsageError
from .parser import Command, Group, choose
from .pretrain import Recipe, parse

# A recipe's options are completed after its file name, whatever runs it: python, or torchrun with its own options.
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
    COMPREPLY+=($(compgen -W "--preset --from --dry-run" -- "$current"))
  elif [[ $current != -* ]]; then
    local found=("${{COMPREPLY[@]}}") word
    COMPREPLY=()
    for word in "${{found[@]}}"; do
      [[ -z $word || $word == -* ]] || COMPREPLY+=("$word")
    done
  fi
  if ((COMP_CWORD > 1)) && [[ -e ${{COMPREPLY[0]}} ]]; then
    COMPREPLY=()  # the shell completes names of files better
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
    """What `shell`, bash or zsh, has to read so that it completes `fastaugself` and these recipes.

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
    """The script of one recipe, and the names of its presets."""
    if not path.is_file():
        raise UsageError(f"no such recipe: {path}")
    made: list[tuple[str, str]] = []

    def run(recipe: Recipe, /, **presets: Recipe) -> None:
        made.append((_printed(lambda option: parse(recipe, presets, option)), " ".join(["paper", *presets])))

    with patch("fastaugself.run", run):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except Exception as error:
            raise UsageError(f"{path} is not a recipe: {type(error).__name__}: {error}") from None
    if not made:
        raise UsageError(f"{path} is not a recipe: it does not call fastaugself.run")
    return made[0]


def _printed(parser: Callable[[list[str]], object]) -> str:
    """The parser's own script, which it prints before it ends the process."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        parser(["--tyro-print-completion", "bash"])
    # One line for each option: a description of several lines would be offered line by line.
    return re.sub(r"^COMPLETION_SPEC = .*$", lambda found: found[0].replace(r"\n", " "), printed.getvalue(), flags=re.M)


def _function(script: str) -> str:
    (name,) = re.findall(r"^(_tyro_\w+)\(\) \{$", script, re.MULTILINE)
    return name
