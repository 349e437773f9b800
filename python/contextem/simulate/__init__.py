"""Where truth comes from: simulated micrographs of doped 1H MX2 monolayers.

structures -> responses (of single columns, computed by scattering) -> render (their sum) -> dataset.  multislice, from
the beams of smatrix, is the reference that the sum is measured against, and makes test sets.
"""
