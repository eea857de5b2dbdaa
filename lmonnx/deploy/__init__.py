"""What a production runtime needs beside an exported file. Never imports torch or onnx."""
