"""The command `fastaugself eval suite`: several models on a list of data sets, in one table."""

import contextlib
import dataclasses
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import tyro
from tyro.conf import arg

from ..distributed import resolve_device
from ..errors import RunError, UsageError
from ..files import check_outputs
from .encoders import load_encoder
from .options import Encoding, Models, Options
from .suite_table import Table, plain, write_suite
from .suites import ABOUT, Entry, check_paths, suite

log = logging.getLogger("fastaugself")


@dataclass(frozen=True)
class _DataSets(Models):
    suite: str = "papers"
    """papers (AugSelf's eleven transfer sets), vtab (the 19 tasks of VTAB-1k), robustness (ImageNet-V2, -R, -Sketch,
    -A), or a .toml file, or a file with lines NAME=PATH."""
    root: Path | None = None
    """Folder with a folder for each data set of a named suite, such as ROOT/cifar10."""
    at: tyro.conf.UseAppendAction[Annotated[tuple[str, ...], arg(metavar="NAME=PATH")]] = ()
    """Place of a data set that is not in --root; may be repeated."""
    only: tuple[str, ...] = ()
    """Names of the data sets to evaluate; default: all of the suite."""
    again: bool = False
    """Evaluate again what has a result already, as after a change of the photos."""


@dataclass(frozen=True)
class Suite(Encoding, _DataSets):
    """A suite: several models on a list of data sets, in one table with intervals and mean ranks.

    Every score is a result file of its protocol in --out. The same command again keeps those that are there and goes
    on with the rest.
    """

    out: Path = Path("results/eval")
    """Folder of the results: one JSON file per score, and the table as suite-NAME.md, .csv and .html."""

    name: ClassVar[str] = "suite"

    def __call__(self) -> Table:
        """Evaluates what is missing; prints and writes the table, and returns it.

        Raises UsageError before anything is evaluated for a data set that is missing; RunError at the end if a score
        could not be computed, whose reasons are in the table.
        """
        began = time.perf_counter()
        resolve_device(self.device)
        entries = self._entries()
        commands = {(entry.name, spec): self._command(entry, spec) for entry in entries for spec in self.models}
        check_outputs(self.out / "results.csv")
        models = self._models()
        table = Table(list(models))
        total, done = len(commands), 0
        for entry in entries:
            for name, (spec, digest) in models.items():
                done += 1
                self._cell(table, entry, name, commands[entry.name, spec], digest, f"{done} of {total}")
        label = self.suite if self.suite in ABOUT else Path(self.suite).stem
        about = f"{self._words()} {time.perf_counter() - began:.0f} s for what was evaluated now."
        stem = "-".join(["suite", label, *(["+".join(self.only)[:80]] if self.only else [])])
        paths = write_suite(self.out / stem, table, f"Suite {label}", about)
        print(plain(table))
        print("\n".join(map(str, paths)))
        if table.failed:
            (data, model), why = next(iter(table.failed.items()))
            more = f" ({len(table.failed)} in all)" if len(table.failed) > 1 else ""
            raise RunError(f"{model} could not be evaluated on {data}{more}: {why}")
        return table

    def _entries(self) -> list[Entry]:
        places = {}
        for text in self.at:
            name, equals, path = text.partition("=")
            if not (name and equals and path):
                raise UsageError(f"--at {text} must be NAME=PATH, such as --at cifar10=/data/cifar-10-batches-py")
            places[name] = Path(path)
        entries = suite(self.suite, self.root, places)
        names = [entry.name for entry in entries]
        if unknown := [name for name in self.only if name not in names]:
            raise UsageError(f"--only {unknown[0]} is not in the suite, which has {', '.join(names)}")
        entries = [entry for entry in entries if not self.only or entry.name in self.only]
        check_paths(entries, self.suite)
        return entries

    def _command(self, entry: Entry, spec: str) -> Options:
        """The command of a cell. Raises UsageError for an option of the suite's file that it does not take."""
        common = {field.name for field in dataclasses.fields(Encoding)}
        options: dict[str, Any] = {name: getattr(self, name) for name in common - entry.options.keys()}
        try:
            return entry.command(
                models=(spec,), data=entry.path, dataset=entry.dataset, fuse="none", **options, **entry.options
            )
        except TypeError as error:
            raise UsageError(f"{entry.name}: {entry.protocol} does not take these options ({error})") from None

    def _models(self) -> dict[str, tuple[str, str]]:
        """Spec and digest of each model by its name. Raises UsageError for two models of one name."""
        found: dict[str, tuple[str, str]] = {}
        for spec in self.models:
            encoder = load_encoder(spec, device="cpu", size=self.size or None, seed=self.seed)
            if encoder.name in found:
                raise UsageError(
                    f"two models are named {encoder.name}: pass {encoder.name}-2@{spec.rpartition('@')[2]}"
                )
            found[encoder.name] = (spec, encoder.digest)
        return found

    def _cell(self, table: Table, entry: Entry, name: str, command: Options, digest: str, place: str) -> None:
        """Adds the scores of a model on a data set to the table, from its result file or by computing them."""
        found = None if self.again else finished(self.out, command, digest)
        state = "kept"
        if found is None:
            state = ""
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    cast(Callable[[], Any], command)()
                found = finished(self.out, command, digest)
            except (UsageError, RunError) as error:
                table.failed[entry.name, name] = str(error)
                log.error("%s: %s on %s failed: %s", place, name, entry.name, error)
                return
        if found is None:
            raise RunError(
                f"the result of {name} on {entry.name} is not in {self.out}: is another process writing there?"
            )
        rows, file = found
        table.add(name, entry.name, entry.protocol, rows, file)
        said = ", ".join(f"{row['metric']} {row['value']:.4f}" for row in rows[:3])
        log.info("%s: %s on %s: %s%s", place, name, entry.name, said, f" ({state})" if state else "")

    def _words(self) -> str:
        parts = [
            ABOUT.get(self.suite, f"suite of {self.suite}"),
            f"only {', '.join(self.only)}" if self.only else "",
            f"at most {self.limit} samples per split" if self.limit else "",
            f"input of {self.size} × {self.size} px" if self.size else "input size of each model's own",
            f"seed {self.seed}",
        ]
        text = "; ".join(part for part in parts if part)
        return text[:1].upper() + text[1:] + "."


def finished(out: Path, command: Options, digest: str) -> tuple[list[Mapping[str, Any]], str] | None:
    """The rows of a model in a result file of the same protocol, data, options and seed, and the file's name.

    Also if the file is of several models, one after another. None without one. digest: of the encoder.
    """
    wanted = _compared(command.described())
    for path, record in _records(out, command):
        options = record["options"]
        digests = options.get("digests", [])
        if record["seed"] != command.seed or _compared(options) != wanted or digest not in digests:
            continue
        names = list(dict.fromkeys(row["models"][0] for row in record["rows"] if len(row["models"]) == 1))
        if len(names) == len(digests):
            name = names[digests.index(digest)]
            return [row for row in record["rows"] if row["models"] == [name]], path.name
    return None


def _compared(options: Mapping[str, Any]) -> str:
    """What two evaluations of a model must have in common, as text."""
    return json.dumps({k: v for k, v in options.items() if k not in ("models", "digests", "fuse")}, sort_keys=True)


def _records(out: Path, command: Options) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(out.glob(f"{command.name}*.json")):
        try:
            record = json.loads(path.read_text())
            if record["protocol"] == command.title and record["rows"]:
                record["options"], record["seed"]
                yield path, record
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another kind of file
