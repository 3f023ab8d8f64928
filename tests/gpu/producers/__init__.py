"""PTX that other compilers made of kernels of ours, and the kernels.

``python -m tests.gpu.producers.NAME`` makes a NAME's PTX anew: triton, numba, nvrtc. None of them
needs a GPU.
"""
