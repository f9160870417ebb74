"""Tiny data sets in the layout of each reader, made by the tests: a folder each, and the same as a .zip."""

import gzip
import io
import json
import struct
import zipfile

import numpy as np
from PIL import Image


def picture(width, height, seed=0):
    """Smooth colours that JPEG keeps well."""
    rng = np.random.default_rng([seed, width, height])
    coarse = Image.fromarray(rng.integers(0, 255, (3, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def write(folder, files):
    """Writes {name: text or bytes}; returns the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def zipped(folder, path):
    """The same tree as a .zip, its top folder inside."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
    return path


def voc_xml(objects, size=(40, 30), filename="a.jpg"):
    """objects: (name, xmin, ymin, xmax, ymax, difficult)."""
    body = "".join(
        f"<object><name>{name}</name><truncated>0</truncated><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d, difficult in objects
    )
    sizes = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation><filename>{filename}</filename>{sizes}{body}</annotation>"


def voc(folder):
    """Two pictures with objects, one without; a person (difficult) and a dog, and a cat."""
    files = {
        "ImageSets/Main/train.txt": "one\ntwo\n",
        "ImageSets/Main/val.txt": "none\n",
        "ImageSets/Main/trainval.txt": "one\ntwo\nnone\n",
        "ImageSets/Main/dog_trainval.txt": "one  1\ntwo -1\nnone  0\n",
        "Annotations/one.xml": voc_xml([("person", 1, 1, 40, 30, 1), ("dog", 11, 6, 20, 25, 0)]),
        "Annotations/two.xml": voc_xml([("cat", 5, 5, 5, 5, 0)]),
        "Annotations/none.xml": voc_xml([]),
    }
    for seed, name in enumerate(("one", "two", "none")):
        files[f"JPEGImages/{name}.jpg"] = encoded(picture(40, 30, seed))
    return write(folder, files)


def coco_json():
    """Two pictures, categories 3 and 90, a crowd in run lengths, a person with two joints."""
    square = [[10, 5, 20, 5, 20, 15, 10, 15]]
    runs = {"size": [30, 40], "counts": [0, 60, 1140]}
    names = ["left_eye", "right_eye"]
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 9, "file_name": "b.jpg", "width": 40, "height": 30},
        ],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 3, "name": "person", "keypoints": names, "skeleton": [[1, 2], [2, 3], "x"]},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "bbox": [10, 5, 10, 10],
                "area": 100,
                "iscrowd": 0,
                "segmentation": square,
                "keypoints": [12, 6, 2, 18, 6, 1],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 90,
                "bbox": [0, 0, 2, 30],
                "area": 60,
                "iscrowd": 1,
                "segmentation": runs,
            },
        ],
    }


def coco(folder):
    files = {"annotations/instances_val2017.json": json.dumps(coco_json())}
    for seed, name in enumerate("ab"):
        files[f"val2017/{name}.jpg"] = encoded(picture(40, 30, seed))
    return write(folder, files)


def imagenet(folder, task):
    """Validation by name, training by synset; a picture of two boxes, one of none (training of LOC)."""
    two = voc_xml([("n002", 0, 0, 9, 9, 0), ("n002", 10, 10, 39, 29, 0)])
    files = {
        f"ImageSets/{task}/val.txt": "v_1 1\n",
        f"Annotations/{task}/val/v_1.xml": two,
        f"Data/{task}/val/v_1.JPEG": encoded(picture(40, 30)),
        f"ImageSets/{task}/train_cls.txt": "n001/t_1 1\nn002/t_2 2\n",
        f"Annotations/{task}/train/n002/t_2.xml": two,
        f"Data/{task}/train/n001/t_1.JPEG": encoded(picture(40, 30, 1)),
        f"Data/{task}/train/n002/t_2.JPEG": encoded(picture(40, 30, 2)),
        "LOC_synset_mapping.txt": "n002 second, the\nn001 first thing\n",
    }
    return write(folder, files)


def tiny_imagenet(folder):
    files = {
        "wnids.txt": "n002\nn001\n",
        "words.txt": "n001\tfirst\nn002\tsecond\nn003\tthird\n",
        "train/n001/n001_boxes.txt": "n001_0.JPEG\t0\t10\t62\t63\n",
        "train/n001/images/n001_0.JPEG": encoded(picture(64, 64)),
        "train/n002/n002_boxes.txt": "n002_0.JPEG\t5\t5\t6\t6\n",
        "train/n002/images/n002_0.JPEG": encoded(picture(64, 64)[..., 0]),
        "val/val_annotations.txt": "val_0.JPEG\tn002\t1\t2\t3\t4\n",
        "val/images/val_0.JPEG": encoded(picture(64, 64, 3)),
    }
    return write(folder, files)


def lsp(folder):
    """Two training people; joint j of the first lies at (j, 2 j), its last two are not visible."""
    names = [f"j{j}" for j in range(14)]
    head = "file,width,height," + ",".join(f"{n}_x,{n}_y,{n}_visible" for n in names)
    first = ",".join(f"{j},{2 * j},1" for j in range(12)) + ",0,0,0,0,0,0"
    second = ",".join(f"{j + 0.5},{j},1" for j in range(14))
    rows = f"{head}\nim1.jpg,40,30,{first}\nim2.jpg,40,30,{second}\n"
    files = {"train/joints.csv": rows, "val/joints.csv": f"{head}\nim3.jpg,40,30,{second}\n"}
    for seed, name in enumerate(("train/images/im1", "train/images/im2", "val/images/im3")):
        files[f"{name}.jpg"] = encoded(picture(40, 30, seed))
    return write(folder, files)


def classes(folder):
    files = {}
    for split, count in (("train", 3), ("test", 1)):
        for label in ("ants", "bees"):
            for index in range(count):
                files[f"{split}/{label}/{index}.png"] = encoded(picture(12, 10, index), "PNG")
    files["train/ants/notes.txt"] = "no picture"
    return write(folder, files)


def mnist(folder):
    files = {}
    for part, count in (("train", 5), ("t10k", 2)):
        pixels = np.arange(count * 28 * 28, dtype=np.uint32).astype(np.uint8)
        files[f"{part}-images-idx3-ubyte"] = struct.pack(">HBBIII", 0, 8, 3, count, 28, 28) + pixels.tobytes()
        labels = struct.pack(">HBBI", 0, 8, 1, count) + bytes(range(count))
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(labels)
    return write(folder, files)


def cifar10(folder):
    """Row r has class r, and red r, green 100 + r, blue 200 + r everywhere."""
    rows = [
        bytes([r]) + bytes([r]) * 1024 + bytes([100 + r]) * 1024 + bytes([200 + r]) * 1024 for r in range(4)
    ]
    return write(
        folder,
        {"data_batch_1.bin": rows[0] + rows[1], "data_batch_2.bin": rows[2], "test_batch.bin": rows[3]},
    )


def yolo(folder):
    """Two pictures: two objects of two classes, and none."""
    picture_file = encoded(picture(40, 30))
    files = {
        "data.yaml": "path: ../datasets/ours\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
        "images/train/a.jpg": picture_file,
        "images/train/b.jpg": picture_file,
        "labels/train/a.txt": "1 0.5 0.5 0.25 0.4\n0 .1 .1 .1 .1\n",
    }
    return write(folder, files)
