"""The library: what `leap_repro` offers to Python programs, made of the same parts as the pipeline's stages."""
