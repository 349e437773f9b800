"""A classification as other programs take it: tables, HDF5, HyperSpy, EMD 1.0, atoms for ASE.

Each is called through a method of `contextem.classification.Classification`.

Examples
--------
>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> import contextem as ctm
>>> from contextem.examples import demo_micrograph
>>> micrograph, context = demo_micrograph()[:2]
>>> result = ctm.classify(micrograph, context)
>>> with TemporaryDirectory() as folder:
...     result.to_csv(Path(folder) / "columns.csv")
...     result.to_hdf5(Path(folder) / "result.h5")
...     result.to_hspy(Path(folder) / "result.hspy", micrograph)
...     result.to_emd(Path(folder) / "result.emd", micrograph)
...     again = ctm.Classification.load(Path(folder) / "result.h5")
>>> again.counts == result.counts
True
"""
