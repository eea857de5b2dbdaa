"""Which published networks lmonnx can mask: a fixed list of names, a sweep over it, and the table it makes."""
