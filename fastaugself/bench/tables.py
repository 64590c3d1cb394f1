"""Tables of measured records: in the console, in results/<device>/README.md, and in marked blocks of the README.

    python -m fastaugself.bench tables [--check]

A block of the README stands between `<!-- table NAME results/DEVICE/NAME.json -->` and `<!-- end of table -->`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from ..errors import RunError, UsageError
from ..evaluation.study.page import RULE
from ..evaluation.study.plan import TASKS
from .harness import Record

BLOCK = re.compile(r"(<!-- table (\w+) (\S+\.json) -->\n).*?(<!-- end of table -->)", re.DOTALL)
LIBRARIES = {
    "torch": "torch",
    "triton": "Triton",
    "numba": "numba",
    "pillow": "Pillow",
    "torchvision": "torchvision",
    "FFCV": "FFCV",
    "opencv-python-headless": "OpenCV",
    "albumentationsx": "AlbumentationsX",
    "kornia": "Kornia",
    "triton-augment": "triton-augment",
    "nvidia-dali-cuda120": "DALI",
    "cvcuda-cu12": "CV-CUDA",
}


@dataclass(frozen=True)
class Table:
    """head: names of the columns. rows: as many cells each; the first is a name, the others numbers or a reason."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        rule = ("---", *("--:" for _ in self.head[1:]))
        lines = [f"| {' | '.join(cells)} |" for cells in (self.head, rule, *self.rows)]
        return "\n".join(lines).replace("|  |", "| |") + "\n"


def augment_table(result: Record) -> Table:
    """Every row of `bench augment`, and who was left out."""
    counted = any(row["launches"] is not None for row in result["rows"])
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        launches = (f"{row['launches'] or ''}",) if counted else ()
        speed = (f"{row['views_per_s']:,.0f}", f"{row['gb_per_s']:.2f}", f"{row['percent_of_copy']:.1f}")
        rows.append((row["name"], *speed, *launches, _ratio(result, row["name"])))
    for peer in result["left_out"]:
        rows.append((peer["name"], "", "", "", *(("",) if counted else ()), f"left out: {peer['reason']}"))
    launches = ("launches",) if counted else ()
    return Table(("", "views/s", "GB/s", "% of copy", *launches, "ours is faster by (lowest to highest)"), rows)


def augment_summary(result: Record) -> Table:
    """Ours and the fastest row of each library in the main case of `bench augment`; of a GPU in its other cases too."""
    on_gpu = result["environment"]["device"] != "cpu"
    best: dict[tuple[str, str], Record] = {}
    for row in result["rows"]:
        library = row["name"] if row["name"].startswith("fastaugself") else re.split("[-,]", row["name"])[0]
        key = (library, row["case"])
        shown = row["case"] == "" or (on_gpu and row["case"] != ", 1 view")
        if shown and library != "oracle" and row["views_per_s"] > best.get(key, {"views_per_s": 0})["views_per_s"]:
            best[key] = row
    rows: list[tuple[str, ...]] = [
        (row["name"], f"{row['views_per_s']:,.0f}", _ratio(result, row["name"])) for row in best.values()
    ]
    return Table(("", "views/s", "ours is faster by (lowest to highest)"), rows)


def emission_table(result: Record) -> Table:
    """What targets and descriptors cost."""
    rows: list[tuple[str, ...]] = []
    for row in result["emission"]:
        low, high = row["percent"]["quartiles"]
        rows.append((row["name"] + row["case"], f"{row['percent']['median']:+.2f} %", f"{low:+.2f} to {high:+.2f} %"))
    return Table(("emitted beside the parameters", "time", "half of the pairs"), rows)


def _ratio(result: Record, name: str) -> str:
    ratio = result["ratios"].get(name)
    return f"{ratio['median']:.1f}x ({ratio['min']:.1f} to {ratio['max']:.1f})" if ratio else ""


