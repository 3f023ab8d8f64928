"""Kernels, the same in C, and what compares them."""
