"""Small trees of VTAB's data sets and of 3DIEBench, in the layout and formats that their authors distribute."""

import gzip
import io
import json
import struct

import numpy as np
from PIL import Image
from trees import photo, text


def svhn(root):
    from scipy.io import savemat

    root.mkdir(parents=True)
    for split, count in (("train", 20), ("test", 4)):
        pixels = np.zeros((32, 32, 3, count), np.uint8)
        pixels[5, 7, 1] = np.arange(count)
        savemat(root / f"{split}_32x32.mat", {"X": pixels, "y": np.arange(count)[:, None] % 10 + 1})


def class_folders(inside, count):
    def make(root):
        for c in range(count):
            for i in range(10):
                photo(root / inside / f"class{c:02d}" / f"{i}.jpg")

    return make


def patch_camelyon(root):
    import h5py

    root.mkdir(parents=True)
    for split, count in (("train", 6), ("valid", 4), ("test", 5)):
        name = f"camelyonpatch_level_2_split_{split}"
        pixels = np.zeros((count, 96, 96, 3), np.uint8)
        pixels[:, 3, 4, 2] = np.arange(count) + 100
        with h5py.File(root / f"{name}_x.h5", "w") as file:
            file["x"] = pixels
        with h5py.File(root / f"{name}_y.h5", "w") as file:
            file["y"] = (np.arange(count) % 2).reshape(count, 1, 1, 1)


def retinopathy(root):
    rows = {"trainLabels": ["image,level"], "retinopathy_solution": ["image,level,Usage"]}
    for i in range(6):
        photo(root / "train" / f"{i}_left.jpeg", i)
        photo(root / "test" / f"{i}_right.jpeg", i)
        rows["trainLabels"].append(f"{i}_left,{i % 5}")
        rows["retinopathy_solution"].append(f"{i}_right,{4 - i % 5},{'Public' if i < 2 else 'Private'}")
    for name, listed in rows.items():
        text(root / f"{name}.csv", *listed)


def clevr(root):
    """Image i of train has 3 + i % 8 objects; the nearest is at the distance 7.9 + 0.5 * i."""
    for part, count in (("train", 10), ("val", 3)):
        scenes = []
        for i in range(count):
            name = f"CLEVR_{part}_{i:06d}.png"
            photo(root / "images" / part / name, i)
            objects = [{"pixel_coords": [1, 2, 7.9 + 0.5 * i + k]} for k in range(3 + i % 8)]
            scenes.append({"image_filename": name, "objects": objects[::-1]})
        (root / "scenes").mkdir(exist_ok=True)
        (root / "scenes" / f"CLEVR_{part}_scenes.json").write_text(json.dumps({"scenes": scenes}))


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(image, label):
    """A tf.train.Example by hand: BytesList is field 1 of a Feature, Int64List field 3, with packed values."""
    features = {b"image": field(1, field(1, image)), b"label": field(3, field(1, varint(label))), b"x": b""}
    return field(1, b"".join(field(1, field(1, key) + field(2, value)) for key, value in features.items()))


def record(message):
    return struct.pack("<Q", len(message)) + b"crc1" + message + b"crc2"


def dmlab(root):
    root.mkdir(parents=True)
    for part, count in (("train", 7), ("validation", 4), ("test", 3)):
        with open(root / f"dmlab-{part}.tfrecord", "wb") as file:
            for i in range(count):
                out = io.BytesIO()
                Image.new("RGB", (9 + i, 8), (i, 50, 7)).save(out, "png")
                file.write(record(example(out.getvalue(), i % 6)))


def kitti(root):
    """Images in pairs from ten recordings; the nearest vehicle of image i is at 3 * i metres, a pedestrian nearer."""
    order = [20 - i for i in range(20)]  # image i is line 20 - i, from 1
    text(root / "mapping" / "train_rand.txt", ",".join(map(str, order)))
    mapping = [f"2011_09_26 2011_09_26_drive_{line // 2:04d}_sync {line:010d}" for line in range(20)]
    text(root / "mapping" / "train_mapping.txt", *mapping)
    for i in range(20):
        photo(root / "training" / "image_2" / f"{i:06d}.png", i)
        rows = [f"{kind} 0 0 0 1 2 3 4 1 1 1 0 0 {z} 0" for kind, z in (("Pedestrian", 1), ("Van", 3 * i), ("Car", 90))]
        text(root / "training" / "label_2" / f"{i:06d}.txt", *(rows if i < 15 else rows[:1]))


def dsprites(root):
    root.mkdir(parents=True)
    count = 40
    classes = np.zeros((count, 6), np.int64)
    classes[:, 3], classes[:, 4] = np.arange(count), np.arange(count) % 32
    images = np.zeros((count, 64, 64), np.uint8)
    images[np.arange(count), 10, np.arange(count)] = 1
    np.savez(root / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", imgs=images, latents_classes=classes)


def norb_matrix(values):
    """NORB's format: the magic number of the type, the dimensions (at least three sizes), and the values."""
    magic = {np.dtype(np.uint8): 0x1E3D4C55, np.dtype(np.int32): 0x1E3D4C54}[values.dtype]
    sizes = [*values.shape, *[1] * (3 - values.ndim)]
    return struct.pack(f"<{2 + len(sizes)}i", magic, values.ndim, *sizes) + values.tobytes()


def smallnorb(root):
    root.mkdir(parents=True)
    for stem, count in (("5x46789x9x18x6x2x96x96-training", 18), ("5x01235x9x18x6x2x96x96-testing", 36)):
        pixels = np.zeros((count, 2, 96, 96), np.uint8)
        pixels[:, 0, 5, 6], pixels[:, 1] = np.arange(count), 255
        info = np.stack([np.zeros(count), np.arange(count) % 9, np.arange(count) % 18 * 2, np.ones(count)], 1)
        for kind, values in (("dat", pixels), ("info", info.astype(np.int32))):
            data = norb_matrix(values)
            if "testing" in stem:
                (root / f"smallnorb-{stem}-{kind}.mat.gz").write_bytes(gzip.compress(data))
            else:
                (root / f"smallnorb-{stem}-{kind}.mat").write_bytes(data)


def bench3d(root, objects=10, views=3):
    for c in ("02691156", "04330267"):
        for k in range(objects):
            for i in range(views):
                photo(root / c / f"{k:04x}" / f"image_{i}.jpg", 10 * k + i)
                np.save(root / c / f"{k:04x}" / f"latent_{i}.npy", np.arange(7) + 100.0 * k + 10 * i)


VTAB = {
    "svhn": (svhn, (18, 2, 4)),
    "eurosat": (class_folders("2750", 10), (60, 20, 20)),
    "resisc45": (class_folders("NWPU-RESISC45", 45), (270, 90, 90)),
    "patch-camelyon": (patch_camelyon, (6, 4, 5)),
    "retinopathy": (retinopathy, (6, 2, 4)),
    "clevr-count": (clevr, (9, 1, 3)),
    "clevr-distance": (clevr, (9, 1, 3)),
    "dmlab": (dmlab, (7, 4, 3)),
    "kitti-distance": (kitti, (16, 2, 2)),
    "dsprites-location": (dsprites, (32, 4, 4)),
    "dsprites-orientation": (dsprites, (32, 4, 4)),
    "smallnorb-azimuth": (smallnorb, (18, 18, 18)),
    "smallnorb-elevation": (smallnorb, (18, 18, 18)),
    "3diebench": (bench3d, (42, 6, 12)),
    "3diebench-pose": (bench3d, (42, 6, 12)),
}
