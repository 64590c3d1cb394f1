"""The command `python docs/columns`: options, and the file that is written."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from columns_page import columns_page
from columns_picture import columns_picture
from content import make_content
from fastaugself.cli.exit_codes import run_command
from fastaugself.errors import UsageError
from fastaugself.files import replace_file
from fastaugself.report.policies import POLICY_NAMES, named_policies
from fastaugself.report.samples import read_samples


def draw(photo: Path, out: Path, *, policy: str = "moco_v2", size: int = 224, seed: int = 0, epoch: int = 0) -> None:
    """Draws the columns on `photo` to `out`, a .png, .webp or .html file.

    photo: an image; of a folder or .beton file, its first. policy: name of the policy that the pair of views is drawn
    from. size: of the views in pixels. seed, epoch: of the pair of views.
    Raises UsageError for a photo that cannot be read or another kind of file.
    """
    (sample,) = read_samples(photo, 1)
    content = make_content(sample, named_policies(policy, size), seed=seed, epoch=epoch)
    line = f"{content.name}. The pair of views: policy {policy}, {size} px, seed {seed}, epoch {epoch}."
    if out.suffix == ".html":
        drawn = columns_page(content, line).encode()
    elif out.suffix == ".webp":
        drawn = columns_picture(content, line, "webp")
    elif out.suffix == ".png":
        drawn = columns_picture(content, line, "png")
    else:
        raise UsageError(f"--out must end in .png, .webp or .html, got {out}")
    replace_file(out, drawn)


def main(description: str | None, arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 for wrong use."""
    parser = argparse.ArgumentParser(
        prog="docs/columns", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", type=Path, metavar="PHOTO")
    parser.add_argument("--out", type=Path, required=True, help="a .png, .webp or .html file")
    parser.add_argument("--policy", choices=POLICY_NAMES, default="moco_v2", help="of the pair of views")
    parser.add_argument("--size", type=int, default=224, help="of the views in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the pair of views")
    parser.add_argument("--epoch", type=int, default=0, help="of the pair of views")
    o = parser.parse_args(arguments)

    def command() -> int:
        draw(o.photo, o.out, policy=o.policy, size=o.size, seed=o.seed, epoch=o.epoch)
        print(o.out)
        return 0

    return run_command(command, less_memory="pass a smaller --size")
