"""Weighted votes of several voters: what each is worth, learned with or without right answers.

Vectors are Arrow columns and their kernels; NumPy would add a quarter to what an install weighs.
"""
