"""The report of a run: one HTML file with the configuration, the training curves and the predictions of the heads."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from statistics import median

from ..config.schema import Photos
from ..export.backbone import WEIGHTS
from ..files import replace_file, utf8
from ..html.charts import Level, line_chart
from ..html.page import escape, page
from ..methods.moco import MoCo
from ..runs.records import final_mean, flat, is_number, read_lines, read_object, without_stub
from ..training.metrics import duration
from ..training.trainer import Trainer
from .checks import chance, checks_html, kind
from .heads import predictions_html
from .next_steps import next_steps
from .predictions import evaluate_heads
from .text import base_method, caveats, check_title, compare, loss_title, method_name, metric_title, pretty
from .words import HEADS

log = logging.getLogger(__name__)

PROBES = {"knn": "k-NN accuracy", "linear": "Linear probe"}
TILES = {**PROBES, "linear": "linear probe"}
TRAINER_METRICS = (
    *("step", "epoch", "loss", "loss_ssl", "feature_std", "lr", "pairs_per_s", "data_wait", "corrupt"),
    *("memory_gib", "memory_reserved_gib"),
)
"""Metrics of every run, which have charts of their own or none."""
PUBLISHED = {"color": "0.133", "crop": "0.032"}  # baseline losses of MoCo v2's views; crop: for square photos


def write_report(run: Path, trainer: Trainer) -> Path | None:
    """Writes `run/report.html` and returns its path, or None with a warning if it cannot be written.

    A section that fails is replaced by its error, which is also logged. Nothing is raised: the weights are on disk
    already, and a failing report must not fail the run.
    """
    try:
        report = Report(run, trainer)
        builders = (report.head, report.curves, report.predictions, report.checks, report.meaning, report.settings)
        parts = [report.part(build) for build in builders]
        path = run / "report.html"
        replace_file(path, utf8(page(report.title, "\n".join(parts))))
        return path
    except Exception as error:
        log.warning("the report was not written (%s: %s); the weights are not affected", type(error).__name__, error)
        return None


def _name(photos: Photos | None) -> str:
    """The file name of a data set; of several files, the first and the number of the others."""
    files = photos if isinstance(photos, tuple) else (photos,)
    return Path(str(files[0])).name + (f" and {len(files) - 1} more" if len(files) > 1 else "")


class Report:
    """The records of a run, and each section of the report as HTML."""

    def __init__(self, run: Path, trainer: Trainer) -> None:
        self.run, self.trainer, self.config = run, trainer, trainer.config
        self.metrics = read_lines(run / "metrics.jsonl")
        self.evaluations = read_lines(run / "evaluations.jsonl")
        self.environment = read_object(run / "environment.json")
        self.baseline: dict[str, float] = self.environment.get("baseline_losses") or trainer.baseline_losses()
        self.is_demo = str(trainer.identity.get("data", {}).get("train")) == "demo"
        self.method = method_name(self.config)
        self.what = method_name(self.config, heads=True)
        self.photos = "eight real photos" if self.is_demo else _name(self.config.data.train)
        self.title = f"{self.method} on {self.photos}"

    def part(self, build: Callable[[], str]) -> str:
        """One section, or the reason why it is missing."""
        try:
            return build()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.warning("the section '%s' of the report is missing (%s)", build.__name__, reason)
            return f'<p class="warning">The section "{build.__name__}" is missing: {escape(reason)}</p>'

    # --- summary ------------------------------------------------------------------------------------------------------

    def head(self) -> str:
        config, trainer = self.config, self.trainer
        backbone = config.backbone
        width = f" of width {backbone.width}" if backbone.width != 64 and not backbone.name.startswith("timm:") else ""
        early = (
            ""
            if trainer.global_step >= trainer.total_steps
            else f" The run ended at step {trainer.global_step:,} of {trainer.total_steps:,}."
        )
        lead = (
            f"{self.what}: a {pretty(backbone.name)}{width} trained on {trainer.loader.num_samples:,} "
            f"{'crops of eight photos' if self.is_demo else 'photos'} at {config.view.size} px, "
            f"global batch size {config.batch_size}.{early}"
        )
        return (
            f'<p class="eyebrow">fastaugself run {escape(self.run)}</p>\n<h1>{escape(self.title)}</h1>\n'
            f'<p class="lead">{escape(lead)}</p>\n{self._tiles()}\n'
            f"<p>The trained backbone is in <code>{escape(self.run / 'export' / WEIGHTS)}</code>. "
            f"<a href='#next'>What to do next</a> shows how to load it.</p>"
        )

    def _tiles(self) -> str:
        tiles = [(loss_title(name), *values) for name, values in self._final_losses().items()]
        for name in ("knn", "linear"):
            if ends := self.first_and_last(name):
                before, last = ends
                level = chance(self.config) if before is None else None
                note = "" if before is None else f"from {before:.1%} before training"
                note = f"chance: {level:.1%}" if level is not None else note
                tiles.append((TILES[name], f"{last:.1%}", note))
        rates = [m["pairs_per_s"] for m in self.metrics if is_number(m.get("pairs_per_s"))]
        if rates:
            waits = [m["data_wait"] for m in self.metrics if is_number(m.get("data_wait"))]
            wait = f", {median(waits):.0%} of the time waiting for data" if waits else ""
            tiles.append(("speed", f"{median(rates):,.0f} pairs/s", f"on {self._machine()}{wait}"))
            tiles.append(("training time", duration(self.training_seconds()), f"{self.trainer.global_step:,} steps"))
        cells = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
            for name, value, note in tiles[:8]
        )
        return f'<dl class="tiles">{cells}</dl>' if cells else ""

    def first_and_last(self, name: str) -> tuple[float | None, float] | None:
        """(before training or None, last value) of a check of the features; None if it was not made in training."""
        found = [(e["step"], float(e[name])) for e in self.evaluations if is_number(e.get(name))]
        if not found or found[-1][0] == 0:
            return None
        return (found[0][1] if found[0][0] == 0 else None), found[-1][1]

    def _final_losses(self) -> dict[str, tuple[str, str]]:
        """(value, comparison with the baseline) of each auxiliary loss, as means over the last tenth of the steps."""
        found = {}
        for name, baseline in self.baseline.items():
            points = [(m["step"], m["loss_" + name]) for m in self.metrics if is_number(m.get("loss_" + name))]
            if points:
                value = final_mean(points)
                found[name] = (f"{value:.3f}", f"{compare(value, baseline)} the baseline {baseline:.3f}")
        return found

    def _machine(self) -> str:
        env = self.environment
        processes = int(env.get("processes", 1))
        if "gpu" in env:
            return f"{processes} × {env['gpu']}" if processes > 1 else str(env["gpu"])
        cores = f"{env.get('cores', '?')} CPU cores"
        return f"{processes} processes on {cores}" if processes > 1 else cores

    def training_seconds(self) -> float:
        """Training time in seconds from the logged rates; pauses before a resume do not count."""
        seconds, before = 0.0, 0
        for m in self.metrics:
            if is_number(m.get("pairs_per_s")) and m["pairs_per_s"] > 0:
                seconds += (m["step"] - before) * self.config.batch_size / m["pairs_per_s"]
                before = m["step"]
        return seconds

    # --- curves -------------------------------------------------------------------------------------------------------

    def curves(self) -> str:
        if not self.metrics:
            return (
                "<h2>Losses</h2>\n<p>No metrics were logged: the run was shorter than <code>--log.every</code> "
                "steps.</p>"
            )
        charts = [self._method_chart()]
        for name, baseline in self.baseline.items():
            note = "Dashed: baseline loss on this data set, of "
            note += "a head that always outputs 0." if name in HEADS else "a constant prediction."
            if name in PUBLISHED:
                note += f" With MoCo v2's views of square photos it is {PUBLISHED[name]}."
            level = Level(baseline, f"baseline {baseline:.3f}")
            charts.append(self._chart("loss_" + name, loss_title(name, long=True), note, [level], low=0.0))
        for name in self._further_metrics():
            charts.append(self._chart(name, metric_title(name), ""))
        note = "Standard deviation of normalised features times sqrt(D): 0 collapsed, 1 uniform (SimSiam, 4.1)."
        charts.append(self._chart("feature_std", "Feature std", note, low=0.0))
        charts.append(self._chart("lr", "Learning rate", "", low=0.0))
        charts.append(self._chart("pairs_per_s", "Speed, pairs/s", "Each photo of a pair is decoded once.", low=0.0))
        return (
            '<h2>Losses</h2>\n<p class="lead">An auxiliary loss below its dashed baseline shows that the features '
            "contain information about the augmentations. Every point is the mean since the previous point, as "
            f'in <code>metrics.jsonl</code>.</p>\n<div class="charts">{"".join(charts)}</div>'
        )

    def _further_metrics(self) -> list[str]:
        """Names in `metrics.jsonl` that are drawn for themselves: of the method, of objectives and of callbacks."""
        drawn = {*TRAINER_METRICS, *("loss_" + name for name in self.baseline)}
        names = {name: None for m in self.metrics for name, value in m.items() if is_number(value)}
        return sorted(names.keys() - drawn)

    def _method_chart(self) -> str:
        method = self.config.method
        if not isinstance(method, MoCo):
            return self._chart("loss_ssl", f"{base_method(self.config)} loss", "")
        note = (
            f"Chance level with one positive and {method.queue:,} negative keys: {math.log(method.queue + 1):.2f}. The "
            "loss increases at first, while keys of photos replace the random keys of the initial queue."
        )
        return self._chart("loss_ssl", "InfoNCE loss", note)

    def _unit(self) -> str:
        return "epoch" if self.trainer.global_step >= 2 * self.trainer.steps_per_epoch else "step"

    def _chart(self, key: str, title: str, note: str, levels: list[Level] | None = None, **axis: float) -> str:
        """A figure of one metric or evaluation; empty if it was not logged."""
        records = self.metrics if any(key in m for m in self.metrics) else self.evaluations
        records = without_stub(records) if records is self.metrics else records
        points = [(r[self._unit()], r[key]) for r in records if is_number(r.get(key)) and is_number(r.get("epoch"))]
        if not points:
            return ""
        x, y = zip(*points, strict=True)
        svg = line_chart(x, y, name=title, x_label=self._unit(), levels=levels or (), **axis)
        return f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{escape(note)}</figcaption></figure>"

    def predictions(self) -> str:
        return predictions_html(evaluate_heads(self.trainer))

    # --- evaluations --------------------------------------------------------------------------------------------------

    def checks(self) -> str:
        return checks_html(self.evaluations, self.config, self._chart, self._worse())

    def _worse(self) -> str:
        """A sentence for each check that ended below its value before training."""
        names = dict.fromkeys(PROBES)  # those on --data.val first
        names |= dict.fromkeys(sorted({name for e in self.evaluations for name in e if kind(name) in (*PROBES, "r2")}))
        found = []
        for name in names:
            before, last = self.first_and_last(name) or (None, 0.0)
            start, end = (f"R² {v:.3f}" if kind(name) == "r2" else f"{v:.1%}" for v in (before or 0.0, last))
            if before is not None and last < before and start != end:
                after = f"{end} after {self.trainer.global_step:,} steps"
                found.append(f"{check_title(name)} ended below its start: {after}, {start} before training.")
        if not found:
            return ""
        return (
            f'<p class="warning">{escape(" ".join(found))} The features have lost this information, or not yet learned '
            "it: the views may vary in it, so that the method learns to ignore it, or the run is short.</p>\n"
        )

    # --- text ---------------------------------------------------------------------------------------------------------

    def meaning(self) -> str:
        untrained = next((e["knn"] for e in self.evaluations if e["step"] == 0 and is_number(e.get("knn"))), None)
        text = caveats(self.config, is_demo=self.is_demo, untrained_knn=untrained)
        labelled = bool(self.trainer.loader.labels_N.min() >= 0)
        steps = next_steps(self.config, self.run, self.trainer.identity, is_demo=self.is_demo, labelled=labelled)
        return text + "\n" + steps

    def settings(self) -> str:
        again = "From <code>config.json</code>; pass <code>--from config.json</code> to start another run with it."
        blocks = (
            ("Configuration", again, flat(self.trainer.identity)),
            (
                "Environment",
                "From <code>environment.json</code>, of the most recent start or resume.",
                flat(self.environment),
            ),
        )
        return "<h2>Configuration and environment</h2>\n" + "".join(
            f'<details><summary>{name}</summary><p class="note">{note}</p><div class="scroll"><table>'
            + "".join(f"<tr><td><code>{escape(k)}</code></td><td>{escape(v)}</td></tr>" for k, v in values.items())
            + "</table></div></details>"
            for name, note, values in blocks
        )
