"""The report of a finished run: one HTML file that shows what was trained, how it went, and what it learned."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from ..config.schema import Photos
from ..data.dataset import Dataset
from ..export.backbone import WEIGHTS
from ..files import replace_file
from ..html.charts import Level, line_chart
from ..html.page import escape, page
from ..methods.moco import MoCo
from ..runs.records import final_mean, flat, is_number, read_lines, read_object, without_stub
from ..training.metrics import duration
from ..training.trainer import Trainer
from .heads import predictions_html
from .predictions import HEADS, judge
from .text import base_method, caveats, compare, method_name, next_steps, pretty

log = logging.getLogger(__name__)

PUBLISHED = {"color": "0.133", "crop": "0.032"}  # predict-nothing levels of MoCo v2's views; crop on square photos


def write_report(run: Path, trainer: Trainer) -> Path | None:
    """Writes `run/report.html` about what the trainer trained, and gives its path.

    A part that fails says so in the report and in the log; a report that cannot be written at all is None and a
    warning. Nothing is raised: by now the weights are on disk, and they are what matters.
    """
    try:
        report = Report(run, trainer)
        builders = (report.head, report.curves, report.predictions, report.checks, report.meaning, report.settings)
        parts = [report.part(build) for build in builders]
        path = run / "report.html"
        replace_file(path, page(report.title, "\n".join(parts)).encode())
        return path
    except Exception as error:
        log.warning("the report was not written (%s: %s); the weights are not affected", type(error).__name__, error)
        return None


def _name(photos: Photos | None) -> str:
    several = photos if isinstance(photos, tuple) else (photos,)
    return Path(str(several[0])).name + (f" and {len(several) - 1} more" if len(several) > 1 else "")


class Report:
    """The run's records, and each part of the report as HTML."""

    def __init__(self, run: Path, trainer: Trainer) -> None:
        self.run, self.trainer, self.config = run, trainer, trainer.config
        self.metrics = read_lines(run / "metrics.jsonl")
        self.evaluations = read_lines(run / "evaluations.jsonl")
        self.environment = read_object(run / "environment.json")
        self.baseline: dict[str, float] = self.environment.get("baseline_losses") or trainer.baseline_losses()
        self.is_demo = str(trainer.identity.get("data", {}).get("train")) == "demo"
        names = ", ".join(HEADS[name] for name in trainer.learner.augself.heads)
        self.method = method_name(self.config)
        self.what = f"{self.method} ({names})" if names else self.method
        self.photos = "eight real photos" if self.is_demo else _name(self.config.data.train)
        self.title = f"{self.method} on {self.photos}"

    def part(self, build: Callable[[], str]) -> str:
        """One part, or the reason why it is missing."""
        try:
            return build()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.warning("the report's part about the %s is missing (%s)", build.__name__, reason)
            return f'<p class="warning">The part about the {build.__name__} is missing: {escape(reason)}</p>'

    # --- what was trained ---------------------------------------------------------------------------------------------

    def head(self) -> str:
        config, trainer = self.config, self.trainer
        backbone = config.backbone
        width = f" of width {backbone.width}" if backbone.width != 64 and not backbone.name.startswith("timm:") else ""
        early = (
            ""
            if trainer.global_step >= trainer.total_steps
            else f" It ended at step {trainer.global_step:,} of {trainer.total_steps:,}."
        )
        lead = (
            f"{self.what} trained a {pretty(backbone.name)}{width} on {trainer.loader.num_samples:,} "
            f"{'crops of eight photos' if self.is_demo else 'photos'} at {config.view.size} px, "
            f"{config.batch_size} pairs of views a step.{early}"
        )
        return (
            f'<p class="eyebrow">fastaugself run {escape(self.run)}</p>\n<h1>{escape(self.title)}</h1>\n'
            f'<p class="lead">{escape(lead)}</p>\n{self._tiles()}\n'
            f"<p>The trained backbone is in <code>{escape(self.run / 'export' / WEIGHTS)}</code>. "
            f"<a href='#next'>What to do next</a> has the lines that load it.</p>"
        )

    def _tiles(self) -> str:
        tiles = [(f"{HEADS[name]} loss", *values) for name, values in self._final_losses().items()]
        knn = [(e["step"], e["knn"]) for e in self.evaluations if is_number(e.get("knn"))]
        if knn:
            chance = self._chance()
            tiles.append(("k-NN accuracy", f"{knn[-1][1]:.1%}", f"{chance:.1%} by naming the largest class"))
        rates = [m["pairs_per_s"] for m in self.metrics if is_number(m.get("pairs_per_s"))]
        if rates:
            waits = [m["data_wait"] for m in self.metrics if is_number(m.get("data_wait"))]
            wait = f", {median(waits):.0%} of the time waiting for data" if waits else ""
            tiles.append(("speed", f"{median(rates):,.0f} pairs/s", f"on {self._machine()}{wait}"))
            tiles.append(("training time", duration(self._seconds()), f"{self.trainer.global_step:,} steps"))
        cells = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
            for name, value, note in tiles[:6]
        )
        return f'<dl class="tiles">{cells}</dl>' if cells else ""

    def _final_losses(self) -> dict[str, tuple[str, str]]:
        """(value, comparison) of the auxiliary losses, as means over the last tenth of the steps."""
        found = {}
        for name, nothing in self.baseline.items():
            points = [(m["step"], m["loss_" + name]) for m in self.metrics if is_number(m.get("loss_" + name))]
            if points:
                value = final_mean(points)
                found[name] = (f"{value:.3f}", f"{compare(value, nothing)} the {nothing:.3f} of predicting nothing")
        return found

    def _machine(self) -> str:
        env = self.environment
        processes = int(env.get("processes", 1))
        if "gpu" in env:
            return f"{processes} × {env['gpu']}" if processes > 1 else str(env["gpu"])
        cores = f"{env.get('cores', '?')} CPU cores"
        return f"{processes} processes on {cores}" if processes > 1 else cores

    def _seconds(self) -> float:
        """Training time over all sittings, from the steps and their rate: pauses between two sittings are not in it."""
        seconds, before = 0.0, 0
        for m in self.metrics:
            if is_number(m.get("pairs_per_s")) and m["pairs_per_s"] > 0:
                seconds += (m["step"] - before) * self.config.batch_size / m["pairs_per_s"]
                before = m["step"]
        return seconds

    # --- how it went --------------------------------------------------------------------------------------------------

    def curves(self) -> str:
        if not self.metrics:
            return (
                "<h2>Losses</h2>\n<p>No line of metrics was logged: the run was shorter than <code>--log.every</code> "
                "steps.</p>"
            )
        charts = [self._method_chart()]
        for name, nothing in self.baseline.items():
            note = "Dashed: heads that predict nothing, on these photos."
            if name in PUBLISHED:
                note += f" For the published views of square photos that is {PUBLISHED[name]}."
            level = Level(nothing, f"predict nothing {nothing:.3f}")
            charts.append(self._chart("loss_" + name, f"AugSelf {HEADS[name]} loss", note, [level], low=0.0))
        note = "Of the features of a batch: 0 is collapse, 1 evenly spread over the sphere. SimSiam, section 4.1."
        charts.append(self._chart("feature_std", "Spread of the features", note, low=0.0))
        charts.append(self._chart("lr", "Learning rate", "", low=0.0))
        charts.append(self._chart("pairs_per_s", "Speed, pairs/s", "Each photo of a pair is decoded once.", low=0.0))
        return (
            '<h2>Losses</h2>\n<p class="lead">An AugSelf loss falls below its dashed line, where heads that predict '
            "nothing would stay, once the features tell how the views were made. Every point is the mean since the one "
            f'before, as in <code>metrics.jsonl</code>.</p>\n<div class="charts">{"".join(charts)}</div>'
        )

    def _method_chart(self) -> str:
        method = self.config.method
        if not isinstance(method, MoCo):
            return self._chart("loss_ssl", f"{base_method(self.config)} loss", "")
        note = (
            f"Guessing among the key and {method.queue:,} in the queue gives {math.log(method.queue + 1):.2f}. It "
            "rises at first, while keys of photos take the place of the random ones that the queue starts with."
        )
        return self._chart("loss_ssl", "InfoNCE loss", note)

    def _unit(self) -> str:
        return "epoch" if self.trainer.global_step >= 2 * self.trainer.steps_per_epoch else "step"

    def _chart(self, key: str, title: str, note: str, levels: list[Level] | None = None, **axis: float) -> str:
        records = self.metrics if any(key in m for m in self.metrics) else self.evaluations
        records = without_stub(records) if records is self.metrics else records
        points = [(r[self._unit()], r[key]) for r in records if is_number(r.get(key)) and is_number(r.get("epoch"))]
        if not points:
            return ""
        x, y = zip(*points, strict=True)
        svg = line_chart(x, y, name=title, x_label=self._unit(), levels=levels or (), **axis)
        return f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{escape(note)}</figcaption></figure>"

    def predictions(self) -> str:
        return predictions_html(judge(self.trainer))

    # --- checks -------------------------------------------------------------------------------------------------------

    def checks(self) -> str:
        if not self.evaluations:
            return (
                "<h2>Checks while training</h2>\n<p>No check of the features was made: that needs "
                "<code>--data.val</code>, photos that are not trained on.</p>"
            )
        charts = []
        if any("knn" in e for e in self.evaluations):
            chance = self._chance()
            note = "Share of validation photos whose 20 nearest training photos vote for the right class."
            level = Level(chance, f"largest class {chance:.1%}".replace(".0%", "%"))
            charts.append(self._chart("knn", "k-NN accuracy", note, [level], low=0.0, high=1.0))
        if any("linear" in e for e in self.evaluations):
            note = "Share of validation photos whose class a ridge regression on the frozen features names."
            level = Level(self._chance(), f"largest class {self._chance():.1%}".replace(".0%", "%"))
            charts.append(self._chart("linear", "Linear probe", note, [level], low=0.0, high=1.0))
        note = "Dimensions the features use; 1 means that they have collapsed. RankMe, Garrido 2023."
        charts.append(self._chart("rankme", "Effective rank", note, low=1.0))
        for name in sorted({name for e in self.evaluations for name in e if name.startswith("r2_")}):
            factor = name.removeprefix("r2_").replace("_", " ").replace("centre", "crop's centre")
            note = "R² of a linear regression from the frozen features; 0 is what answering the mean gives."
            charts.append(self._chart(name, f"Probe: {factor}", note, [Level(0.0, "answering the mean")], high=1.0))
        return (
            '<h2>Checks while training</h2>\n<p class="lead">Made on the features of the central square of each photo, '
            f'without augmentation.</p>\n<div class="charts">{"".join(charts)}</div>'
        )

    def _chance(self) -> float:
        """Accuracy of always naming the most frequent class of the validation photos."""
        assert self.config.data.val is not None
        with Dataset(self.config.data.val) as data:
            return float(np.bincount(data.labels_N[data.labels_N >= 0]).max() / len(data))

    # --- words --------------------------------------------------------------------------------------------------------

    def meaning(self) -> str:
        untrained = next((e["knn"] for e in self.evaluations if e["step"] == 0 and is_number(e.get("knn"))), None)
        said = caveats(self.config, is_demo=self.is_demo, untrained_knn=untrained)
        return said + "\n" + next_steps(self.config, self.run, is_demo=self.is_demo)

    def settings(self) -> str:
        again = "As in <code>config.json</code>; <code>--from config.json</code> starts another run from it."
        blocks = (
            ("Configuration", again, flat(self.trainer.identity)),
            ("Environment", "As in <code>environment.json</code>, of the last sitting.", flat(self.environment)),
        )
        return "<h2>Configuration and environment</h2>\n" + "".join(
            f'<details><summary>{name}</summary><p class="note">{note}</p><div class="scroll"><table>'
            + "".join(f"<tr><td><code>{escape(k)}</code></td><td>{escape(v)}</td></tr>" for k, v in values.items())
            + "</table></div></details>"
            for name, note, values in blocks
        )
