"""The options of a training that keeps everything it trains in few bits, all rounded by chance."""

FEW_BITS = {
    "logits_dtype": "bfloat16",
    "logits_rounding": "stochastic",
    "state_dtype": "int8",
    "gradients_dtype": "bfloat16",
}
