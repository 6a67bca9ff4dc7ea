"""Grounded interpretation: answers in words, with a mask for everything they point at."""
