"""The parts of `benchmarks/gpu_quarter.py`: what is measured in a quarter of an hour on a GPU."""