def rates_table(result: Record) -> Table:
    """The rows of any benchmark: the rate, and the lowest and highest of the rounds."""
    unit = next(key for key in result["rows"][0] if key.endswith("_per_s"))
    rows: list[tuple[str, ...]] = [
        (row["name"], _number(row[unit]), f"{_number(min(row['rounds']))} to {_number(max(row['rounds']))}")
        for row in result["rows"]
    ]
    rows += [(peer["name"], "", f"left out: {peer['reason']}") for peer in result.get("left_out", ())]
    return Table(("", unit.replace("_per_s", "/s").replace("_", " "), "rounds"), rows)


def ratios_table(result: Record) -> Table:
    """The ratios of any benchmark."""
    rows: list[tuple[str, ...]] = []
    for name, ratio in result["ratios"].items():
        if isinstance(ratio, dict) and "median" in ratio:
            rows.append((name, _number(ratio["median"]), f"{_number(ratio['min'])} to {_number(ratio['max'])}"))
        elif isinstance(ratio, int | float):
            rows.append((name, _number(ratio), ""))
    return Table(("ratio", "", "rounds"), rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def loader_table(result: Record) -> Table:
    """Every row of `bench loader`, and who was left out."""
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}"
        speed = (f"{row[key]:,.0f}" for key in ("samples_per_s_per_core", "samples_per_s", "mb_per_s"))
        rows.append((row["contestant"], row["job"], row["storage"], str(row["workers"]), *speed, memory))
    rows += [(peer["name"], *("",) * 6, f"left out: {peer['reason']}") for peer in result["left_out"]]
    return Table(("", "makes", "stored", "cores", "photos/s a core", "photos/s", "MB/s", "memory, MB"), rows)


LOADER_RATIOS = {
    "decode_vs_ffcv_twice": "decoded photos; FFCV decodes for each view",
    "decode_vs_ffcv_twice_with_crops": "decoded photos; FFCV decodes and crops for each view",
    "views_vs_ffcv_ssl": "two views; FFCV-SSL's design",
    "views_vs_dataloader_albumentationsx": "two views; PyTorch's DataLoader with AlbumentationsX",
    "views_vs_dataloader_pil": "two views; PyTorch's DataLoader with PIL",
}


def loader_summary(result: Record) -> Table:
    """The ratios of `bench loader` from JPEG on one core, with the rates that they compare."""
    rates = {
        row["contestant"]: f"{row['samples_per_s_per_core']:,.0f}"
        for row in result["rows"]
        if (row["storage"], row["workers"]) == ("jpeg", 1)
    }
    rows: list[tuple[str, ...]] = []
    for name, words in LOADER_RATIOS.items():
        if name in result["ratios"]:
            ratio = result["ratios"][name]
            rows.append((words, rates[ratio["ours"]], rates[ratio["other"]], _ratio(result, name)))
    return Table(("what; against whom", "ours, photos/s", "theirs", "ours is faster by (lowest to highest)"), rows)


def machine(result: Record) -> str:
    """What a record was measured on, in a sentence without its full stop."""
    environment = result["environment"]
    versions = {**environment["versions"], **result["config"].get("peers", {})}
    named = [f"{name} {versions[key]}" for key, name in LIBRARIES.items() if versions.get(key)]
    if environment["device"] == "cpu":
        where = f"{environment['cpu']}, {result['config'].get('threads')} of {environment['cores']} cores"
    else:
        where = environment["gpu"]
    return f"{where}, {result['date']}, commit {environment['commit']}; {', '.join(named)}"


def _augment_block(result: Record, path: str) -> str:
    return _block(augment_summary(result).markdown(), result, path)


def _block(text: str, result: Record, path: str) -> str:
    """Tables for the README, and below them what they were measured on and where the rest is."""
    where = machine(result).split(";")[0]
    return f"{text}\n<sub>{where}. All rows and versions: [{Path(path).parent}]({Path(path).parent}/README.md).</sub>\n"


