"""Batch sizes that are advised work with the photos, the processes and the objectives that there are."""

import dataclasses
import re

import pytest
from remedies import remedies, take_remedies

from fastaugself import NNCLR, Backbone, MoCo, Pretrain, SimCLR, SimSiam, SwAV
from fastaugself.aware import AWARE
from fastaugself.config.batch_size import few_steps
from fastaugself.config.checks import check_photos, check_processes
from fastaugself.errors import UsageError

PHOTOS = (1, 2, 3, 5, 7, 16, 17, 33, 65, 100, 255, 720)


def configured(method, arguments):
    """The configuration of a command line with these few options, without the time that its parser takes."""
    options, own = dict(zip(arguments[::2], arguments[1::2], strict=True)), {}
    queue = options.pop("--method.queue", None)
    own["method"] = dataclasses.replace(method, queue=int(queue)) if queue else method
    norm, group = options.pop("--backbone.batch-norm", "plain"), options.pop("--backbone.bn-group-size", 32)
    own["backbone"] = Backbone(batch_norm=norm, bn_group_size=int(group))
    for name in ("batch_size", "accumulate"):
        value = options.pop("--" + name.replace("_", "-"), None)
        own |= {name: int(value)} if value else {}
    weights = {option[2:].removesuffix(".weight"): float(weight) for option, weight in options.items()}
    return Pretrain(**own, aware=tuple(AWARE[name](weight=weight) for name, weight in weights.items()))


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        (MoCo(), ""),
        (MoCo(), "--batch-size 1024 --method.queue 4096"),
        (SimCLR(), "--care.weight 0.01"),
        (SimCLR(), "--stl.weight 1"),
        (SwAV(queue=3840), ""),
        (NNCLR(), ""),
        (SimSiam(), "--accumulate 4"),
        (MoCo(), "--accumulate 2 --backbone.batch-norm split"),
    ],
)
def test_one_message_leads_to_a_batch_that_is_accepted(method, options, processes):
    advised = 0
    for photos in PHOTOS:

        def refusal(arguments, photos=photos):
            try:
                config = configured(method, arguments)
                check_processes(config, processes)
                check_photos(config, processes, photos)
            except UsageError as error:
                return None if re.search("data set of .* photos; use more photos", str(error)) else str(error)
            return None

        advised += take_remedies(refusal, options.split(), most=2)
    assert advised or processes > 1


@pytest.mark.parametrize(
    ("options", "processes", "photos", "hint"),
    [
        ("", 1, 720, "an epoch has only 2 steps, without 208 of the 720 photos: pass --batch-size 64 for 11 steps"),
        ("", 1, 256, "an epoch has only one step: pass --batch-size 32 for 8 steps"),
        ("--batch-size 250 --method.queue 1000", 5, 1000, "only 4 steps: pass --batch-size 125 for 8 steps"),
        ("", 1, 8 * 256, ""),
        ("--batch-size 16", 1, 64, ""),  # a smaller batch is no advice
        ("", 8, 300, "an epoch has only one step, without 44 of the 300 photos: pass --batch-size 32 for 9 steps"),
    ],
)
def test_an_epoch_of_few_steps_gets_a_hint_that_works(options, processes, photos, hint):
    found = few_steps(configured(MoCo(), options.split()), processes, photos)
    assert hint in found and bool(hint) == bool(found)
    if hint:
        (remedy,) = remedies(found.replace(": pass", "; pass").partition(" for ")[0])
        changed = configured(MoCo(), [*remedy, *(o for o in options.split()[2:] if len(remedy) == 2)])
        check_processes(changed, processes)
        check_photos(changed, processes, photos)
        assert not few_steps(changed, processes, photos)
