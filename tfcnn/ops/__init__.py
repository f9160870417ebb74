"""Boxes and regions as tensors: tensors in, tensors out, nothing learned and no state.

Rules of every function here:
- A box is float32 (x1, y1, x2, y2) in continuous pixels: pixel i covers [i, i + 1). Leading dimensions are
  a batch.
- A box with x2 <= x1 or y2 <= y1 is degenerate: its area is 0, its IoU with anything is 0, and it never
  makes a NaN.
- A padded row is a box of zeros, marked by label -1 or by a mask `valid`; it changes nothing about the other
  rows.
- No boxes at all (a dimension of 0) is an ordinary case.
- Equal scores or overlaps: the lower index comes first.
"""
