"""python predict.py MODEL.onnx PHOTO [MASK]: needs onnxruntime and Pillow; lmonnx is not needed any more."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
labels, preprocessing = json.loads(about["lmonnx.labels"]), json.loads(about["lmonnx.preprocessing"])
height, width = preprocessing["size"]


def seen(path: str, mode: str, how: Image.Resampling) -> np.ndarray:
    """What the network sees of a picture."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert(mode)
    if side := preprocessing["resize"]:  # of the short side, before the middle is cropped
        picture = picture.resize([int(side * length / min(picture.size)) for length in picture.size], how)
        left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
        return np.asarray(picture.crop((left, top, left + width, top + height)))
    return np.asarray(picture.resize((width, height), how))


masks = np.ones((len(sys.argv) - 2, 1, height, width), bool)  # True = keep; the first keeps everything
if len(sys.argv) > 3:
    masks[1] = seen(sys.argv[3], "L", Image.Resampling.NEAREST) >= 128  # white = keep
image = seen(sys.argv[2], "RGB", Image.Resampling[preprocessing["interpolation"].upper()])[None]
(probabilities,) = session.run(None, {"image": image, "mask": masks})
for name, row in zip(("whole", "masked"), probabilities, strict=False):
    best = row.argmax()
    print(f"{name}: {labels[best] if labels else f'class {best}'} {row[best]:.1%}")
