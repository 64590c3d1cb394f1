"""Converts a photo collection with `write_beton` and reads back the result, for tests of input formats."""

from fastaugself.data.beton import manifest, sidecar
from fastaugself.data.beton.format import Beton
from fastaugself.data.inputs.convert import write_beton
from fastaugself.data.inputs.samples import Columns


def written(source, tmp_path, **columns):
    """Converts `source`. Returns the stored bytes, labels, source names, class names and the summary."""
    out = tmp_path / "out.beton"
    result = write_beton(source, out, progress=False, overwrite=True, columns=Columns(**columns))
    with Beton(out) as beton:
        names = [manifest.source_name(beton, i) for i in range(len(beton))]
        described = sidecar.read(beton)
        return [beton.read(i) for i in range(len(beton))], beton.labels_N.tolist(), names, described.classes, result
