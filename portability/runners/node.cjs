// onnxruntime-node: node node.cjs MODEL QUESTIONS ANSWERS, with NODE_PATH naming the folder of packages.
const fs = require("node:fs");
const path = require("node:path");
const ort = require("onnxruntime-node");

const ARRAYS = { float32: Float32Array, uint8: Uint8Array, bool: Uint8Array };

function tensor(folder, { file, type, shape }) {
  const bytes = fs.readFileSync(path.join(folder, file));
  const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  return new ort.Tensor(type, new ARRAYS[type](copy), shape);
}

async function main([model, questions, answers]) {
  const version = `${ort.env.versions.node}, Node ${process.versions.node}`;
  const result = { version, shapes: {}, error: null };
  try {
    const session = await ort.InferenceSession.create(model);
    for (const question of JSON.parse(fs.readFileSync(path.join(questions, "questions.json"), "utf8"))) {
      const feeds = { image: tensor(questions, question.image), mask: tensor(questions, question.mask) };
      const output = (await session.run(feeds))[session.outputNames[0]];
      const { buffer, byteOffset, byteLength } = output.data;
      fs.writeFileSync(path.join(answers, question.name + ".bin"), Buffer.from(buffer, byteOffset, byteLength));
      result.shapes[question.name] = output.dims;
    }
  } catch (error) {
    result.error = String(error);
  }
  fs.writeFileSync(path.join(answers, "result.json"), JSON.stringify(result));
}

main(process.argv.slice(2));