def _rates_block(result: Record, path: str) -> str:
    return _block(_rates_page(result), result, path)


def _rates_page(result: Record) -> str:
    tables = [rates_table(result), ratios_table(result), *breakdown_tables(result)]
    return "\n".join([_setup(result), *(table.markdown() for table in tables if table.rows), *_sentences(result)])


def _setup(result: Record) -> str:
    """What was trained, and what the ratios are."""
    c = result["config"]
    if "bound" in result:
        ratio = "how many times as fast as the row the default is"
    elif "data_wait" in result:
        ratio = "how near whole training comes to its steps alone"
    else:
        ratio = "the share that is kept of the first row's rate for each process"
    trained = f"{c['method']}, {c['backbone']} of width {c['width']} at {c['size']} px, {c['batch']} pairs in a step"
    return f"{trained}. A ratio is {ratio}.\n"


def breakdown_tables(result: Record) -> list[Table]:
    """Where a step's time goes: of `bench step` by kind of step, of `bench scale` by number of processes."""
    kinds = result.get("breakdown") or {row["name"]: row["breakdown"] for row in result["rows"] if "breakdown" in row}
    names = list(dict.fromkeys(part for parts in kinds.values() for part in parts))
    rows: list[tuple[str, ...]] = []
    for name in names:
        cells = [f"{parts[name] * 1e3:,.1f} ({parts[name] / sum(parts.values()):.0%})" if name in parts else ""
                 for parts in kinds.values()]  # fmt: skip
        rows.append((name, *cells))
    return [Table(("part of a step, ms", *kinds), rows)] if rows else []


def _sentences(result: Record) -> list[str]:
    found = []
    if result.get("bound"):
        bound = result["bound"]
        found.append(f"The default has {bound['share']:.0%} of the bound of {bound['samples_per_s']:,.0f} samples/s.\n")
    if "data_wait" in result:
        idle = result["device_idle"]
        rest = "" if idle is None else f", and the device idle for {idle:.1%}"
        found.append(f"Training waited for data for {result['data_wait']:.1%} of the time{rest}.\n")
    return found


ABOUT_PEERS = """\
`albumentationsx` as it comes and `kornia` do not antialias, `albumentationsx-area` averages areas where it shrinks.
`dali` and `cv-cuda` have a linear map of colours in place of the jitter, and `no resize` is the set of operations that
triton-augment has. `oracle` is the readable PyTorch that ours is held to, view by view, on batches, and compiled.
"""


def _augment_page(result: Record) -> str:
    return f"{augment_table(result).markdown()}\n{ABOUT_PEERS}\n{emission_table(result).markdown()}"


def _loader_page(result: Record) -> str:
    return f"{loader_table(result).markdown()}\n{ratios_table(result).markdown()}"


def _loader_block(result: Record, path: str) -> str:
    return _block(loader_summary(result).markdown(), result, path)


def study_table(result: Record) -> Table:
    """Every variant of `eval study` in every task: mean and standard deviation over its seeds."""
    rows: list[tuple[str, ...]] = []
    for name, row in result["numbers"].items():
        cells = (_over_seeds(list(row[task.name].values()), task.percent) if task.name in row else "" for task in TASKS)
        rows.append((name.removeprefix("none "), *cells))
    return Table(("", *(task.name for task in TASKS)), rows)


def _over_seeds(values: Sequence[float], percent: bool) -> str:
    digits = 1 if percent else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def _study_about(result: Record) -> str:
    study, environment = result["study"], result["environment"]
    further = f", {' '.join(study['options'])}" if study["options"] else ""
    return (
        f"{result['seeds']} seeds, {study['epochs']} epochs at {study['size']} px{further}; "
        f"{environment['cpu']}, {result['date']}, commit {environment['commit']}"
    )


INVARIANCE = "Whitened cosine of a photo and its transformed self, debiased, mean over seeds: 1 is invariant."


