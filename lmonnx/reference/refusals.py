"""Operators that masking is not defined for, and why, by their ATen and their ONNX names."""

from __future__ import annotations

ATTENTION = "attention mixes all pixels, and what a removed one would have said is not defined"
RECURRENT = "a recurrent layer runs over pixels in order, and a removed one has no place in it"
TRANSPOSED = "a transposed convolution spreads a pixel over many, and what a removed one spreads is not defined"
SAMPLING = "it reads at places that other values choose, between kept and removed pixels"
SCAN = "it runs along an axis, and a removed position would be part of all after it"
ORDER = "it sorts or counts positions, and a removed one has no place among them"
SCATTER = "it moves single positions to places that other values choose"
PATCHES = "it lays out overlapping windows as channels, and a window there has no mask"
SHUFFLE = "it lays out channels as pixels, of which none can be removed alone"
CHANNELWISE = "it convolves along another axis than the two of space"
POWER = "a mean of powers over windows has no masked meaning"
FLOW = "control flow depends on values, and a masked one has none at removed pixels"
INTEGER = "it computes on quantised integers, where no mean of neighbours can be filled in"
RANDOM = "it is random"

ATEN: dict[str, str] = {
    "adaptive_avg_pool3d": CHANNELWISE,
    "affine_grid_generator": SAMPLING,
    "argmax": ORDER,
    "argmin": ORDER,
    "argsort": ORDER,
    "avg_pool1d": CHANNELWISE,
    "bernoulli": RANDOM,
    "bmm": "it is a product of two activations, which mixes pixels, as attention does",
    "col2im": PATCHES,
    "conv1d": CHANNELWISE,
    "conv3d": CHANNELWISE,
    "conv_transpose1d": TRANSPOSED,
    "conv_transpose2d": TRANSPOSED,
    "cummax": SCAN,
    "cumprod": SCAN,
    "cumsum": SCAN,
    "deform_conv2d": SAMPLING,
    "fold": PATCHES,
    "gather": SCATTER,
    "grid_sampler": SAMPLING,
    "grid_sampler_2d": SAMPLING,
    "gru": RECURRENT,
    "im2col": PATCHES,
    "index_put": SCATTER,
    "lstm": RECURRENT,
    "max_pool3d": CHANNELWISE,
    "max_unpool2d": SCATTER,
    "pixel_shuffle": SHUFFLE,
    "rand_like": RANDOM,
    "randn_like": RANDOM,
    "rnn_relu": RECURRENT,
    "rnn_tanh": RECURRENT,
    "roi_align": SAMPLING,
    "scaled_dot_product_attention": ATTENTION,
    "scatter": SCATTER,
    "sort": ORDER,
    "take_along_dim": SCATTER,
    "topk": ORDER,
    "unfold": PATCHES,
    "upsample_bicubic2d": "cubic weights are negative too, so that the kept share of a window may be 0 or below",
}

ONNX: dict[str, str] = {
    "ArgMax": ORDER,
    "ArgMin": ORDER,
    "Attention": ATTENTION,
    "Bernoulli": RANDOM,
    "BitCast": "it reads the bits of a number",
    "CausalConvWithState": SCAN,
    "Col2Im": PATCHES,
    "Compress": SCATTER,
    "ConvInteger": INTEGER,
    "ConvTranspose": TRANSPOSED,
    "CumProd": SCAN,
    "CumSum": SCAN,
    "DeformConv": SAMPLING,
    "DepthToSpace": SHUFFLE,
    "DynamicQuantizeLinear": "its scale is the range of all pixels, removed ones included",
    "GRU": RECURRENT,
    "GatherElements": SCATTER,
    "GatherND": SCATTER,
    "GlobalLpPool": POWER,
    "GridSample": SAMPLING,
    "If": FLOW,
    "LSTM": RECURRENT,
    "LinearAttention": ATTENTION,
    "Loop": FLOW,
    "LpPool": POWER,
    "MatMulInteger": INTEGER,
    "MaxRoiPool": SAMPLING,
    "MaxUnpool": SCATTER,
    "NonMaxSuppression": ORDER,
    "NonZero": ORDER,
    "QLinearConv": INTEGER,
    "QLinearMatMul": INTEGER,
    "RNN": RECURRENT,
    "RandomNormalLike": RANDOM,
    "RandomUniformLike": RANDOM,
    "RoiAlign": SAMPLING,
    "RotaryEmbedding": ATTENTION,
    "Scan": SCAN,
    "ScatterElements": SCATTER,
    "ScatterND": SCATTER,
    "TopK": ORDER,
    "Unique": ORDER,
}
