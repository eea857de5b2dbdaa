// node predict.mjs MODEL.onnx DESCRIPTION.json PHOTO [MASK]
import { readFileSync } from "node:fs";
import ort from "onnxruntime-node";
import sharp from "sharp";

const [model, description, photo, mask] = process.argv.slice(2);
const { labels, preprocessing } = JSON.parse(readFileSync(description, "utf8")).metadata;
const [height, width] = preprocessing.size;

// What the network sees of a picture, upright: the middle of it after a resize of the short side, or all of it.
function seen(file, kernel) {
  const side = preprocessing.resize;
  if (!side) return sharp(file).autoOrient().resize(width, height, { fit: "fill", kernel });
  const [left, top] = [(side - width) >> 1, (side - height) >> 1];
  return sharp(file).autoOrient().resize(side, side, { fit: "cover", kernel }).extract({ left, top, width, height });
}

const kernel = { nearest: "nearest", bilinear: "linear", bicubic: "cubic" }[preprocessing.interpolation];
const pixels = await seen(photo, kernel).removeAlpha().toColourspace("srgb").raw().toBuffer();
const masks = [new Uint8Array(height * width).fill(1)]; // 1 = keep
if (mask) masks.push((await seen(mask, "nearest").greyscale().raw().toBuffer()).map((white) => white >= 128));

const session = await ort.InferenceSession.create(model);
const output = await session.run({
  image: new ort.Tensor("uint8", Uint8Array.from(pixels), [1, height, width, 3]),
  mask: new ort.Tensor("bool", Uint8Array.from(masks.flatMap((row) => [...row])), [masks.length, 1, height, width]),
});
const { data } = output[session.outputNames[0]]; // a row of probabilities for each mask
const classes = data.length / masks.length;
masks.forEach((_, row) => {
  const probabilities = data.slice(row * classes, (row + 1) * classes);
  const best = probabilities.indexOf(Math.max(...probabilities));
  const name = labels?.[best] ?? `class ${best}`;
  console.log(`${row ? "masked" : "whole"}: ${name} ${(100 * probabilities[best]).toFixed(1)}%`);
});