def _study_page(result: Record) -> str:
    tasks = "\n".join(f"- {task.name}: {task.metric}" for task in TASKS)
    gains = Table(
        ("", "task", "against the base", "reading"),
        [(f"{f['method']} {f['part']}", f["task"], f["gain"], f["verdict"]) for f in result["reading"]],
    )
    invariance = f"{INVARIANCE}\n\n{invariance_table(result).markdown()}" if result["invariance"] else ""
    return f"{study_table(result).markdown()}\n{tasks}\n\n{RULE}\n\n{gains.markdown()}\n{invariance}"


def invariance_table(result: Record) -> Table:
    """The mean invariance of every variant of `eval study` to every transform."""
    figure: dict[str, dict[str, float]] = result["invariance"]
    transforms = dict.fromkeys(name for column in figure.values() for name in column)
    rows: list[tuple[str, ...]] = [
        (name, *(f"{column[name]:.2f}" if name in column else "" for column in figure.values())) for name in transforms
    ]
    return Table(("invariance to", *figure), rows)


def _study_block(result: Record, path: str) -> str:
    where = f"[{Path(path).parent}]({Path(path).parent}/README.md#eval-study)"
    return f"{study_table(result).markdown()}\n<sub>{_study_about(result)}. What it says of each cell: {where}.</sub>\n"


RATES = ("step", "e2e", "scale")
BLOCKS: Mapping[str, Callable[[Record, str], str]] = {
    "augment": _augment_block,
    "loader": _loader_block,
    "study": _study_block,
} | dict.fromkeys(RATES, _rates_block)
PAGES: Mapping[str, Callable[[Record], str]] = {
    "augment": _augment_page,
    "loader": _loader_page,
    "study": _study_page,
} | dict.fromkeys(RATES, _rates_page)


def with_tables(text: str, root: Path) -> str:
    """The text of a README with every marked block made anew from the records under `root`.

    Raises UsageError for a block whose table or record is not there.
    """

    def block(match: re.Match[str]) -> str:
        begin, name, path, end = match.groups()
        if name not in BLOCKS:
            raise UsageError(f"a marked block asks for the table {name}; there are {', '.join(BLOCKS)}")
        if not (root / path).exists():
            raise UsageError(f"a marked block needs {path}, which is not there; measure it, or remove the block")
        return f"{begin}{BLOCKS[name](_read(root / path), path)}{end}"

    return BLOCK.sub(block, text)


def page(folder: Path) -> str:
    """The README.md of a device's results."""
    parts = [f"# {folder.name}\n\nMade by `python -m fastaugself.bench tables` from the records beside it.\n"]
    for name, render in PAGES.items():
        path = folder / f"{name}.json"
        if path.exists():
            result = _read(path)
            title, where = ("eval study", _study_about) if name == "study" else (f"bench {name}", machine)
            parts.append(f"## {title}\n\n{where(result)}.\n\n{render(result)}")
            if (folder / f"{name}.png").exists():
                parts.append(f"![the same as bars]({name}.png)\n")
    return "\n".join(parts)


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def tables(root: Path = Path("."), check: bool = False) -> None:
    """Makes the tables of README.md and of results/*/README.md anew from the records under results/.

    Args:
        root: The repository.
        check: Change nothing, and exit with 1 where something would change.
    """
    if not (root / "README.md").is_file():
        raise UsageError(f"{root.resolve()} has no README.md: run in the repository, or pass its folder with --root")
    wanted = {root / "README.md": with_tables((root / "README.md").read_text(encoding="utf-8"), root)}
    for folder in sorted({path.parent for name in PAGES for path in root.glob(f"results/*/{name}.json")}):
        wanted[folder / "README.md"] = page(folder)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check and stale:
        raise RunError(f"{', '.join(map(str, stale))} differ from the records; run python -m fastaugself.bench tables")
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
        print(path)
