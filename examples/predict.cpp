// ./predict MODEL.onnx PIXELS
// PIXELS: H × W × 3 bytes of RGB, the crop that the network sees, from whatever decodes photographs where you are.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

int main(int, char** argv) {
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "predict");
  Ort::Session session(env, argv[1], Ort::SessionOptions());
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // images, H, W, 3
  const int64_t height = shape[1], width = shape[2], size = height * width;

  std::ifstream file(argv[2], std::ios::binary);
  std::vector<uint8_t> pixels((std::istreambuf_iterator<char>(file)), {});
  auto keep = std::make_unique<bool[]>(2 * size);  // two masks: everything, and the left half
  for (int64_t i = 0; i < size; ++i) keep[i] = true, keep[size + i] = i % width < width / 2;

  std::array<int64_t, 4> image_shape{1, height, width, 3}, mask_shape{2, 1, height, width};
  std::array<Ort::Value, 2> inputs{
      Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), image_shape.data(), 4),
      Ort::Value::CreateTensor<bool>(memory, keep.get(), 2 * size, mask_shape.data(), 4)};
  auto output_name = session.GetOutputNameAllocated(0, Ort::AllocatorWithDefaultOptions());
  const char* input_names[] = {"image", "mask"};
  const char* output_names[] = {output_name.get()};
  auto outputs = session.Run(Ort::RunOptions(), input_names, inputs.data(), 2, output_names, 1);

  const int64_t classes = outputs[0].GetTensorTypeAndShapeInfo().GetShape()[1];
  const float* rows = outputs[0].GetTensorData<float>();
  for (int i = 0; i < 2; ++i, rows += classes) {
    const float* best = std::max_element(rows, rows + classes);
    std::printf("%s: class %d %.1f%%\n", i ? "masked" : "whole", int(best - rows), 100 * *best);
  }
}
