"""Readers of ImageNet's shifted test sets: classes, corruptions, and the frames of videos."""

import numpy as np
import pytest
from PIL import Image
from trees import photo

from fastaugself.data.parallel import ordered_map
from fastaugself.errors import RunError, UsageError
from fastaugself.evaluation.datasets import read_dataset, shifted, videos

FISH, GOLDFISH = "n01440764", "n01443537"


def test_v2s_folders_are_in_the_order_of_their_numbers(tmp_path):
    for name in (0, 2, 10, 999):
        photo(tmp_path / str(name) / "a.jpeg", color=name % 256)
    dataset = read_dataset(tmp_path, "imagenet-v2")
    assert dataset.classes == ("0", "2", "10", "999")
    of = {
        dataset.classes[label]: name
        for label, name in zip(dataset.splits["test"].labels_N, dataset.splits["test"].names, strict=True)
    }
    assert of == {name: f"{name}/a.jpeg" for name in dataset.classes}
    photo(tmp_path / "1000" / "a.jpeg")
    with pytest.raises(UsageError, match="not imagenet-v2 as expected: it has a folder 1000; expected imagenetv2"):
        read_dataset(tmp_path, "imagenet-v2")


def test_other_folders_than_wordnet_ids_are_refused_by_name(tmp_path):
    photo(tmp_path / FISH / "a.jpg")
    photo(tmp_path / "goldfish" / "a.jpg")
    for name in ("imagenet-r", "imagenet-a", "imagenet-sketch"):
        with pytest.raises(UsageError, match=f"is not {name} as expected: it has a folder goldfish; expected "):
            read_dataset(tmp_path, name)


# ImageNet-C


def corrupted(root, names=("a", "b"), layout="{name}"):
    for name in ("fog", "gaussian_noise"):
        for severity in (1, 2):
            for kind in (FISH, GOLDFISH):
                for image in names:
                    folder = root / layout.format(name=name) / str(severity) / kind
                    photo(folder / f"{image}.JPEG", color=10 * severity + len(name))


def test_corruptions_are_found_in_the_folders_of_the_tar_files_too(tmp_path):
    for root, layout in (("flat", "{name}"), ("tars", "weather/{name}")):
        corrupted(tmp_path / root, layout=layout)
        dataset = shifted.imagenet_c(tmp_path / root, ("fog", "gaussian_noise"), (2, 1))
        assert list(dataset.splits) == ["fog-2", "fog-1", "gaussian_noise-2", "gaussian_noise-1"]
        split = dataset.splits["gaussian_noise-2"]
        assert split.names == [f"{kind}/{name}.JPEG" for kind in (FISH, GOLDFISH) for name in "ab"]
        assert abs(split.images.open(0).getpixel((0, 0))[0] - 34) < 6  # of that corruption and severity


def test_a_missing_corruption_severity_or_image_is_named(tmp_path):
    corrupted(tmp_path)
    with pytest.raises(UsageError, match=r"snow/1 is missing: copy it there, or pass --corruptions with some of gauss"):
        shifted.imagenet_c(tmp_path, ("fog", "snow"), (1,))
    with pytest.raises(UsageError, match=r"fog/3 is missing: copy it there, or pass .* and --severities"):
        shifted.imagenet_c(tmp_path, ("fog",), (1, 3))
    (tmp_path / "gaussian_noise" / "2" / FISH / "b.JPEG").unlink()
    with pytest.raises(
        UsageError, match=rf"gaussian_noise/2 does not hold the images of fog-1: {FISH}/b\.JPEG is in one"
    ):
        shifted.imagenet_c(tmp_path, ("fog", "gaussian_noise"), (1, 2))


# ImageNet-P


def frames(count, seed):
    generator = np.random.default_rng(seed)
    base = generator.integers(40, 110, 3)
    return [np.full((32, 48, 3), base, np.uint8) + np.uint8(12 * i) for i in range(count)]


