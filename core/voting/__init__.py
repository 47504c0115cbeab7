"""Weighted votes of several voters: what each is worth, learned with or without right answers.

Vectors are Arrow columns and their kernels: they stay where the votes are.
"""
