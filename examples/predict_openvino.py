"""python predict_openvino.py MODEL.onnx DESCRIPTION.json PHOTO [MASK]: needs openvino and Pillow."""

import json
import sys

import numpy as np
import openvino
from PIL import Image, ImageOps

model, description, photo, *rest = sys.argv[1:]
with open(description, encoding="utf-8") as file:
    about = json.load(file)["metadata"]
if about["preprocessing"]["resize"]:
    sys.exit("this network sees the middle of a photograph: crop it as predict.py does")
height, width = about["preprocessing"]["size"]
how = Image.Resampling[about["preprocessing"]["interpolation"].upper()]

# Without the hint, processors that have bfloat16 compute in it: two or three digits.
network = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
picture = ImageOps.exif_transpose(Image.open(photo)).convert("RGB").resize((width, height), how)
masks = np.ones((1 + len(rest), 1, height, width), bool)  # True = keep; the first keeps everything
for i, path in enumerate(rest, start=1):
    masks[i] = np.asarray(Image.open(path).convert("L").resize((width, height), Image.Resampling.NEAREST)) >= 128
probabilities = network({"image": np.asarray(picture)[None], "mask": masks})[0]
for name, row in zip(("whole", "masked"), probabilities, strict=False):
    best = row.argmax()
    print(f"{name}: {about['labels'][best] if about['labels'] else f'class {best}'} {row[best]:.1%}")