def test_frames_are_in_the_order_of_their_numbers_and_of_their_videos(tmp_path):
    for v, (kind, count) in enumerate(((FISH, 11), (GOLDFISH, 3))):
        for i, pixels in enumerate(frames(count, v)):
            (tmp_path / "tilt" / kind / "clip").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "tilt" / kind / "clip" / f"{i}.png")
    dataset = read_dataset(tmp_path, "imagenet-p")
    split = dataset.splits["tilt"]
    assert split.targets_NT.tolist() == [*([0, i] for i in range(11)), *([1, i] for i in range(3))]
    assert split.labels_N.tolist() == [0] * 11 + [1] * 3 and split.names[10] == f"{FISH}/clip frame 10"
    expected = [*frames(11, 0), *frames(3, 1)]
    for i, pixels in enumerate(expected):
        assert np.array_equal(np.asarray(split.images.open(i)), pixels)
    taken = split.take(np.array([12, 3]))
    assert np.array_equal(np.asarray(taken.images.open(0)), expected[12])


def written(path, pictures):
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, pictures[0].shape[1::-1])
    assert video.isOpened()
    for picture in pictures:
        video.write(np.ascontiguousarray(picture[..., ::-1]))
    video.release()


def test_mp4_files_are_decoded_frame_by_frame_in_any_order(tmp_path):
    for v in range(3):
        written(tmp_path / "snow" / FISH / f"clip{v}.mp4", frames(6, v))
    split = read_dataset(tmp_path, "imagenet-p").splits["snow"]
    assert len(split) == 18 and split.targets_NT[:, 0].tolist() == sorted([0, 1, 2] * 6)
    order = np.random.default_rng(0).permutation(18).tolist()
    for index, image in zip(order, ordered_map(split.images.open, order, workers=4, ahead=18), strict=True):
        expected = frames(6, index // 6)[index % 6]
        assert image.size == (48, 32)
        assert np.abs(np.asarray(image).mean((0, 1)) - expected.mean((0, 1))).max() < 6  # the codec loses little
    before = split.images.digest(None)
    written(tmp_path / "snow" / FISH / "clip2.mp4", frames(6, 9))
    assert read_dataset(tmp_path, "imagenet-p").splits["snow"].images.digest(None) != before


def test_only_some_videos_are_kept(tmp_path, monkeypatch):
    for v in range(4):
        written(tmp_path / "snow" / FISH / f"clip{v}.mp4", frames(3, v))
    images = read_dataset(tmp_path, "imagenet-p").splits["snow"].images
    decoded = []
    original = videos._decode
    monkeypatch.setattr(videos, "_decode", lambda path, count: decoded.append(path.name) or original(path, count))
    monkeypatch.setattr(videos, "KEPT", 2)
    for index in range(12):
        images.open(index)
    assert decoded == [f"clip{v}.mp4" for v in range(4)]  # once each
    images.open(0)
    assert len(decoded) == 5 and len(images._decoded) == 2


def test_videos_that_are_short_damaged_or_absent_are_named(tmp_path):
    photo(tmp_path / "tilt" / FISH / "clip" / "0.png")
    with pytest.raises(UsageError, match=r"clip has 1 frames, expected at least two: copy it again, or remove it"):
        read_dataset(tmp_path, "imagenet-p")
    (tmp_path / "tilt" / FISH / "clip" / "0.png").unlink()
    (tmp_path / "tilt" / FISH / "clip").rmdir()
    with pytest.raises(UsageError, match=r"tilt holds no videos: expected \.mp4 files, or folders of frames"):
        read_dataset(tmp_path, "imagenet-p")
    (tmp_path / "tilt" / FISH / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(UsageError, match=r"clip\.mp4 has 0 frames"):
        read_dataset(tmp_path, "imagenet-p")
    written(tmp_path / "tilt" / FISH / "clip.mp4", frames(4, 0))
    with pytest.raises(RunError, match=r"clip\.mp4 has 4 frames that can be decoded, and says 5"):
        videos._decode(tmp_path / "tilt" / FISH / "clip.mp4", 5)


def test_without_opencv_frames_are_the_remedy(tmp_path, monkeypatch):
    written(tmp_path / "tilt" / FISH / "clip.mp4", frames(4, 0))
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(
        UsageError, match=r"which OpenCV decodes .*: pip install opencv-python-headless, or put a folder"
    ):
        read_dataset(tmp_path, "imagenet-p")
    for i, pixels in enumerate(frames(4, 0)):
        (tmp_path / "tilt" / FISH / "clip").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "tilt" / FISH / "clip" / f"{i}.png")
    (tmp_path / "tilt" / FISH / "clip.mp4").unlink()
    assert len(read_dataset(tmp_path, "imagenet-p").splits["tilt"]) == 4
