// Not run by the tests. dotnet add package Microsoft.ML.OnnxRuntime; dotnet run MODEL.onnx PIXELS
// PIXELS: H × W × 3 bytes of RGB, the crop that the network sees, from whatever decodes photographs where you are.
using Microsoft.ML.OnnxRuntime;

using var session = new InferenceSession(args[0]);
int[] shape = session.InputMetadata["image"].Dimensions;  // images, H, W, 3
int height = shape[1], width = shape[2], size = height * width;
byte[] pixels = File.ReadAllBytes(args[1]);
bool[] keep = new bool[2 * size];  // two masks: everything, and the left half
for (int i = 0; i < size; i++)
    (keep[i], keep[size + i]) = (true, i % width < width / 2);

using var image = OrtValue.CreateTensorValueFromMemory(pixels, new long[] { 1, height, width, 3 });
using var mask = OrtValue.CreateTensorValueFromMemory(keep, new long[] { 2, 1, height, width });
var inputs = new Dictionary<string, OrtValue> { ["image"] = image, ["mask"] = mask };
using var options = new RunOptions();
using var outputs = session.Run(options, inputs, session.OutputNames);

ReadOnlySpan<float> rows = outputs[0].GetTensorDataAsSpan<float>();
int classes = rows.Length / 2;
for (int i = 0; i < 2; i++)
{
    float[] row = rows.Slice(i * classes, classes).ToArray();
    int best = Array.IndexOf(row, row.Max());
    Console.WriteLine($"{(i == 1 ? "masked" : "whole")}: class {best} {row[best]:P1}");
}
